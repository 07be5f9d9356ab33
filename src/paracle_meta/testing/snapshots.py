"""The contract of a snapshot: all rows of a database as they are at one moment."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from paracle_meta import (
    FeedbackRepository,
    GenerationRepository,
    MetaDatabase,
    ParacleMetaError,
)
from paracle_meta.backends.bulk import Period
from paracle_meta.schema import (
    FEEDBACK,
    GENERATIONS,
    TABLES,
    Table,
)
from paracle_meta.testing.base import (
    at,
    generation,
    rating,
)
from paracle_meta.testing.bulk import (
    BulkContract,
    bulk_of,
    comparable,
    everything,
    fill,
    rows_of,
)


class SnapshotContract(BulkContract):
    """What is read, in which order, and that nothing is left open."""

    async def test_a_snapshot_tells_its_rows_in_the_order_of_their_ids(
        self, database: MetaDatabase
    ) -> None:
        names = ["Z", "a", "\u00e4", "\uffff", "\U0001f600", "aa", "A", "1"]
        await GenerationRepository(database).add_many(
            generation(name, created_at=at(n), updated_at=at(n + 0.000_001))
            for n, name in enumerate(names)
        )
        in_order = sorted(names)  # By code points, which is the order of their UTF-8 bytes.
        async with (await bulk_of(database)).snapshot() as snapshot:
            assert await snapshot.count(GENERATIONS) == len(names)
            assert await snapshot.count(FEEDBACK) == 0
            assert [row[0] for row in await rows_of(snapshot, GENERATIONS)] == in_order
            versions = [pair async for batch in snapshot.versions(GENERATIONS) for pair in batch]
            assert [record_id for record_id, _ in versions] == in_order
            assert dict(versions)["Z"] == "2026-03-01 12:00:00.000001"
            chosen = await snapshot.rows_of(GENERATIONS, ["aa", "missing", "A"])
            assert [row[0] for row in chosen] == ["A", "aa"]
            assert await snapshot.vector_spaces(GENERATIONS) == []

    async def test_a_period(self, database: MetaDatabase) -> None:
        await GenerationRepository(database).add_many(
            generation(f"gen-{n}", created_at=at(n)) for n in range(6)
        )
        await FeedbackRepository(database).add_many(
            [
                rating("fbk-1", generation_id="gen-0", created_at=at(3)),
                rating("fbk-2", generation_id="gen-1", created_at=at(5)),
            ]
        )
        async with (await bulk_of(database)).snapshot() as snapshot:

            async def found(table: Table[Any], period: Period) -> list[str]:
                rows = await rows_of(snapshot, table, period)
                assert await snapshot.count(table, period) == len(rows)
                return [row[0] for row in rows]

            middle = Period(at(2), at(4))
            # With what is needed to store the feedback elsewhere.
            assert await found(GENERATIONS, middle) == ["gen-0", "gen-2", "gen-3"]
            assert await found(FEEDBACK, middle) == ["fbk-1"]
            assert await found(GENERATIONS, Period(since=at(5))) == ["gen-1", "gen-5"]
            assert await found(GENERATIONS, Period(until=at(2))) == ["gen-0", "gen-1"]
            assert await found(FEEDBACK, Period(until=at(2))) == []
            assert await found(GENERATIONS, Period()) == [f"gen-{n}" for n in range(6)]

    async def test_batches_of_large_rows_are_small(self, database: MetaDatabase) -> None:
        text = "x" * 2**20
        await GenerationRepository(database).add_many(
            generation(f"gen-{n:03}", content=text if n % 50 < 20 else "c") for n in range(100)
        )
        async with (await bulk_of(database)).snapshot() as snapshot:
            batches = [[row[4] for row in rows] async for rows in snapshot.rows(GENERATIONS)]
        assert sum(map(len, batches)) == 100
        assert max(batch.count(text) for batch in batches) <= 16

    async def test_a_snapshot_is_of_one_moment(self, database: MetaDatabase) -> None:
        generations, feedback = GenerationRepository(database), FeedbackRepository(database)
        written = asyncio.Event()

        async def write() -> None:
            for n in range(1_000):
                await generations.add(generation(f"gen-{n}"))
                await feedback.add(rating(f"fbk-{n}", generation_id=f"gen-{n}"))
                if n == 10:
                    written.set()

        writer = asyncio.create_task(write())
        try:
            await written.wait()
            async with (await bulk_of(database)).snapshot() as snapshot:
                # The rows that others refer to last: they would be there had it been another time.
                about = {row[1] for row in await rows_of(snapshot, FEEDBACK)}
                stored = [row[0] for row in await rows_of(snapshot, GENERATIONS)]
                assert len(about) <= len(stored) <= len(about) + 1
                assert about <= set(stored)
                assert await snapshot.count(FEEDBACK) == len(about)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def test_what_was_stored_by_calls_can_be_held_elsewhere(
        self, database: MetaDatabase
    ) -> None:
        await fill(database)
        async with (await bulk_of(database)).snapshot() as snapshot:
            for table in TABLES:
                assert [value async for value in snapshot.unportable(table)] == []
        given = await everything(database)
        async with (await bulk_of(database)).snapshot(repair=True) as snapshot:
            for table in TABLES:
                rows = await rows_of(snapshot, table)
                assert [comparable(table, row) for row in rows] == given[table.name]

    async def test_a_cancelled_snapshot_leaves_nothing_open(self, database: MetaDatabase) -> None:
        await fill(database)
        bulk = await bulk_of(database)

        async def read() -> None:
            async with bulk.snapshot() as snapshot:
                begun.set()
                while True:
                    await rows_of(snapshot, GENERATIONS)

        for _ in range(3):
            begun = asyncio.Event()
            task = asyncio.create_task(read())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await GenerationRepository(database).add(generation("gen-9"))

    async def test_after_its_block_nothing_can_be_read(self, database: MetaDatabase) -> None:
        async with (await bulk_of(database)).snapshot() as snapshot:
            await snapshot.count(GENERATIONS)
        with pytest.raises(ParacleMetaError):
            await snapshot.count(GENERATIONS)
