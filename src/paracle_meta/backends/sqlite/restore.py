"""Restoring a folder of SQLite files, also while other processes have it open.

A file is never exchanged, as whoever has the old one open would go on reading and writing that.
Instead the pages of the backup are written into the files that are there, by SQLite's backup API,
in one transaction a file, which all others see as they see any other write.

Six transactions do not commit at one moment, so a restore goes like this:

1. The backup is copied into a folder ``.restore-...`` beside the files and checked there.
2. All six files are locked for others, and the new pages written, but not committed. With a
   write-ahead log, everybody still reads what was there before.
3. What was there before is copied into a folder ``before-restore-...``.
4. A file ``.restore.json`` names the copy of the backup: from now on the restore is decided.
5. The six transactions are committed, within milliseconds, and that file is deleted.

A process that is killed before the fourth step has changed nothing. After that, whoever opens the
folder next, or restores into it, finds the file and writes the copy into the files (again).

Files that cannot be read cannot be written to in this way. They are moved aside, after the restore
was decided, and new ones made.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.backup_folder import (
    MANIFEST,
    new_folder,
    read_manifest,
    seal,
    take,
)
from paracle_meta.backends.backups import RestoreReport
from paracle_meta.backends.folders import sync, written
from paracle_meta.backends.sqlite.backup import (
    UNFINISHED,
    check_files,
    copy_files,
    describe_files,
    is_sound,
)
from paracle_meta.backends.sqlite.driver import cannot_open, is_damage
from paracle_meta.backends.sqlite.files import SCHEMAS, SqliteFiles, transaction
from paracle_meta.backends.sqlite.overwrite import move_aside, overwrite
from paracle_meta.backends.sqlite.status import revisions
from paracle_meta.exceptions import DatabaseBusyError, StorageError, TransferError
from paracle_meta.records import utc_now
from paracle_meta.schema import COLLECTIONS, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from paracle_meta.backends.backup_folder import Manifest
    from paracle_meta.backends.watching import Watcher

logger = logging.getLogger("paracle_meta")

COPY: Final = ".restore-"
"""How the name of the folder begins in which the copy of a backup is."""

NEW_LINEAGE: Final = 1 << 32
"""By how much the log of changes is ahead after a restore of all that anybody can have read of it.

What a process holds of the vectors is known by its place in that log. A number that comes again
after a restore would make it take what it holds for what is stored.
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """What is in the folder before a restore.

    Attributes:
        readable: Whether all files are sound and of one revision, or still empty.
        tables: Whether there are tables.
        records: Whether there are records.
        in_wal: Whether it has write-ahead logs.
        log: The end of the log of changes of each collection.
        page_sizes: Bytes of a page in the file of each table.
    """

    readable: bool
    tables: bool = False
    records: bool = False
    in_wal: bool = False
    log: Mapping[str, int] | None = None
    page_sizes: Mapping[str, int] | None = None


