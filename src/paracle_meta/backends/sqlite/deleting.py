"""Deleting records from the SQLite files together with what refers to them.

A record and its children are in two files, and a transaction over two files is atomic a file only.
So the children go first, in a transaction of their own; a child that another process adds in
between is found by the next round.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from paracle_meta import schema
from paracle_meta.backends import rows as row_rules
from paracle_meta.backends.sqlite import text as sqlite_text
from paracle_meta.backends.sqlite.files import lock, transaction
from paracle_meta.filters import Condition, Operator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.statements import Statements
    from paracle_meta.schema import Table


def tables_with(table: Table[Any]) -> list[Table[Any]]:
    """Return a table and those that refer to it: what deleting from it writes to."""
    return [table, *(child for child, _ in schema.referencing(table))]


def delete(
    statements: Statements, table: Table[Any], record_id: str, cascade: bool, connection: Any
) -> bool:
    """Delete a record and return whether there was one; see `base.Backend.delete`."""
    while True:
        with transaction(connection):
            lock(connection, table)
            if not _delete_children(statements, table, [record_id], connection, cascade=cascade):
                return bool(_delete_rows(statements, table, [record_id], connection))


def delete_batch(
    statements: Statements,
    table: Table[Any],
    conditions: Sequence[Condition],
    limit: int,
    connection: Any,
) -> dict[str, int]:
    """Delete some records and count them; see `retention.Retention`."""
    deleted = Counter({each.name: 0 for each in tables_with(table)})
    while True:
        with transaction(connection):
            lock(connection, table)
            query = statements.of(table).oldest_ids(conditions, limit)
            ids = [row[0] for row in connection.execute(*query)]
            children = _delete_children(statements, table, ids, connection, cascade=True)
            deleted.update(children)
            if not children:
                deleted[table.name] = _delete_rows(statements, table, ids, connection)
                return dict(deleted)


def _delete_children(
    statements: Statements,
    table: Table[Any],
    ids: Sequence[str],
    connection: Any,
    *,
    cascade: bool,
) -> dict[str, int]:
    for child, column in schema.referencing(table):
        lock(connection, child)
        theirs = (Condition(column, Operator.IN, ids),)
        if not connection.execute(*statements.of(child).count(theirs)).fetchone()[0]:
            continue
        if not cascade:
            raise row_rules.in_use(table, child)
        cursor = connection.execute(*statements.of(child).delete_where(theirs))
        return {child.name: int(cursor.rowcount)}
    return {}


def _delete_rows(
    statements: Statements, table: Table[Any], ids: Sequence[str], connection: Any
) -> int:
    these = (Condition(table.columns[0], Operator.IN, ids),)
    deleted = int(connection.execute(*statements.of(table).delete_where(these)).rowcount)
    if table.searched:
        sqlite_text.take_over(connection, table, ids)
    return deleted
