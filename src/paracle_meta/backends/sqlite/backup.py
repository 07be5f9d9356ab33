"""Backups of a folder of SQLite files: six files that belong to one moment, while writers go on.

The copies are made by SQLite's online backup API (sqlite.org/c3ref/backup_finish.html) on a
connection that is in a transaction, whose snapshots of all files began at the same moment. Where
the source has begun to read, the API copies what it sees there, page by page, and never begins
anew, however much others write meanwhile. With a write-ahead log they are not held up at all; with
a rollback journal they wait until the files are copied.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.sqlite.files import SCHEMAS, SqliteFiles
from paracle_meta.backends.sqlite.status import revisions
from paracle_meta.backends.watching import in_thread
from paracle_meta.exceptions import MigrationError, QueryError, StorageError
from paracle_meta.records import utc_now
from paracle_meta.schema import TABLES

# Each process that opens a database imports this module, to see whether a restore is unfinished.
# What only a backup takes is imported in the functions.
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from paracle_meta.backends.backup_folder import Manifest
    from paracle_meta.backends.backups import BackupReport, Progress, RestoreReport
    from paracle_meta.backends.watching import Watcher

UNFINISHED: Final = ".restore.json"
"""The file, beside the others, that says that a restore is decided; see `restore`."""

PAGES: Final = 1_024
"""Copied at once: 4 MB, some milliseconds, after which a caller that was cancelled is heard."""

POLL: Final = 0.002
"""Seconds between two tries for a lock. SQLite's own waiting could not be cancelled."""

INSTRUCTIONS: Final = 100_000
"""Of SQLite's machine between two looks whether the caller was cancelled: about a millisecond."""


class SqliteBackups:
    """See `backups.Backups`, which is the contract of every method.

    The work is done in a thread of its own with connections of its own.
    """

    def __init__(self, files: SqliteFiles, busy_timeout: float) -> None:
        self._files = files
        self._busy_timeout = busy_timeout

    async def back_up(
        self, folder: Path, *, programs: Path | None = None, progress: Progress | None = None
    ) -> BackupReport:
        """See `backups.Backups`."""
        del programs  # SQLite is inside of this process.
        return await in_thread(partial(back_up, self._files, folder), progress)

    async def restore(
        self,
        folder: Path,
        *,
        replace: bool,
        programs: Path | None = None,
        progress: Progress | None = None,
    ) -> RestoreReport:
        """See `backups.Backups`."""
        from paracle_meta.backends.sqlite.restore import SqliteRestore

        del programs
        work = SqliteRestore(self._files, self._busy_timeout)
        return await in_thread(partial(work.restore, folder, replace=replace), progress)

    async def finish(self) -> None:
        """Finish a restore that was killed after it had begun to write."""
        if (self._files.folder / UNFINISHED).exists():
            from paracle_meta.backends.sqlite.restore import SqliteRestore

            await in_thread(SqliteRestore(self._files, self._busy_timeout).finish, None)


def back_up(files: SqliteFiles, folder: Path, watcher: Watcher) -> BackupReport:
    """Back up the files; see `backups.Backups.back_up`."""
    from paracle_meta.backends.backup_folder import new_folder, seal
    from paracle_meta.backends.sqlite.snapshot import at_one_moment

    with new_folder(folder) as partial_folder:
        with at_one_moment(files) as connection:
            moment = utc_now()
            copy_files(connection, partial_folder, watcher)
        check_files(partial_folder, watcher)
        manifest = describe_files(partial_folder, moment, watcher)
        return seal(partial_folder, manifest, watcher.stop, name=folder)


def copy_files(connection: Any, into: Path, watcher: Watcher) -> None:
    """Copy what a connection sees of each file.

    Args:
        connection: In a transaction that has read from each file.
        into: The folder of the copies.
        watcher: Hears of each step.
    """
    copies = SqliteFiles(into, journal_mode="delete", busy_timeout=0)
    copies.create()
    with copies.translated():
        for table in TABLES:
            with contextlib.closing(copies.connect_to(table.name)) as copy:
                # An unfinished copy is thrown away, and a finished one brought to the disk later.
                copy.execute("PRAGMA synchronous = OFF")
                copy_pages(
                    connection,
                    copy,
                    name=SCHEMAS[table.name],
                    at_once=PAGES,
                    step=partial(_step, watcher, table.name),
                )


