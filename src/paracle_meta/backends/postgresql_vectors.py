"""Search by meaning on PostgreSQL with pgvector."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final, TypeVar

from paracle_meta.backends import rows as row_rules
from paracle_meta.backends.postgresql_provision import (
    MAX_HALF_DIMENSIONS,
    MAX_INDEXED_DIMENSIONS,
)
from paracle_meta.backends.statements import EMBEDDED
from paracle_meta.validation import vector_to_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.filters import Condition

R = TypeVar("R")

EXACT_ROWS: Final = 5_000
"""A filter that lets through at most so many rows is met by comparing all of them.

The index would have to look at many rows that the filter refuses, and miss some that it lets
through.
"""

HALF_MARGIN: Final = 40
"""Candidates beyond those wanted where vectors were found by half of each number."""

_QUERY: Final = "$1::float4[]::vector"


async def nearest(
    statements: TableStatements[R],
    vector: bytes,
    conditions: Sequence[Condition],
    model: str,
    limit: int,
    min_similarity: float | None,
    connection: Any,
) -> list[R]:
    """Return the closest records; see `base.Backend.nearest`.

    The planner chooses between the index and an exact scan, but for a selective filter. Where the
    index gave fewer rows than were asked for, the exact scan has the last word.
    """
    models = await connection.fetchrow(statements.models)
    row_rules.check_models(statements.table, model, models)
    query = array("f", vector_to_list(vector))
    exact = bool(conditions) and await _is_selective(statements, conditions, connection)
    rows = await _found(statements, query, conditions, limit, exact, connection)
    if len(rows) < limit and not exact:
        rows = await _found(statements, query, conditions, limit, True, connection)
    return [
        statements.match(row, row["similarity"])
        for row in rows
        if min_similarity is None or row["similarity"] >= min_similarity
    ]


async def _is_selective(
    statements: TableStatements[Any], conditions: Sequence[Condition], connection: Any
) -> bool:
    tests, parameters = statements.tests(conditions)
    matching = await connection.fetchval(
        f"SELECT count(*) FROM (SELECT 1 FROM {statements.table.name}"
        f" WHERE {' AND '.join(tests)} LIMIT {EXACT_ROWS + 1}) matching",
        *parameters,
    )
    return bool(matching <= EXACT_ROWS)


async def _found(
    statements: TableStatements[Any],
    query: array[float],
    conditions: Sequence[Condition],
    limit: int,
    exact: bool,
    connection: Any,
) -> list[Any]:
    sql, parameters = search(statements, conditions, len(query), exact=exact)
    rows: list[Any] = await connection.fetch(sql, query, *parameters, limit)
    return rows


def search(
    statements: TableStatements[Any],
    conditions: Sequence[Condition],
    dimensions: int,
    *,
    exact: bool = False,
) -> tuple[str, list[Any]]:
    """Return the search and its middle parameters: first comes the vector, last the limit.

    Args:
        statements: Those of the table.
        conditions: All must hold.
        dimensions: Of the vectors.
        exact: Order by something that no index is in the order of, so that all rows are compared.
    """
    tests, parameters = statements.tests(conditions, start=2)
    tests.append(f"{EMBEDDED} AND embedding IS NOT NULL")
    table, limit = statements.table.name, f"${len(parameters) + 2}::bigint"
    distance = f"embedding <=> {_QUERY}"
    order = f"0 + ({distance})" if exact else distance
    if not exact and MAX_INDEXED_DIMENSIONS < dimensions <= MAX_HALF_DIMENSIONS:
        # The index holds half of each number: what it finds is compared again in full.
        half = f"halfvec({dimensions})"
        near = (
            f"SELECT id FROM {table} WHERE {' AND '.join(tests)}"
            f" ORDER BY embedding::{half} <=> {_QUERY}::{half} LIMIT {limit} + {HALF_MARGIN}"
        )
        tests = [f"id IN ({near})"]
    return (
        f"SELECT {statements.output}, 1 - ({distance}) AS similarity"
        f" FROM {table} WHERE {' AND '.join(tests)} ORDER BY {order}, id LIMIT {limit}",
        parameters,
    )
