"""Storing many portable rows in PostgreSQL, by COPY.

Rows are sent without a look at what is stored, which an empty table does not need. Where the server
refuses them because an id is taken or a row that they refer to is missing, those are looked for and
the others are sent again; from then on the look comes first. So it is the server that decides, also
where others write at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

import asyncpg

from paracle_meta import schema
from paracle_meta.backends import rows as row_rules
from paracle_meta.backends.bulk import Inserted
from paracle_meta.backends.portable_rows import memory_key, parent_of, position, with_whole_vectors
from paracle_meta.backends.postgresql import text as postgresql_text
from paracle_meta.backends.postgresql.errors import is_wrong_width
from paracle_meta.backends.postgresql.rows import records
from paracle_meta.backends.postgresql.snapshot import portable_columns, portable_rows, vector_widths
from paracle_meta.exceptions import ConfigurationError
from paracle_meta.values import check_dimensions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.portable import Row
    from paracle_meta.backends.statements import Statements
    from paracle_meta.schema import Column, Table

T = TypeVar("T")

TRIES: Final = 5
"""How often a batch is sent after a look: each time, another writer has just taken an id in it."""

_REFUSALS: Final = (
    asyncpg.UniqueViolationError,
    asyncpg.ForeignKeyViolationError,
    asyncpg.DataError,
)
"""What the server says of rows that cannot be stored, though some of them may not have to be."""

_SESSION: Final = schema.or_empty("session_id")


class Run(Protocol):
    """Awaits a piece of work with a connection, and translates its errors."""

    def __call__(
        self, work: Callable[[Any], Awaitable[T]], *, repeatable: bool = True
    ) -> Awaitable[T]:
        """Do it, and once more where the connection was lost and that does no harm."""


class Vectors(Protocol):
    """Makes the vector column of a table ready for vectors, and indexes it afterwards."""

    async def prepare(self, table: Table[Any], space: VectorSpace, connection: Any) -> None:
        """See `bulk.Loading`; that the models fit was looked at."""

    async def finish(self, table: Table[Any], connection: Any) -> None:
        """See `bulk.Loading`."""


class _Known(NamedTuple):
    """What was found of what rows name.

    Attributes:
        ids: Those that are taken.
        keys: Of ``memory``, the same.
        missing: Those that rows refer to and that are not stored.
    """

    ids: set[str]
    keys: set[tuple[str, ...]]
    missing: set[str]


class PostgresLoading:
    """See `bulk.Loading`, which is the contract of every method."""

    def __init__(self, statements: Statements, run: Run, vectors: Vectors | None) -> None:
        """Prepare.

        Args:
            statements: Of all tables.
            run: Lends the connection.
            vectors: See there; None where vectors are switched off.
        """
        self._statements = statements
        self._run = run
        self._vectors = vectors
        self._look_first: set[str] = set()

    async def prepare(self, table: Table[Any], space: VectorSpace) -> None:
        """See `bulk.Loading`."""
        vectors = self._vectors
        if vectors is None:
            raise _switched_off(table)

        async def work(connection: Any) -> None:
            await self._check_models(table, {space.model}, connection)
            await vectors.prepare(table, space, connection)

        await self._run(work)

    async def finish(self, table: Table[Any]) -> None:
        """See `bulk.Loading`."""
        if self._vectors is not None:
            await self._run(partial(self._vectors.finish, table))

    async def insert(self, table: Table[Any], rows: Sequence[Row]) -> Inserted:
        """See `bulk.Loading`."""
        work = partial(self._insert, table, with_whole_vectors(table, rows))
        # Repeated after it was done, all of them would be taken.
        return await self._run(work, repeatable=False)

    async def _insert(self, table: Table[Any], rows: Sequence[Row], connection: Any) -> Inserted:
        known = _Known(set(), set(), set())
        tries = TRIES
        while True:
            if table.name in self._look_first:
                known = await self._look(table, rows, connection)
            fresh, inserted = _sort_out(table, rows, known)
            try:
                await self._copy(table, fresh, connection)
            except _REFUSALS as error:
                if table.name in self._look_first:
                    await self._explain(error, table, fresh, connection)
                    tries -= 1
                    if not tries:
                        raise
                self._look_first.add(table.name)
            else:
                return inserted

    async def _look(self, table: Table[Any], rows: Sequence[Row], connection: Any) -> _Known:
        query, parameters = self._statements.of(table).existing([row[0] for row in rows])
        ids = {row[0] for row in await connection.fetch(query, *parameters)}
        keys = set()
        if table is schema.MEMORY:
            query = f"SELECT scope, {_SESSION}, key FROM memory WHERE {_has_key(1)}"
            found = await connection.fetch(query, *_keys(rows))
            keys = {tuple(row) for row in found}
        return _Known(ids, keys, await self._missing_parents(table, rows, connection))

    async def _missing_parents(
        self, table: Table[Any], rows: Sequence[Row], connection: Any
    ) -> set[str]:
        parent = parent_of(table)
        if parent is None:
            return set()
        parents = schema.referenced(table.columns[parent])
        wanted = {row[parent] for row in rows}
        query, parameters = self._statements.of(parents).existing(sorted(wanted))
        return wanted - {row[0] for row in await connection.fetch(query, *parameters)}

    async def _copy(self, table: Table[Any], rows: Sequence[Row], connection: Any) -> None:
        if not rows:
            return
        columns = self._columns(table, rows)
        async with self._writing(table, rows, connection):
            await connection.copy_records_to_table(
                table.name,
                columns=[column.name for column in columns],
                records=records(table, columns, rows),
            )

    async def overwrite(self, table: Table[Any], rows: Sequence[Row]) -> None:
        """See `bulk.Loading`."""
        await self._run(partial(self._overwrite, table, with_whole_vectors(table, rows)))

    async def _overwrite(self, table: Table[Any], rows: Sequence[Row], connection: Any) -> None:
        # The last one of an id counts, and the last one of a key.
        rows = list({row[0]: row for row in rows}.values())
        if table is schema.MEMORY:
            rows = list({memory_key(row): row for row in rows}.values())
        if not rows:
            return
        columns = self._columns(table, rows)
        names = [column.name for column in columns]
        places = ", ".join(f"${n}" for n in range(1, len(names) + 1))
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        try:
            async with self._writing(table, rows, connection):
                if table is schema.MEMORY:
                    await connection.executemany(
                        f"DELETE FROM memory WHERE scope = $1 AND {_SESSION} = $2 AND key = $3"
                        " AND id <> $4",
                        [(*memory_key(row), row[0]) for row in rows],
                    )
                await connection.executemany(
                    f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({places})"
                    f" ON CONFLICT (id) DO UPDATE SET {changes}",
                    records(table, columns, rows),
                )
        except _REFUSALS as error:
            await self._explain(error, table, rows, connection)
            parent = parent_of(table)
            missing = await self._missing_parents(table, rows, connection)
            if parent is None or not missing:
                raise
            raise row_rules.missing_parent(table, table.columns[parent], min(missing)) from error

    async def stored(self, table: Table[Any], rows: Sequence[Row]) -> list[Row]:
        """See `bulk.Loading`."""
        return await self._run(partial(self._stored, table, rows))

    async def _stored(self, table: Table[Any], rows: Sequence[Row], connection: Any) -> list[Row]:
        with_vectors = table.name in await vector_widths(connection)
        sql = (
            f"SELECT {portable_columns(table, vectors=with_vectors)} FROM {table.name}"
            " WHERE id = ANY($1)"
        )
        parameters: list[Any] = [[row[0] for row in rows]]
        if table is schema.MEMORY:
            sql += f" OR {_has_key(2)}"
            parameters += _keys(rows)
        return portable_rows(table, await connection.fetch(f"{sql} ORDER BY id", *parameters))

    @contextlib.asynccontextmanager
    async def _writing(
        self, table: Table[Any], rows: Sequence[Row], connection: Any
    ) -> AsyncIterator[None]:
        """Write rows in the block and then their words, all or nothing; their vectors must fit."""
        async with connection.transaction(), _storing_words(table, rows, connection):
            yield
            if models := {model for _, model in _embedded(table, rows)}:
                await self._check_models(table, models, connection)

    async def _explain(
        self, error: Exception, table: Table[Any], rows: Sequence[Row], connection: Any
    ) -> None:
        """Raise the error of this package where the server has refused the vectors of rows."""
        if not isinstance(error, asyncpg.DataError):
            return
        if not is_wrong_width(error):
            raise error
        embedded = _embedded(table, rows)
        await self._check_models(table, {model for _, model in embedded}, connection)
        width = (await vector_widths(connection))[table.name]
        for vector, model in embedded:
            check_dimensions(f"{table.name}.embedding", vector, model, width)

    async def _check_models(self, table: Table[Any], models: set[str], connection: Any) -> None:
        stored = await connection.fetchrow(self._statements.of(table).models)
        for model in models:
            row_rules.check_models(table, model, stored)

    def _columns(self, table: Table[Any], rows: Sequence[Row]) -> Sequence[Column]:
        if self._vectors is not None or not table.has_vector:
            return table.columns
        if _embedded(table, rows):
            raise _switched_off(table)
        return table.stored_columns


@contextlib.asynccontextmanager
async def _storing_words(
    table: Table[Any], rows: Sequence[Row], connection: Any
) -> AsyncIterator[None]:
    """Store the words of rows after the block, in which they are stored."""
    if not table.searched:
        yield
        return
    # A thread makes them while the server is at the rows.
    making = asyncio.create_task(
        postgresql_text.words_of(table, list(map(partial(_searched, table), rows)))
    )
    try:
        yield
        await postgresql_text.store_many(table, await making, connection)
    finally:
        making.cancel()


def _searched(table: Table[Any], row: Row) -> dict[str, Any]:
    """Return the values whose words are searched, and the id."""
    values = {
        column.name: value
        for column, value in zip(table.columns, row, strict=True)
        if column.name == "id" or column.name in table.searched
    }
    if values.get("tags") is not None:
        values["tags"] = json.loads(values["tags"])
    return values


def _sort_out(table: Table[Any], rows: Sequence[Row], known: _Known) -> tuple[list[Row], Inserted]:
    """Return the rows to store, and what becomes of the others."""
    one_each = table is not schema.MEMORY and len({row[0] for row in rows}) == len(rows)
    if one_each and not any(known):  # As nearly always.
        return list(rows), Inserted()
    parent = parent_of(table)
    ids, keys = set(known.ids), set(known.keys)
    fresh: list[Row] = []
    taken: list[str] = []
    orphans: list[str] = []
    for row in rows:
        key = memory_key(row) if table is schema.MEMORY else None
        if row[0] in ids or key in keys:
            taken.append(row[0])
        elif parent is not None and row[parent] in known.missing:
            orphans.append(row[0])
        else:
            ids.add(row[0])
            if key is not None:
                keys.add(key)
            fresh.append(row)
    return fresh, Inserted(tuple(taken), tuple(orphans))


def _embedded(table: Table[Any], rows: Sequence[Row]) -> list[tuple[bytes, str]]:
    """Return the vectors of rows, each with its model."""
    if not table.has_vector:
        return []
    vector, model = position(table, "embedding"), position(table, "embedding_model")
    return [(row[vector], row[model]) for row in rows if row[vector] is not None]


def _keys(rows: Sequence[Row]) -> list[list[str]]:
    """Return the parameters of `_has_key`."""
    return [list(part) for part in zip(*map(memory_key, rows), strict=True)]


def _has_key(first: int) -> str:
    """Return the test that a memory item has one of the keys in the parameters from `first` on."""
    places = ", ".join(f"${n}::text[]" for n in range(first, first + 3))
    return f"(scope, {_SESSION}, key) IN (SELECT * FROM unnest({places}))"


def _switched_off(table: Table[Any]) -> ConfigurationError:
    return ConfigurationError(
        f"Rows of {table.name} have vectors, but vectors are switched off for this database; "
        "set enable_vectors: true."
    )
