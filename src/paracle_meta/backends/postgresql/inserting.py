"""Storing new records in PostgreSQL: a statement for few, COPY for many."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from paracle_meta.backends import rows as row_rules
from paracle_meta.backends.base import Stored
from paracle_meta.backends.postgresql import text as postgresql_text
from paracle_meta.backends.postgresql.vectors import check_stored
from paracle_meta.schema import referenced
from paracle_meta.turns import each_in_turn, in_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.base import Values
    from paracle_meta.backends.postgresql.text import Words
    from paracle_meta.backends.statements import Statements, TableStatements
    from paracle_meta.schema import Column, Table

R = TypeVar("R")

COPIED_ROWS: Final = 20
"""From so many rows on COPY is faster than a statement a row, though it needs a savepoint."""

_NO_COPY: Final = (asyncpg.UniqueViolationError, asyncpg.FeatureNotSupportedError)
"""COPY leaves out no row whose id is taken, and is not for tables with row-level security."""


async def insert(
    statements: Statements,
    table: Table[R],
    rows: Sequence[Values],
    words: Sequence[Words],
    connection: Any,
) -> Stored[R]:
    """Store rows and their words; see `base.Backend.insert`."""
    model = row_rules.vector_model(table, rows)
    try:
        if len(rows) == 1 and not words:
            return await _store(statements.of(table), rows, words, connection)
        async with connection.transaction():
            if model is not None:
                await check_stored(statements.of(table), model, connection)
            return await _store(statements.of(table), rows, words, connection)
    except asyncpg.ForeignKeyViolationError as error:
        raise await _missing_parent(statements, table, rows, connection) from error


async def _store(
    statements: TableStatements[R], rows: Sequence[Values], words: Sequence[Words], connection: Any
) -> Stored[R]:
    table = statements.table
    columns = row_rules.columns_to_insert(table, rows)
    new = await _insert(statements, columns, rows, connection)
    # Of several rows with one id the first is stored.
    first = {each.record_id: each for each in reversed(words)}
    if new_words := [first[record_id] for record_id in new if record_id in first]:
        await postgresql_text.store_many(table, new_words, connection)
    if len(new) == len(rows):
        return Stored(row_rules.new_records(table, rows), len(new))
    query, ids = statements.get_many([row["id"] for row in rows])
    found = map(statements.record, await connection.fetch(query, *ids))
    return Stored(row_rules.stored_records(table, rows, found), len(new))


async def _insert(
    statements: TableStatements[Any],
    columns: Sequence[Column],
    rows: Sequence[Values],
    connection: Any,
) -> set[str]:
    """Insert the rows whose id is not taken, and return their ids."""
    encode = statements.row_encoder(columns)
    if len(rows) >= COPIED_ROWS:
        with contextlib.suppress(*_NO_COPY):
            async with connection.transaction():
                await connection.copy_records_to_table(
                    statements.table.name,
                    columns=[column.name for column in columns],
                    records=each_in_turn(encode, rows),
                )
            return {row["id"] for row in rows}
    inserted = await connection.fetchmany(
        f"{statements.insert(columns)} RETURNING id", await in_turns(encode, rows)
    )
    return {row["id"] for row in inserted}


async def _missing_parent(
    statements: Statements, table: Table[Any], rows: Sequence[Values], connection: Any
) -> Exception:
    for column in table.columns:
        if column.references:
            parents = referenced(column)
            wanted = {row[column.name] for row in rows}
            query, ids = statements.of(parents).existing(sorted(wanted))
            found = {row[0] for row in await connection.fetch(query, *ids)}
            return row_rules.missing_parent(table, column, min(wanted - found, default=""))
    raise LookupError(table.name)
