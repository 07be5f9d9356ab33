"""Storing new records in SQLite, in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from paracle_meta.backends import rows as row_rules
from paracle_meta.backends.base import Stored
from paracle_meta.backends.sqlite import text as sqlite_text
from paracle_meta.backends.sqlite.files import lock, transaction
from paracle_meta.backends.sqlite.new_vectors import check_stored
from paracle_meta.schema import referenced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.base import Values
    from paracle_meta.backends.statements import Statements
    from paracle_meta.schema import Column, Table

R = TypeVar("R")


def insert(
    statements: Statements, table: Table[R], rows: Sequence[Values], connection: Any
) -> Stored[R]:
    """Store rows and their words; see `base.Backend.insert`."""
    mine = statements.of(table)
    columns = row_rules.columns_to_insert(table, rows)
    parents = [column for column in table.columns if column.references]
    model = row_rules.vector_model(table, rows)
    encode = mine.row_encoder(columns)
    is_alone = len(rows) == 1 and not (parents or model or table.searched)
    # A statement by itself is a transaction too. Where the id is taken, it has done nothing.
    if is_alone and connection.execute(mine.insert(columns), encode(rows[0])).rowcount:
        return Stored(row_rules.new_records(table, rows), 1)
    with transaction(connection):
        for column in parents:
            lock(connection, table)
            _check_parents(statements, table, column, rows, connection)
        if model:
            lock(connection, table)
            check_stored(mine, model, connection)
        # Made one by one: a list of all would keep Python's garbage collector busy.
        cursor = connection.executemany(mine.insert(columns), map(encode, rows))
        if table.searched:
            sqlite_text.take_over(connection, table, [row["id"] for row in rows])
        if cursor.rowcount == len(rows):
            return Stored(row_rules.new_records(table, rows), cursor.rowcount)
        found = connection.execute(*mine.get_many([row["id"] for row in rows]))
        stored = row_rules.stored_records(table, rows, map(mine.record, found))
        return Stored(stored, cursor.rowcount)


def _check_parents(
    statements: Statements,
    table: Table[Any],
    column: Column,
    rows: Sequence[Values],
    connection: Any,
) -> None:
    parents = referenced(column)
    ids = sorted({row["id"] for row in rows})
    stored = {row[0] for row in connection.execute(*statements.of(table).existing(ids))}
    # Only the first row of an id that is not stored will be inserted; as on PostgreSQL, any
    # other is compared with it, whatever it refers to.
    new = {row["id"]: row for row in reversed(rows) if row["id"] not in stored}
    wanted = {row[column.name] for row in new.values()}
    found = connection.execute(*statements.of(parents).existing(sorted(wanted)))
    row_rules.check_parents(table, column, wanted, {row[0] for row in found})
