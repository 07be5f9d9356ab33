"""Long loops that let others have their turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

S = TypeVar("S")
T = TypeVar("T")

AT_ONCE: Final = 200
"""Calls between two turns of the event loop: some milliseconds, where a call checks a record."""


async def in_turns(call: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Return what a function returns for each of the items, without holding the event loop."""
    results = []
    for number, item in enumerate(items, 1):
        results.append(call(item))
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
    return results
