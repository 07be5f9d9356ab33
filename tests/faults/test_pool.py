"""Connections to PostgreSQL: how many, how old, and what becomes of them when the server goes."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from paracle_meta import (
    CostRepository,
    DatabaseBusyError,
    DatabaseConnectionError,
    DatabaseSettings,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
)
from paracle_meta.backends.postgresql import pool as postgresql_pool

if TYPE_CHECKING:
    from tests.faults.figures import Faults
    from tests.faults.places import Place
    from tests.postgres import PostgresServer

POOL = 4
TASKS = 50
PLAIN = {"enable_vectors": False, "pool_size": POOL}
METADATA = {"a": [1, 2.5, None, True, "x"], "b": {"c": 1e20}, "d": "ü"}

COUNT = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'paracle_meta'"


def generation(**more: Any) -> GenerationResult:
    return GenerationResult(artifact_type="agent", name="n", content="c", **more)


async def pid(db: MetaDatabase) -> int:
    async with db.session() as session:
        return int(await session.scalar("SELECT pg_backend_pid()"))


async def test_never_more_connections_than_pool_size(
    postgresql: Place, server: PostgresServer
) -> None:
    db = postgresql.open(**PLAIN)
    generations = GenerationRepository(db)
    stored = await generations.add(generation(metadata=METADATA))
    observer = await asyncpg.connect(server.url_of(postgresql.database))
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, await observer.fetchval(COUNT))

    async def use(number: int) -> None:
        for _ in range(4):
            assert (await generations.get(stored.id)) == stored
            async with db.session() as session:
                await session.execute("UPDATE generations SET tokens_used = 1")
                row = (await session.execute("SELECT metadata FROM generations")).one()
                assert row[0] is not None
            await MemoryRepository(db).set(f"{number}", METADATA)
            item = await MemoryRepository(db).get(f"{number}")
            assert item is not None
            assert item.value == METADATA

    stored = await generations.update(stored.id, tokens_used=1)
    watching = asyncio.create_task(watch())
    await asyncio.gather(*(use(number) for number in range(TASKS)))
    watching.cancel()
    await asyncio.wait({watching})
    assert most == POOL
    assert await generations.get(stored.id) == stored
    await db.close()
    await observer.close()


async def test_json_reads_the_same_before_and_after_a_session_used_the_connection(
    postgresql: Place,
) -> None:
    async with postgresql.open(**{**PLAIN, "pool_size": 1}) as db:
        generations = GenerationRepository(db)
        stored = await generations.add(generation(metadata=METADATA))
        assert (await generations.get(stored.id)) == stored
        async with db.session() as session:
            first = (await session.execute("SELECT metadata FROM generations")).scalar_one()
            connection = await session.connection()
            await connection.exec_driver_sql("SET statement_timeout = '7s'")
        assert (await generations.get(stored.id)) == stored
        async with db.session() as session:
            again = (await session.execute("SELECT metadata FROM generations")).scalar_one()
            # What a session sets on the connection is gone with it.
            assert await session.scalar("SHOW statement_timeout") == "0"
        assert type(first) is type(again)
        assert first == again


async def test_waiting_for_a_connection_ends_after_pool_timeout(
    postgresql: Place, faults: Faults
) -> None:
    calls = faults.times(20, 500)
    async with (
        asyncio.timeout(60),
        postgresql.open(**PLAIN, pool_timeout=0.2) as db,
        AsyncExitStack() as stack,
    ):
        for _ in range(POOL):
            session = await stack.enter_async_context(db.session())
            await session.execute("SELECT 1")
        with pytest.raises(DatabaseBusyError, match=r"4 connections.*pool_size or pool_timeout"):
            await GenerationRepository(db).count()
        with pytest.raises(DatabaseBusyError, match="pool_timeout"):
            async with db.session() as session:
                await session.execute("SELECT 1")
        started = time.monotonic()
        refused = await asyncio.gather(
            *(GenerationRepository(db).add(generation()) for _ in range(calls)),
            return_exceptions=True,
        )
        took = time.monotonic() - started
        assert {type(error) for error in refused} == {DatabaseBusyError}
        await stack.aclose()
        assert await GenerationRepository(db).count() == 0
    faults.note(
        f"Calls while all {POOL} connections of the pool are held",
        where="PostgreSQL",
        times=f"{calls} calls with pool_timeout 0.2 s",
        lost=f"0 hung; {len(refused)} DatabaseBusyError",
        seen=f"the last one ended after {took:.1f} s",
    )


async def test_waiting_for_the_writer_of_sqlite_ends_after_busy_timeout(
    sqlite: Place, faults: Faults
) -> None:
    calls, patience = faults.times(20, 200), 0.3
    async with sqlite.open(enable_vectors=False, busy_timeout=patience) as db:
        async with db.session(write=True) as session:
            await session.execute("SELECT 1")
            started = time.monotonic()
            # All of them at once: one after the other they would take twice as long as this.
            async with asyncio.timeout(calls * patience / 2):
                refused = await asyncio.gather(
                    *(GenerationRepository(db).add(generation()) for _ in range(calls)),
                    return_exceptions=True,
                )
            took = time.monotonic() - started
            assert {type(error) for error in refused} == {DatabaseBusyError}
            assert await GenerationRepository(db).count() == 0  # Who only reads need not wait.
        await GenerationRepository(db).add(generation())
    faults.note(
        "Writes while a session holds the right to write",
        where="SQLite",
        times=f"{calls} calls with busy_timeout {patience:g} s",
        lost=f"0 hung; {len(refused)} DatabaseBusyError",
        seen=f"the last one ended after {took:.1f} s",
    )


async def test_a_long_queue_of_writers_of_sqlite_is_not_refused(sqlite: Place) -> None:
    # Together they take longer than busy_timeout, but none of them waits for somebody else.
    async with sqlite.open(enable_vectors=False, busy_timeout=0.25) as db:
        calls, took = 25, 0.0
        while took < 0.25:
            calls *= 2
            started = time.monotonic()
            await asyncio.gather(
                *(GenerationRepository(db).add(generation()) for _ in range(calls))
            )
            took = time.monotonic() - started


async def test_a_connection_that_stood_idle_is_looked_after(
    postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_pool, "PING_AFTER", 0.0)
    async with postgresql.open(**PLAIN) as db:
        first = await pid(db)
        assert await pid(db) == first
        postgresql.rows(f"SELECT pg_terminate_backend({first}, 5000)")
        await GenerationRepository(db).add(generation())
        assert await pid(db) != first


async def test_a_connection_is_not_used_beyond_pool_recycle(postgresql: Place) -> None:
    async with postgresql.open(**PLAIN, pool_recycle=0.3) as db:
        first = await pid(db)
        assert await pid(db) == first
        await asyncio.sleep(0.35)
        assert await pid(db) != first
        await GenerationRepository(db).count()


async def test_a_restart_of_the_server_while_nothing_is_done_is_not_noticed(
    postgresql: Place, server: PostgresServer
) -> None:
    async with postgresql.open(**PLAIN) as db:
        generations = GenerationRepository(db)
        kept = await generations.add(generation())
        await asyncio.gather(*(generations.count() for _ in range(POOL)))
        # Each call is the first one after a restart, those that may not be repeated among them.
        await asyncio.to_thread(server.restart, "immediate")
        await generations.delete(kept.id)
        await asyncio.to_thread(server.restart, "fast")
        async with db.session() as session:
            assert await session.scalar("SELECT count(*) FROM generations") == 0
        await asyncio.to_thread(server.restart, "fast")
        await CostRepository(db).record("p", "m")
        assert await pid(db)


async def test_a_restart_is_not_noticed_where_the_loop_was_blocked_meanwhile(
    postgresql: Place, server: PostgresServer
) -> None:
    # Nobody has told the pool then that its connections are gone: it finds out as it uses them.
    async with postgresql.open(**PLAIN) as db:
        await CostRepository(db).record("p", "m")
        server.restart("immediate")
        await CostRepository(db).record("p", "m")
        assert await CostRepository(db).count() == 2


async def test_a_server_that_is_away_is_reported_and_comes_back(
    postgresql: Place, server: PostgresServer
) -> None:
    async with postgresql.open(**PLAIN) as db:
        await CostRepository(db).record("p", "m")
        await asyncio.to_thread(server.stop, "immediate")
        try:
            with pytest.raises(DatabaseConnectionError, match="see that"):
                await CostRepository(db).record("p", "m")
            with pytest.raises(DatabaseConnectionError, match="see that"):
                async with db.session() as session:
                    await session.execute("SELECT 1")
            with pytest.raises(DatabaseConnectionError):
                await db.status()
        finally:
            await asyncio.to_thread(server.start)
        await CostRepository(db).record("p", "m")
        async with db.session() as session:
            assert await session.scalar("SELECT count(*) FROM costs") == 2


async def test_a_server_without_connections_left_is_reported(
    postgresql: Place, server: PostgresServer
) -> None:
    server.sql(f"ALTER DATABASE {postgresql.database} CONNECTION LIMIT 1")
    server.sql(f"ALTER DATABASE {postgresql.database} OWNER TO paracle")
    settings = DatabaseSettings(
        postgres_url=server.password_url_of(postgresql.database), **PLAIN, pool_timeout=5
    )
    async with MetaDatabase(settings) as db, db.session() as session:
        await session.execute("SELECT 1")
        with pytest.raises(DatabaseConnectionError, match="max_connections"):
            await CostRepository(db).count()
        await session.rollback()
        assert await CostRepository(db).count() == 0
