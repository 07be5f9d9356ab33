"""The six SQLite files of a folder, and connections that see all of them.

The first file is the connection's main database and the others are attached in a fixed order, so
that plain SQL finds every table by its bare name.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.backup_folder import make_folder, sync
from paracle_meta.backends.sqlite.driver import is_damage, load_driver, translate
from paracle_meta.exceptions import ParacleMetaError, StorageError
from paracle_meta.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from paracle_meta.schema import Table

SCHEMAS: Final = {
    table.name: "main" if position == 0 else table.name for position, table in enumerate(TABLES)
}
"""The SQL schema in which a connection sees each table."""

_TABLES_OF_ONE: Final = (
    "SELECT replace(name, '\"', '\"\"') FROM one.sqlite_master"
    " WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
)

WAL_SIZE_LIMIT: Final = 16 * 1024 * 1024
"""Bytes to which a write-ahead log is cut back after a long reader made it grow."""


class SqliteFiles:
    """A folder with one database file a table."""

    def __init__(self, folder: Path, *, journal_mode: str, busy_timeout: float) -> None:
        self.folder = folder
        self.driver = load_driver()
        self._journal_mode = journal_mode
        self._busy_timeout_ms = int(busy_timeout * 1000)

    def path(self, table_name: str) -> Path:
        """Return the file that holds a table."""
        return self.folder / f"{table_name}.db"

    @property
    def missing(self) -> list[Path]:
        """The files that do not exist yet."""
        return [path for table in TABLES if not (path := self.path(table.name)).exists()]

    def refuse_lost(self) -> None:
        """See that no file is gone while others are in use; a new folder has empty files at most.

        Raises:
            StorageError: One is.
        """
        # Asked in this order: who makes a new folder makes all files before writing to the first.
        in_use = any(path.exists() and path.stat().st_size for path in map(self.path, SCHEMAS))
        lost = [path.name for path in self.missing]
        if in_use and lost:
            raise StorageError(
                f"{', '.join(lost)} is gone from {self.folder}, while other files are there; "
                "restore it from a backup. To go on without its records, have an empty file made: "
                "paracle meta db migrate."
            )

    def create_folder(self) -> None:
        """Make the folder, for its owner only.

        Raises:
            StorageError: It cannot be made.
        """
        with self._made():
            if not self.folder.is_dir():
                make_folder(self.folder)
                # In so many words, so that no umask widens or narrows the rights.
                self.folder.chmod(0o700)

    def create(self) -> None:
        """Make the files that are missing, for their owner only.

        Raises:
            StorageError: They cannot be made.
        """
        with self._made():
            for path in self.missing:
                path.touch(mode=0o600)
                path.chmod(0o600)

    @contextlib.contextmanager
    def _made(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot be made or written ({error.strerror}); make room, check "
                "its rights, or choose another folder with sqlite_dir."
            ) from error

    def connect(self) -> Any:
        """Return a new connection to all six files, with transactions left to the caller.

        Raises:
            StorageError: A file is missing, cannot be opened, is damaged or no database.
            DatabaseBusyError: A file stayed locked.
        """
        first, *others = TABLES
        with self.translated():
            connection = self.driver.connect(
                self._uri(first.name),
                uri=True,
                isolation_level=None,
                # One thread at a time uses it; SQLite itself is built for several.
                check_same_thread=False,
                timeout=self._busy_timeout_ms / 1000,
            )
        # As a script: what `execute` has prepared is kept, in the little memory that SQLite gives
        # away fast, and a query that has none of it takes half as long again.
        script = [
            f"ATTACH DATABASE {quoted(self._uri(table.name))} AS {SCHEMAS[table.name]};"
            for table in others
        ]
        # macOS only: fsync alone leaves it to the drive when to write.
        script.append("PRAGMA fullfsync = 1;")
        for schema in SCHEMAS.values():
            script += [
                f"PRAGMA {schema}.synchronous = FULL;",
                f"PRAGMA {schema}.journal_size_limit = {WAL_SIZE_LIMIT};",
                f"PRAGMA {schema}.journal_mode = {self._journal_mode};",
            ]
        try:
            with self.translated():
                connection.executescript("".join(script))
        except ParacleMetaError:
            connection.close()
            raise
        return connection

    def sync_logs(self) -> None:
        """Bring to the disk what other processes have left in SQLite's logs, if anything.

        One that was killed may have written its log and not yet brought it to the disk. Who opens
        the files next finds what it wrote, and would build upon it what a power cut then leaves
        alone: a record that is there is not added again, and feedback refers to a generation.
        SQLite reads what was left over only when it connects and nobody else is connected.

        Raises:
            StorageError: The disk failed.
        """
        with self._made():
            logs = [log for table in TABLES for log in self._logs(table.name)]
            for log in logs:
                # A process that uses another journal_mode may have deleted it meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    sync(log)
            if logs:
                sync(self.folder)

    def _logs(self, table_name: str) -> Iterator[Path]:
        """Yield the logs beside a file of which something may not be on the disk."""
        path = self.path(table_name)
        wal = path.with_name(f"{path.name}-wal")
        # One that is empty was made when we connected.
        if wal.exists() and wal.stat().st_size:
            yield wal
        journal = path.with_name(f"{path.name}-journal")
        # One that was emptied said so that what it could undo is committed.
        if journal.exists():
            yield journal

    def connect_to(self, table_name: str) -> Any:
        """Return a new connection to the file of one table alone, which waits for no lock."""
        connection = self.driver.connect(
            self._uri(table_name),
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=0,
        )
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _uri(self, table_name: str) -> str:
        # mode=rw: a file that vanished is an error and not a new, empty database.
        return f"{self.path(table_name).absolute().as_uri()}?mode=rw"

    def _damaged(self) -> Path | None:
        """Return the first file of which a table cannot be begun to read by itself, if one is."""
        for table in TABLES:
            path = self.path(table.name)
            try:
                # Attached, as a header with another encoding is refused only then.
                with contextlib.closing(self.driver.connect(":memory:", uri=True)) as alone:
                    alone.execute("ATTACH DATABASE ? AS one", (self._uri(table.name),))
                    tables = alone.execute(_TABLES_OF_ONE).fetchall()
                    for (name,) in tables:
                        alone.execute(f'SELECT 1 FROM one."{name}" LIMIT 1').fetchone()
            except self.driver.Error:
                return path
        return None

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Raise SQLite's errors as those of this package, naming the file that is damaged."""
        try:
            yield
        except self.driver.Error as error:
            place = (self._damaged() if is_damage(error) else None) or self.folder
            translated = translate(error, str(place))
            if translated is None:
                raise
            raise translated from error


def quoted(text: str) -> str:
    """Return a text as SQL spells it."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


@contextlib.contextmanager
def transaction(connection: Any) -> Iterator[None]:
    """Begin, and commit at the end of the block or roll back on an error."""
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A failed COMMIT may have ended the transaction already, or not.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def lock(connection: Any, table: Table[Any]) -> None:
    """Take the write lock of a table's file: a write that finds no row takes it all the same."""
    connection.execute(f"UPDATE {table.name} SET id = id WHERE 0")
