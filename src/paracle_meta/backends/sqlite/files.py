"""The six SQLite files of a folder, and connections that see all of them.

The first file is the connection's main database and the others are attached in a fixed order, so
that plain SQL finds every table by its bare name.

Where a file is damaged, the others are in use all the same: an empty database in memory stands in
its place, that nobody can write to, and a statement that needs its table fails.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.folders import make_folder, sync
from paracle_meta.backends.sqlite.driver import (
    cannot_open,
    damage,
    is_damage,
    load_driver,
    missing_table,
    translate,
)
from paracle_meta.backends.sqlite.soundness import begin_to_read, mark
from paracle_meta.exceptions import ParacleMetaError, StorageError
from paracle_meta.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from paracle_meta.backends.sqlite.soundness import Mark
    from paracle_meta.schema import Table

logger = logging.getLogger("paracle_meta")

SCHEMAS: Final = {
    table.name: "main" if position == 0 else table.name for position, table in enumerate(TABLES)
}
"""The SQL schema in which a connection sees each table."""

_NOTHING: Final = "file::memory:?mode=ro"
"""Stands in the place of a damaged file. As nobody can write to it, nothing is lost with it."""

WAL_SIZE_LIMIT: Final = 16 * 1024 * 1024
"""Bytes to which a write-ahead log is cut back after a long reader made it grow."""


class SqliteFiles:
    """A folder with one database file a table."""

    def __init__(self, folder: Path, *, journal_mode: str, busy_timeout: float) -> None:
        self.folder = folder
        self.driver = load_driver()
        self._journal_mode = journal_mode
        self._busy_timeout = busy_timeout
        # The tables that the newest connection is without; None before the first.
        self._left_out: frozenset[str] | None = None
        # How the file of a table was when a connection was last made without it.
        self._marks: dict[str, Mark | None] = {}

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

    def refuse_damaged(self) -> None:
        """See that no file is damaged, as far as beginning to read it shows.

        Raises:
            StorageError: One is.
        """
        self._refuse(self.damaged())

    def damaged(self) -> dict[str, Mark | None]:
        """Return the tables whose files are damaged, as far as beginning to read them shows.

        With each comes how its file was before it was looked at.
        """
        return self._damaged_among(SCHEMAS)

    def connect(self) -> Any:
        """Return a new connection to all six files, with transactions left to the caller.

        Raises:
            StorageError: A file is missing, cannot be opened, is damaged or no database.
            DatabaseBusyError: A file stayed locked.
        """
        self._refuse(self._known_damage())
        return self._connect(())

    def connect_to_sound(self) -> Any:
        """Return a new connection as `connect` does, without those files that are damaged.

        A file may be restored at any time, so whoever keeps a connection asks `is_current`.

        Raises:
            StorageError: A file is missing or cannot be opened.
            DatabaseBusyError: A file stayed locked.
        """
        left_out = self._known_damage()
        try:
            connection = self._connect(left_out)
        except StorageError:
            left_out = self.damaged()
            if not left_out:
                raise
            connection = self._connect(left_out)
        self._leave_out(left_out)
        return connection

    def leave_out_damaged(self) -> None:
        """Do without those files from now on of which connecting did not show the damage."""
        self._leave_out(self.damaged())

    def _leave_out(self, damaged: Mapping[str, Mark | None]) -> None:
        new = damaged.keys() - (self._left_out or frozenset())
        self._marks |= damaged
        self._left_out = frozenset(damaged)
        if new:
            logger.warning("%s", damage(self._names(new)))

    def connect_if_sound(self) -> Any | None:
        """Return a new connection to all six files, or None where one is damaged.

        Raises:
            StorageError: A file is missing or cannot be opened.
            DatabaseBusyError: A file stayed locked.
        """
        connection = self.connect_to_sound()
        if tables_of(connection) == TABLES:
            return connection
        connection.close()
        return None

    def is_current(self, connection: Any) -> bool:
        """Return whether a new connection would be to the same files, as far as damage goes.

        One that was made before the damage has a file that may be replaced by now.
        """
        if not self._marks:  # There was no damage.
            return True
        lacking = frozenset(SCHEMAS) - {table.name for table in tables_of(connection)}
        return lacking == self._left_out and all(
            self._marks[name] == mark(self.path(name)) for name in lacking
        )

    def _connect(self, left_out: Collection[str]) -> Any:
        uris = {name: _NOTHING if name in left_out else self._uri(name) for name in SCHEMAS}
        first, *others = SCHEMAS
        with self.translated():
            connection = self.driver.connect(
                uris[first],
                uri=True,
                isolation_level=None,
                # One thread at a time uses it; SQLite itself is built for several.
                check_same_thread=False,
                timeout=self._busy_timeout,
            )
        # As a script: what `execute` has prepared is kept, in the little memory that SQLite gives
        # away fast, and a query that has none of it takes half as long again.
        script = [f"ATTACH DATABASE {quoted(uris[name])} AS {SCHEMAS[name]};" for name in others]
        # macOS only: fsync alone leaves it to the drive when to write.
        script.append("PRAGMA fullfsync = 1;")
        # Else no trigger hears of a row that INSERT OR REPLACE takes away.
        script.append("PRAGMA recursive_triggers = 1;")
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
        yield from self._wal(table_name)
        journal = path.with_name(f"{path.name}-journal")
        # One that was emptied said so that what it could undo is committed.
        if journal.exists():
            yield journal

    def _wal(self, table_name: str) -> Iterator[Path]:
        """Yield the write-ahead log beside a file if something is in it."""
        path = self.path(table_name)
        wal = path.with_name(f"{path.name}-wal")
        # One that is empty was made when we connected.
        if (found := mark(wal)) and found.size:
            yield wal

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

    def _uri(self, table_name: str, mode: str = "rw") -> str:
        # mode=rw: a file that vanished is an error and not a new, empty database.
        return f"{self.path(table_name).absolute().as_uri()}?mode={mode}"

    def _known_damage(self) -> dict[str, Mark | None]:
        """Return the damaged files among those with which it is better not to try.

        Who closes a file last writes its log into it and deletes the log. What could still be read
        of a damaged file and its log would be less afterwards.
        """
        if self._left_out is None:
            # Those of which a process was killed, or others may be at work.
            return self._damaged_among(name for name in SCHEMAS if any(self._wal(name)))
        return self._damaged_among(self._left_out)

    def _damaged_among(self, table_names: Iterable[str]) -> dict[str, Mark | None]:
        marks = {name: mark(self.path(name)) for name in table_names}
        return {name: marks[name] for name in self._where(is_damage, marks)}

    def _where(
        self, proves: Callable[[BaseException], bool], table_names: Iterable[str]
    ) -> Iterator[str]:
        """Yield the tables whose file fails by itself, with such an error."""
        for name in table_names:
            try:
                self._look(name)
            except self.driver.Error as error:
                if proves(error):
                    yield name

    def _look(self, table_name: str) -> None:
        # Closing one that may be written would change it and its log, see `_known_damage`.
        uri = self._uri(table_name, "ro" if any(self._wal(table_name)) else "rw")
        begin_to_read(self.driver, uri, timeout=self._busy_timeout)

    def _refuse(self, table_names: Collection[str]) -> None:
        if table_names:
            raise damage(self._names(table_names))

    def _names(self, table_names: Collection[str]) -> str:
        return ", ".join(str(self.path(name)) for name in SCHEMAS if name in table_names)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Raise SQLite's errors as those of this package; see `translate`."""
        try:
            yield
        except self.driver.Error as error:
            translated = self.translate(error)
            if translated is None:
                raise
            raise translated from error

    def translate(self, error: BaseException) -> ParacleMetaError | None:
        """Return the error of this package for one of SQLite's, naming the file that it is about.

        It is None where the error is not SQLite's.
        """
        table = missing_table(error)
        if table is not None and (left_out := self._left_out):
            owners = {name for name in SCHEMAS if _belongs(table, name)}
            # Of a table that is not ours, nobody can say in which file it was.
            if lacking := left_out & owners if owners else left_out:
                return damage(self._names(lacking))
        for proves in (is_damage, cannot_open):
            if proves(error):
                name = next(self._where(proves, SCHEMAS), None)
                return translate(error, str(self.folder if name is None else self.path(name)))
        return translate(error, str(self.folder))


def tables_of(connection: Any) -> tuple[Table[Any], ...]:
    """Return the tables whose files a connection has; see `SqliteFiles.connect_to_sound`."""
    files = {schema: file for _, schema, file in connection.execute("PRAGMA database_list")}
    # A database in memory has none.
    return tuple(table for table in TABLES if files[SCHEMAS[table.name]])


def _belongs(table: str, name: str) -> bool:
    """Whether a table, as a statement named it, is in the file of one of ours."""
    bare = table.removeprefix("main.")
    return bare == name or bare.startswith((f"{name}_", f"{name}."))


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
