"""Whether one of the files can be read by itself, and whether it has changed since."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

_TABLES: Final = (
    "SELECT replace(name, '\"', '\"\"') FROM one.sqlite_master"
    " WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
)


class Mark(NamedTuple):
    """What becomes another when a file is written, or another is put in its place."""

    inode: int
    size: int
    modified: int


def mark(path: Path) -> Mark | None:
    """Return the mark of a file; None where there is none, or where SQLite will say why not."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Mark(found.st_ino, found.st_size, found.st_mtime_ns)


def begin_to_read(driver: ModuleType, uri: str, *, timeout: float) -> None:
    """Read the first row of each table of a file.

    Raises:
        driver.Error: That fails.
    """
    # Attached, as a header with another encoding is refused only then.
    with contextlib.closing(driver.connect(":memory:", uri=True, timeout=timeout)) as alone:
        alone.execute("ATTACH DATABASE ? AS one", (uri,))
        for (name,) in alone.execute(_TABLES).fetchall():
            alone.execute(f'SELECT 1 FROM one."{name}" LIMIT 1').fetchone()
