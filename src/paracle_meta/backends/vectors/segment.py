"""Some rows of a collection, ready to be searched: their ids, vectors and filterable columns.

A segment never changes. What happens to its rows later is told by a mask beside it, and rows that
come later are another segment, so a search that has begun sees what it began with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from paracle_meta.backends.vectors.columns import HeldColumn, join, take
from paracle_meta.backends.vectors.selection import Selection, select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from paracle_meta.filters import Condition


SLACK: Final = 1e-5
"""How far a product in float32 may be from the exact one; candidates within it are computed anew.

The error of a float32 sum of n products of unit vectors is some 1e-6 at 1,536 dimensions.
"""

MARGIN: Final = 40
"""Candidates taken from a graph beyond those wanted: its int8 vectors order near ones loosely."""

FILTERED_MARGIN: Final = 10
"""The same of those that a filter lets through: they stand further apart."""

LEAST_MARGIN: Final = 4
"""With fewer beyond those wanted the last of them may be wrong, so more are asked for."""

GRAPH_STEP: Final = 40
"""A candidate costs a graph as much as comparing so many rows that are rounded (measured).

Rows far apart in memory are read at some 0.08 ns a number, a graph's candidates at 3.
"""


class Graph(Protocol):
    """Finds rows that are probably near."""

    def effort(self, count: int) -> int:
        """Return how many candidates it looks at to find so many."""

    def near(self, query: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Return the positions of about the `count` nearest rows, nearest first."""

    def near_each(self, queries: NDArray[np.float32], count: int) -> list[NDArray[np.int64]]:
        """Do what `near` does for several queries, shape (m, dimensions), on several cores."""


class Vectors(Protocol):
    """The unit vectors of the rows."""

    def __len__(self) -> int: ...

    @property
    def dimensions(self) -> int:
        """Numbers a vector."""

    @property
    def row_cost(self) -> float:
        """What comparing one row of many costs, as numbers in float32."""

    def promising(
        self, query: NDArray[np.float32], rows: NDArray[np.integer[Any]] | None, count: int
    ) -> NDArray[np.integer[Any]] | None:
        """Return which of these rows, or of all, to compare in full; None for all.

        They are at least `count`, where so many are given, among them almost certainly the
        `count` closest.
        """

    def products(
        self, query: NDArray[np.float32], rows: NDArray[np.integer[Any]] | None
    ) -> NDArray[np.float32]:
        """Return the product of the query with these rows, or with all."""

    def matrix(self) -> NDArray[np.float32]:
        """Return all rows, shape (n, dimensions)."""


