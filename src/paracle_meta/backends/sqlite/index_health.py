"""Looking after the files of a collection's vector index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta.backends.health import Finding
from paracle_meta.backends.sqlite.index import remove_others
from paracle_meta.backends.sqlite.vector_rows import VectorRows
from paracle_meta.backends.sqlite.vectors import INDEX_ANEW, INDEX_FROM
from paracle_meta.backends.statements import EMBEDDED
from paracle_meta.backends.vectors.files import DamagedIndexError
from paracle_meta.backends.vectors.index import check_index
from paracle_meta.exceptions import DatabaseBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from paracle_meta.backends.statements import TableStatements


def examine_index(
    connection: Any, statements: TableStatements[Any], folder: Path
) -> Iterator[Finding]:
    """Yield what is not well with the index of a collection.

    Args:
        connection: To the files.
        statements: Those of the collection.
        folder: Where its indexes lie.
    """
    name = statements.table.name
    token = VectorRows(statements).state(connection).token
    (rows,) = connection.execute(f"SELECT count(*) FROM {name} WHERE {EMBEDDED}").fetchone()
    if token is not None:
        yield from _examine_files(connection, name, folder / token, rows)
    elif rows >= INDEX_FROM:
        yield _finding(
            name,
            "missing-index",
            f"{rows} of {name} have a vector and there is no index, so that every process reads "
            "them all before its first search.",
        )
    left = [path for path in folder.glob("idx-*") if path.name != token]
    if left and not _is_being_made(folder):
        yield Finding(
            name="old-index",
            severity="warning",
            where=name,
            what=f"{len(left)} index folders in {folder} are of no use: they are of a former state "
            "of the files, or were not finished.",
            repair="`paracle meta doctor --fix`, or the next `paracle meta index`, removes them.",
            count=len(left),
            remedy="own",
        )


def _examine_files(connection: Any, name: str, folder: Path, rows: int) -> Iterator[Finding]:
    try:
        about = check_index(folder)
    except DamagedIndexError:
        yield _finding(
            name,
            "damaged-index",
            f"The index of {name} is damaged, of another version, or not there, as after a "
            "restore; every search compares all vectors.",
        )
        return
    (outside,) = connection.execute(
        f"SELECT count(*) FROM {name}_changes c JOIN {name} t ON t.id = c.id AND t.{EMBEDDED}"
        " WHERE c.seq > ?1",
        (about["seq"],),
    ).fetchone()
    if rows >= INDEX_FROM and outside > INDEX_ANEW * rows:
        yield _finding(
            name,
            "stale-index",
            f"{outside} of {rows} vectors of {name} were stored after the index was made; each "
            "search compares all of these.",
            outside,
        )


def _finding(table: str, name: str, what: str, count: int = 1) -> Finding:
    return Finding(
        name=name,
        severity="warning",
        where=table,
        what=what,
        repair=f"`paracle meta index {table}`; a program that searches for long does it by itself.",
        count=count,
        remedy="index",
    )


def _is_being_made(folder: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lock", timeout=0, mode=0o600):
            return False
    except Timeout:
        return True


def remove_old_indexes(connection: Any, name: str, folder: Path) -> None:
    """Remove the files of all indexes but the one that counts, unless one is being made.

    Raises:
        DatabaseBusyError: One is.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lock", timeout=0, mode=0o600):
            row = connection.execute(f"SELECT token FROM {name}_index WHERE only = 1").fetchone()
            remove_others(folder, None if row is None else row[0])
    except Timeout as error:
        raise DatabaseBusyError(
            f"Another process makes the index of {name} just now; it removes them at the end."
        ) from error
