"""Vectors rounded to a byte a number."""

from __future__ import annotations

import numpy as np
import pytest

from paracle_meta.backends.vectors.rounded import LARGEST, rounded, width


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
