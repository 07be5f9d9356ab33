"""The searchable tables on PostgreSQL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from paracle_meta.backends import postgresql_vectors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from paracle_meta.backends.collections import QueryVector
    from paracle_meta.backends.postgresql_setup import PostgresSetup
    from paracle_meta.backends.statements import Statements
    from paracle_meta.filters import Condition
    from paracle_meta.schema import Table

R = TypeVar("R")


class Run(Protocol):
    """Runs a function with a connection of the pool, again where that is safe."""

    async def __call__(self, work: Callable[[Any], Awaitable[R]]) -> R:
        """Return what the function returns."""


class PostgresCollections:
    """See `collections.Collections`, which is the contract of every method."""

    def __init__(self, setup: PostgresSetup, statements: Statements, run: Run) -> None:
        self._setup = setup
        self._statements = statements
        self._run = run

    async def search(
        self,
        table: Table[R],
        conditions: Sequence[Condition],
        *,
        vector: QueryVector | None,
        text: str | None,
        limit: int,
        min_similarity: float | None,
    ) -> list[R]:
        """See `collections.Collections`."""
        if vector is None or text is not None:
            raise NotImplementedError
        return await self._run(
            partial(
                postgresql_vectors.nearest,
                self._statements.of(table),
                vector.blob,
                conditions,
                vector.model,
                limit,
                min_similarity,
            )
        )

    async def build_index(self, table: Table[Any]) -> int:
        """See `collections.Collections`."""
        return await self._setup.build_index(table)
