"""A database backed up into a folder, and restored from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paracle_meta.backends import create_backend
from paracle_meta.migrations import HEAD

if TYPE_CHECKING:
    from paracle_meta.backends.backups import BackupReport, Progress, RestoreReport
    from paracle_meta.database import MetaDatabase


async def back_up(
    db: MetaDatabase,
    folder: Path | str,
    *,
    pg_bin: Path | str | None = None,
    progress: Progress | None = None,
) -> BackupReport:
    """Back up everything into a new folder, as it is at one moment, while writers go on.

    What was acknowledged before the call is in the backup. Its files are checked before they get
    their place, so whatever a folder of this name holds later is whole.

    Args:
        db: What to back up.
        folder: Where to; it must not exist, or be empty.
        pg_bin: Folder of `pg_dump`, where it is not to be looked for in ``PATH``.
        progress: Called with what is copied, how much of it is done, and of how much.

    Raises:
        TransferError: The folder is not empty, a record refers to one that is not stored, or
            `pg_dump` is missing, older than the server, or fails.
        StorageError: The folder cannot be written, or a file of the database is damaged.
        DatabaseBusyError: Another writer held a lock for longer than `busy_timeout`.
    """
    backend = await db.backend()
    return await backend.backups.back_up(Path(folder), programs=_path(pg_bin), progress=progress)


async def restore(
    db: MetaDatabase,
    folder: Path | str,
    *,
    replace: bool = False,
    pg_bin: Path | str | None = None,
    progress: Progress | None = None,
) -> RestoreReport:
    """Make a database what a backup of the same kind holds.

    Others may have it open; what they write meanwhile is replaced too. A restore that is stopped,
    by whatever, leaves the database as it was or as it shall be: one that was killed when it had
    begun to write SQLite files is finished by whoever opens them next.

    Args:
        db: Where to; it need not exist. With `auto_migrate`, it is migrated afterwards where the
            backup is of an older version of this package.
        folder: The backup.
        replace: Put the backup in the place of the records that are there. Those of SQLite files
            are kept in a folder beside, as a backup.
        pg_bin: Folder of `pg_restore`, where it is not to be looked for in ``PATH``.
        progress: Called with what is written, how much of it is done, and of how much.

    Raises:
        TransferError: The backup is damaged or of another kind of database, the database holds
            records and `replace` is off, or `pg_restore` is missing, too old, or fails.
        MigrationError: The backup is of a newer version of this package.
        StorageError: The database cannot be written.
        DatabaseBusyError: Another process held a lock for longer than `busy_timeout`.
    """
    # One that is not open: opening would make tables, or fail on what is to be replaced.
    backend = create_backend(db.settings, None)
    try:
        report = await backend.backups.restore(
            Path(folder), replace=replace, programs=_path(pg_bin), progress=progress
        )
    finally:
        await backend.close()
    if report.revision != HEAD and db.settings.auto_migrate:
        await db.migrate()
    return report


def _path(folder: Path | str | None) -> Path | None:
    return None if folder is None else Path(folder)
