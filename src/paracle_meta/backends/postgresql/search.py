"""The searchable tables on PostgreSQL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from paracle_meta.backends.postgresql import hybrid as postgresql_hybrid
from paracle_meta.backends.postgresql import new_vectors as postgresql_new_vectors
from paracle_meta.backends.postgresql import text as postgresql_text
from paracle_meta.backends.postgresql.change import change_of_model
from paracle_meta.backends.postgresql.setup import local_search_settings
from paracle_meta.backends.postgresql.vectors import VectorSearch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from paracle_meta.backends.collections import (
        ChangeOfModel,
        NewVector,
        QueryVector,
        VectorSpace,
    )
    from paracle_meta.backends.postgresql.setup import PostgresSetup
    from paracle_meta.backends.statements import Statements, TableStatements
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
        self._text = postgresql_text.TextSearch()
        self._vectors = VectorSearch(local_search_settings(setup.settings))

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
        if text is not None:
            terms = await postgresql_text.terms_of_query(text)
            return await self._run(
                partial(self._search_words, table, conditions, terms, vector, limit, min_similarity)
            )
        if vector is None:
            raise ValueError("a search needs a vector, a text or both")
        return await self._run(
            partial(
                self._vectors.nearest,
                self._statements.of(table),
                vector.blob,
                conditions,
                vector.model,
                limit,
                min_similarity,
            )
        )

    async def _search_words(
        self,
        table: Table[R],
        conditions: Sequence[Condition],
        terms: Sequence[str],
        vector: QueryVector | None,
        limit: int,
        min_similarity: float | None,
        connection: Any,
    ) -> list[R]:
        await postgresql_text.take_over(table, connection)
        statements = self._statements.of(table)
        # One snapshot: what was ranked is there when it is read.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            similarities: dict[str, float] = {}
            if vector is None:
                scores = await self._text.scores(
                    statements, terms, conditions, limit, (), connection
                )
                ranked = list(scores.items())
            else:
                ranked, similarities = await postgresql_hybrid.ranked(
                    statements,
                    conditions,
                    self._vectors,
                    self._text,
                    terms,
                    vector,
                    limit,
                    min_similarity,
                    connection,
                )
            return await _records(statements, ranked, similarities, connection)

    async def build_index(self, table: Table[Any]) -> int:
        """See `collections.Collections`."""
        return await self._setup.build_index(table)

    async def without_vector(self, table: Table[R], *, limit: int, after: str | None) -> list[R]:
        """See `collections.Collections`."""
        statements = self._statements.of(table)
        return await self._run(
            partial(postgresql_new_vectors.without_vector, statements, limit, after)
        )

    async def store_vectors(
        self, table: Table[Any], vectors: Sequence[NewVector], *, model: str
    ) -> int:
        """See `collections.Collections`."""
        statements = self._statements.of(table)
        return await self._run(
            partial(postgresql_new_vectors.store_vectors, statements, vectors, model)
        )

    async def cached_vectors(
        self, table: Table[Any], model: str, hashes: Collection[bytes]
    ) -> dict[bytes, bytes]:
        """See `collections.Collections`."""
        return await self._run(
            partial(postgresql_new_vectors.cached_vectors, table.name, model, hashes)
        )

    async def cache_vectors(
        self, table: Table[Any], model: str, vectors: Mapping[bytes, bytes], *, keep: int
    ) -> None:
        """See `collections.Collections`."""
        await self._run(
            partial(postgresql_new_vectors.cache_vectors, table.name, model, vectors, keep)
        )

    def change_of_model(
        self, table: Table[R], space: VectorSpace
    ) -> AbstractAsyncContextManager[ChangeOfModel[R]]:
        """See `collections.Collections`."""
        return change_of_model(self._setup, self._statements.of(table), space)


async def _records(
    statements: TableStatements[R],
    ranked: Sequence[tuple[str, float]],
    similarities: Mapping[str, float],
    connection: Any,
) -> list[R]:
    """Return the matches of ids with their scores, in the same order."""
    query, parameters = statements.get_many([record_id for record_id, _ in ranked])
    rows = {row["id"]: row for row in await connection.fetch(query, *parameters)}
    return [
        statements.match(rows[record_id], similarities.get(record_id), score)
        for record_id, score in ranked
    ]
