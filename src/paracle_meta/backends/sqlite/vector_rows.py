"""Reading the vectors of a collection on SQLite, and the log of what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from paracle_meta.backends.statements import EMBEDDED
from paracle_meta.backends.vectors.columns import held_columns, hold
from paracle_meta.backends.vectors.segment import MemoryVectors, Segment, unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from paracle_meta.backends.statements import TableStatements

BATCH: Final = 4_096
"""Rows read at once: 25 MB of vectors with 1,536 dimensions, which keeps memory flat."""


class LogState(NamedTuple):
    """Which index the database names, and the end and the start of its log."""

    token: str | None
    seq: int
    start: int


class VectorRows:
    """Reads the vectors of a collection."""

    def __init__(self, statements: TableStatements[Any]) -> None:
        self.table = statements.table.name
        self._columns = held_columns(statements.table)
        self.state_sql = (
            "SELECT i.token AS token,"
            f" COALESCE((SELECT max(seq) FROM {self.table}_changes), i.seq, 0) AS seq,"
            " COALESCE(i.seq, 0) AS start"
            f" FROM (SELECT 1) one LEFT JOIN {self.table}_index i ON i.only = 1"
        )

    def state(self, connection: Any) -> LogState:
        """Return the state of the log."""
        return LogState(*connection.execute(self.state_sql).fetchone())

    def segments(self, connection: Any) -> Iterator[Segment]:
        """Yield all rows that have a vector, in bytewise order of their ids."""
        names = ", ".join(column.name for column in self._columns)
        cursor = connection.execute(
            f"SELECT id, embedding, {names} FROM {self.table}"
            f" WHERE {EMBEDDED} AND embedding IS NOT NULL ORDER BY id"
        )
        while rows := cursor.fetchmany(BATCH):
            yield self._segment(rows)

    def changes(self, connection: Any, seq: int) -> tuple[NDArray[np.bytes_], Segment | None]:
        """Return what the log has after `seq`: all ids, and the rows that have a vector."""
        names = ", ".join(f"t.{column.name}" for column in self._columns)
        rows = connection.execute(
            f"SELECT c.id, t.embedding, {names} FROM {self.table}_changes c"
            f" LEFT JOIN {self.table} t ON t.id = c.id AND t.{EMBEDDED}"
            " WHERE c.seq > ?1 ORDER BY c.id",
            (seq,),
        ).fetchall()
        embedded = [row for row in rows if row[1] is not None]
        ids = np.array([row[0].encode() for row in rows], dtype=np.bytes_)
        return ids, self._segment(embedded) if embedded else None

    def _segment(self, rows: Sequence[Any]) -> Segment:
        ids = np.array([row[0].encode() for row in rows], dtype=np.bytes_)
        matrix = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
        columns = hold(self._columns, [row[2:] for row in rows])
        return Segment(ids, MemoryVectors(unit(matrix.reshape(len(rows), -1))), columns)
