"""All tables of a PostgreSQL database as they are at one moment, read while writers go on.

The server writes the portable form itself, as in Python that would take longer than the reading.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.bulk import BATCH_ROWS, EVER, Period, Unportable
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.backends.portable_rows import position
from paracle_meta.backends.postgresql.codec import little_endian
from paracle_meta.backends.statements import EMBEDDED
from paracle_meta.schema import COLLECTIONS, TABLES, Column, Kind, Table, referencing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from paracle_meta.backends.portable import Row
    from paracle_meta.backends.postgresql.setup import PostgresSetup
    from paracle_meta.backends.statements import Query

BATCH_BYTES: Final = 2 * 1024 * 1024
"""So much text and vectors, give or take a row, end a batch: memory stays flat."""

MANY_BYTES: Final = 8 * 1024
"""Where no row is larger, a full batch fits memory, and nobody need count where one ends."""

SMALL_JSON: Final = 256
"""Bytes up to which a stored list or object counts as so large: compressed, it may have been some
20 KB, which is little enough. Only for the larger ones is the length of their text worth making."""

BATCH_VERSIONS: Final = 10_000
"""Ids and times at once, some 2 MB."""

_COLUMN: Final = """
SELECT c.relname AS name, a.atttypmod AS dimensions
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' AND NOT a.attisdropped
WHERE c.oid = ANY(SELECT to_regclass(name) FROM unnest($1::text[]) AS name)
"""


@contextlib.asynccontextmanager
async def snapshot(connection: Any, setup: PostgresSetup) -> AsyncIterator[PostgresSnapshot]:
    """Hold a snapshot for a block.

    Args:
        connection: In no transaction, and used by nobody else meanwhile.
        setup: Translates errors.
    """
    with setup.translated():
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        await transaction.start()
    try:
        with setup.translated():
            await connection.execute(
                # Going through a table may take longer than any statement of the application, and
                # so may what its rows are put to between two batches.
                "SET LOCAL statement_timeout = 0;"
                "SET LOCAL idle_in_transaction_session_timeout = 0;"
                # Compiling a statement takes longer than running it.
                "SET LOCAL jit = off;"
                # Before the first look at the data, so that no column changes between the two.
                f"LOCK TABLE {', '.join(table.name for table in TABLES)} IN ACCESS SHARE MODE"
            )
            widths = await vector_widths(connection)
        yield PostgresSnapshot(connection, setup, widths)
    finally:
        # Nothing was written; and where the connection is gone, so is the transaction.
        with setup.translated():
            if not connection.is_closed():
                await transaction.rollback()


async def vector_widths(connection: Any) -> dict[str, int]:
    """Return how many numbers the vectors of each table have that has a column for them."""
    return dict(await connection.fetch(_COLUMN, list(COLLECTIONS)))


def portable_columns(table: Table[Any], *, vectors: bool) -> str:
    """Return the output of a query for rows that are portable but for their vectors.

    Args:
        table: Of which one.
        vectors: Whether it has a column for them.
    """
    return ", ".join(_output(column, table, vectors=vectors) for column in table.columns)


def _output(column: Column, table: Table[Any], *, vectors: bool = True) -> str:
    name = column.name
    match column.kind:
        case Kind.TIMESTAMP:
            text = f"to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
            return _finite(name, text, "0001-01-01 00:00:00.000000", "9999-12-31 23:59:59.999999")
        case Kind.DATE:
            return _finite(name, f"to_char({name}, 'YYYY-MM-DD')", "0001-01-01", "9999-12-31")
        case Kind.JSON:
            return f"{name}::text"
        case Kind.TAGS:
            return f"array_to_json({name})::text"
        case Kind.VECTOR:
            return f"CASE WHEN {EMBEDDED} THEN vector_send({name}) END" if vectors else "NULL"
        case _ if table.has_vector and name == "embedding_model":
            return f"CASE WHEN embedding IS NOT NULL THEN {name} END" if vectors else "NULL"
        case _:
            return name


def _finite(name: str, text: str, first: str, last: str) -> str:
    """Return the text of a time; infinity is the last one that Python knows, as for asyncpg."""
    return (
        f"CASE WHEN {name} = 'infinity' THEN '{last}' WHEN {name} = '-infinity' THEN '{first}'"
        f" ELSE {text} END"
    )


def within(table: Table[Any], period: Period) -> Query:
    """Return the condition that rows are of a period, and its parameters.

    A row that one from the period refers to is among them.
    """
    if period == EVER:
        return "true", []
    bounds = {">=": period.since, "<": period.until}
    moments = [(sign, moment) for sign, moment in bounds.items() if moment is not None]
    made = " AND ".join(f"created_at {sign} ${n}" for n, (sign, _) in enumerate(moments, 1))
    tests = [made]
    for child, column in referencing(table):
        tests.append(f"id IN (SELECT {column.name} FROM {child.name} WHERE {made})")
    return " OR ".join(tests), [moment for _, moment in moments]


class PostgresSnapshot:
    """See `bulk.Snapshot`, which is the contract of every method."""

    def __init__(self, connection: Any, setup: PostgresSetup, widths: Mapping[str, int]) -> None:
        """Prepare; see `snapshot`."""
        self._connection = connection
        self._setup = setup
        self._widths = widths
        # A connection does one thing at a time.
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[Any]:
        with self._setup.translated():
            async with self._turn:
                yield self._connection

    async def count(self, table: Table[Any], period: Period = EVER) -> int:
        """See `bulk.Snapshot`."""
        where, parameters = within(table, period)
        async with self._reading() as connection:
            return int(
                await connection.fetchval(
                    f"SELECT count(*) FROM {table.name} WHERE {where}", *parameters
                )
            )

    async def vector_spaces(self, table: Table[Any]) -> list[VectorSpace]:
        """See `bulk.Snapshot`."""
        if table.name not in self._widths:
            return []
        width = self._widths[table.name]
        # Looking at a vector means to read it; the column tells how wide all of them are.
        dimensions = width if width > 0 else "vector_dims(embedding)"
        async with self._reading() as connection:
            found = await connection.fetch(
                f"SELECT DISTINCT embedding_model, {dimensions} FROM {table.name}"
                f" WHERE {EMBEDDED} AND embedding IS NOT NULL ORDER BY 1, 2"
            )
        return [VectorSpace(model, dimensions) for model, dimensions in found]

    async def orphans(self, table: Table[Any]) -> int:
        """See `bulk.Snapshot`."""
        del table  # The keys of the tables have kept them away.
        return 0

    async def rows(
        self,
        table: Table[Any],
        period: Period = EVER,
        *,
        tested: bool = False,  # noqa: ARG002 - see `unportable`
        most: int = BATCH_ROWS,
    ) -> AsyncIterator[list[Row]]:
        """See `bulk.Snapshot`."""
        where, parameters = within(table, period)
        sql = f"SELECT {self._columns(table)} FROM {table.name} WHERE {where} ORDER BY id"
        batches = await self._batches(table, where, parameters, most)
        async with self._reading() as connection:
            cursor = await connection.cursor(sql, *parameters)
        while True:
            async with self._reading():
                records = await cursor.fetch(next(batches, most))
            if not records:
                return
            yield portable_rows(table, records)

    async def rows_of(self, table: Table[Any], ids: Sequence[str]) -> list[Row]:
        """See `bulk.Snapshot`."""
        sql = f"SELECT {self._columns(table)} FROM {table.name} WHERE id = ANY($1) ORDER BY id"
        async with self._reading() as connection:
            return portable_rows(table, await connection.fetch(sql, list(ids)))

    async def versions(self, table: Table[Any]) -> AsyncIterator[list[tuple[str, str]]]:
        """See `bulk.Snapshot`."""
        column = table.columns[position(table, "updated_at")]
        sql = f"SELECT id, {_output(column, table)} FROM {table.name} ORDER BY id"
        async with self._reading() as connection:
            cursor = await connection.cursor(sql)
        while True:
            async with self._reading():
                records = await cursor.fetch(BATCH_VERSIONS)
            if not records:
                return
            yield [tuple(record) for record in records]

    async def unportable(
        self, table: Table[Any], period: Period = EVER
    ) -> AsyncIterator[Unportable]:
        """See `bulk.Snapshot`."""
        del table, period
        # The types of the columns have kept away what is meant.
        nothing: tuple[Unportable, ...] = ()
        for value in nothing:
            yield value

    def _columns(self, table: Table[Any]) -> str:
        return portable_columns(table, vectors=table.name in self._widths)

    async def _batches(
        self, table: Table[Any], where: str, parameters: Sequence[Any], most: int
    ) -> Iterator[int]:
        """Return how many rows to fetch each time, in turn; afterwards, as many as there may be."""
        sized = f"SELECT id, {self._size(table)} AS size FROM {table.name} WHERE {where}"
        async with self._reading() as connection:
            largest = await connection.fetchval(
                f"SELECT max(size) FROM ({sized}) AS rows", *parameters
            )
            if largest is None or largest <= MANY_BYTES:
                return iter(())
            batches = await connection.fetch(
                "SELECT count(*) FROM (SELECT sum(size) OVER (ORDER BY id"
                f" ROWS UNBOUNDED PRECEDING) / {BATCH_BYTES} AS batch FROM ({sized}) AS rows)"
                " AS placed GROUP BY batch ORDER BY batch",
                *parameters,
            )
        return (min(most, count - first) for (count,) in batches for first in range(0, count, most))

    def _size(self, table: Table[Any]) -> str:
        """Return how many bytes of a row decide its size, read without its long values."""
        sizes = []
        for column in table.columns:
            name = column.name
            match column.kind:
                case Kind.STRING | Kind.TEXT | Kind.JSON_TEXT:
                    sizes.append(f"COALESCE(octet_length({name}), 0)::bigint")
                case Kind.JSON | Kind.TAGS:
                    sizes.append(
                        f"CASE WHEN pg_column_size({name}) > {SMALL_JSON}"
                        f" THEN octet_length({_output(column, table)}) ELSE {SMALL_JSON} END"
                    )
                case Kind.VECTOR if table.name in self._widths:
                    sizes.append(f"COALESCE(pg_column_size({name}), 0)")
        # The sum of these is a number that is quick to add up.
        return f"least({' + '.join(sizes) or '0'}, 1000000000)::int"


def portable_rows(table: Table[Any], records: Sequence[Any]) -> list[Row]:
    """Return the rows of a query with `portable_columns`."""
    if not table.has_vector:
        return [tuple(record) for record in records]
    place = position(table, "embedding")
    return [_with_vector(tuple(record), place) for record in records]


def _with_vector(row: Row, place: int) -> Row:
    sent = row[place]
    return row if sent is None else (*row[:place], little_endian(sent), *row[place + 1 :])
