"""What a database must do to be backed up and restored as a whole.

Part of the contract in `base`: what is said there of every method holds here too. A backup is a
folder that `backup_folder` writes and reads, for the kind of database that it was made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path
    from typing import TypeAlias

    Progress: TypeAlias = Callable[[str, int, int], None]
    """Called with what is worked on, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds.

    Attributes:
        folder: Where it is.
        revision: Of the schema.
        created_at: The moment of which it is, in UTC.
        counts: Rows a table.
        size: Bytes of its files together.
    """

    folder: Path
    revision: str
    created_at: datetime
    counts: Mapping[str, int]
    size: int


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a database holds after a restore.

    Attributes:
        location: The folder, or the server and database without a password.
        revision: Of the schema in the backup.
        created_at: The moment of which the backup is, in UTC.
        counts: Rows a table.
        kept: The folder in which what was replaced is kept, or None where nothing is.
    """

    location: str
    revision: str
    created_at: datetime
    counts: Mapping[str, int]
    kept: Path | None


class Backups(Protocol):
    """Backs up and restores one database."""

    async def back_up(
        self, folder: Path, *, programs: Path | None = None, progress: Progress | None = None
    ) -> BackupReport:
        """Write all that is stored, as it is at one moment, into a new folder; writers go on.

        A call that fails, is cancelled or killed leaves nothing under the folder's name.

        Args:
            folder: Where to; it must not exist, or be empty.
            programs: Folder of the database's own programs, where such make the backup; None to
                look in ``PATH``.
            progress: Told how far it is, in the event loop.

        Raises:
            TransferError: The folder is not empty, what is stored is not sound, or a program is
                missing, too old or fails.
            StorageError: The folder cannot be written.
            DatabaseBusyError: Another writer held a lock for longer than `busy_timeout`.
        """

    async def restore(
        self,
        folder: Path,
        *,
        replace: bool,
        programs: Path | None = None,
        progress: Progress | None = None,
    ) -> RestoreReport:
        """Make the database what a backup holds; it need not be open, exist or be migrated.

        Others may have it open and go on; what they write meanwhile is replaced too. A call that
        fails, is cancelled or killed leaves the database as it was, or as it shall be: on SQLite a
        restore that was killed when it had begun to write is finished by whoever opens it next.

        Args:
            folder: The backup.
            replace: Put the backup in the place of records; otherwise only an empty database is
                restored into.
            programs: See `back_up`.
            progress: See `back_up`.

        Raises:
            TransferError: The backup is damaged or of another kind of database, the database holds
                records and `replace` is off, or a program is missing, too old or fails.
            MigrationError: The backup is of a newer version of this package.
            StorageError: The database cannot be written.
            DatabaseBusyError: Another process held a lock for longer than `busy_timeout`.
        """
