"""Folders and files on the disk: made, kept private, and there after a power cut."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from paracle_meta.exceptions import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def written(folder: Path) -> Iterator[None]:
    """Raise what the system says about writing to a folder as a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be made or written ({error.strerror or error}); make room, check its "
            "rights, or name another folder."
        ) from error


def sync(path: Path) -> None:
    """Bring a file or a folder's list of names to the disk."""
    if sys.platform == "win32" and path.is_dir():
        return  # It has no such thing.
    # Windows brings to the disk only what may be written.
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(folder: Path) -> None:
    """Make a folder in one that may be missing too, both for their owner only."""
    for place in (folder.parent, folder):
        place.mkdir(mode=0o700, exist_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, and bring their names to the disk.

    Whoever brings the names in a folder to the disk says nothing about the folder's own.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in reversed(missing):
        sync(place.parent)
