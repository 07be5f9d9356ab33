"""SQL about records and those that refer to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.statements import Query, Statements
    from paracle_meta.filters import Condition
    from paracle_meta.schema import Table


def count_referring(
    statements: Statements,
    table: Table[Any],
    conditions: Sequence[Condition],
    child: Table[Any],
    child_conditions: Sequence[Condition],
) -> Query:
    """How many rows of `child` meet conditions and refer to rows of `table` that do."""
    (column,) = (column for other, column in schema.referencing(table) if other is child)
    tests, parameters = statements.of(child).tests(child_conditions)
    parents, more = statements.of(table).ids(conditions, start=len(parameters) + 1)
    tests.append(f"{column.name} IN ({parents})")
    return f"SELECT count(*) FROM {child.name} WHERE {' AND '.join(tests)}", parameters + more
