"""Search by meaning on PostgreSQL with pgvector."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, TypeVar

from paracle_meta.backends import rows as row_rules
from paracle_meta.backends.statements import EMBEDDED
from paracle_meta.validation import vector_to_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.filters import Condition

R = TypeVar("R")


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

    The planner chooses between the index and an exact scan. Where the index gave fewer rows than
    were asked for, which a filter can bring about, the exact scan has the last word.
    """
    models = await connection.fetchrow(statements.models)
    row_rules.check_models(statements.table, model, models)
    sql, parameters = search(statements, conditions)
    parameters = [array("f", vector_to_list(vector)), *parameters, limit]
    rows = await connection.fetch(sql, *parameters)
    if len(rows) < limit:
        async with connection.transaction(readonly=True):
            await connection.execute("SET LOCAL enable_indexscan = off")
            rows = await connection.fetch(sql, *parameters)
    return [
        statements.match(row, row["similarity"])
        for row in rows
        if min_similarity is None or row["similarity"] >= min_similarity
    ]


def search(
    statements: TableStatements[Any], conditions: Sequence[Condition]
) -> tuple[str, list[Any]]:
    """Return the search and its middle parameters: first comes the vector, last the limit."""
    tests, parameters = statements.tests(conditions, start=2)
    tests.append(f"{EMBEDDED} AND embedding IS NOT NULL")
    query = "$1::float4[]::vector"
    return (
        f"SELECT {statements.output}, 1 - (embedding <=> {query}) AS similarity"
        f" FROM {statements.table.name} WHERE {' AND '.join(tests)}"
        f" ORDER BY embedding <=> {query}, id LIMIT ${len(parameters) + 2}",
        parameters,
    )