class SqliteRestore:
    """Restores one folder; its methods are called in a thread of their own."""

    def __init__(self, files: SqliteFiles, busy_timeout: float) -> None:
        self._files = files
        self._folder = files.folder
        self._busy_timeout = busy_timeout

    def restore(self, folder: Path, watcher: Watcher, *, replace: bool) -> RestoreReport:
        """Restore a backup; see `backups.Backups.restore`."""
        manifest = read_manifest(folder, "sqlite")
        self._files.create_folder()
        with self._alone(watcher):
            self._finish_killed(watcher)
            self._remove_left_over()
            self._files.create()
            found = self._look()
            if not replace and not found.readable:
                raise self._unreadable()
            if not replace and found.records:
                raise self._not_empty()
            with self._staged() as staged:
                self._prepare(folder, staged, manifest, found, watcher)
                if found.readable:
                    kept = self._exchange(staged, found, watcher, replace=replace)
                else:
                    kept = self._folder_to_keep()
                    self._decide(staged, move_to=kept.name)
                    self._finish(watcher)
        return RestoreReport(
            location=str(self._folder),
            revision=manifest.revision,
            created_at=manifest.created_at,
            counts=manifest.counts,
            kept=kept,
        )

    def finish(self, watcher: Watcher) -> None:
        """Finish a restore that was killed when it was decided."""
        with self._alone(watcher):
            self._finish_killed(watcher)

    def _finish_killed(self, watcher: Watcher) -> None:
        if (self._folder / UNFINISHED).exists():
            logger.warning("A restore of %s was killed half way; finishing it.", self._folder)
            self._finish(watcher)

    # Before anything is changed

    @contextlib.contextmanager
    def _alone(self, watcher: Watcher) -> Iterator[None]:
        """Keep away those who migrate, make an index or change the model: they read, then write."""
        from filelock import FileLock, Timeout

        indexes = [self._folder / ".index" / name for name in COLLECTIONS]
        with contextlib.ExitStack() as stack:
            for path in (
                self._folder / ".migrate.lock",
                *(index / name for index in indexes for name in (".lock", ".change.lock")),
            ):
                with written(self._folder):
                    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = FileLock(path, mode=0o600)
                try:
                    lock.acquire(self._busy_timeout, cancel_check=watcher.stop.is_set)
                except Timeout as error:
                    watcher.check()
                    raise DatabaseBusyError(
                        f"Another process migrates or restores {self._folder}, or makes its "
                        "vectors or their index anew; wait for its end, then try again."
                    ) from error
                stack.callback(lock.release)
            yield

    def _look(self) -> _Found:
        try:
            connection = self._files.connect()
        except StorageError:
            return _Found(readable=False)
        with contextlib.closing(connection), self._files.translated():
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            try:
                return self._look_inside(connection, in_wal=mode == "wal")
            except self._files.driver.DatabaseError as error:
                if not (is_damage(error) or cannot_open(error)):
                    raise
                return _Found(readable=False)

    def _look_inside(self, connection: Any, *, in_wal: bool) -> _Found:
        if not all(is_sound(connection, table.name) for table in TABLES):
            return _Found(readable=False)
        stamps = revisions(connection)
        if stamps == {None}:
            return _Found(readable=True, in_wal=in_wal)
        if len(stamps) > 1:
            return _Found(readable=False)
        return _Found(
            readable=True,
            tables=True,
            records=_holds_records(connection),
            in_wal=in_wal,
            log={name: _end_of_log(connection, name) for name in COLLECTIONS},
            page_sizes={
                name: connection.execute(f"PRAGMA {place}.page_size").fetchone()[0]
                for name, place in SCHEMAS.items()
            },
        )

    def _not_empty(self) -> TransferError:
        return TransferError(
            f"{self._folder} holds records already; restore into another folder, or, to put the "
            "backup in their place, with --replace (in Python, replace=True). They are kept in a "
            "folder beside the files then."
        )

    def _unreadable(self) -> TransferError:
        return TransferError(
            f"{self._folder} holds files that are damaged, or of a migration that was stopped. To "
            "put the backup in their place, restore with --replace (in Python, replace=True); "
            "they are moved into a folder beside then."
        )

    @contextlib.contextmanager
    def _staged(self) -> Iterator[Path]:
        """Lend a folder for the copy of the backup; it stays where it is still to be written."""
        with written(self._folder):
            staged = Path(tempfile.mkdtemp(prefix=COPY, dir=self._folder))
        try:
            yield staged
        finally:
            if not (self._folder / UNFINISHED).exists():
                shutil.rmtree(staged, ignore_errors=True)

    def _remove_left_over(self) -> None:
        for folder in self._folder.glob(f"{COPY}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _prepare(
        self, folder: Path, staged: Path, manifest: Manifest, found: _Found, watcher: Watcher
    ) -> None:
        take(folder, [f"{table.name}.db" for table in TABLES], watcher.stop, into=staged)
        check_files(staged, watcher)
        described = describe_files(staged, manifest.created_at, watcher)
        if (described.revision, described.counts) != (manifest.revision, manifest.counts):
            raise TransferError(
                f"{folder / MANIFEST} does not describe the files beside it; take another backup."
            )
        copies = SqliteFiles(staged, journal_mode="delete", busy_timeout=0)
        with contextlib.closing(copies.connect()) as connection, copies.translated():
            for name, size in (found.page_sizes or {}).items():
                # With a write-ahead log, a file keeps the size of its pages.
                connection.execute(f"PRAGMA {SCHEMAS[name]}.page_size = {size}")
                if connection.execute(f"PRAGMA {SCHEMAS[name]}.page_size").fetchone()[0] != size:
                    connection.execute(f"VACUUM {SCHEMAS[name]}")
            for name in COLLECTIONS:
                _begin_log(connection, name, (found.log or {}).get(name, 0))
        with written(staged):
            for path in staged.iterdir():
                sync(path)
            sync(staged)

    # Changing

    def _exchange(
        self, staged: Path, found: _Found, watcher: Watcher, *, replace: bool
    ) -> Path | None:
        kept: Path | None = None

        def keep() -> None:
            nonlocal kept
            if found.tables:
                kept = self._keep(watcher, replace=replace)

        def decide() -> None:
            if found.in_wal:
                keep()
            self._decide(staged)

        # Without a write-ahead log, nobody can read while the new pages are written. What others
        # write between the copy and the locks is replaced too then.
        if not found.in_wal:
            keep()
        overwrite(self._files, staged, decide, watcher, patience=self._busy_timeout)
        self._end(staged)
        return kept

    def _keep(self, watcher: Watcher, *, replace: bool) -> Path | None:
        """Copy what is there; None where that is nothing. All files are locked for others."""
        with (
            contextlib.closing(self._files.connect()) as connection,
            self._files.translated(),
            transaction(connection),
        ):
            if not _holds_records(connection):
                return None
            if not replace:
                raise self._not_empty()
            folder = self._folder_to_keep()
            with new_folder(folder) as copies:
                copy_files(connection, copies, watcher)
                seal(copies, describe_files(copies, utc_now(), watcher), watcher.stop)
            return folder

    def _folder_to_keep(self) -> Path:
        return self._folder / f"before-restore-{utc_now():%Y%m%dT%H%M%S.%fZ}"

    def _decide(self, staged: Path, *, move_to: str | None = None) -> None:
        """Say that a copy of a backup is to be written, and where the files are moved before."""
        with written(self._folder):
            said = staged / "decided"
            said.touch(mode=0o600)
            said.write_text(json.dumps({"copy": staged.name, "move_to": move_to}), encoding="utf-8")
            sync(said)
            said.replace(self._folder / UNFINISHED)
            sync(self._folder)

    def _finish(self, watcher: Watcher) -> None:
        """Do what was decided, as far as that has not been done."""
        with written(self._folder):
            decided = json.loads((self._folder / UNFINISHED).read_text(encoding="utf-8"))
        staged = self._folder / decided["copy"]
        if decided["move_to"] is not None:
            move_aside(self._files, decided["move_to"])
            self._decide(staged)
        self._files.create()
        overwrite(self._files, staged, _nothing, watcher, patience=self._busy_timeout)
        self._end(staged)

    def _end(self, staged: Path) -> None:
        with written(self._folder):
            (self._folder / UNFINISHED).unlink()
            sync(self._folder)
        shutil.rmtree(staged, ignore_errors=True)


