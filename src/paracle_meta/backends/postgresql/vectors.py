"""Search by meaning on PostgreSQL with pgvector."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from paracle_meta.backends import rows as row_rules
from paracle_meta.backends.postgresql.errors import DRIVER_ERRORS, is_wrong_width
from paracle_meta.backends.postgresql.provision import (
    MAX_HALF_DIMENSIONS,
    MAX_WHOLE_DIMENSIONS,
    indexed,
)
from paracle_meta.backends.statements import EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.filters import Condition

R = TypeVar("R")

VECTOR_NUMBER_BYTES: Final = 4
"""float32."""

MARGIN: Final = 5
"""Candidates beyond those wanted.

The index gives what it finds in about the right order, so that the last of those wanted may stand a
little behind. With 10 or 40 instead nothing more was found through filters that 3% of the rows or
more meet; the more are wanted, the longer a filtered search looks.
"""

SAMPLE_PAGES: Final = 25
"""Pages of a table that are looked at to tell how many rows meet a filter: 0.1 ms."""

BROAD: Final = 25
"""A filter is met through the index where at least one row in so many of the sample meets it.

Below that the index looks at more rows than the filter lets through, and overlooks more than one in
a hundred of them; docs/decisions/0013-postgresql-vector-index.md has the measurement.
"""

REMEMBERED_SECONDS: Final = 60.0
"""How long an answer about a table is trusted: most programs repeat their filters.

