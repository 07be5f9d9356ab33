"""Tasks that are cancelled, at each await and at random: nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    CostRepository,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.backends.postgresql import pool as postgresql_pool
from paracle_meta.backends.sqlite.pool import MAX_CONNECTIONS
from paracle_meta.ids import new_id
from tests.faults.cancelling import (
    CancelledAt,
    assert_no_locks,
    assert_nothing_open,
    descriptors,
    our_threads,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.faults.figures import Faults
    from tests.faults.places import Place

    Work = Callable[[MetaDatabase], Coroutine[Any, Any, Any]]

AT_ONCE = 100
"""Tasks under way together: more only wait longer for a connection."""
POOL = 3
OPENINGS = 12
WRITE_SECONDS = 1.0
TEMPLATE = "tpl-changed"


def generation() -> GenerationResult:
    return GenerationResult(artifact_type="agent", name="n", content="c", metadata={"a": 1})


async def add(db: MetaDatabase) -> None:
    await GenerationRepository(db).add(generation())


async def add_many(db: MetaDatabase) -> None:
    await GenerationRepository(db).add_many(generation() for _ in range(200))


async def rate_and_delete(db: MetaDatabase) -> None:
    rated = await GenerationRepository(db).add(generation())
    await FeedbackRepository(db).add(Feedback(generation_id=rated.id, rating=1))
    await GenerationRepository(db).delete(rated.id, cascade=True)


async def change_text(db: MetaDatabase) -> None:
    await TemplateRepository(db).update(TEMPLATE, pattern=random.choice("abc"))


async def remember(db: MetaDatabase) -> None:
    await MemoryRepository(db).set("key", {"a": [1]}, session_id="s", ttl_seconds=60)
    await MemoryRepository(db).get("key", session_id="s")


async def search(db: MetaDatabase) -> None:
    await TemplateRepository(db).find_similar("a question", 5, filters={"artifact_type": "agent"})


async def use_session(db: MetaDatabase) -> None:
    async with db.session() as session:
        await session.execute("UPDATE memory SET scope = 'other' WHERE 1 = 0")
        await session.execute("SELECT count(*) FROM generations")


async def use_writing_session(db: MetaDatabase) -> None:
    async with db.session(write=True) as session:
        await session.execute("SELECT count(*) FROM costs")
        await session.execute("UPDATE costs SET provider = 'other' WHERE 1 = 0")


async def look(db: MetaDatabase) -> None:
    await db.status()


WORKS: list[Work] = [
    add,
    add_many,
    rate_and_delete,
    change_text,
    remember,
    search,
    use_session,
    use_writing_session,
    look,
]


async def opened(place: Place, **more: Any) -> MetaDatabase:
    db = place.open(pool_size=POOL, **more)
    templates = TemplateRepository(db)
    if await templates.get(TEMPLATE) is None:
        await templates.add(Template(id=TEMPLATE, artifact_type="agent", name="t", content="c"))
    return db


async def assert_usable(db: MetaDatabase) -> None:
    """See that writes of both kinds succeed within a second."""
    async with asyncio.timeout(WRITE_SECONDS):
        await GenerationRepository(db).add(generation())
    async with asyncio.timeout(WRITE_SECONDS), db.session(write=True) as session:
        await session.execute("UPDATE costs SET provider = 'other'")


async def assert_whole_pool(db: MetaDatabase) -> None:
    """See that as many connections can be had at once as were configured."""
    async with asyncio.timeout(WRITE_SECONDS * POOL), AsyncExitStack() as stack:
        for _ in range(POOL):
            session = await stack.enter_async_context(db.session())
            await session.execute("SELECT 1")


async def assert_left_nothing(place: Place, db: MetaDatabase) -> None:
    await assert_usable(db)
    await assert_whole_pool(db)
    assert_no_locks(place)
    await db.close()
    assert_nothing_open(place)


@pytest.mark.parametrize("work", WORKS)
async def test_cancelled_at_each_await_of_a_call(
    place: Place, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that each borrowing of a connection looks first whether it is alive: awaits of its own.
    monkeypatch.setattr(postgresql_pool, "PING_AFTER", 0.0)
    db = await opened(place)
    await work(db)
    before = descriptors()
    wait = 0
    while (cut := CancelledAt(work(db), wait)) and await cut.run():
        # It must not be the next one only that is delayed, so each is followed by several.
        await asyncio.gather(*(asyncio.wait_for(add(db), WRITE_SECONDS) for _ in range(POOL)))
        wait += 1
    assert wait > 0
    assert not cut.reached  # It ended because there was no further await, not by swallowing one.
    if place.server is not None:
        # Nothing is held per connection on SQLite, where each session opens and closes one.
        assert descriptors() <= before + POOL
    await assert_left_nothing(place, db)


async def test_cancelled_at_some_awaits_of_opening_and_migrating(place: Place) -> None:
    complete = CancelledAt(_open_and_close(place), 10**9)
    await complete.run()
    waits = await _count_waits(place)
    chance = random.Random(2)
    for wait in sorted(chance.sample(range(waits), OPENINGS)):
        _empty(place)
        db = place.open(pool_size=POOL)
        cut = CancelledAt(db.open(), wait)
        assert await cut.run(), wait
        await db.close()
        assert_nothing_open(place)
        db = await opened(place)
        await assert_left_nothing(place, db)


async def _open_and_close(place: Place) -> None:
    db = place.open()
    await db.open()
    await db.close()


async def _count_waits(place: Place) -> int:
    """Return at how many awaits an opening of an empty database can be cancelled."""
    _empty(place)
    waits = 0

    class Counted(CancelledAt):
        def __await__(self) -> Any:
            nonlocal waits
            for future in super().__await__():
                waits += 1
                yield future

    db = place.open()
    await Counted(db.open(), 10**9).run()
    await db.close()
    return waits


def _empty(place: Place) -> None:
    if place.server is None:
        for path in place.folder.glob("*.db*"):
            path.unlink()
    else:
        place.server.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public", place.database)


async def test_many_tasks_cancelled_at_random(place: Place, faults: Faults) -> None:
    wanted = faults.times(40, 500)
    db = await opened(place)
    chance = random.Random(3)

    async def disturbed() -> bool:
        work = chance.choice(WORKS)
        if chance.random() < 0.5:
            return await CancelledAt(work(db), chance.randrange(12)).run()
        # At a moment instead, which is most often a wait for a turn, a connection or an answer.
        task = asyncio.create_task(work(db))
        await asyncio.wait({task}, timeout=chance.uniform(0.0, 0.3))
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()  # Raises what it has raised.
        return task.cancelled()

    started = cancelled = 0
    while cancelled < wanted:  # Some are through before their moment comes.
        together = min(wanted, AT_ONCE)
        started += together
        cancelled += sum(await asyncio.gather(*(disturbed() for _ in range(together))))
    if place.server is None:
        assert len(our_threads()) <= MAX_CONNECTIONS
    await assert_left_nothing(place, db)
    faults.note(
        "Tasks cancelled at a random await or moment, of all kinds of calls",
        where="PostgreSQL" if place.server else "SQLite",
        times=f"{cancelled} cancelled, of {started} tasks",
        lost="0 connections, 0 locks, 0 open transactions",
        seen=f"the next write took less than {WRITE_SECONDS:g} s",
    )


async def test_cancelled_while_waiting_for_a_connection(place: Place) -> None:
    db = await opened(place)
    async with AsyncExitStack() as stack:
        for _ in range(POOL):
            session = await stack.enter_async_context(db.session(write=place.server is None))
            await session.execute("SELECT 1")
            if place.server is None:
                break  # One writer is enough to make the others wait.
        waiting = [asyncio.create_task(work(db)) for work in (add, use_writing_session) * 4]
        await asyncio.wait(waiting, timeout=0.1)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert all(task.cancelled() for task in waiting)
    await assert_left_nothing(place, db)


async def test_closing_while_others_are_in_the_middle(place: Place) -> None:
    db = await opened(place)
    tasks = [asyncio.create_task(work(db)) for work in WORKS * 4]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10):
        await db.close()
        # Who came too late was told so, or has opened it again; both are whole.
        await asyncio.gather(*tasks, return_exceptions=True)
        await db.close()
    assert_nothing_open(place)
    await assert_left_nothing(place, await opened(place))


async def test_costs_are_whole_although_calls_were_cancelled(place: Place) -> None:
    # A cancelled call has written all or nothing: with as many rows a call as here, half of one
    # would be seen in the number.
    db = await opened(place)
    rows = 50
    chance = random.Random(4)
    costs = CostRepository(db)
    record = await costs.record("p", "m")

    async def many() -> None:
        await costs.add_many(replace(record, id=new_id("cst")) for _ in range(rows))

    for _ in range(30):
        task = asyncio.create_task(many())
        await asyncio.wait({task}, timeout=chance.uniform(0.0, 0.01))
        task.cancel()
        await asyncio.wait({task})
    assert (await costs.count()) % rows == 1
    await assert_left_nothing(place, db)
