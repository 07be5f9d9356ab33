"""Some rows of a collection, ready to be searched: their ids, vectors and filterable columns.

A segment never changes. What happens to its rows later is told by a mask beside it, and rows that
come later are another segment, so a search that has begun sees what it began with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from paracle_meta.backends.vector_columns import HeldColumn, join, take

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from paracle_meta.filters import Condition


SLACK: Final = 1e-5
"""How far a product in float32 may be from the exact one; candidates within it are computed anew.

The error of a float32 sum of n products of unit vectors is some 1e-6 at 1,536 dimensions.
"""

EXACT_ROWS: Final = 2_500
"""Up to so many rows are compared one by one, which is then faster than asking a graph."""

EXACT_SHARE: Final = 0.02
"""A filter that lets through less than this share is met row by row, not by the graph."""

MARGIN: Final = 40
"""Candidates taken from a graph beyond those wanted: its int8 vectors order near ones loosely."""

MAX_CANDIDATES: Final = 4_096
"""Most candidates a graph is asked for; beyond that comparing rows one by one is no slower."""


class Graph(Protocol):
    """Finds rows that are probably near."""

    def near(self, query: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Return the positions of about the `count` nearest rows, nearest first."""


class Vectors(Protocol):
    """The unit vectors of the rows."""

    def __len__(self) -> int: ...

    def products(
        self, query: NDArray[np.float32], rows: NDArray[np.int64] | None
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

    def products(
        self, query: NDArray[np.float32], rows: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """See `Vectors`."""
        matrix = self._matrix if rows is None else self._matrix[rows]
        products: NDArray[np.float32] = matrix @ query
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

    def where(self, conditions: Sequence[Condition]) -> NDArray[np.bool_] | None:
        """Return which rows meet all conditions, shape (n,), or None where it is not known here."""
        mask = np.ones(len(self), dtype=np.bool_)
        for condition in conditions:
            column = self.columns.get(condition.column.name)
            met = None if column is None else column.where(condition)
            if met is None:
                return None
            mask &= met
        return mask

    def nearest(
        self, query: NDArray[np.float32], allowed: NDArray[np.bool_] | None, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the nearest of the allowed rows.

        Args:
            query: A unit vector, shape (dimensions,).
            allowed: Which rows may be returned, shape (n,); None for all.
            count: How many are wanted.

        Returns:
            Similarities and positions; at least `count` where so many are allowed, those within
            SLACK of the last one included, in no order.
        """
        rows = None if allowed is None else np.flatnonzero(allowed)
        available = len(self) if rows is None else len(rows)
        if self.graph is not None and available > max(EXACT_ROWS, EXACT_SHARE * len(self)):
            found = self._from_graph(self.graph, query, allowed, available, count)
            if found is not None:
                return found
        return self._best(query, rows, count)

    def _from_graph(
        self,
        graph: Graph,
        query: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None,
        available: int,
        count: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        # So many that, of rows spread evenly, enough are allowed.
        wanted = int((count + MARGIN) * len(self) / available)
        if wanted > MAX_CANDIDATES:
            return None
        rows = graph.near(query, wanted)
        if allowed is not None:
            rows = rows[allowed[rows]]
        if len(rows) < min(available, count + MARGIN // 4):
            # The filter and the query look at different corners.
            return None
        return self._best(query, rows, count)

    def _best(
        self, query: NDArray[np.float32], rows: NDArray[np.int64] | None, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        products = self.vectors.products(query, rows)
        if len(products) > count:
            cut = len(products) - count
            chosen = np.flatnonzero(products >= np.partition(products, cut)[cut] - SLACK)
            products = products[chosen]
            rows = chosen if rows is None else rows[chosen]
        elif rows is None:
            rows = np.arange(len(products))
        return products, rows


def merge(segments: Sequence[tuple[Segment, NDArray[np.bool_]]]) -> Segment:
    """Return one segment of the living rows of several.

    Args:
        segments: Each with a mask of its living rows, shape (n,).
    """
    ids = np.concatenate([segment.ids[alive] for segment, alive in segments])
    matrix = np.concatenate([segment.vectors.matrix()[alive] for segment, alive in segments])
    columns = join([take(segment.columns, np.flatnonzero(alive)) for segment, alive in segments])
    order = np.argsort(ids, kind="stable")
    return Segment(ids[order], MemoryVectors(matrix[order]), take(columns, order))


def unit(matrix: NDArray[Any]) -> NDArray[np.float32]:
    """Return vectors at unit length, shape (n, dimensions)."""
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    scaled: NDArray[np.float32] = (matrix / lengths[:, np.newaxis]).astype(np.float32)
    return scaled