def _nothing() -> None:
    """Do nothing: it is decided already."""


def _holds_records(connection: Any) -> bool:
    # Of each, so that a transaction has begun to read from all files.
    found = [
        connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table.name})").fetchone()[0]
        for table in TABLES
    ]
    return any(found)


def _end_of_log(connection: Any, table_name: str) -> int:
    (end,) = connection.execute(
        f"SELECT max(coalesce((SELECT seq FROM {SCHEMAS[table_name]}.sqlite_sequence"
        f" WHERE name = '{table_name}_changes'), 0),"
        f" coalesce((SELECT seq FROM {table_name}_index), 0))"
    ).fetchone()
    return int(end)


def _begin_log(connection: Any, table_name: str, end: int) -> None:
    """Empty the log of changes, forget the index, and go on beyond `end`, which others may hold."""
    start = max(end, _end_of_log(connection, table_name)) + NEW_LINEAGE
    sequences = f"{SCHEMAS[table_name]}.sqlite_sequence"
    with transaction(connection):
        connection.execute(f"DELETE FROM {table_name}_changes")
        connection.execute(f"UPDATE {table_name}_index SET token = NULL, seq = ?1", (start,))
        connection.execute(f"DELETE FROM {sequences} WHERE name = '{table_name}_changes'")
        connection.execute(
            f"INSERT INTO {sequences} (name, seq) VALUES ('{table_name}_changes', ?1)", (start,)
        )