An old one costs time and no rows, since both ways of searching are right.
"""

REMEMBERED: Final = 1_000
"""Most answers that are kept, some hundred kB; filters with ever new values would fill the memory.
"""


class VectorSearch:
    """Searches by meaning, and what they found out about tables and filters lately."""

    def __init__(self, local_settings: str = "") -> None:
        """Prepare.

        Args:
            local_settings: SQL that makes settings for the transaction of a search; empty where the
                connections have them.
        """
        self._local_settings = local_settings
        self._answers: dict[Hashable, tuple[float, bool]] = {}

    async def nearest(
        self,
        statements: TableStatements[R],
        vector: bytes,
        conditions: Sequence[Condition],
        model: str,
        limit: int,
        min_similarity: float | None,
        connection: Any,
    ) -> list[R]:
        """Return the closest records; see `collections.Collections.search`.

        Args:
            statements: Those of the table.
            vector: What to compare with, as `validation.check_vector` makes it.
            conditions: All must hold.
            model: Of the vector.
            limit: How many at most.
            min_similarity: Leave out what is less similar.
            connection: In no transaction.

        Raises:
            EmbeddingModelMismatchError: The collection holds vectors of another model.
        """
        try:
            if self._recall((statements.table.name, model)) is None:
                await check_stored(statements, model, connection)
                self._remember((statements.table.name, model), True)
            output = statements.output
            rows = await self._found(
                statements, output, vector, conditions, model, limit, connection
            )
        except DRIVER_ERRORS as error:
            if is_wrong_width(error):
                # The server refuses to compare vectors of different lengths, as those of two models
                # may be.
                await check_stored(statements, model, connection)
            raise
        return [
            statements.match(row, similarity, similarity)
            for row in rows
            for similarity in [1 - row["distance"]]
            if min_similarity is None or similarity >= min_similarity
        ]

    async def nearest_ids(
        self,
        statements: TableStatements[Any],
        vector: bytes,
        conditions: Sequence[Condition],
        model: str,
        limit: int,
        connection: Any,
    ) -> list[tuple[str, float]]:
        """Return ids of the closest records with their similarities, without reading the records.

        Args:
            statements: Those of the table.
            vector: What to compare with, as `validation.check_vector` makes it.
            conditions: All must hold.
            model: Of the vector.
            limit: How many at most.
            connection: In a transaction with one snapshot.

        Raises:
            EmbeddingModelMismatchError: The collection holds vectors of another model.
        """
        # Before comparing, as a transaction does not outlive an error of the server.
        await check_stored(statements, model, connection)
        output = "id, embedding_model"
        rows = await self._found(statements, output, vector, conditions, model, limit, connection)
        return [(row["id"], 1 - row["distance"]) for row in rows]

    async def _found(
        self,
        statements: TableStatements[Any],
        output: str,
        vector: bytes,
        conditions: Sequence[Condition],
        model: str,
        limit: int,
        connection: Any,
    ) -> list[Any]:
        """Return the closest rows in order: the columns of `output`, then ``distance``."""
        tests, parameters = statements.tests(conditions, start=2)
        dimensions = len(vector) // VECTOR_NUMBER_BYTES

        async def ask(*, by_index: bool) -> list[Any]:
            sql = search(
                statements.table.name, tests, dimensions, limit, output=output, by_index=by_index
            )
            rows: list[Any] = await self._fetch(sql, [vector, *parameters], connection)
            # By the rows themselves, so that it holds for the very moment of the comparison.
            models = {row["embedding_model"] for row in rows}
            row_rules.check_models(statements.table, model, models)
            return rows

        # In words, since values may be lists, and 1 and true are no more equal there.
        question = (statements.table.name, *tests, repr(parameters))
        if await self._suits_index(question, statements, conditions, dimensions, connection):
            rows = await ask(by_index=True)
            rows.sort(key=_rank)
            # Among rows as close as the last one wanted the id decides, so none may be missing.
            if len(rows) >= limit and (
                len(rows) < limit + MARGIN or rows[-1]["distance"] > rows[limit - 1]["distance"]
            ):
                return rows[:limit]
        rows = await ask(by_index=False)
        if not rows:
            await check_stored(statements, model, connection)
        return rows

    async def _fetch(self, sql: str, parameters: Sequence[Any], connection: Any) -> Any:
        if not self._local_settings:
            return await connection.fetch(sql, *parameters)
        async with connection.transaction():
            await connection.execute(self._local_settings)
            return await connection.fetch(sql, *parameters)

    async def _suits_index(
        self,
        question: Hashable,
        statements: TableStatements[Any],
        conditions: Sequence[Condition],
        dimensions: int,
        connection: Any,
    ) -> bool:
        """Return whether a search should try the index, by a look at the table or from memory."""
        if dimensions > MAX_HALF_DIMENSIONS:
            return False
        if not conditions and dimensions <= MAX_WHOLE_DIMENSIONS:
            # Where there is no index, the same statement compares every row.
            return True
        answer = self._recall(question)
        if answer is None:
            tests, parameters = statements.tests(conditions)
            sql = _looks_broad(statements.table.name, tests)
            answer = bool(await connection.fetchval(sql, *parameters))
            self._remember(question, answer)
        return answer

    def _recall(self, question: Hashable) -> bool | None:
        found_at, answer = self._answers.get(question, (float("-inf"), False))
        return answer if time.monotonic() - found_at < REMEMBERED_SECONDS else None

    def _remember(self, question: Hashable, answer: bool) -> None:
        self._answers.pop(question, None)
        if len(self._answers) >= REMEMBERED:
            # A dict keeps the order of what was put in: the first is the oldest.
            del self._answers[next(iter(self._answers))]
        self._answers[question] = time.monotonic(), answer


async def check_stored(statements: TableStatements[Any], model: str, connection: Any) -> None:
    """Raise EmbeddingModelMismatchError where any stored vector is of another model."""
    models = await connection.fetchrow(statements.models)
    row_rules.check_models(statements.table, model, models)


def search(
    table: str,
    tests: Sequence[str],
    dimensions: int,
    limit: int,
    *,
    output: str,
    by_index: bool,
) -> str:
    """Return the search for the rows closest to the vector that is its first parameter.

    Args:
        table: Where to look.
        tests: All must hold; their parameters come after the vector.
        dimensions: Of the vectors.
        limit: How many are wanted. It stands in the statement, as the server would plan for a share
            of the table if it did not know.
        output: The columns to return before ``distance``.
        by_index: Return some candidates more, in about the right order. Otherwise order by
            something that no index is in the order of, so that all rows are compared.
    """
    where = " AND ".join([*tests, f"{EMBEDDED} AND embedding IS NOT NULL"])
    distance = "embedding <=> $1::vector"
    if by_index:
        query = indexed("$1::vector", dimensions)
        order = f"{indexed('embedding', dimensions)} <=> {query} LIMIT {limit + MARGIN}"
    else:
        order = f"0 + ({distance}), id LIMIT {limit}"
    return f"SELECT {output}, {distance} AS distance FROM {table} WHERE {where} ORDER BY {order}"


def _rank(row: Any) -> tuple[float, str]:
    return row["distance"], row["id"]


def _looks_broad(table: str, tests: Sequence[str]) -> str:
    """Return whether there is an index, and the filter is broad, by a look at some pages.

    The planner's statistics are not asked: they may be old, and take conditions for independent.
    """
    there = f"SELECT to_regclass('{table}_embedding_idx') IS NOT NULL"
    if not tests:
        return there
    pages = f"pg_relation_size('{table}') / current_setting('block_size')::bigint"
    share = f"least(100, {SAMPLE_PAGES} * 100.0 / greatest(1, {pages}))"
    return (
        f"{there} AND (SELECT count(*) FILTER (WHERE {' AND '.join(tests)}) * {BROAD}"
        # The same pages each time, so that a search can be repeated.
        f" >= count(*) FROM {table} TABLESAMPLE SYSTEM ({share}) REPEATABLE (0))"
    )
