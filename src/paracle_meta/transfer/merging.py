"""Two databases side by side: what both have, and what only one of them has."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, TypeVar

from paracle_meta.exceptions import TransferError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

V = TypeVar("V")

_id = itemgetter(0)


async def merge(
    source: AsyncIterator[list[tuple[str, V]]], target: AsyncIterator[list[tuple[str, V]]]
) -> AsyncGenerator[list[tuple[str, V | None, V | None]], None]:
    """Yield each id with its value at the source and at the target, in the order of the ids.

    A merge join: each side is read once, and one batch of each is held.

    Args:
        source: Ids with values, in the order of the ids as UTF-8 bytes, which is that of Python.
        target: The same of the other side.

    Raises:
        TransferError: A side is not in this order.
    """
    here, there = _Side(source), _Side(target)
    while True:
        await here.fill()
        await there.fill()
        ends = [side.rows[-1][0] for side in (here, there) if side.rows]
        if not ends:
            return
        # Up to there, both sides are known.
        end = min(ends)
        found = here.take(end)
        others = dict(there.take(end))
        merged: list[tuple[str, V | None, V | None]] = [
            (record_id, value, others.pop(record_id, None)) for record_id, value in found
        ]
        if others:
            merged += [(record_id, None, value) for record_id, value in others.items()]
            merged.sort(key=_id)
        yield merged


class _Side(Generic[V]):
    """The rows of one side that were read and not taken yet."""

    def __init__(self, batches: AsyncIterator[list[tuple[str, V]]]) -> None:
        self.rows: list[tuple[str, V]] = []
        self._batches = batches
        self._last = ""

    async def fill(self) -> None:
        """Read a batch if there is no row left; there is none afterwards if it has ended."""
        while not self.rows:
            rows = await anext(self._batches, None)
            if rows is None:
                return
            # No id is empty.
            if any(one >= next_one for one, next_one in pairwise([self._last, *map(_id, rows)])):
                raise TransferError(
                    "Rows do not come in the order of their ids, so they cannot be compared: ids "
                    "were replaced, or the order of texts is not bytewise (COLLATE) on one side."
                )
            self._last = rows[-1][0]
            self.rows = rows

    def take(self, end: str) -> list[tuple[str, V]]:
        """Return the rows whose id is not greater than this, and keep the others."""
        number = bisect_right(self.rows, end, key=_id)
        taken, self.rows = self.rows[:number], self.rows[number:]
        return taken
