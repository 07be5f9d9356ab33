"""Many rows at once, and many tasks at once."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any, Final

from benchmarks import bare, stock
from benchmarks.bare_postgresql import BarePostgres
from benchmarks.bare_sqlite import BareSqlite
from benchmarks.systems import GivenVectors
from benchmarks.turns import comparison, in_turns
from paracle_meta import DatabaseSettings, GenerationRepository, MetaDatabase
from paracle_meta.backends.portable import encode_time
from paracle_meta.schema import GENERATIONS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.turns import Comparison, Way
    from tests.postgres import PostgresServer

TASKS: Final = 16
"""That read and write at the same time, more than there are connections."""

READS: Final = 4
"""Reads for one write."""

ROUNDS: Final = 6
"""Turns that each way has."""

START: Final = 10_000
"""Generations that are stored before the tasks begin."""


async def _fill(database: MetaDatabase, other: bare.Bare, rows: int) -> None:
    backend = await database.backend()
    async with backend.bulk.loading() as loading:
        for batch in stock.batches(stock.generations, range(rows)):
            await loading.insert(GENERATIONS, batch)
            await other.fill(GENERATIONS, batch)
    await other.settle()


class Batches:
    """Rows that are ready for each way, another batch for each call."""

    def __init__(self, size: int, prepared: bare.Prepared) -> None:
        self.records = [
            [stock.new_generation(f"many-{call}", n) for n in range(size)]
            for call in range(ROUNDS + 1)
        ]
        self.parameters = [
            [prepared.of(GENERATIONS, record) for record in records] for records in self.records
        ]
        # No program would hold all of these, for Python to look through them again and again.
        gc.collect()
        gc.freeze()


async def on_sqlite(folder: Path, size: int) -> list[Comparison]:
    """Compare `add_many` with `executemany` in one transaction."""
    batches = Batches(size, bare.Prepared(encode_time, lambda day: day.isoformat()))
    settings = DatabaseSettings(sqlite_dir=folder / "ours", index_in_background=False)
    async with (
        MetaDatabase(settings, embeddings=GivenVectors(384)) as database,
        BareSqlite.opened(folder / "bare.db", folder / "ours") as other,
    ):
        repository = GenerationRepository(database)
        taken = await in_turns(
            {
                "paracle": lambda n: repository.add_many(batches.records[n]),
                "bare": lambda n: other.fill(GENERATIONS, batches.parameters[n]),
            },
            rounds=ROUNDS,
            calls=1,
        )
    return [comparison("add_many", taken, database="sqlite", rows=size)]


async def on_postgresql(server: PostgresServer, size: int, operations: int) -> list[Comparison]:
    """Compare `add_many` with COPY, and 16 tasks on ten connections with a bare pool."""
    url = server.url_of(server.create_database())
    batches = Batches(size, bare.Prepared(lambda moment: moment, lambda day: day))
    settings = DatabaseSettings(postgres_url=url)
    async with (
        MetaDatabase(settings, embeddings=GivenVectors(384)) as database,
        BarePostgres.opened(url) as other,
    ):
        repository = GenerationRepository(database)
        many = await in_turns(
            {
                "paracle": lambda n: repository.add_many(batches.records[n]),
                "bare": lambda n: other.copy(batches.parameters[n]),
            },
            rounds=ROUNDS,
            calls=1,
        )
        await _fill(database, other, START)
        mixed = await _mixed(repository, other, operations)
    return [comparison("add_many", many, database="postgresql", rows=size), mixed]


async def _mixed(
    repository: GenerationRepository, other: BarePostgres, operations: int
) -> Comparison:
    """Have tasks read and write; the milliseconds are those until all are done.

    Args:
        repository: Ours.
        other: The bare pool.
        operations: Of each task.
    """
    numbers = range((ROUNDS + 1) * TASKS * operations)
    other.prepare("mixed", numbers)
    records = {n: stock.new_generation("mixed-ours", n) for n in numbers}

    async def read(n: int) -> Any:
        return await repository.get(stock.generation_id(n % START))

    async def add(n: int) -> Any:
        return await repository.add(records[n])

    async def bare_read(n: int) -> Any:
        return await other.get(n % START)

    def together(read: Way, add: Way) -> Way:
        async def task(first: int) -> None:
            for n in range(first, first + operations):
                await (read(n) if n % (READS + 1) else add(n))

        async def run(turn: int) -> None:
            first = turn * TASKS * operations
            async with asyncio.TaskGroup() as tasks:
                for k in range(TASKS):
                    tasks.create_task(task(first + k * operations))

        return run

    taken = await in_turns(
        {"paracle": together(read, add), "bare": together(bare_read, other.add)},
        rounds=ROUNDS,
        calls=1,
    )
    return comparison(
        "mixed", taken, database="postgresql", rows=START, operations=TASKS * operations
    )
