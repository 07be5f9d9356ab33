"""Search by meaning in SQLite: what each process holds of a collection, and how it keeps up.

The vectors in the database are the truth. A process holds a copy of them as segments: the index in
its files, if there is one, and in memory the rows that the index does not have. The database keeps
a log of changed ids, written by triggers and so by everybody. A search finds candidates in what is
held and then asks the database for them, and in the same snapshot for the end of the log: where
that is not the one that is held, it takes over what the log has and begins anew. Each candidate is
compared again with its vector as stored. So a row that was committed before is found, a deleted one
never is, and nothing that may be wrong with a copy reaches an answer.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np

from paracle_meta.backends.rows import check_models
from paracle_meta.backends.sqlite.files import transaction
from paracle_meta.backends.sqlite.index import build_index
from paracle_meta.backends.sqlite.vector_rows import LogState, VectorRows
from paracle_meta.backends.vectors.files import DamagedIndexError
from paracle_meta.backends.vectors.held import Held, merged, tidied, whole
from paracle_meta.backends.vectors.index import open_index
from paracle_meta.backends.vectors.selection import Selection, select_these
from paracle_meta.backends.vectors.together import Asked, direction, look_together

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from paracle_meta.backends.collections import QueryVector
    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.filters import Condition

R = TypeVar("R")

logger = logging.getLogger("paracle_meta")

INDEX_FROM: Final = 5_000
"""Fewer rows are compared one by one: that takes below a millisecond at 384 dimensions."""

INDEX_ANEW: Final = 0.2
"""Share of rows outside the index from which it is worth making anew."""

AT_ONCE_NUMBERS: Final = 10_000_000
"""Numbers that are compared in the event loop's own thread: some 2 ms.

