"""What is around the SQLite files: the rights of folder and files, the disk, SQLite itself."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from paracle_meta.backends.health import Finding
from paracle_meta.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
"""Prompts are nobody else's business."""

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

FIXED_IN: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""The releases that no longer have the bug in resetting a write-ahead log
(sqlite.org/wal.html#walresetbug), the last of them with all that came after."""

MOUNTS: Final = Path("/proc/self/mountinfo")
"""Where Linux tells what is mounted (proc_pid_mountinfo(5))."""

NETWORK: Final = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|ncpfs|afs|ceph|lustre|9p|glusterfs|beegfs|gpfs|orangefs|pvfs2"
    r"|fuse\.(sshfs|glusterfs|ceph\w*|s3fs|gcsfuse|rclone|davfs\d?|lustre|moosefs|juicefs)"
)
"""File systems whose files several machines may have open. SQLite's locks cannot be trusted there,
and a write-ahead log needs memory that its readers share (sqlite.org/wal.html)."""

_DATABASE: Final = re.compile(
    rf"({'|'.join(table.name for table in TABLES)})\.db(-wal|-shm|-journal)?"
)
_OURS: Final = re.compile(
    rf"{_DATABASE.pattern}|\.index|\.migrate\.lock|\.restore.*|before-restore-.*"
)


def examine_surroundings(
    folder: Path, version: tuple[int, ...], journal_mode: str
) -> Iterator[Finding]:
    """Yield what is not well around the files.

    Args:
        folder: Of the files; it exists.
        version: Of SQLite, as the driver tells it.
        journal_mode: The setting.
    """
    yield from _wrong_modes(folder)
    if MOUNTS.exists():
        system = file_system(MOUNTS.read_text(errors="surrogateescape"), folder.resolve())
        if system is not None and NETWORK.fullmatch(system):
            yield Finding(
                name="network-folder",
                severity="error",
                where=str(folder),
                what=f"The files are on a network file system ({system}), whose locks do not keep "
                "two writers apart: they can destroy the files.",
                repair="Move the folder to a disk of this machine and set sqlite_dir, or use "
                "PostgreSQL (`paracle meta copy`).",
            )
    if journal_mode == "wal" and has_wal_bug(version):
        yield Finding(
            name="outdated-sqlite",
            severity="warning",
            where=f"SQLite {'.'.join(map(str, version))}",
            what="This SQLite has a bug that can, rarely, destroy a file when two connections "
            "write and tidy up its log at the same moment.",
            repair="Install pysqlite3, which brings a newer one (`pip install pysqlite3`), or a "
            "Python with SQLite 3.51.3 or later; or set journal_mode: truncate.",
        )


def has_wal_bug(version: tuple[int, ...]) -> bool:
    """Whether a version of SQLite has the bug in resetting a write-ahead log."""
    *branches, last = FIXED_IN
    fixed = any(version[:2] == branch[:2] and version >= branch for branch in branches)
    return not fixed and version < last


def file_system(mounts: str, folder: Path) -> str | None:
    """Return the type of the file system that a folder is on, or None where it is not told.

    Args:
        mounts: What Linux says in ``/proc/self/mountinfo``.
        folder: An absolute path without links.
    """
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        # The fifth field is the mount point, and the first behind a dash of its own the type.
        before, _, after = line.partition(" - ")
        *_, written = before.split(" ")[:5]
        # Spaces and the like are written in octal.
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), written)
        depth = len(Path(point).parts)
        # Of several at one place the last one is seen.
        if folder.is_relative_to(point) and (best is None or depth >= best[0]):
            best = depth, after.split(" ")[0]
    return None if best is None else best[1]


def mend_modes(folder: Path) -> None:
    """Take the rights of others away, and give the owner those that are needed."""
    for path, mode in _files_with_wrong_modes(folder):
        path.chmod(mode)
    if _is_open_to_others(folder) and _is_ours(folder):
        folder.chmod(FOLDER_MODE)


def _wrong_modes(folder: Path) -> Iterator[Finding]:
    if os.name != "posix":
        return
    files = [path for path, _ in _files_with_wrong_modes(folder)]
    if files:
        yield Finding(
            name="file-modes",
            severity="warning",
            where=", ".join(path.name for path in files),
            what="Others may read or write these files, or their owner may not.",
            repair=f"chmod 600 {folder}/*.db",
            count=len(files),
            remedy="own",
        )
    if not _is_open_to_others(folder):
        return
    if _is_ours(folder):
        yield Finding(
            name="folder-mode",
            severity="warning",
            where=str(folder),
            what="Others may enter the folder.",
            repair=f"chmod 700 {folder}",
            remedy="own",
        )
    elif _mode(folder) & OTHERS_WRITE and not _mode(folder) & stat.S_ISVTX:
        yield Finding(
            name="folder-mode",
            severity="warning",
            where=str(folder),
            what="Others may write in the folder, and so put other files in the place of these.",
            repair="Take that right from them, or give the files a folder of their own: set "
            "sqlite_dir.",
        )


def _files_with_wrong_modes(folder: Path) -> Iterator[tuple[Path, int]]:
    for path in sorted(folder.iterdir()):
        if _DATABASE.fullmatch(path.name) and _mode(path) != FILE_MODE:
            yield path, FILE_MODE


def _is_open_to_others(folder: Path) -> bool:
    return bool(_mode(folder) & OTHERS)


def _is_ours(folder: Path) -> bool:
    """Whether nothing else is in the folder, so that closing it to others is no surprise."""
    return all(_OURS.fullmatch(path.name) for path in folder.iterdir())


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        # A log that SQLite has deleted just now.
        return FILE_MODE
