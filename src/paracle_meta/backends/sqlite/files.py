"""The six SQLite files of a folder, and connections that see all of them.

The first file is the connection's main database and the others are attached in a fixed order, so
that plain SQL finds every table by its bare name.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

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

    def create_folder(self) -> None:
        """Make the folder, for its owner only.

        Raises:
            StorageError: It cannot be made.
        """
        with self._made():
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True, exist_ok=True)
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
                f"{self.folder} cannot be made or written ({error.strerror}); check its rights, "
                "or choose another folder with sqlite_dir."
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
        try:
            with self.translated():
                for table in others:
                    connection.execute(
                        f"ATTACH DATABASE ? AS {SCHEMAS[table.name]}", (self._uri(table.name),)
                    )
                for schema in SCHEMAS.values():
                    connection.execute(f"PRAGMA {schema}.synchronous = FULL")
                    connection.execute(f"PRAGMA {schema}.journal_size_limit = {WAL_SIZE_LIMIT}")
                self._set_journal_mode(connection)
        except ParacleMetaError:
            connection.close()
            raise
        return connection

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

    def _set_journal_mode(self, connection: Any) -> None:
        for schema in SCHEMAS.values():
            (current,) = connection.execute(f"PRAGMA {schema}.journal_mode").fetchone()
            if current != self._journal_mode:
                connection.execute(f"PRAGMA {schema}.journal_mode = {self._journal_mode}")

    def _damaged(self) -> Path | None:
        """Return the first file that cannot be read by itself, if one is."""
        for table in TABLES:
            path = self.path(table.name)
            try:
                alone = self.driver.connect(self._uri(table.name), uri=True)
                with contextlib.closing(alone):
                    alone.execute("SELECT count(*) FROM sqlite_master").fetchone()
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
