"""One database that grows from a thousand rows to a million, measured at each size.

Ours, a bare driver and LangGraph's store hold the same rows, each in tables of its own, and are
asked in turns.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks import stock
from benchmarks.bare_postgresql import BarePostgres
from benchmarks.bare_sqlite import BareSqlite
from benchmarks.memory_peers import LangGraphPostgres, LangGraphSqlite
from benchmarks.systems import GivenVectors
from benchmarks.turns import comparison, in_turns
from paracle_meta import (
    CostRepository,
    DatabaseSettings,
    GenerationRepository,
    MemoryRepository,
    MetaDatabase,
)
from paracle_meta.schema import COSTS, FEEDBACK, GENERATIONS, MEMORY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from benchmarks.memory_peers import Remembering
    from benchmarks.turns import Comparison, Way
    from tests.postgres import PostgresServer

ROUNDS: Final = 12
"""Turns that each way has; a multiple of 2 and 3, so that each begins equally often."""

SPREAD: Final = 100_003
"""A prime: the numbers of calls that follow one another are of rows far apart."""


SMALL: Final = 1_000
"""Rows of the database that stays as it is, for what is not to grow."""

NEW: Final = 10**12
"""Items from here on are not there before they are set."""


class Growing:
    """Ours, with a bare driver and a peer beside it."""

    def __init__(
        self,
        database: MetaDatabase,
        small: MetaDatabase,
        bare: BareSqlite | BarePostgres,
        peer: Remembering,
        name: str,
    ) -> None:
        self._database = database
        self._small = small
        self._bare = bare
        self._peer = peer
        self._name = name
        self._generations = GenerationRepository(database)
        self._few = GenerationRepository(small)
        self._costs = CostRepository(database)
        self._memory = MemoryRepository(database)
        self._rows = 0
        self.comparisons: list[Comparison] = []
        self.sums: list[dict[str, Any]] = []

    async def grow(self, rows: int) -> None:
        """Store rows until each table has so many."""
        span = range(self._rows, rows)
        if not self._rows:
            await _fill(self._small, range(SMALL))
        await _fill(self._database, span)
        for table, make in ((GENERATIONS, stock.generations), (COSTS, stock.costs)):
            for batch in stock.batches(make, span):
                await self._bare.fill(table, batch)
        await self._bare.fill_daily()
        await self._peer.fill(span)
        await self._bare.settle()
        self._rows = rows

    async def measure(self, calls: int) -> None:
        """Compare everything at the size that it has now.

        Args:
            calls: In each turn.
        """
        numbers = range(calls * (ROUNDS + 1))
        self._bare.prepare(f"bare-{self._rows}", numbers)
        kind = f"ours-{self._rows}"
        new = {n: stock.new_generation(kind, n) for n in numbers}
        paid = {n: stock.new_cost(kind, n) for n in numbers}
        bare = self._bare

        reading: dict[str, Way] = {
            "paracle": lambda n: self._generations.get(stock.generation_id(self._any(n))),
            "bare": lambda n: bare.get(self._any(n)),
        }
        if isinstance(bare, BareSqlite):
            by_cursor = bare.get_by_cursor
            reading["cursor"] = lambda n: by_cursor(self._any(n))
        await self._compare("get", calls, reading)
        await self._compare(
            "add", calls, {"paracle": lambda n: self._generations.add(new[n]), "bare": bare.add}
        )
        await self._compare(
            "recent",
            calls,
            {
                "paracle": lambda _: self._generations.list_recent(),
                "small": lambda _: self._few.list_recent(),
            },
        )
        await self._compare(
            "feedback",
            calls,
            {
                "paracle": lambda n: self._generations.get_with_feedback(_rated(self._any(n))),
                "small": lambda n: self._few.get_with_feedback(_rated(n * SPREAD % SMALL)),
            },
        )
        await self._compare(
            "cost",
            calls,
            {
                "paracle": lambda n: self._record(paid[n]),
                "bare": bare.record,
                "daily": bare.record_daily,
            },
        )
        await self._compare_reports()
        await self._compare("set", calls, {"paracle": self._set, "langgraph": self._put})
        await self._compare(
            "memory-get", calls, {"paracle": self._get_memory, "langgraph": self._read}
        )

    async def _compare(self, work: str, calls: int, ways: dict[str, Way]) -> None:
        taken = await in_turns(ways, rounds=ROUNDS, calls=calls)
        self.comparisons.append(comparison(work, taken, database=self._name, rows=self._rows))

    def _any(self, n: int) -> int:
        """Return a row for call n: now here, now there."""
        return n * SPREAD % self._rows

    async def _record(self, cost: Any) -> Any:
        return await self._costs.record(
            cost.provider,
            cost.model,
            cost.input_tokens,
            cost.output_tokens,
            cost.cost,
            created_at=cost.created_at,
        )

    def _item(self, n: int) -> int:
        """Return an item to store: in turns one that is there and one that is not."""
        return self._any(n) if n % 2 else NEW + self._rows * SPREAD + n

    async def _set(self, n: int) -> Any:
        session, key = stock.address(self._item(n))
        return await self._memory.set(key, stock.value(n), session_id=session)

    async def _put(self, n: int) -> Any:
        return await self._peer.put(self._item(n))

    async def _get_memory(self, n: int) -> Any:
        session, key = stock.address(self._any(n))
        return await self._memory.get(key, session_id=session)

    async def _read(self, n: int) -> Any:
        return await self._peer.read(self._any(n))

    async def _compare_reports(self) -> None:
        """Time the report of the month, and see that it is the sum of all rows."""
        await self._compare(
            "report",
            1,
            {
                "paracle": lambda _: self._costs.get_report("monthly", on=stock.MONTH),
                "bare": self._bare.report,
                "daily": self._bare.report_daily,
            },
        )
        report = await self._costs.get_report("monthly", on=stock.MONTH)
        async with self._database.session() as session:
            paid = await session.scalars("SELECT cost FROM costs WHERE cost IS NOT NULL")
            exact = math.fsum(paid)
        self.sums.append(
            {
                "database": self._name,
                "rows": self._rows,
                "report": report.total,
                "exact": exact,
                "same_to_the_cent": f"{report.total:.2f}" == f"{exact:.2f}",
                # Of its own rows: how far apart adding calls to days and adding all calls are.
                "daily_differs": await self._bare.report_daily(0) - await self._bare.report(0),
            }
        )


async def _fill(database: MetaDatabase, span: range) -> None:
    backend = await database.backend()
    async with backend.bulk.loading() as loading:
        for table, make in (
            (GENERATIONS, stock.generations),
            (FEEDBACK, stock.feedback),
            (COSTS, stock.costs),
            (MEMORY, stock.memory),
        ):
            for batch in stock.batches(make, span):
                await loading.insert(table, batch)


def _rated(n: int) -> str:
    """Return the id of a generation near row n that has feedback."""
    return stock.generation_id(n // stock.RATED * stock.RATED)


@contextlib.asynccontextmanager
async def on_sqlite(folder: Path) -> AsyncIterator[Growing]:
    """Begin with empty files in an empty folder."""
    settings, other = (
        DatabaseSettings(sqlite_dir=folder / name, index_in_background=False)
        for name in ("ours", "small")
    )
    async with (
        MetaDatabase(settings, embeddings=GivenVectors(384)) as database,
        MetaDatabase(other, embeddings=GivenVectors(384)) as small,
        BareSqlite.opened(folder / "bare.db", folder / "ours") as bare,
        LangGraphSqlite.opened(folder / "langgraph.db") as peer,
    ):
        yield Growing(database, small, bare, peer, "sqlite")


@contextlib.asynccontextmanager
async def on_postgresql(server: PostgresServer) -> AsyncIterator[Growing]:
    """Begin with an empty database on a server."""
    url, small_url, other = (server.url_of(server.create_database()) for _ in range(3))
    settings, small_settings = (DatabaseSettings(postgres_url=one) for one in (url, small_url))
    async with (
        MetaDatabase(settings, embeddings=GivenVectors(384)) as database,
        MetaDatabase(small_settings, embeddings=GivenVectors(384)) as small,
        BarePostgres.opened(url) as bare,
        LangGraphPostgres.opened(other) as peer,
    ):
        yield Growing(database, small, bare, peer, "postgresql")


def sizes_up_to(rows: int) -> list[int]:
    """Return 1,000 and each ten times more, the last one being `rows`."""
    powers = [10**exponent for exponent in range(3, 1 + int(np.log10(max(rows, 1_000))))]
    return sorted({*powers, rows})
