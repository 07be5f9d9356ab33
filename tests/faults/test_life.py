"""One MetaDatabase in several event loops, threads and processes, and at the end of a process."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from paracle_meta import MemoryRepository
from tests.faults.cancelling import assert_nothing_open
from tests.faults.processes import Worker

if TYPE_CHECKING:
    from tests.faults.places import Place

THREADS = 4
KEYS = 10


def test_one_object_serves_event_loops_that_come_and_go(place: Place) -> None:
    db = place.open()

    async def use(number: int) -> int:
        await MemoryRepository(db).set(f"key {number}", number)
        async with db.session() as session:
            await session.execute("SELECT 1")
        await db.close()
        return await MemoryRepository(db).count()

    async def closing(number: int) -> int:
        count = await use(number)
        await db.close()
        return count

    assert [asyncio.run(closing(number)) for number in range(3)] == [1, 2, 3]
    assert_nothing_open(place)


def test_one_object_serves_several_threads(place: Place) -> None:
    db = place.open()
    asyncio.run(_opened_once(place))
    together = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    async def use(thread: int) -> None:
        together.wait(30)
        for number in range(KEYS):
            await MemoryRepository(db).set(f"{thread}-{number}", number)
            async with db.session() as session:
                await session.execute("SELECT count(*) FROM memory")
        await db.close()

    def run(thread: int) -> None:
        try:
            asyncio.run(use(thread))
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert place.rows("SELECT count(*) FROM memory") == [(str(THREADS * KEYS),)]
    assert_nothing_open(place)


async def _opened_once(place: Place) -> None:
    async with place.open():
        pass


async def test_closed_it_opens_again(place: Place) -> None:
    db = place.open()
    for number in range(3):
        await MemoryRepository(db).set("key", number)
        await db.close()
        await db.close()
    item = await MemoryRepository(db).get("key")
    assert item is not None
    assert item.value == 2
    await db.close()


def test_a_process_that_forgets_to_close_ends_at_once_and_without_a_word(place: Place) -> None:
    with Worker("forget_to_close", place.settings, warnings=False) as worker:
        assert worker.receive() == 1
        assert worker.finish() == ""
    assert place.rows("SELECT count(*) FROM templates") == [("1",)]


def test_event_loops_may_end_without_closing(place: Place) -> None:
    with Worker("forget_the_loop", place.settings, warnings=False) as worker:
        assert worker.receive() == 3
        assert worker.finish() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no fork")
def test_a_forked_child_and_its_parent_both_go_on(place: Place) -> None:
    with Worker("fork_while_open", place.settings) as worker:
        assert worker.receive() == 0
        assert worker.finish() == ""
    # What the child wrote after its parent had closed is easily lost on SQLite: a parent that
    # believes to be the last one deletes the write-ahead log from under its child.
    assert sorted(place.rows("SELECT key FROM memory")) == [
        ("before the fork",),
        ("child, after the parent has closed",),
        ("child, while the parent is open",),
        ("parent, after the child has written",),
    ]
