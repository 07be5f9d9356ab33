"""Writing files of a backup into those that are there, and moving away what cannot be read."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from paracle_meta.backends.folders import sync, written
from paracle_meta.backends.sqlite.backup import PAGES, copy_pages
from paracle_meta.backends.sqlite.files import SqliteFiles
from paracle_meta.exceptions import DatabaseBusyError
from paracle_meta.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from paracle_meta.backends.watching import Watcher
    from paracle_meta.schema import Table

BESIDE: Final = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file, by the end of its name."""


def overwrite(
    files: SqliteFiles,
    source: Path,
    decide: Callable[[], None],
    watcher: Watcher,
    *,
    patience: float,
    tables: Sequence[Table[Any]] = TABLES,
) -> None:
    """Write the files of a backup into those that are there.

    The transactions are nested: each begins when the one before it has only its last pages to
    write. So all files are locked, in the order in which all lock them, before the first of them is
    committed.

    Args:
        files: Those that are there.
        source: Where those of the backup are; nobody else has them open.
        decide: Called when everything but the last pages is written. Where it raises, nothing is
            changed.
        watcher: Hears of each step until it is decided.
        patience: Seconds to wait for each lock.
        tables: Whose files.

    Raises:
        DatabaseBusyError: A file stayed locked; nothing is changed.
    """
    if not tables:
        decide()
        return
    name = tables[0].name
    new = SqliteFiles(source, journal_mode="delete", busy_timeout=0)
    with (
        files.translated(),
        contextlib.closing(new.connect_to(name)) as reading,
        contextlib.closing(files.connect_to(name)) as writing,
    ):
        (pages,) = reading.execute("PRAGMA page_count").fetchone()
        at_once = min(PAGES, pages - 1)
        end = time.monotonic() + patience
        locked = decided = False

        def step(status: int, remaining: int, total: int) -> None:
            nonlocal locked, decided
            if decided:
                return
            watcher.check()
            # SQLite knows how many pages there are when it has written the first.
            locked = locked or total > 0
            if not locked and time.monotonic() > end:
                raise DatabaseBusyError(
                    f"Another writer held a lock on {files.folder} for longer than busy_timeout; "
                    "stop it, then try again."
                )
            if not locked or status:
                return
            watcher.tell(name, total - remaining, total)
            if remaining <= at_once:
                overwrite(files, source, decide, watcher, patience=patience, tables=tables[1:])
                decided = True

        copy_pages(reading, writing, name="main", at_once=at_once, step=step)


def move_aside(files: SqliteFiles, name: str) -> None:
    """Move files that cannot be read into a folder beside, as far as that has not been done.

    Args:
        files: Whose.
        name: Of the folder.

    Raises:
        StorageError: They cannot be moved.
    """
    kept = files.folder / name
    with written(kept):
        kept.mkdir(mode=0o700, exist_ok=True)
        for table in TABLES:
            path = files.path(table.name)
            if (kept / path.name).exists() or not path.exists():
                continue
            # The file itself last: a log that stays alone would be taken for that of the next.
            for ending in (*BESIDE, ""):
                part = path.with_name(path.name + ending)
                if part.exists():
                    part.rename(kept / part.name)
        sync(kept)
        sync(files.folder)