class MemoryVectors:
    """Vectors held in memory."""

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        self._matrix = matrix

    def __len__(self) -> int:
        return len(self._matrix)

    @property
    def dimensions(self) -> int:
        """See `Vectors`."""
        return int(self._matrix.shape[1])

    @property
    def row_cost(self) -> float:
        """See `Vectors`."""
        return self.dimensions

    def promising(
        self,
        query: NDArray[np.float32],  # noqa: ARG002
        rows: NDArray[np.integer[Any]] | None,
        count: int,  # noqa: ARG002
    ) -> NDArray[np.integer[Any]] | None:
        """See `Vectors`; all of them, so that what is not indexed is found exactly."""
        return rows

    def products(
        self, query: NDArray[np.float32], rows: NDArray[np.integer[Any]] | None
    ) -> NDArray[np.float32]:
        """See `Vectors`."""
        matrix = self._matrix if rows is None else self._matrix.take(rows, axis=0)
        # Not a matrix product: that one is shared out among threads, which costs more than it
        # saves at this size, and far more where another core is busy.
        products: NDArray[np.float32] = np.vecdot(matrix, query)
        return products

    def matrix(self) -> NDArray[np.float32]:
        """See `Vectors`."""
        return self._matrix


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Rows in bytewise order of their ids.

    Attributes:
        ids: UTF-8 ids, shape (n,).
        vectors: n unit vectors.
        columns: The filterable columns by name.
        graph: Finds near rows, or None where all are compared.
    """

    ids: NDArray[np.bytes_]
    vectors: Vectors
    columns: Mapping[str, HeldColumn]
    graph: Graph | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return where those of the ids stand that are in this segment."""
        if not len(self):
            return np.empty(0, dtype=np.int64)
        places = np.searchsorted(self.ids, ids)
        inside = places < len(self)
        places, ids = places[inside], ids[inside]
        found: NDArray[np.int64] = places[self.ids[places] == ids].astype(np.int64)
        return found

    def matching(self, conditions: Sequence[Condition]) -> Selection | None:
        """Return the rows that meet all conditions, or None where that is not known here."""
        tests = []
        for condition in conditions:
            column = self.columns.get(condition.column.name)
            if column is None or not column.knows(condition):
                return None
            tests.append((column, condition))
        return select(len(self), tests)

    def work(self, selection: Selection | None, count: int) -> int:
        """Return what `nearest` costs, as so many numbers in float32 that are compared."""
        rows = len(self) if selection is None else len(selection.rows)
        if self.graph is not None:
            rows = min(rows, GRAPH_STEP * self.graph.effort(self._wanted(selection, count)))
        return int(rows * self.vectors.row_cost)

    def candidates(self, selection: Selection | None, count: int) -> int | None:
        """Return how many candidates `nearest` takes from the graph, or None where it needs none.

        Args:
            selection: Which rows may be returned; None for all.
            count: How many are wanted.
        """
        if self.graph is None:
            return None
        available = len(self) if selection is None else len(selection.rows)
        wanted = self._wanted(selection, count)
        return wanted if available > GRAPH_STEP * self.graph.effort(wanted) else None

    def nearest(
        self,
        query: NDArray[np.float32],
        selection: Selection | None,
        alive: NDArray[np.bool_] | None,
        count: int,
        near: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.integer[Any]]]:
        """Return the nearest rows.

        Args:
            query: A unit vector, shape (dimensions,).
            selection: Which rows may be returned; None for all.
            alive: Which of them are still as they were, shape (n,); None for all.
            count: How many are wanted.
            near: What the graph has found already, as many as `candidates` says.

        Returns:
            Similarities and positions; at least `count` where so many are allowed, those within
            SLACK of the last one included, in no order.
        """
        if self.graph is not None:
            found = self._from_graph(self.graph, query, selection, alive, count, near)
            if found is not None:
                return found
        rows = None if selection is None else selection.rows
        if alive is not None:
            rows = np.flatnonzero(alive) if rows is None else rows[alive[rows]]
        return self._best(query, rows, count)

    def _from_graph(
        self,
        graph: Graph,
        query: NDArray[np.float32],
        selection: Selection | None,
        alive: NDArray[np.bool_] | None,
        count: int,
        near: NDArray[np.int64] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.integer[Any]]] | None:
        """Return what `nearest` does; None where comparing the rows is faster, or is needed."""
        available = len(self) if selection is None else len(selection.rows)
        wanted = self._wanted(selection, count)
        while available > GRAPH_STEP * graph.effort(wanted):
            rows = graph.near(query, wanted) if near is None else near
            near = None
            if selection is not None:
                rows = rows[selection.among(rows)]
            if alive is not None:
                rows = rows[alive[rows]]
            if len(rows) >= count + LEAST_MARGIN:
                return self._best(query, rows, count)
            # The filter and the query look at different corners, or many rows are dead.
            wanted *= 4
        return None

    def _wanted(self, selection: Selection | None, count: int) -> int:
        """Return how many candidates to take from the graph."""
        if selection is None:
            return count + MARGIN
        # So many that, of rows spread evenly, enough are allowed.
        share = max(1, len(selection.rows)) / len(self)
        return max(count + MARGIN, int((count + FILTERED_MARGIN) / share))

    def _best(
        self, query: NDArray[np.float32], rows: NDArray[np.integer[Any]] | None, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.integer[Any]]]:
        rows = self.vectors.promising(query, rows, count)
        products = self.vectors.products(query, rows)
        if len(products) > count:
            cut = len(products) - count
            chosen = np.flatnonzero(products >= np.partition(products, cut)[cut] - SLACK)
            products = products[chosen]
            rows = chosen if rows is None else rows[chosen]
        elif rows is None:
            rows = np.arange(len(products))
        return products, rows


def merge(segments: Sequence[tuple[Segment, NDArray[np.bool_] | None]]) -> Segment:
    """Return one segment of the living rows of several.

    Args:
        segments: Each with a mask of its living rows, shape (n,), or None where all live.
    """
    living = [
        (segment, np.arange(len(segment)) if alive is None else np.flatnonzero(alive))
        for segment, alive in segments
    ]
    ids = np.concatenate([segment.ids[rows] for segment, rows in living])
    matrix = np.concatenate([segment.vectors.matrix()[rows] for segment, rows in living])
    columns = join([take(segment.columns, rows) for segment, rows in living])
    order = np.argsort(ids, kind="stable")
    return Segment(ids[order], MemoryVectors(matrix[order]), take(columns, order))


def unit(matrix: NDArray[Any]) -> NDArray[np.float32]:
    """Return vectors at unit length, shape (n, dimensions)."""
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    scaled: NDArray[np.float32] = (matrix / lengths[:, np.newaxis]).astype(np.float32)
    return scaled
