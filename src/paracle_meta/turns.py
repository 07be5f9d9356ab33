"""Long loops that let others have their turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

S = TypeVar("S")
T = TypeVar("T")

AT_ONCE: Final = 200
"""Calls between two turns of the event loop: some milliseconds, where a call checks a record."""


async def in_turns(call: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Return what a function returns for each of the items, without holding the event loop."""
    return [result async for result in each_in_turn(call, items)]


async def each_in_turn(call: Callable[[S], T], items: Iterable[S]) -> AsyncIterator[T]:
    """Yield what a function returns for each of the items, without holding the event loop."""
    for number, item in enumerate(items, 1):
        yield call(item)
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
