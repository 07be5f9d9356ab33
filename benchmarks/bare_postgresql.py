"""A bare pool of asyncpg, whose connections keep prepared statements by their text."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from benchmarks import bare, stock
from paracle_meta.backends.postgresql.rows import records
from paracle_meta.schema import COSTS, GENERATIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from paracle_meta.backends.portable import Row
    from paracle_meta.schema import Table

POOL: Final = 10
"""Connections, as many as ours has where nothing is said."""

MONTH: Final = (stock.MONTH, stock.MONTH.replace(day=31))


def insert_sql(table: Table[Any]) -> str:
    """Return the statement that stores a row unless its id is taken, as ours does."""
    places = ", ".join(f"${n}" for n in range(1, len(table.columns) + 1))
    return (
        f"INSERT INTO bare.{table.name} ({bare.column_names(table)}) VALUES ({places})"
        " ON CONFLICT (id) DO NOTHING"
    )


class BarePostgres:
    """See `bare.Bare`. Its tables are in a schema of their own."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._prepared = bare.Prepared(lambda moment: moment, lambda day: day)
        names = bare.column_names(GENERATIONS)
        self._get = f"SELECT {names} FROM bare.generations WHERE id = $1"
        self._add = insert_sql(GENERATIONS)
        self._record = insert_sql(COSTS)
        self._upsert = bare.upsert_daily("VALUES ($1, $2, $3, $4, $5, $6, $7)")
        self._report = bare.report_sql("bare.costs", "period_start", "count(*)")
        self._report_daily = bare.report_sql("daily", "day", "sum(calls)::bigint")
        self.rows = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator[BarePostgres]:
        """Make tables like ours, without triggers, in a schema of their own."""
        # A search path of its own: `daily` is found without a schema, as in SQLite.
        settings = {"search_path": "bare"}
        async with asyncpg.create_pool(
            url, min_size=POOL, max_size=POOL, server_settings=settings
        ) as pool:
            await pool.execute("CREATE SCHEMA bare")
            for table in (GENERATIONS, COSTS):
                await pool.execute(
                    f"CREATE TABLE bare.{table.name} (LIKE public.{table.name} INCLUDING DEFAULTS"
                    " INCLUDING CONSTRAINTS INCLUDING INDEXES)"
                )
            await pool.execute(
                "CREATE TABLE bare.daily (day date, provider text, model text, calls bigint,"
                " input_tokens bigint, output_tokens bigint, cost float8,"
                " PRIMARY KEY (day, provider, model))"
            )
            yield cls(pool)

    async def fill(self, table: Table[Any], rows: Sequence[Row]) -> None:
        """See `bare.Bare`."""
        await self._pool.copy_records_to_table(
            table.name,
            schema_name="bare",
            columns=[column.name for column in table.columns],
            records=list(records(table, table.columns, rows)),
        )
        self.rows += len(rows) if table is GENERATIONS else 0

    async def fill_daily(self) -> None:
        """See `bare.Bare`."""
        await self._pool.execute("TRUNCATE daily")
        await self._pool.execute(bare.upsert_daily(bare.FROM_COSTS))

    async def settle(self) -> None:
        """See `bare.Bare`; of the tables of all, and what was written is on the disk."""
        await self._pool.execute("VACUUM ANALYZE")
        await self._pool.execute("CHECKPOINT")

    def prepare(self, kind: str, numbers: range) -> None:
        """See `bare.Bare`."""
        self._prepared.make(kind, numbers)

    async def get(self, n: int) -> Any:
        """See `bare.Bare`."""
        async with self._pool.acquire() as connection:
            return await connection.fetchrow(self._get, stock.generation_id(n % self.rows))

    async def add(self, n: int) -> Any:
        """See `bare.Bare`."""
        async with self._pool.acquire() as connection:
            await connection.fetch(self._add, *self._prepared.generations[n])

    async def record(self, n: int) -> Any:
        """See `bare.Bare`."""
        async with self._pool.acquire() as connection:
            await connection.fetch(self._record, *self._prepared.costs[n])

    async def record_daily(self, n: int) -> Any:
        """See `bare.Bare`."""
        cost = self._prepared.costs[n]
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.fetch(self._record, *cost)
            await connection.fetch(self._upsert, *bare.daily_of(cost))

    async def copy(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Store generations by COPY, in one transaction."""
        await self._pool.copy_records_to_table(
            "generations",
            schema_name="bare",
            columns=[column.name for column in GENERATIONS.columns],
            records=rows,
        )

    async def report(self, n: int) -> float:  # noqa: ARG002
        """See `bare.Bare`."""
        async with self._pool.acquire() as connection:
            return float(sum(row[4] for row in await connection.fetch(self._report, *MONTH)))

    async def report_daily(self, n: int) -> float:  # noqa: ARG002
        """See `bare.Bare`."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(self._report_daily, *MONTH)
            return float(sum(row[4] for row in rows))
