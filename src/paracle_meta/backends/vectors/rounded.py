"""Vectors rounded to a byte a number, to tell which of many rows are worth comparing in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from paracle_meta.backends.vectors.files import ALIGNMENT, FileRows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LARGEST: Final = 127
"""What the largest number of a row becomes."""

DEVIATIONS: Final = 6 * 2**0.5
"""Of the difference between two rows: six, which one of 1e9 exceeds."""

MOST: Final = 40
"""Rows to compare in full beyond those wanted: so many are as close only where all are alike."""

PIECE: Final = 1_024
"""Rows that are compared at once: some 1 MB, which stays in the processor's cache."""


def rounded(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return rows of bytes and what each row is to be multiplied by to have its size again.

    Args:
        matrix: Shape (n, dimensions); no row is zero.

    Returns:
        Shapes (n, width), as wide as `width` says with zeros at the end, and (n,).
    """
    count, dimensions = matrix.shape
    scales = np.abs(matrix).max(axis=1) / np.float32(LARGEST)
    rows = np.zeros((count, width(dimensions)), dtype=np.int8)
    np.rint(matrix / scales[:, np.newaxis], out=rows[:, :dimensions], casting="unsafe")
    return rows, scales


def width(dimensions: int) -> int:
    """Return how many bytes a row has: whole lines of the processor's cache."""
    return -(-dimensions // ALIGNMENT) * ALIGNMENT


class RoundedVectors:
    """Rows of bytes in a file."""

    def __init__(
        self,
        path: Path,
        dimensions: int,
        scales: NDArray[np.float32],
        checks: NDArray[np.uint32],
    ) -> None:
        """Map the file.

        Args:
            path: Of the file.
            dimensions: Numbers a vector.
            scales: As `rounded` returns them.
            checks: The checksum of each row.
        """
        self._rows = FileRows(path, np.dtype(np.int8), width(dimensions), checks)
        self._scales = scales

    def best(
        self, query: NDArray[np.float32], rows: NDArray[np.integer[Any]] | None, count: int
    ) -> NDArray[np.integer[Any]]:
        """Return which of these rows, or of all, may be the `count` closest, in no order.

        A rounded number is off by a standard deviation of a step's size / sqrt(12) (uniformly
        distributed), and so is the product of a row and a query at unit length, each for its step.
        The rows are those that come within `DEVIATIONS` of the last of the best `count`, but at
        most `MOST` more than those.
        """
        # A part of usearch: products of bytes, for which numpy has no fast code.
        import numkong

        (asked,), (step,) = rounded(query[np.newaxis])
        total = len(self._scales) if rows is None else len(rows)
        products = np.empty(total, dtype=np.float32)
        for start in range(0, total, PIECE):
            piece: slice | NDArray[np.integer[Any]]
            piece = slice(start, start + PIECE) if rows is None else rows[start : start + PIECE]
            found = numkong.cdist(asked[np.newaxis], self._rows.read(piece), "dot")
            scales = self._scales[piece] * step
            products[start : start + PIECE] = np.asarray(found).reshape(-1) * scales
        if total <= count:
            return np.arange(total) if rows is None else rows
        most = min(total, count + MOST)
        chosen: NDArray[np.integer[Any]]
        chosen = np.argpartition(products, (total - most, total - count))[total - most :]
        steps = np.hypot(self._scales[chosen if rows is None else rows[chosen]], step)
        near = products[chosen] + DEVIATIONS / np.sqrt(12) * steps >= products[chosen[most - count]]
        chosen = chosen[near]
        return chosen if rows is None else rows[chosen]

    def check(self) -> None:
        """Read all of the file.

        Raises:
            DamagedIndexError: A row is not what was written.
        """
        for start in range(0, len(self._scales), PIECE):
            self._rows.read(slice(start, start + PIECE))
