"""Several processes that write to one database."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

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
from tests.faults.processes import Worker
from tests.faults.race_workers import COUNTER

if TYPE_CHECKING:
    from tests.faults.figures import Faults
    from tests.faults.places import Place

RACES = 500
WRITERS = 8
WRITES_A_ROUND = 5

OVER = 1e-6
"""A time to live, in seconds, that is over when it has been stored."""


def _where(place: Place) -> str:
    return "SQLite" if place.server is None else "PostgreSQL"


# Embeddings would only make these tests slower.
PLAIN = {"enable_vectors": False}


@pytest.mark.parametrize("journal_mode", ["wal", "truncate"])
async def test_feedback_racing_the_deletion_of_its_generation_is_never_an_orphan(
    place: Place, journal_mode: str, faults: Faults
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
    faults.note(
        f"Feedback added while its generation is deleted (journal {journal_mode})"
        if place.server is None
        else "Feedback added while its generation is deleted",
        where=_where(place),
        times=f"{races:,} races of 2 processes",
        lost="0 rows, 0 feedback without its generation",
    )


async def test_many_processes_write_all_kinds_and_nothing_is_lost_or_refused(
    place: Place, faults: Faults
) -> None:
    rounds = faults.times(25, 1_000) // WRITES_A_ROUND
    settings = place.given(**PLAIN, pool_size=4)
    async with place.open(**PLAIN) as db:
        template = await TemplateRepository(db).add(
            Template(artifact_type="agent", name="used by all", content="c")
        )
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker("write_all_kinds", settings, rounds, template.id))
            for _ in range(WRITERS)
        ]
        for worker in workers:
            assert worker.receive() == "ready"
        for worker in workers:
            worker.send()
        # A worker that met an error has ended instead, with the error in what `receive` raises.
        assert [worker.receive() for worker in workers] == ["done"] * WRITERS
    each = WRITERS * rounds
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
    faults.note(
        "Processes that write to one database at once, each several rows at a time",
        where=_where(place),
        times=f"{WRITERS} processes, {each * WRITES_A_ROUND:,} writes",
        lost="0 rows",
        seen=f"none refused; a counter that all raised is at {used.usage_count:,}",
    )


class _Racers:
    """Processes that are told to go for the same row at the same moment."""

    def __init__(self, stack: ExitStack, settings: dict[str, Any], number: int) -> None:
        self._workers = [
            stack.enter_context(Worker("race", settings, module="race_workers"))
            for _ in range(number)
        ]
        assert [worker.receive() for worker in self._workers] == ["ready"] * number
        self.races = 0

    def told(self, *orders: list[Any]) -> list[Any]:
        """Give out the orders, a name and an argument each, in turn; return all answers so."""
        # Whoever is told first has a head start of some microseconds: each has it in turn.
        self._workers.append(self._workers.pop(0))
        self.races += 1
        for worker, order in zip(self._workers, cycle(orders), strict=False):
            worker.send(order)
        return [worker.receive() for worker in self._workers]


async def test_whoever_reads_and_then_writes_is_right_when_all_do_so_at_once(
    place: Place, faults: Faults
) -> None:
    number, races = faults.times((4, 8), (8, 200))
    one_of_them = [False] * (number - 1) + [True]
    async with place.open() as db:
        memory, templates = MemoryRepository(db), TemplateRepository(db)
        used = await templates.add(Template(artifact_type="agent", name="used", content="c"))
        await memory.set(COUNTER, 0)
        with ExitStack() as stack:
            racers = _Racers(stack, place.given(pool_size=2), number)
            for turn in range(races):
                await _race_for_a_key(racers, memory, turn)
                assert sorted(racers.told(["delete_key", "key"])) == one_of_them

                numbers = list(range(turn * number + 1, (turn + 1) * number + 1))
                lock = "" if place.server is None else " FOR UPDATE"
                assert sorted(racers.told(["raise_counter", lock])) == numbers
                assert sorted(racers.told(["use_template", used.id])) == numbers

                template_id = f"tpl-raced-{turn}"
                assert sorted(racers.told(["add_template", template_id])) == one_of_them
                await _race_to_change(racers, templates, template_id)
                await _race_to_promote(racers, GenerationRepository(db))
        assert place.rows("SELECT key, value FROM memory") == [(COUNTER, str(races * number))]
        sources = [template.source for template in await templates.list(10_000)]
        assert len(set(sources) - {None}) == len(sources) - sources.count(None)
        assert sources.count(None) == races + 1
    faults.note(
        "Read-then-write by all processes at once: a key of memory set, deleted, raised by one; "
        "uses counted; one id added; one template changed; one generation promoted, and deleted",
        where=_where(place),
        times=f"{racers.races:,} races of {number} processes",
        lost="0 updates, and nothing twice",
    )


async def _race_for_a_key(racers: _Racers, memory: MemoryRepository, turn: int) -> None:
    """Set a key where nothing is, over an item whose time is over, and over one that lives."""
    before = None
    if turn % 3:
        before = await memory.set("key", "before", ttl_seconds=OVER if turn % 3 == 1 else None)
    answers = racers.told(["set_key", "key"])
    (item,) = await memory.list(filters={"key": "key"})
    assert {item_id for item_id, _ in answers} == {item.id}
    assert item.value in [value for _, value in answers]
    if before is not None:
        assert (item.id == before.id) == (turn % 3 == 2)


async def _race_to_change(racers: _Racers, templates: TemplateRepository, record_id: str) -> None:
    """Change one or the other of two columns of which one vector is made."""
    answers = racers.told(
        ["change_template", [record_id, "name"]], ["change_template", [record_id, "pattern"]]
    )
    template = await templates.get(record_id, with_embedding=True)
    assert template is not None
    assert ["name", template.name] in answers
    assert ["pattern", template.pattern] in answers
    # The vector is that of both columns as they are, not of one as it was.
    again = replace(template, id="tpl-again", usage_count=0, embedding=None)
    await templates.add(again)
    expected = await templates.get(again.id, with_embedding=True)
    assert expected is not None
    assert template.embedding == expected.embedding
    await templates.delete(again.id)


async def _race_to_promote(racers: _Racers, generations: GenerationRepository) -> None:
    """Promote one generation, all that qualify, and one that others delete meanwhile."""
    raced = await generations.add(_good(quality=None))
    assert len(set(racers.told(["promote", raced.id]))) == 1
    good = await generations.add(_good(quality=9.0))
    promoted = racers.told(["promote_all", None])
    (template_id,) = {template for answer in promoted for template in answer}
    # It is new to the one that has made it, and to nobody else.
    assert sum(answer[template_id] for answer in promoted) == 1
    await generations.delete(good.id)
    late = await generations.add(_good(quality=9.0))
    answers = racers.told(["promote_all", None], ["delete_generation", late.id])
    assert answers[1::2].count(True) == 1
    assert sum(sum(answer.values()) for answer in answers[::2]) <= 1


def _good(*, quality: float | None) -> GenerationResult:
    return GenerationResult(artifact_type="agent", name="good", content="c", quality_score=quality)


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
