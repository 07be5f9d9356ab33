"""Bare aiosqlite, over the same SQLite and with the same pragmas as ours."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import aiosqlite

from benchmarks import bare, stock
from paracle_meta.backends.portable import encode_time
from paracle_meta.backends.sqlite.driver import load_driver
from paracle_meta.schema import COSTS, GENERATIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from paracle_meta.backends.portable import Row
    from paracle_meta.schema import Table

PRAGMAS: Final = ("journal_mode = WAL", "synchronous = FULL")
"""As ours: what is acknowledged is on the disk."""

ROWS_A_FETCH: Final = 64
"""What `aiosqlite.connect` takes where nothing is said."""

MONTH: Final = (stock.MONTH.isoformat(), stock.MONTH.replace(day=31).isoformat())


@contextlib.asynccontextmanager
async def connected(file: Path) -> AsyncIterator[aiosqlite.Connection]:
    """Open a file with aiosqlite, in WAL and with full sync; statements commit by themselves."""
    driver = load_driver()

    def connect() -> Any:
        # Not `aiosqlite.connect`, which takes the SQLite that this Python was built with.
        return driver.connect(str(file), isolation_level=None)

    async with aiosqlite.Connection(connect, ROWS_A_FETCH) as connection:
        for pragma in PRAGMAS:
            await connection.execute_fetchall(f"PRAGMA {pragma}")
        yield connection


def _places(count: int) -> str:
    return ", ".join(["?"] * count)


def insert_sql(table: Table[Any]) -> str:
    """Return the statement that stores a row unless its id is taken, as ours does."""
    return (
        f"INSERT INTO {table.name} ({bare.column_names(table)})"
        f" VALUES ({_places(len(table.columns))}) ON CONFLICT (id) DO NOTHING"
    )


class BareSqlite:
    """See `bare.Bare`. aiosqlite keeps prepared statements by their text."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._db = connection
        self._prepared = bare.Prepared(encode_time, lambda day: day.isoformat())
        self._get = f"SELECT {bare.column_names(GENERATIONS)} FROM generations WHERE id = ?"
        self._add = insert_sql(GENERATIONS)
        self._record = insert_sql(COSTS)
        self._upsert = bare.upsert_daily(f"VALUES ({_places(7)})")
        self._report = bare.report_sql("costs", "period_start", "count(*)").replace("$", "?")
        self._report_daily = bare.report_sql("daily", "day", "sum(calls)").replace("$", "?")
        self.rows = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, file: Path, like: Path) -> AsyncIterator[BareSqlite]:
        """Make a file with tables like those in a folder of ours, without triggers."""
        async with connected(file) as connection:
            for table in (GENERATIONS, COSTS):
                file = like / f"{table.name}.db"
                # By the same library: a second one in a process would break the locks of the first.
                with contextlib.closing(load_driver().connect(str(file))) as ours:
                    made = ours.execute(
                        "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"
                        " AND type IN ('table', 'index') ORDER BY type DESC",
                        (table.name,),
                    ).fetchall()
                for (sql,) in made:
                    await connection.execute(sql)
            await connection.execute(
                "CREATE TABLE daily (day TEXT, provider TEXT, model TEXT, calls INTEGER,"
                " input_tokens INTEGER, output_tokens INTEGER, cost REAL,"
                " PRIMARY KEY (day, provider, model)) WITHOUT ROWID"
            )
            yield cls(connection)

    async def fill(self, table: Table[Any], rows: Sequence[Row]) -> None:
        """See `bare.Bare`."""
        await self._db.execute("BEGIN")
        await self._db.executemany(insert_sql(table), rows)
        await self._db.execute("COMMIT")
        self.rows += len(rows) if table is GENERATIONS else 0

    async def fill_daily(self) -> None:
        """See `bare.Bare`."""
        await self._db.execute("DELETE FROM daily")
        await self._db.execute(bare.upsert_daily(bare.FROM_COSTS))

    async def settle(self) -> None:
        """See `bare.Bare`; the log is written back, so that it is nobody's work later."""
        await self._db.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")

    def prepare(self, kind: str, numbers: range) -> None:
        """See `bare.Bare`."""
        self._prepared.make(kind, numbers)

    async def get(self, n: int) -> Any:
        """See `bare.Bare`; by the call that goes to the thread once."""
        return await self._db.execute_fetchall(self._get, (stock.generation_id(n % self.rows),))

    async def get_by_cursor(self, n: int) -> Any:
        """See `get`; as the pages of aiosqlite show it, which goes to the thread three times."""
        async with self._db.execute(self._get, (stock.generation_id(n % self.rows),)) as cursor:
            return await cursor.fetchone()

    async def add(self, n: int) -> Any:
        """See `bare.Bare`."""
        await self._db.execute(self._add, self._prepared.generations[n])

    async def record(self, n: int) -> Any:
        """See `bare.Bare`."""
        await self._db.execute(self._record, self._prepared.costs[n])

    async def record_daily(self, n: int) -> Any:
        """See `bare.Bare`."""
        cost = self._prepared.costs[n]
        await self._db.execute("BEGIN")
        await self._db.execute(self._record, cost)
        await self._db.execute(self._upsert, bare.daily_of(cost))
        await self._db.execute("COMMIT")

    async def report(self, n: int) -> float:  # noqa: ARG002
        """See `bare.Bare`."""
        rows = await self._db.execute_fetchall(self._report, MONTH)
        return float(sum(row[4] for row in rows))

    async def report_daily(self, n: int) -> float:  # noqa: ARG002
        """See `bare.Bare`."""
        rows = await self._db.execute_fetchall(self._report_daily, MONTH)
        return float(sum(row[4] for row in rows))