To another thread and back takes 0.1 to 0.4 ms, and two searches in two threads take as long as one
after the other: usearch and NumPy hold Python's lock while they search.
"""

AT_ONCE_ROWS: Final = 100
"""Records that are read there: each takes some 0.01 ms, unless its text is long."""

SPARE: Final = 64
"""Most candidates beyond those wanted that are compared again; only equal vectors come so close."""


class VectorCollection(Generic[R]):
    """One collection, shared by the threads of a process."""

    def __init__(self, statements: TableStatements[R], folder: Path) -> None:
        """Prepare; nothing is read yet.

        Args:
            statements: Those of the table.
            folder: Where its index lies.
        """
        self._statements = statements
        self._rows = VectorRows(statements)
        self._folder = folder
        self._held: Held | None = None
        self._asked: list[Asked] = []
        self._doubted: str | None = None
        self._distrusted: str | None = None
        self._lock = threading.Lock()

    # Searching

    def search(
        self,
        connection: Any,
        vector: QueryVector,
        conditions: Sequence[Condition],
        limit: int,
        min_similarity: float | None,
    ) -> list[R] | None:
        """Return the closest records; see `collections.Collections.search`.

        Args:
            connection: Not in a transaction.
            vector: What to compare with.
            conditions: All must hold.
            limit: Most records to return.
            min_similarity: Leave out what is less similar.

        Returns:
            The matches; None where another thread holds rows that this connection does not see yet
            or the index cannot be read, so that the caller begins anew.
        """
        query = direction(vector.blob)
        held = self._held
        if held is not None and held.models == (vector.model, vector.model):
            candidates = self._candidates(
                held, self._selections(connection, held, conditions), query, limit
            )
            if candidates is None:
                return None
            rows = self._fetched(connection, held, candidates)
            if rows is not None:
                return self._compared(rows, query, limit, min_similarity)
        with transaction(connection):
            followed = self._followed(connection, vector, conditions, query, limit)
            if followed is None:
                return None
            rows = self._fetched(connection, *followed)
            if rows is None:
                raise LookupError("the log moved within a transaction")
        return self._compared(rows, query, limit, min_similarity)

    def ask(self, vector: QueryVector, conditions: Sequence[Condition], limit: int) -> Asked:
        """Announce a search, in the event loop's thread, for `look_together`."""
        asked = Asked(vector, conditions, limit)
        self._asked.append(asked)
        return asked

    def look_together(self) -> None:
        """Begin all searches that were announced, on several cores; `search_at_once` goes on."""
        asked, self._asked = self._asked, []
        held = self._held
        if len(asked) > 1 and held is not None and held.parts:
            look_together(held, asked)

    def search_at_once(
        self, connection: Any, asked: Asked, min_similarity: float | None
    ) -> list[R] | None:
        """Do what `search` does, if it is short beside going to another thread and back.

        Args:
            connection: Not in a transaction.
            asked: The search.
            min_similarity: Leave out what is less similar.

        Returns:
            The matches; None where it would take longer, or the database has moved on.
        """
        held, model, limit = self._held, asked.vector.model, asked.limit
        if held is None or held.models != (model, model) or limit > AT_ONCE_ROWS:
            return None
        selections = held.selections(asked.conditions)
        if selections is None or held.work(selections, limit) > AT_ONCE_NUMBERS:
            return None
        near = asked.near[1] if asked.near is not None and asked.near[0] is held else None
        candidates = self._candidates(held, selections, asked.query, limit, near)
        rows = None if candidates is None else self._fetched(connection, held, candidates)
        return None if rows is None else self._compared(rows, asked.query, limit, min_similarity)

    def nearest_ids(
        self, connection: Any, vector: QueryVector, conditions: Sequence[Condition], limit: int
    ) -> list[tuple[str, float]] | None:
        """Return the ids of the closest records with their similarities; see `search`.

        Args:
            connection: In a transaction that has only read.
            vector: What to compare with.
            conditions: All must hold.
            limit: Most to return.
        """
        query = direction(vector.blob)
        followed = self._followed(connection, vector, conditions, query, limit)
        if followed is None:
            return None
        _, candidates = followed
        return self.similarities(connection, candidates, vector.blob)[:limit]

    def similarities(
        self, connection: Any, ids: Sequence[str], vector: bytes
    ) -> list[tuple[str, float]]:
        """Return the similarity of each record that has a vector, closest first, ties by id."""
        rows = connection.execute(*self._statements.vectors(ids)).fetchall()
        return [(rows[n][0], similarity) for n, similarity in _ranked(rows, direction(vector))]

    def _followed(
        self,
        connection: Any,
        vector: QueryVector,
        conditions: Sequence[Condition],
        query: NDArray[np.float64],
        limit: int,
    ) -> tuple[Held, list[str]] | None:
        """Return what is held as of a transaction, and candidates; None as `search` does."""
        held = self._follow(connection)
        if held is None:
            return None
        check_models(self._statements.table, vector.model, held.models)
        candidates = self._candidates(
            held, self._selections(connection, held, conditions), query, limit
        )
        return None if candidates is None else (held, candidates)

    def _candidates(
        self,
        held: Held,
        selections: Sequence[Selection | None],
        query: NDArray[np.float64],
        limit: int,
        near: NDArray[np.int64] | None = None,
    ) -> list[str] | None:
        """Return the ids that may be among the closest; None where the index proved damaged."""
        single = query.astype(np.float32)
        found = []
        try:
            for part, selection in zip(held.parts, selections, strict=True):
                # Of the first part, the only one with a graph.
                first = near if part is held.parts[0] else None
                products, rows = part.segment.nearest(single, selection, part.alive, limit, first)
                found.append((products, part.segment.ids[rows]))
        except DamagedIndexError:
            with self._lock:
                self._distrust(held.token)
            return None
        if not found:
            return []
        if len(found) == 1:
            products, ids = found[0]
        else:
            products = np.concatenate([products for products, _ in found])
            ids = np.concatenate([ids for _, ids in found])
        order = np.argsort(-products, kind="stable")[: limit + SPARE]
        return [record_id.decode() for record_id in ids[order].tolist()]

    def _selections(
        self, connection: Any, held: Held, conditions: Sequence[Condition]
    ) -> list[Selection | None]:
        selections = held.selections(conditions)
        if selections is not None:
            return selections
        # A condition on a text: the database answers.
        found = connection.execute(*self._statements.embedded_ids(conditions))
        ids = np.array([row[0].encode() for row in found], dtype=np.bytes_)
        return [select_these(len(part.segment), part.segment.positions(ids)) for part in held.parts]

    def _fetched(self, connection: Any, held: Held, ids: Sequence[str]) -> list[Any] | None:
        """Return the rows with these ids, or None where the log has moved on."""
        query, parameters = self._statements.get_many_with_vector(ids)
        # One statement, so one snapshot; and a row for the log where no other is found.
        found = connection.execute(
            f"SELECT s.token, s.seq, t.* FROM ({self._rows.state_sql}) s LEFT JOIN ({query}) t",
            parameters,
        ).fetchall()
        if found[0][:2] != (held.token, held.seq):
            return None
        return [row[2:] for row in found if row[2] is not None]

    def _compared(
        self,
        rows: list[Any],
        query: NDArray[np.float64],
        limit: int,
        min_similarity: float | None,
    ) -> list[R]:
        return [
            self._statements.match(rows[n], similarity, similarity)
            for n, similarity in _ranked(rows, query)[:limit]
            if min_similarity is None or similarity >= min_similarity
        ]

    def forget(self) -> None:
        """Read everything anew at the next search."""
        with self._lock:
            self._held = None

    # Keeping up

    def _follow(self, connection: Any) -> Held | None:
        state = self._rows.state(connection)
        held = self._held
        if held is not None and (held.token, held.seq) == (state.token, state.seq):
            return held
        with self._lock:
            held = self._held
            # Before its start the log has nothing: what is held from there cannot be followed.
            if held is not None and held.token == state.token and held.seq >= state.start:
                if held.seq > state.seq:
                    return None
                held = self._take_over(connection, held, state.seq)
            else:
                held = self._load(connection, state)
            self._held = held
            return held

    def _load(self, connection: Any, state: LogState) -> Held | None:
        token = state.token
        if token is not None and token != self._distrusted:
            try:
                segment, about = open_index(self._folder / token)
            except DamagedIndexError:
                if token != self._doubted:
                    # It may just have been replaced, which a new transaction sees.
                    self._doubted = token
                    return None
                self._distrust(token)
            else:
                models = self._models(connection)
                held = Held(token, about["seq"], models, (whole(segment),), len(segment))
                return self._take_over(connection, held, state.seq)
        parts = [whole(segment) for segment in self._rows.segments(connection)]
        if len(parts) > 1:
            parts = [merged(parts)]
        return Held(token, state.seq, self._models(connection), tuple(parts), 0)

    def _take_over(self, connection: Any, held: Held, seq: int) -> Held:
        if held.seq == seq:
            return held
        changed, segment = self._rows.changes(connection, held.seq)
        parts = [part.without(changed) for part in held.parts]
        if segment is not None:
            parts.append(whole(segment))
        return Held(
            held.token,
            seq,
            self._models(connection),
            tidied(parts, held.indexed),
            held.indexed,
        )

    def _models(self, connection: Any) -> tuple[str | None, str | None]:
        least, greatest = connection.execute(self._statements.models).fetchone()
        return least, greatest

    def _distrust(self, token: str | None) -> None:
        logger.warning(
            "The index of %s is damaged; searches are exact until it is made anew, "
            "see `paracle meta index`.",
            self._rows.table,
        )
        self._distrusted = token
        self._held = None

    # Indexing

    @property
    def wants_index(self) -> bool:
        """Whether enough rows are outside of the index that making it anew is worth it."""
        held = self._held
        if held is None or held.rows < INDEX_FROM:
            return False
        return held.rows - held.inside > INDEX_ANEW * max(held.rows, held.indexed)

    def build(self, connection: Any, stop: threading.Event, *, threads: int) -> int:
        """Make the index anew and return how many rows it has; see `index.build_index`."""
        return build_index(
            connection, self._rows, self._folder, stop, least=INDEX_FROM, threads=threads
        )


def _ranked(rows: Sequence[Any], query: NDArray[np.float64]) -> list[tuple[int, float]]:
    """Compare the vectors, last in each row, with a query, in float64 and row by row.

    So equal vectors get equal similarities, and ties are broken by id as PostgreSQL does.

    Returns:
        The number of each row with its similarity, closest first.
    """
    if not rows:
        return []
    stored = np.frombuffer(b"".join([row[-1] for row in rows]), dtype="<f4")
    matrix = stored.reshape(len(rows), -1).astype(np.float64)
    lengths = np.sqrt(np.vecdot(matrix, matrix))
    similarities = np.clip(np.vecdot(matrix, query) / lengths, -1.0, 1.0).tolist()
    order = sorted(range(len(rows)), key=lambda n: (-similarities[n], rows[n][0]))
    return [(n, similarities[n]) for n in order]
