"""Making the files of a collection's index, and saying in the database which ones count."""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING, Any

from paracle_meta.backends.statements import EMBEDDED
from paracle_meta.backends.vectors.index import IndexWriter
from paracle_meta.ids import new_id

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from paracle_meta.backends.sqlite.vector_rows import VectorRows


def build_index(
    connection: Any,
    rows: VectorRows,
    folder: Path,
    stop: threading.Event,
    *,
    least: int,
    threads: int,
) -> int:
    """Make an index anew and return how many rows it has, 0 where it was stopped.

    Args:
        connection: Not in a transaction.
        rows: Reads the collection.
        folder: Where its indexes lie.
        stop: When it is set, the work ends soon and leaves nothing behind.
        least: A collection of fewer rows gets no index.
        threads: How many work on it; 0 for one a core.
    """
    token = new_id("idx")
    connection.execute("BEGIN")
    try:
        seq = rows.state(connection).seq
        (count,) = connection.execute(
            f"SELECT count(embedding) FROM {rows.table} WHERE {EMBEDDED}"
        ).fetchone()
        worth_it = count >= least
        if worth_it and not _write(connection, rows, folder / token, seq, stop, threads):
            return 0
    finally:
        connection.execute("ROLLBACK")
    _publish(connection, rows.table, token if worth_it else None, seq)
    remove_others(folder, token if worth_it else None)
    return int(count) if worth_it else 0


def _write(
    connection: Any, rows: VectorRows, folder: Path, seq: int, stop: threading.Event, threads: int
) -> bool:
    segments = rows.segments(connection)
    first = next(segments)
    writer = IndexWriter(folder, first.vectors.dimensions, threads)
    try:
        for segment in itertools.chain([first], segments):
            if stop.is_set():
                writer.abandon()
                return False
            writer.add(segment.ids, segment.vectors.matrix(), segment.columns)
        writer.finish({"seq": seq, "table": rows.table})
    except BaseException:
        writer.abandon()
        raise
    return True


def _publish(connection: Any, table: str, token: str | None, seq: int) -> None:
    connection.execute("BEGIN")
    connection.execute(
        f"INSERT INTO {table}_index (only, token, seq) VALUES (1, ?1, ?2)"
        " ON CONFLICT (only) DO UPDATE SET token = excluded.token, seq = excluded.seq",
        (token, seq),
    )
    # The index has them, and who cannot read it reads the table and not the log.
    connection.execute(f"DELETE FROM {table}_changes WHERE seq <= ?1", (seq,))
    connection.execute("COMMIT")


def remove_others(folder: Path, token: str | None) -> None:
    """Remove the files of all indexes but one; nobody may be making one."""
    for other in folder.glob("idx-*"):
        if other.name != token:
            # On Windows a process that has it mapped keeps it; the next build removes it.
            shutil.rmtree(other, ignore_errors=True)