def _step(watcher: Watcher, name: str, _status: int, remaining: int, total: int) -> None:
    watcher.check()
    watcher.tell(name, total - remaining, total)


def copy_pages(
    source: Any, target: Any, *, name: str, at_once: int, step: Callable[[int, int, int], None]
) -> None:
    """Copy one file by SQLite's online backup API.

    Args:
        source: A connection to it, and perhaps to others.
        target: A connection to the file that becomes its copy.
        name: The SQL schema in which `source` sees it.
        at_once: Pages to copy between two calls of `step`.
        step: Called with SQLite's status, how many pages remain, and of how many. What it raises
            ends the work, of which then nothing remains.
    """
    last = 0

    def seen(status: int, remaining: int, total: int) -> None:
        nonlocal last
        last = status
        step(status, remaining, total)

    try:
        source.backup(target, name=name, pages=at_once, progress=seen, sleep=POLL)
    except source.Error as error:
        # The driver tells here in words alone what SQLite tells by a number.
        error.sqlite_errorcode = last
        raise


def check_files(folder: Path, watcher: Watcher) -> None:
    """See that the files of a backup are sound, and belong to one moment.

    Raises:
        TransferError: Records refer to others that are not stored.
        StorageError: A file is damaged.
    """
    with _opened(folder, watcher) as connection:
        for table in TABLES:
            if not is_sound(connection, table.name):
                raise StorageError(
                    f"{table.name}.db is damaged, so this is no backup; restore an older one, or "
                    "save what can be read of that file with `.recover` of the sqlite3 shell."
                )
        _check_references(connection)


def describe_files(folder: Path, moment: datetime, watcher: Watcher) -> Manifest:
    """Return what to say about the files of a backup.

    Args:
        folder: Where they are.
        moment: Of which they are.
        watcher: Tells when to stop.

    Raises:
        MigrationError: They have no tables, or tables of different revisions.
    """
    from paracle_meta.backends.backup_folder import Manifest

    with _opened(folder, watcher) as connection:
        stamps = revisions(connection)
        if None in stamps or len(stamps) > 1:
            raise MigrationError(
                "The database is not migrated; run `paracle meta db migrate`, then try again."
            )
        counts = {
            table.name: int(connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])
            for table in TABLES
        }
        (version,) = connection.execute("SELECT sqlite_version()").fetchone()
    return Manifest(
        backend="sqlite",
        engine=f"SQLite {version}",
        revision=str(stamps.pop()),
        created_at=moment,
        counts=counts,
        details={},
    )


@contextlib.contextmanager
def _opened(folder: Path, watcher: Watcher) -> Iterator[Any]:
    """Lend a connection to the files of a backup, none of whose statements goes on for long.

    It brings them to the rollback-journal mode, in which each is whole by itself.
    """
    copies = SqliteFiles(folder, journal_mode="delete", busy_timeout=0)
    with contextlib.closing(copies.connect()) as connection:
        connection.set_progress_handler(watcher.stop.is_set, INSTRUCTIONS)
        try:
            with copies.translated():
                yield connection
        except QueryError:
            # That is what SQLite says to a statement which was interrupted.
            watcher.check()
            raise


def is_sound(connection: Any, table_name: str) -> bool:
    """Return whether the file of a table is whole."""
    (found,) = connection.execute(f"PRAGMA {SCHEMAS[table_name]}.integrity_check(1)").fetchone()
    return bool(found == "ok")


def _check_references(connection: Any) -> None:
    from paracle_meta.backends.health import ORPHANED
    from paracle_meta.backends.rows import orphans_left

    for table in TABLES:
        if table.name in ORPHANED:
            (orphans,) = connection.execute(ORPHANED[table.name].count).fetchone()
            if orphans:
                raise orphans_left(table, orphans)
