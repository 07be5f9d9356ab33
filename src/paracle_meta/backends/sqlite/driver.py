"""Which SQLite is used, and how its errors are told apart."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from paracle_meta.exceptions import (
    ConfigurationError,
    DatabaseBusyError,
    IntegrityError,
    ParacleMetaError,
    QueryError,
    StorageError,
)

if TYPE_CHECKING:
    from types import ModuleType

MINIMUM_VERSION = (3, 35, 0)
"""The first SQLite with RETURNING."""

_NO_TEXT = "Could not decode to UTF-8"
"""How the driver itself begins to say so; it has no code."""

_NO_TABLE = "no such table: "
"""How SQLite begins to say so; the code is that of any wrong statement."""

_PRIMARY_CODE = 0xFF
"""Extended result codes carry the primary code in the low byte (sqlite.org/rescode.html)."""


def load_driver() -> ModuleType:
    """Return the DB-API module: pysqlite3 where it is installed, the standard library's otherwise.

    pysqlite3 carries a current SQLite; the one that Python was built with is often years old.

    Raises:
        ConfigurationError: SQLite is older than MINIMUM_VERSION, or was built without FTS5.
    """
    name = "pysqlite3.dbapi2" if find_spec("pysqlite3") else "sqlite3"
    driver = import_module(name)
    if driver.sqlite_version_info < MINIMUM_VERSION:
        raise ConfigurationError(
            f"SQLite {driver.sqlite_version} is too old; install a Python with SQLite "
            f"{'.'.join(map(str, MINIMUM_VERSION))} or later, or a platform for which pysqlite3 "
            "has a wheel."
        )
    with closing(driver.connect(":memory:")) as connection:
        options = {row[0] for row in connection.execute("PRAGMA compile_options")}
    if "ENABLE_FTS5" not in options:
        raise ConfigurationError(
            "The SQLite of this Python was built without FTS5, its search by words; install a "
            "Python that has it, or a platform for which pysqlite3 has a wheel."
        )
    return driver


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that a file is damaged or no database."""
    code = _primary_code(error)
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or _is_wrong_header(error)


def cannot_open(error: BaseException) -> bool:
    """Whether SQLite says that a file cannot be opened."""
    return _primary_code(error) == sqlite3.SQLITE_CANTOPEN


def missing_table(error: BaseException) -> str | None:
    """Return the table that SQLite does not find, as the statement named it; else None."""
    words = str(error)
    if _primary_code(error) != sqlite3.SQLITE_ERROR or not words.startswith(_NO_TABLE):
        return None
    return words.removeprefix(_NO_TABLE)


def _primary_code(error: BaseException) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & _PRIMARY_CODE


def _is_wrong_header(error: BaseException) -> bool:
    # An error like any other to SQLite, which takes the bytes for a setting.
    return str(error).startswith(
        ("unsupported file format", "attached databases must use the same")
    )


def busy(place: str) -> DatabaseBusyError:
    """Return the error of a writer that waited for longer than `busy_timeout`."""
    return DatabaseBusyError(
        f"Another writer held a lock on {place} for longer than busy_timeout; "
        "repeat the call, or raise busy_timeout."
    )


def damage(place: str) -> StorageError:
    """Return the error of whoever needs a file that is damaged or no database."""
    return StorageError(
        f"{place} is damaged or is no SQLite database; restore it from a backup. The other files "
        "are read and written as ever. To go on without its records, move it away together with "
        "its -wal and -shm, and have an empty one made (paracle meta db migrate)."
    )


def translate(error: BaseException, place: str) -> ParacleMetaError | None:
    """Return the error of this package for an error of SQLite, or None where it is not SQLite's.

    Args:
        error: What the driver raised.
        place: The folder, as a message names it.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        if not str(error).startswith(_NO_TEXT):
            return None
        error.args = (_NO_TEXT,)  # It quotes the text.
        return StorageError(
            f"{place} holds a text that is no UTF-8, as after damage or by a foreign program; "
            "restore it from a backup."
        )
    match code & _PRIMARY_CODE:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return busy(place)
        case sqlite3.SQLITE_FULL:
            return StorageError(f"The disk of {place} is full; make room and repeat the call.")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StorageError(f"{place} cannot be written; check the rights of its files.")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_AUTH:
            return StorageError(f"{place} cannot be opened; check that it exists and can be read.")
        case _ if is_damage(error):
            return damage(place)
        case sqlite3.SQLITE_IOERR:
            # Also of a full disk, where it is a sync or the index of the log that finds no room.
            return StorageError(
                f"The disk of {place} failed to read or write ({error}); see that it has room and "
                "is sound, and repeat the call."
            )
        case sqlite3.SQLITE_CONSTRAINT:
            return IntegrityError(f"The database refused a row: {error}.")
        case _:
            return QueryError(f"SQLite refused the statement: {error}.")
