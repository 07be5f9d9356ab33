"""Several processes that write to one database, and one that is killed while it does."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter, defaultdict
from contextlib import ExitStack

import pytest

from paracle_meta import (
    CostRepository,
    DatabaseBusyError,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    Template,
    TemplateRepository,
)
from tests.faults.places import NAMES, Place, unsound_files
from tests.faults.processes import Worker

RACES = 500
WRITERS = 8
ROUNDS = 12
KILLS = 50

# Embeddings would only make these tests slower.
PLAIN = {"enable_vectors": False}


@pytest.mark.parametrize("journal_mode", ["wal", "truncate"])
async def test_feedback_racing_the_deletion_of_its_generation_is_never_an_orphan(
    place: Place, journal_mode: str
) -> None:
    if place.server is not None and journal_mode == "truncate":
        pytest.skip("journal_mode is a setting of SQLite only")
    # That mode waits for the disk four times as often, and its locks are the same.
    races = RACES if journal_mode == "wal" else RACES // 5
    settings = place.given(**PLAIN, journal_mode=journal_mode)
    async with place.open(**PLAIN, journal_mode=journal_mode) as db:
        generations = await GenerationRepository(db).add_many(
            GenerationResult(artifact_type="agent", name="raced", content="c") for _ in range(races)
        )
    outcomes: Counter[tuple[bool, str, str]] = Counter()
    with Worker("rate", settings) as rater, Worker("delete", settings) as deleter:
        assert (rater.receive(), deleter.receive()) == ("ready", "ready")
        for number, generation in enumerate(generations):
            cascade = number % 3 == 0
            # Whoever is told first has a head start of some microseconds: each has it in turn.
            if number % 2:
                rater.send(generation.id)
                deleter.send([generation.id, cascade])
            else:
                deleter.send([generation.id, cascade])
                rater.send(generation.id)
            outcomes[cascade, rater.receive(), deleter.receive()] += 1
    assert place.orphans() == []
    # Without cascade one of them wins; with it the deletion does, whatever the other one had done.
    assert outcomes.keys() == {
        (False, "added", "in use"),
        (False, "missing", "deleted"),
        (True, "added", "deleted"),
        (True, "missing", "deleted"),
    }
    assert place.rows("SELECT count(*) FROM feedback") == [
        (str(outcomes[False, "added", "in use"]),)
    ]


async def test_many_processes_write_all_kinds_and_nothing_is_lost_or_refused(place: Place) -> None:
    settings = place.given(**PLAIN, pool_size=4)
    async with place.open(**PLAIN) as db:
        template = await TemplateRepository(db).add(
            Template(artifact_type="agent", name="used by all", content="c")
        )
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker("write_all_kinds", settings, ROUNDS, template.id))
            for _ in range(WRITERS)
        ]
        for worker in workers:
            assert worker.receive() == "ready"
        for worker in workers:
            worker.send()
        # A worker that met an error has ended instead, with the error in what `receive` raises.
        assert [worker.receive() for worker in workers] == ["done"] * WRITERS
    each = WRITERS * ROUNDS
    async with place.open(**PLAIN) as db:
        counts = (await db.status()).counts
        report = await CostRepository(db).get_report("daily")
        used = await TemplateRepository(db).get(template.id)
    assert counts == {
        "generations": each + WRITERS,
        "templates": 1,
        "feedback": each,
        "costs": each,
        "memory": each,
        "best_practices": 0,
    }
    assert (report.calls, report.total, report.tokens) == (each, each * 0.5, each * 3)
    assert used is not None
    assert used.usage_count == each


async def test_a_writer_of_one_file_waits_only_for_writers_of_that_file(sqlite: Place) -> None:
    async with sqlite.open(**PLAIN, busy_timeout=0.2) as db:
        with Worker("hold", str(sqlite.folder), "memory") as holder:
            assert holder.receive() == "held"
            # It would wait for the holder, which waits for the end of this block.
            cost = await CostRepository(db).record("p", "m")
            assert await CostRepository(db).get(cost.id) == cost
            assert await MemoryRepository(db).get("key") is None  # Readers do not wait either.
            with pytest.raises(DatabaseBusyError, match="busy_timeout"):
                await MemoryRepository(db).set("key", 1)
        await MemoryRepository(db).set("key", 1)


async def test_a_write_waits_for_its_turn(sqlite: Place) -> None:
    async with sqlite.open(**PLAIN) as db:
        with Worker("hold", str(sqlite.folder), "memory") as holder:
            assert holder.receive() == "held"
            waiting = asyncio.create_task(MemoryRepository(db).set("key", 1))
            await asyncio.sleep(0.2)  # That nothing happens can only be seen by waiting.
            assert not waiting.done()
        assert (await waiting).value == 1


async def test_in_one_process_a_session_holds_up_only_the_file_that_it_writes(
    sqlite: Place,
) -> None:
    async with sqlite.open(**PLAIN, busy_timeout=0.2) as db:
        async with db.session() as session:
            await session.execute("UPDATE memory SET value = '2'")
            await CostRepository(db).record("p", "m")
            with pytest.raises(DatabaseBusyError):
                await MemoryRepository(db).set("key", 1)
        async with db.session(write=True) as session:
            await session.execute("SELECT 1")  # All six locks are taken with the first statement.
            with pytest.raises(DatabaseBusyError):
                await CostRepository(db).record("p", "m")
        await asyncio.gather(
            MemoryRepository(db).set("key", 1), CostRepository(db).record("p", "m")
        )


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork, to be killed often and cheaply")
def test_a_killed_writer_loses_nothing_that_was_acknowledged(sqlite: Place) -> None:
    chance = random.Random(1)  # The same moments each time, as far as clocks allow.
    stored: defaultdict[str, set[str]] = defaultdict(set)
    with Worker("writers_to_kill", sqlite.given(**PLAIN)) as nursery:
        for _ in range(KILLS):
            # From before it is open to some 30 writes later.
            nursery.send(chance.uniform(0.0, 0.3))
            while (line := nursery.receive()) != "killed":
                stored[line[0]].add(line[1])
    deleted = stored.pop("deleted")
    assert stored.keys() == set(NAMES)  # Some of each kind were acknowledged.
    assert len(deleted) > KILLS / 2
    assert unsound_files(sqlite.folder) == {}
    for name, ids in stored.items():
        assert ids - {row[0] for row in sqlite.rows(f"SELECT id FROM {name}")} == set()
    assert deleted & {row[0] for row in sqlite.rows("SELECT id FROM generations")} == set()
    assert sqlite.orphans() == []
