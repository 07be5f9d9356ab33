"""Storing many portable rows in SQLite, which keeps them as they are.

The index of the vectors is not made here: the next search makes it.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from paracle_meta import schema
from paracle_meta.backends import rows as row_rules
from paracle_meta.backends.bulk import Inserted
from paracle_meta.backends.portable_rows import memory_key, parent_of, position, with_whole_vectors
from paracle_meta.backends.sqlite import text as sqlite_text
from paracle_meta.backends.sqlite.files import lock, transaction
from paracle_meta.backends.sqlite.reading import create_functions, portable_columns
from paracle_meta.backends.statements import EMBEDDED
from paracle_meta.values import check_dimensions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.portable import Row
    from paracle_meta.backends.sqlite.search import Read, Write
    from paracle_meta.backends.statements import Statements
    from paracle_meta.schema import Table

_HAS_KEY: Final = f"(scope = ? AND {schema.or_empty('session_id')} = ? AND key = ?)"


class SqliteLoading:
    """See `bulk.Loading`, which is the contract of every method."""

    def __init__(self, statements: Statements, read: Read, write: Write) -> None:
        """Prepare.

        Args:
            statements: Of all tables.
            read: Runs a piece of work with a connection.
            write: The same, when it is the turn of a writer to these tables.
        """
        self._statements = statements
        self._read = read
        self._write = write

    async def prepare(self, table: Table[Any], space: VectorSpace) -> None:
        """See `bulk.Loading`."""
        await self._write([table], partial(self._check_models, table, {space.model}))

    async def insert(self, table: Table[Any], rows: Sequence[Row]) -> Inserted:
        """See `bulk.Loading`."""
        return await self._write([table], partial(self._insert, table, rows))

    async def overwrite(self, table: Table[Any], rows: Sequence[Row]) -> None:
        """See `bulk.Loading`."""
        await self._write([table], partial(self._overwrite, table, rows))

    async def finish(self, table: Table[Any]) -> None:
        """See `bulk.Loading`."""

    async def stored(self, table: Table[Any], rows: Sequence[Row]) -> list[Row]:
        """See `bulk.Loading`."""
        return await self._read(partial(_stored, table, rows))

    def _insert(self, table: Table[Any], rows: Sequence[Row], connection: Any) -> Inserted:
        sql = f"{_insert_sql(table)} ON CONFLICT DO NOTHING"
        stored: list[Row] = []
        taken: list[str] = []
        orphans: list[str] = []
        with _all_or_none(connection):
            lock(connection, table)
            missing = self._missing_parents(table, rows, connection)
            parent = parent_of(table)
            for row in with_whole_vectors(table, rows):
                if parent is not None and row[parent] in missing:
                    known = connection.execute(self._statements.of(table).get, (row[0],)).fetchone()
                    (orphans if known is None else taken).append(row[0])
                elif connection.execute(sql, row).rowcount:
                    stored.append(row)
                else:
                    taken.append(row[0])
            self._complete(table, stored, connection)
        return Inserted(tuple(taken), tuple(orphans))

    def _overwrite(self, table: Table[Any], rows: Sequence[Row], connection: Any) -> None:
        names = [column.name for column in table.columns]
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        sql = f"{_insert_sql(table)} ON CONFLICT (id) DO UPDATE SET {changes}"
        given = with_whole_vectors(table, rows)
        with _all_or_none(connection):
            lock(connection, table)
            parent = parent_of(table)
            if parent is not None and (missing := self._missing_parents(table, rows, connection)):
                raise row_rules.missing_parent(table, table.columns[parent], min(missing))
            for row in given:
                if table is schema.MEMORY:
                    _make_room(row, connection)
                connection.execute(sql, row)
            self._complete(table, given, connection)

    def _missing_parents(self, table: Table[Any], rows: Sequence[Row], connection: Any) -> set[str]:
        """Return the ids that rows refer to and that are not stored."""
        parent = parent_of(table)
        if parent is None:
            return set()
        parents = schema.referenced(table.columns[parent])
        wanted = {row[parent] for row in rows}
        found = connection.execute(*self._statements.of(parents).existing(sorted(wanted)))
        return wanted - {row[0] for row in found}

    def _complete(self, table: Table[Any], rows: Sequence[Row], connection: Any) -> None:
        """Take over the words of rows that were written, and see that their vectors fit."""
        if table.searched:
            sqlite_text.take_over(connection, table, [row[0] for row in rows])
        if not table.has_vector:
            return
        vector, model = position(table, "embedding"), position(table, "embedding_model")
        embedded = [row for row in rows if row[vector] is not None]
        if not embedded:
            return
        self._check_models(table, {row[model] for row in embedded}, connection)
        (size,) = connection.execute(
            f"SELECT length(embedding) FROM {table.name} WHERE {EMBEDDED} LIMIT 1"
        ).fetchone()
        where = f"{table.name}.embedding"
        for row in embedded:
            check_dimensions(where, row[vector], row[model], size // 4)

    def _check_models(self, table: Table[Any], models: set[str], connection: Any) -> None:
        stored = connection.execute(self._statements.of(table).models).fetchone()
        for model in models:
            row_rules.check_models(table, model, stored)


def _insert_sql(table: Table[Any]) -> str:
    names = ", ".join(column.name for column in table.columns)
    places = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} ({names}) VALUES ({places})"


def _make_room(row: Row, connection: Any) -> None:
    """Delete the memory item that has the key of a row and another id."""
    connection.execute(
        f"DELETE FROM memory WHERE {_HAS_KEY} AND id <> ?", (*memory_key(row), row[0])
    )


def _stored(table: Table[Any], rows: Sequence[Row], connection: Any) -> list[Row]:
    create_functions(connection)
    sql = f"SELECT {portable_columns(table)} FROM {table.name} WHERE id = ?"
    if table is schema.MEMORY:
        sql += f" OR {_HAS_KEY}"
    found: dict[str, Row] = {}
    for row in rows:
        key = memory_key(row) if table is schema.MEMORY else ()
        for stored in connection.execute(sql, (row[0], *key)):
            found[stored[0]] = stored
    return [found[record_id] for record_id in sorted(found)]


@contextlib.contextmanager
def _all_or_none(connection: Any) -> Iterator[None]:
    """Undo what the block has written where it raises, and nothing that was written before."""
    if not connection.in_transaction:
        with transaction(connection):
            yield
        return
    connection.execute("SAVEPOINT batch")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO batch")
        raise
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE batch")
