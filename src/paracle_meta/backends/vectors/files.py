"""Files of an index that are mapped into memory: seen to be as they were written, or given up."""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ALIGNMENT: Final = 64
"""Rows and arrays begin at multiples of so many bytes, a line of the processor's cache."""


class DamagedIndexError(Exception):
    """The files are not those that were written. Never reaches a user: the cache is made anew."""


class Watch:
    """Sees whether a file is still as it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            # A newer index took its place; what is mapped stays what it was.
            return None
        return stat.st_size, stat.st_mtime_ns

    def changed(self) -> bool:
        """Return whether it was written since the last time.

        Raises:
            DamagedIndexError: It was cut short, and looking at what is gone would end the process.
        """
        seen = self._look()
        if seen is None or self._seen is None or seen == self._seen:
            return False
        if seen[0] < self._seen[0]:
            raise DamagedIndexError(str(self.path))
        self._seen = seen
        return True


class FileRows:
    """Rows in a file; each is checked when it is first used, and again when the file was written.

    Reading all of them when the file is opened would take longer than the search.
    """

    def __init__(
        self, path: Path, kind: np.dtype[Any], length: int, checks: NDArray[np.uint32]
    ) -> None:
        """Map the file.

        Args:
            path: Of the file.
            kind: Type of a number.
            length: Numbers a row, together a multiple of four bytes.
            checks: What `checksums` returns for the rows.
        """
        mapped = np.memmap(path, dtype=kind, mode="r", shape=(len(checks), length))
        self.matrix: NDArray[Any] = np.asarray(mapped)
        self._checks = checks
        self._watch = Watch(path)
        self._unchecked = np.ones(len(checks), dtype=np.bool_)

    def read(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return rows, shape (m, length).

        Raises:
            DamagedIndexError: One of them is not what was written.
        """
        if self._watch.changed():
            self._unchecked[:] = True
        matrix = self.matrix[rows] if isinstance(rows, slice) else self.matrix.take(rows, axis=0)
        if self._unchecked[rows].any():
            if not np.array_equal(checksums(matrix), self._checks[rows]):
                raise DamagedIndexError(str(self._watch.path))
            self._unchecked[rows] = False
        return matrix


def checksums(matrix: NDArray[Any]) -> NDArray[np.uint32]:
    """Return one number a row that changes with any of its bits: the exclusive or of its words."""
    result: NDArray[np.uint32] = np.bitwise_xor.reduce(matrix.view(np.uint32), axis=1)
    return result


def mapped(path: Path) -> mmap:
    """Return a file as memory that is read when it is looked at."""
    with path.open("rb") as file:
        return mmap(file.fileno(), 0, access=ACCESS_READ)
