"""Several ways of doing the same work, in turns, so that what slows the machine slows all."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    Way: TypeAlias = Callable[[int], Awaitable[Any]]
    """Does the work once; the number is another each time, and the same for every way."""

Comparison: TypeAlias = "dict[str, Any]"
"""What some ways took for one kind of work; see `comparison`."""


async def in_turns(
    ways: Mapping[str, Way], *, rounds: int, calls: int, start: int = 0
) -> dict[str, list[float]]:
    """Return the milliseconds of each call, after one round that is not counted.

    Args:
        ways: By name.
        rounds: How often each way has its turn; another one begins each time.
        calls: How often a way does the work in a turn.
        start: The number of the first call.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds + 1):
        shift = turn % len(names)
        numbers = range(start + turn * calls, start + (turn + 1) * calls)
        for name in names[shift:] + names[:shift]:
            way = ways[name]
            for n in numbers:
                began = time.perf_counter()
                await way(n)
                spent = time.perf_counter() - began
                if turn:
                    taken[name].append(1000 * spent)
    return taken


def comparison(
    work: str,
    taken: Mapping[str, Sequence[float]],
    *,
    database: str = "",
    rows: int = 0,
    **more: Any,
) -> Comparison:
    """Return what is kept of some ways.

    Args:
        work: The kind of work; a name that the report knows.
        taken: Milliseconds of each call of each way.
        database: ``sqlite`` or ``postgresql``, where it is one.
        rows: How many rows there are, or how many are handled.
        more: What else is said of it.
    """
    return {
        "work": work,
        "database": database,
        "rows": rows,
        "systems": {
            name: {
                "p50_ms": float(np.median(spent)),
                "p95_ms": float(np.quantile(spent, 0.95)),
                "calls": len(spent),
            }
            for name, spent in taken.items()
        },
        "load": os.getloadavg()[0],
        **more,
    }
