"""What a process holds of a collection: all its rows as of one point of its log of changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paracle_meta.backends.vectors.segment import Segment, merge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from paracle_meta.backends.vectors.selection import Selection
    from paracle_meta.filters import Condition


@dataclass(frozen=True, slots=True)
class Part:
    """A segment, and what is left of it.

    Attributes:
        segment: Rows as they were.
        alive: Which of them still are, shape (n,); None for all.
        rows: How many these are.
    """

    segment: Segment
    alive: NDArray[np.bool_] | None
    rows: int

    def without(self, ids: NDArray[np.bytes_]) -> Part:
        """Return the part without the rows that have one of these ids."""
        positions = self.segment.positions(ids)
        if not len(positions):
            return self
        alive = np.ones(len(self.segment), np.bool_) if self.alive is None else self.alive.copy()
        alive[positions] = False
        return Part(self.segment, alive, int(alive.sum()))


def whole(segment: Segment) -> Part:
    """Return a part that has all rows of a segment."""
    return Part(segment, None, len(segment))


@dataclass(frozen=True, slots=True)
class Held:
    """All rows as of one point of the log.

    Attributes:
        token: Which index the database names, or None.
        seq: How far the log was followed.
        models: The least and the greatest model of the rows' vectors.
        parts: What the rows are in.
        indexed: How many rows the index had that the first part is of; 0 where it is of none.
    """

    token: str | None
    seq: int
    models: tuple[str | None, str | None]
    parts: tuple[Part, ...]
    indexed: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(part.rows for part in self.parts)

    @property
    def inside(self) -> int:
        """How many of them are in the index."""
        return self.parts[0].rows if self.indexed else 0

    def selections(self, conditions: Sequence[Condition]) -> list[Selection | None] | None:
        """Return for each part the rows that meet all conditions, None for all of its rows.

        Returns:
            None where a condition is on a column that is not held.
        """
        if not conditions:
            return [None] * len(self.parts)
        selections: list[Selection | None] = []
        for part in self.parts:
            selection = part.segment.matching(conditions)
            if selection is None:
                return None
            selections.append(selection)
        return selections

    def work(self, selections: Sequence[Selection | None], count: int) -> int:
        """Return about how many numbers a search for `count` rows would compare."""
        return sum(
            part.segment.work(selection, count)
            for part, selection in zip(self.parts, selections, strict=True)
        )


def tidied(parts: Sequence[Part], indexed: int) -> tuple[Part, ...]:
    """Merge small parts, so that their number grows with the logarithm of their rows only.

    A part without a row left goes, whatever model its vectors were of.
    """
    first = 1 if indexed else 0
    kept = [*parts[:first], *(part for part in parts[first:] if part.rows)]
    while len(kept) - first >= 2 and len(kept[-2].segment) <= 2 * len(kept[-1].segment):
        kept[-2:] = [merged(kept[-2:])]
    return tuple(kept)


def merged(parts: Sequence[Part]) -> Part:
    """Return one part with the rows of several."""
    return whole(merge([(part.segment, part.alive) for part in parts]))
