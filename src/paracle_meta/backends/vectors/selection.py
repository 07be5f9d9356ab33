"""Which rows of a segment a search may return."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from paracle_meta.backends.vectors.columns import HeldColumn
    from paracle_meta.filters import Condition

    Test = tuple[HeldColumn, Condition]


@dataclass(frozen=True, slots=True)
class Selection:
    """Some of the rows.

    Attributes:
        rows: Their positions, shape (m,), in no order.
        among: Tells of some positions, shape (k,), which are among them.
    """

    rows: NDArray[np.integer[Any]]
    among: Callable[[NDArray[np.integer[Any]]], NDArray[np.bool_]]


def select(count: int, tests: Sequence[Test]) -> Selection:
    """Return the rows that meet conditions.

    Args:
        count: How many rows there are.
        tests: Conditions, each with the column that knows it.
    """
    found = [
        (some, n) for n, test in enumerate(tests) if (some := test[0].rows(test[1])) is not None
    ]
    if not found:
        return Selection(np.flatnonzero(_meet(tests, np.arange(count))), partial(_meet, tests))
    # The fewest are taken from their order, and only of these the other conditions are asked.
    rows, first = min(found, key=lambda one: len(one[0]))
    if others := [test for n, test in enumerate(tests) if n != first]:
        rows = rows[_meet(others, rows)]
    return Selection(rows, partial(_meet, tests))


def select_these(count: int, rows: NDArray[np.integer[Any]]) -> Selection:
    """Return rows that were found elsewhere as a selection.

    Args:
        count: How many rows there are.
        rows: Their positions, shape (m,).
    """
    mask = np.zeros(count, dtype=np.bool_)
    mask[rows] = True
    return Selection(rows, mask.__getitem__)


def _meet(tests: Sequence[Test], rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    met = np.ones(len(rows), dtype=np.bool_)
    for column, condition in tests:
        met &= column.where(condition, rows)
    return met
