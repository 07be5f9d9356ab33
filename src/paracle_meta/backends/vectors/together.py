"""Searches that tasks begin together: the graph looks for all of them at once, each on a core.

With one query, usearch holds Python's lock while it looks, so two threads take as long as one after
the other. With several it lets go of the lock and gives each query a thread of its own.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np

from paracle_meta.backends.vectors.files import DamagedIndexError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from paracle_meta.backends.collections import QueryVector
    from paracle_meta.backends.vectors.held import Held
    from paracle_meta.filters import Condition

MOST: Final = 8
"""Queries that are looked for together, as the event loop waits for them: some 5 ms on two cores.

What comes above that is looked for one by one.
"""

WORTH_IT: Final = 150_000
"""Numbers of the candidates of one search, from which beginning threads costs less than it gains.

Measured at 100,000 rows: two searches take 0.8 times as long together as one after the other with
1,536 dimensions, and 1.05 times with 384.
"""


class Asked:
    """A search by a vector that is about to begin.

    Attributes:
        vector: The vector and its model.
        query: The vector at unit length, shape (dimensions,).
        conditions: All must hold.
        limit: Most records to return.
        near: What the graph of a state has found for it; None where it has not looked.
    """

    __slots__ = ("conditions", "limit", "near", "query", "vector")

    def __init__(self, vector: QueryVector, conditions: Sequence[Condition], limit: int) -> None:
        self.vector = vector
        self.query = direction(vector.blob)
        self.conditions = conditions
        self.limit = limit
        self.near: tuple[Held, NDArray[np.int64]] | None = None


def look_together(held: Held, asked: Sequence[Asked]) -> None:
    """Fill in `near` of those for which the graph of this state is to be asked.

    Args:
        held: The state.
        asked: Searches that begin together.
    """
    segment = held.parts[0].segment
    graph = segment.graph
    if graph is None:
        return
    alike: defaultdict[int, list[Asked]] = defaultdict(list)
    for one in asked:
        selections = held.selections(one.conditions)
        if held.models != (one.vector.model, one.vector.model) or selections is None:
            continue
        wanted = segment.candidates(selections[0], one.limit)
        if wanted is not None and graph.effort(wanted) * segment.vectors.dimensions >= WORTH_IT:
            alike[wanted].append(one)
    # Each search by itself finds out what is wrong with the index, and says so.
    with contextlib.suppress(DamagedIndexError):
        for wanted, group in alike.items():
            if len(group) > 1:
                queries = np.stack([one.query for one in group[:MOST]]).astype(np.float32)
                found = graph.near_each(queries, wanted)
                for one, near in zip(group[:MOST], found, strict=True):
                    one.near = held, near


def direction(vector: bytes) -> NDArray[np.float64]:
    """Return a vector at unit length, shape (dimensions,).

    Args:
        vector: Little-endian float32 bytes.
    """
    exact = np.frombuffer(vector, dtype="<f4").astype(np.float64)
    exact /= np.sqrt(exact @ exact)
    return exact
