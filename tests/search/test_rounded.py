"""Vectors rounded to a byte a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from paracle_meta.backends.vectors.files import checksums
from paracle_meta.backends.vectors.rounded import LARGEST, MOST, RoundedVectors, rounded, width
from tests.search.vectors import clustered

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COUNT = 10


@pytest.mark.parametrize("dimensions", [1, 3, 64, 65, 384, 1_536])
def test_each_number_is_rounded_to_its_nearest_step(dimensions: int) -> None:
    matrix = np.random.default_rng(7).standard_normal((20, dimensions)).astype(np.float32)
    rows, scales = rounded(matrix)
    assert rows.shape == (20, width(dimensions))
    assert not rows[:, dimensions:].any()
    assert np.abs(rows).max() == LARGEST
    back = rows[:, :dimensions] * scales[:, np.newaxis]
    assert np.all(np.abs(back - matrix) <= scales[:, np.newaxis] * 0.5001)


def test_a_row_is_whole_lines_of_the_cache() -> None:
    assert [width(n) for n in (1, 64, 65, 384)] == [64, 64, 128, 384]


def in_a_file(matrix: NDArray[np.float32], path: Path) -> RoundedVectors:
    rows, scales = rounded(matrix)
    path.write_bytes(rows.tobytes())
    return RoundedVectors(path, matrix.shape[1], scales, checksums(rows))


@pytest.mark.parametrize("dimensions", [384, 1_536])
def test_the_closest_are_among_the_best(tmp_path: Path, dimensions: int) -> None:
    matrix = clustered(3_000, dimensions, seed=7)
    vectors = in_a_file(matrix, tmp_path / "rows")
    sizes = []
    for query in clustered(300, dimensions, seed=7, sample=1):
        closest = np.argsort(-(matrix @ query))[:COUNT]
        best = vectors.best(query, None, COUNT)
        assert set(closest.tolist()) <= set(best.tolist())
        sizes.append(len(best))
    # That is what it is for: few of them are compared in full.
    assert np.median(sizes) < COUNT + MOST / 2


def test_of_rows_that_are_alike_some_are_left(tmp_path: Path) -> None:
    matrix = np.tile(clustered(1, 384, seed=7), (500, 1))
    assert len(in_a_file(matrix, tmp_path / "rows").best(matrix[0], None, COUNT)) == COUNT + MOST
