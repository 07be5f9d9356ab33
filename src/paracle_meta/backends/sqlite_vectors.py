"""Search by meaning in SQLite: what each process holds of a collection, and how it keeps up.

The vectors in the database are the truth. A process holds a copy of them as segments: the index in
its files, if there is one, and in memory the rows that the index does not have. The database keeps
a log of changed ids, written by triggers and so by everybody; before each search the process takes
over what the log has since it last looked. A search reads one snapshot of the database from the
look at the log to the records that it returns, and each candidate is compared again with its
vector as stored there. So a row that was committed before is found, a deleted one never is, and
nothing that may be wrong with a copy reaches an answer.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np

from paracle_meta.backends.statements import EMBEDDED
from paracle_meta.backends.vector_columns import held_columns, hold
from paracle_meta.backends.vector_index import DamagedIndexError, IndexWriter, open_index
from paracle_meta.backends.vector_segment import MemoryVectors, Segment, merge, unit
from paracle_meta.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.filters import Condition

R = TypeVar("R")

logger = logging.getLogger("paracle_meta")

BATCH: Final = 4_096
"""Rows read at once: 25 MB of vectors with 1,536 dimensions, which keeps memory flat."""

INDEX_FROM: Final = 5_000
"""Fewer rows are compared one by one: that takes below a millisecond at 384 dimensions."""

INDEX_ANEW: Final = 0.2
"""Share of rows outside the index from which it is worth making anew."""

SPARE: Final = 64
"""Most candidates beyond those wanted that are compared again; only equal vectors come so close."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What a process holds of a collection: all rows as of one point of the log.

    Attributes:
        token: Which index the database names, or None.
        seq: How far the log was followed.
        parts: Segments, each with a mask of its rows that are still as they were.
        indexed: How many rows the first part had when it came from files; 0 where none did.
        rows: How many rows are living.
        inside: How many of them are in the index.
    """

    token: str | None
    seq: int
    parts: tuple[tuple[Segment, NDArray[np.bool_]], ...]
    indexed: int
    rows: int
    inside: int


def _held(
    token: str | None,
    seq: int,
    parts: Sequence[tuple[Segment, NDArray[np.bool_]]],
    indexed: int,
) -> _Held:
    living = [int(alive.sum()) for _, alive in parts]
    return _Held(token, seq, tuple(parts), indexed, sum(living), living[0] if indexed else 0)


class VectorCollection(Generic[R]):
    """One collection, shared by the threads of a process."""

    def __init__(self, statements: TableStatements[R], folder: Path) -> None:
        """Prepare; nothing is read yet.

        Args:
            statements: Those of the table.
            folder: Where its index lies.
        """
        self._statements = statements
        self._table = statements.table.name
        self._folder = folder
        self._columns = held_columns(statements.table)
        self._held: _Held | None = None
        self._doubted: str | None = None
        self._distrusted: str | None = None
        self._lock = threading.Lock()

    # Searching

    def nearest(
        self,
        connection: Any,
        vector: bytes,
        conditions: Sequence[Condition],
        limit: int,
        min_similarity: float | None,
    ) -> list[R] | None:
        """Return the closest records; see `base.Backend.nearest`.

        Args:
            connection: In a transaction that has only read.
            vector: Little-endian float32.
            conditions: All must hold.
            limit: Most records to return.
            min_similarity: Leave out what is less similar.

        Returns:
            The matches; None where another thread holds rows that this transaction does not see
            yet or the index cannot be read, so that the caller begins a new one.
        """
        held = self._follow(connection)
        if held is None:
            return None
        exact = np.frombuffer(vector, dtype="<f4").astype(np.float64)
        exact /= np.linalg.norm(exact)
        try:
            ids = self._candidates(connection, held, exact.astype(np.float32), conditions, limit)
        except DamagedIndexError:
            with self._lock:
                self._distrust(held.token)
            return None
        return self._compared(connection, ids, exact, limit, min_similarity)

    def _candidates(
        self,
        connection: Any,
        held: _Held,
        query: NDArray[np.float32],
        conditions: Sequence[Condition],
        limit: int,
    ) -> list[str]:
        masks = self._masks(connection, held, conditions)
        products: list[NDArray[np.float32]] = []
        ids: list[NDArray[np.bytes_]] = []
        for (segment, alive), mask in zip(held.parts, masks, strict=True):
            allowed = alive if mask is None else alive & mask
            found, rows = segment.nearest(query, None if allowed.all() else allowed, limit)
            products.append(found)
            ids.append(segment.ids[rows])
        if not products:
            return []
        order = np.argsort(-np.concatenate(products), kind="stable")[: limit + SPARE]
        return [record_id.decode() for record_id in np.concatenate(ids)[order]]

    def _masks(
        self, connection: Any, held: _Held, conditions: Sequence[Condition]
    ) -> list[NDArray[np.bool_] | None]:
        if not conditions:
            return [None] * len(held.parts)
        masks = [segment.where(conditions) for segment, _ in held.parts]
        if all(mask is not None for mask in masks):
            return list(masks)
        # A condition on a text: the database answers.
        found = connection.execute(*self._statements.embedded_ids(conditions))
        ids = np.array([row[0].encode() for row in found], dtype=np.bytes_)
        masks = []
        for segment, _ in held.parts:
            mask = np.zeros(len(segment), dtype=np.bool_)
            mask[segment.positions(ids)] = True
            masks.append(mask)
        return list(masks)

    def _compared(
        self,
        connection: Any,
        ids: list[str],
        query: NDArray[np.float64],
        limit: int,
        min_similarity: float | None,
    ) -> list[R]:
        """Compare candidates with their vectors in the database, in float64 and row by row.

        So equal vectors get equal similarities, and ties are broken by id as PostgreSQL does.
        """
        rows = connection.execute(*self._statements.get_many_with_vector(ids)).fetchall()
        if not rows:
            return []
        stored = np.frombuffer(b"".join(row[-1] for row in rows), dtype="<f4")
        matrix = stored.reshape(len(rows), -1).astype(np.float64)
        lengths = np.sqrt((matrix * matrix).sum(axis=1))
        similarities = np.clip((matrix * query).sum(axis=1) / lengths, -1.0, 1.0).tolist()
        best = sorted(range(len(rows)), key=lambda n: (-similarities[n], rows[n][0]))[:limit]
        return [
            self._statements.match(rows[n], similarities[n])
            for n in best
            if min_similarity is None or similarities[n] >= min_similarity
        ]

    def forget(self) -> None:
        """Read everything anew at the next search."""
        with self._lock:
            self._held = None

    # Keeping up

    def _follow(self, connection: Any) -> _Held | None:
        token, seq, start = self._state(connection)
        held = self._held
        if held is not None and (held.token, held.seq) == (token, seq):
            return held
        with self._lock:
            held = self._held
            # Before its start the log has nothing: what is held from there cannot be followed.
            if held is not None and held.token == token and held.seq >= start:
                if held.seq > seq:
                    return None
                held = self._take_over(connection, held, seq)
            else:
                held = self._load(connection, token, seq)
            self._held = held
            return held

    def _state(self, connection: Any) -> tuple[str | None, int, int]:
        """Return which index the database names, and the end and the start of its log."""
        token, seq, start = connection.execute(
            f"SELECT i.token, COALESCE((SELECT max(seq) FROM {self._table}_changes), i.seq, 0),"
            " COALESCE(i.seq, 0)"
            f" FROM (SELECT 1) one LEFT JOIN {self._table}_index i ON i.only = 1"
        ).fetchone()
        return token, seq, start

    def _load(self, connection: Any, token: str | None, seq: int) -> _Held | None:
        if token is not None and token != self._distrusted:
            try:
                segment, about = open_index(self._folder / token)
                base = _held(token, about["seq"], [_all_alive(segment)], len(segment))
                return self._take_over(connection, base, seq)
            except DamagedIndexError:
                if token != self._doubted:
                    # It may just have been replaced, which a new transaction sees.
                    self._doubted = token
                    return None
                self._distrust(token)
        parts = [_all_alive(segment) for segment in self._segments(connection)]
        if len(parts) > 1:
            parts = [_all_alive(merge(parts))]
        return _held(token, seq, parts, 0)

    def _take_over(self, connection: Any, held: _Held, seq: int) -> _Held:
        if held.seq == seq:
            return held
        names = ", ".join(f"t.{column.name}" for column in self._columns)
        rows = connection.execute(
            f"SELECT c.id, t.embedding, {names} FROM {self._table}_changes c"
            f" LEFT JOIN {self._table} t ON t.id = c.id AND t.{EMBEDDED}"
            " WHERE c.seq > ?1 ORDER BY c.id",
            (held.seq,),
        ).fetchall()
        changed = np.array([row[0].encode() for row in rows], dtype=np.bytes_)
        parts = []
        for segment, alive in held.parts:
            positions = segment.positions(changed)
            if len(positions):
                alive = alive.copy()
                alive[positions] = False
            parts.append((segment, alive))
        embedded = [row for row in rows if row[1] is not None]
        if embedded:
            parts.append(_all_alive(self._segment(embedded)))
        return _held(held.token, seq, _tidied(parts, held.indexed), held.indexed)

    def _segments(self, connection: Any) -> Iterator[Segment]:
        """Yield all rows that have a vector, in bytewise order of their ids."""
        names = ", ".join(column.name for column in self._columns)
        cursor = connection.execute(
            f"SELECT id, embedding, {names} FROM {self._table}"
            f" WHERE {EMBEDDED} AND embedding IS NOT NULL ORDER BY id"
        )
        while rows := cursor.fetchmany(BATCH):
            yield self._segment(rows)

    def _segment(self, rows: Sequence[Any]) -> Segment:
        ids = np.array([row[0].encode() for row in rows], dtype=np.bytes_)
        matrix = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
        columns = hold(self._columns, [row[2:] for row in rows])
        return Segment(ids, MemoryVectors(unit(matrix.reshape(len(rows), -1))), columns)

    def _distrust(self, token: str | None) -> None:
        logger.warning(
            "The index of %s is damaged; searches are exact until it is made anew, "
            "see `paracle meta index`.",
            self._table,
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

    def build(self, connection: Any, stop: threading.Event) -> int:
        """Make the index anew and return how many rows it has, 0 where it was stopped.

        A collection of fewer than INDEX_FROM rows gets none.

        Args:
            connection: Not in a transaction.
            stop: When it is set, the work ends soon and leaves nothing behind.
        """
        token = new_id("idx")
        connection.execute("BEGIN")
        try:
            _, seq, _ = self._state(connection)
            (rows,) = connection.execute(
                f"SELECT count(embedding) FROM {self._table} WHERE {EMBEDDED}"
            ).fetchone()
            worth_it = rows >= INDEX_FROM
            if worth_it and not self._write(connection, self._folder / token, seq, stop):
                return 0
        finally:
            connection.execute("ROLLBACK")
        self._publish(connection, token if worth_it else None, seq)
        return int(rows) if worth_it else 0

    def _write(self, connection: Any, folder: Path, seq: int, stop: threading.Event) -> bool:
        segments = self._segments(connection)
        first = next(segments)
        writer = IndexWriter(folder, first.vectors.matrix().shape[1])
        try:
            for segment in itertools.chain([first], segments):
                if stop.is_set():
                    writer.abandon()
                    return False
                writer.add(segment.ids, segment.vectors.matrix(), segment.columns)
            writer.finish({"seq": seq, "table": self._table})
        except BaseException:
            writer.abandon()
            raise
        return True

    def _publish(self, connection: Any, token: str | None, seq: int) -> None:
        connection.execute("BEGIN")
        connection.execute(
            f"INSERT INTO {self._table}_index (only, token, seq) VALUES (1, ?1, ?2)"
            " ON CONFLICT (only) DO UPDATE SET token = excluded.token, seq = excluded.seq",
            (token, seq),
        )
        # The index has them, and who cannot read it reads the table and not the log.
        connection.execute(f"DELETE FROM {self._table}_changes WHERE seq <= ?1", (seq,))
        connection.execute("COMMIT")
        self._remove_others(token)

    def _remove_others(self, token: str | None) -> None:
        for other in self._folder.glob("idx-*"):
            if other.name != token:
                # On Windows a process that has it mapped keeps it; the next build removes it.
                shutil.rmtree(other, ignore_errors=True)


def _all_alive(segment: Segment) -> tuple[Segment, NDArray[np.bool_]]:
    return segment, np.ones(len(segment), dtype=np.bool_)


def _tidied(
    parts: list[tuple[Segment, NDArray[np.bool_]]], indexed: int
) -> list[tuple[Segment, NDArray[np.bool_]]]:
    """Merge small segments, so that their number grows with the logarithm of their rows only."""
    first = 1 if indexed else 0
    while len(parts) - first >= 2 and len(parts[-2][0]) <= 2 * len(parts[-1][0]):
        parts[-2:] = [_all_alive(merge(parts[-2:]))]
    return parts
