"""What the clients of a day's load do, many in a process; started as `workers` are.

A client calls whatever comes up, one call after the other, and keeps account of what it has stored.
It deletes its oldest record of a kind when it has enough of them, so that what is stored does not
grow without end, and what it measures is the same at the end as in the beginning.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections import Counter, defaultdict, deque
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from paracle_meta import (
    BestPractice,
    BestPracticeRepository,
    CostRepository,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    Template,
    TemplateRepository,
)
from paracle_meta.records import utc_now
from tests.faults.workers import Settings, database, heard, main, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from paracle_meta import MetaDatabase

KEPT = 20
"""Records of a kind that a client has at most."""

FINE = 24
"""Steps between a time and twice as much: each is 3 % longer than the one before."""

GOOD, PLAIN = 9.0, 5.0
"""The quality of what whoever promotes all that qualify promotes, and of what nobody does."""

RARE = 0.01
"""How often a client does what looks at everything there is, and makes what that is about."""

TTL = 0.2
"""Seconds that some items of memory live."""

WORDS = ("parse", "review", "deploy", "audit", "merge", "index", "refund", "schedule")


class Times:
    """How long calls took, by kind, in steps of 3 %: all that is kept of a million calls."""

    def __init__(self) -> None:
        self.steps: defaultdict[str, Counter[int]] = defaultdict(Counter)

    @asynccontextmanager
    async def of(self, kind: str) -> AsyncIterator[None]:
        """Measure the block."""
        started = time.perf_counter()
        yield
        taken = time.perf_counter() - started
        self.steps[kind][math.ceil(FINE * math.log2(taken * 1e6))] += 1


def milliseconds(step: int) -> float:
    """Return the upper end of a step of `Times`."""
    return float(2 ** (step / FINE)) / 1e3


class Client:
    """One client.

    Attributes:
        times: How long its calls took.
        rows: How many rows it has of each kind.
        expiring: How many items it has set that are soon over.
        purged: How many such items it has found purged, whosever they were.
    """

    def __init__(self, db: MetaDatabase, times: Times, name: str) -> None:
        self.name = name
        self.rows: Counter[str] = Counter()
        self.expiring = 0
        self.purged = 0
        self._db = db
        self.times = times
        # The same calls each time, as far as clocks allow.
        self._chance = random.Random(name)
        self._kept: defaultdict[str, deque[str]] = defaultdict(deque)
        self._number = 0
        self._plain = ""  # A generation that is not good enough to be promoted by all.
        self._generations = GenerationRepository(db)
        self._feedback = FeedbackRepository(db)
        self._templates = TemplateRepository(db)
        self._costs = CostRepository(db)
        self._memory = MemoryRepository(db)
        self._practices = BestPracticeRepository(db)

    async def run(self, until: float) -> None:
        """Call until a time of `time.monotonic`."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            self._use_generations,
            self._use_feedback,
            self._use_templates,
            self._use_costs,
            self._use_memory,
            self._use_practices,
            self._search,
        ]
        while time.monotonic() < until:
            await self._chance.choice(kinds)()
            if self._chance.random() < RARE:
                await self._use_rarely()

    async def _use_generations(self) -> None:
        kept = self._kept["generations"]
        async with self.times.of("add"):
            made = await self._generations.add(
                GenerationResult(
                    artifact_type=self._chance.choice(("agent", "workflow")),
                    name=self._text(2),
                    description=self._text(5),
                    content=self._text(200),
                    quality_score=GOOD if self._chance.random() < RARE else PLAIN,
                    provider=self.name,
                )
            )
        self._keep("generations", made.id)
        if made.quality_score == PLAIN:
            self._plain = made.id
        if len(kept) > KEPT:
            await self._delete_generation(kept.popleft())
        record_id = self._chance.choice(kept)
        async with self.times.of("get"):
            found = await self._generations.get(record_id)
        assert found is not None
        async with self.times.of("update"):
            await self._generations.update(record_id, tokens_used=self._chance.randrange(10_000))
        async with self.times.of("list, filtered"):
            page = await self._generations.list(
                20, artifact_type=found.artifact_type, filters={"quality_score": {"$gte": 4}}
            )
        assert all(each.artifact_type == found.artifact_type for each in page)

    async def _delete_generation(self, record_id: str) -> None:
        # Nobody else writes feedback about it.
        about = await self._feedback.count(generation_id=record_id)
        async with self.times.of("delete"):
            await self._generations.delete(record_id, cascade=True)
        self.rows["generations"] -= 1
        self.rows["feedback"] -= about

    async def _use_feedback(self) -> None:
        if not (kept := self._kept["generations"]):
            return
        record_id = self._chance.choice(kept)
        async with self.times.of("add"):
            given = await self._feedback.add(
                Feedback(generation_id=record_id, rating=self._chance.randint(1, 3))
            )
        self.rows["feedback"] += 1
        async with self.times.of("get"):
            generation, about = await self._generations.get_with_feedback(record_id)
        assert generation.provider == self.name
        assert given in about
        if len(about) > 3:
            async with self.times.of("delete"):
                await self._feedback.delete(about[-1].id)
            self.rows["feedback"] -= 1

    async def _use_templates(self) -> None:
        kept = self._kept["templates"]
        if self._plain and self._chance.random() < 0.3:
            async with self.times.of("promote"):
                made = await self._templates.promote_from_generation(self._plain)
            # Nobody else promotes it, as it is not good enough.
            if made.id not in kept:
                self._keep("templates", made.id)
        else:
            async with self.times.of("add, embedded"):
                made = await self._templates.add(
                    Template(artifact_type="agent", name=self._text(3), content=self._text(50))
                )
            self._keep("templates", made.id)
        async with self.times.of("record_use"):
            used = await self._templates.record_use(made.id)
        assert used.usage_count == made.usage_count + 1
        async with self.times.of("update, embedded"):
            await self._templates.update(made.id, pattern=self._text(4))
        if len(kept) > KEPT:
            async with self.times.of("delete"):
                await self._templates.delete(kept.popleft())
            self.rows["templates"] -= 1

    async def _use_costs(self) -> None:
        kept = self._kept["costs"]
        async with self.times.of("add"):
            made = await self._costs.record("p", self.name, 10, 20, 0.25)
        self._keep("costs", made.id)
        if len(kept) > KEPT:
            async with self.times.of("delete"):
                await self._costs.delete(kept.popleft())
            self.rows["costs"] -= 1
        if self._chance.random() < 0.3:
            async with self.times.of("costs report"):
                report = await self._costs.get_report("daily")
            mine = report.by_model[self.name]
            assert (mine.calls, mine.total) == (len(kept), len(kept) * 0.25)

    async def _use_memory(self) -> None:
        kept = self._kept["memory"]
        key = self._new_key()
        async with self.times.of("set"):
            await self._memory.set(key, {"n": key}, session_id=self.name)
        self._keep("memory", key)
        again = self._chance.choice(kept)
        async with self.times.of("set"):
            await self._memory.set(again, [again], session_id=self.name)
        async with self.times.of("get"):
            item = await self._memory.get(again, session_id=self.name)
        assert item is not None
        assert item.value == [again]
        if len(kept) > KEPT:
            async with self.times.of("delete"):
                await self._memory.delete(kept.popleft(), session_id=self.name)
            self.rows["memory"] -= 1
        async with self.times.of("list"):
            page = await self._memory.list(100, session_id=self.name)
        assert len(page) == len(kept)
        if self._chance.random() < 0.3:
            async with self.times.of("set"):
                over = await self._memory.set(self._new_key(), 1, scope="soon", ttl_seconds=TTL)
            self.expiring += 1
            async with self.times.of("get"):
                item = await self._memory.get(over.key, scope="soon")
            assert over.expires_at is not None
            # Whether it is over is what the clock says while it is looked for.
            assert item is not None or over.expires_at <= utc_now()

    async def _use_practices(self) -> None:
        kept = self._kept["best_practices"]
        tags = self._chance.sample(WORDS, 2)
        async with self.times.of("add, embedded"):
            made = await self._practices.add(
                BestPractice(
                    category=self.name, title=self._text(4), content=self._text(60), tags=tags
                )
            )
        self._keep("best_practices", made.id)
        if len(kept) > KEPT:
            async with self.times.of("delete"):
                await self._practices.delete(kept.popleft())
            self.rows["best_practices"] -= 1
        async with self.times.of("list, filtered"):
            page = await self._practices.list(50, category=self.name, tags=tags[:1])
        assert made.id in [each.id for each in page]
        async with self.times.of("record_use"):
            await self._practices.record_use(self._chance.choice(kept))

    async def _search(self) -> None:
        query = self._text(3)
        async with self.times.of("search by meaning"):
            found = await self._templates.find_similar(query, 5, artifact_type="agent")
        assert [each.score for each in found] == sorted((e.score for e in found), reverse=True)
        async with self.times.of("search by both"):
            await self._db.vector_search("best_practices", query, 5, mode="hybrid")
        async with self.times.of("search by words"):
            await self._practices.find_similar(query, 5, mode="text")
        if kept := self._kept["best_practices"]:
            async with self.times.of("search, filtered"):
                mine = await self._practices.find_similar(query, 50, category=self.name)
            assert sorted(each.id for each in mine) == sorted(kept)

    async def _use_rarely(self) -> None:
        async with self.times.of("promote all"):
            promotions = await self._templates.promote_qualified()
        for promotion in promotions:
            if promotion.created:
                self._keep("templates", promotion.template.id)
        async with self.times.of("purge"):
            self.purged += await self._memory.purge()
        async with self.times.of("session"), self._db.session() as session:
            assert await session.scalar("SELECT count(*) FROM costs") >= len(self._kept["costs"])

    def _keep(self, kind: str, record_id: str) -> None:
        self.rows[kind] += 1
        self._kept[kind].append(record_id)

    def _new_key(self) -> str:
        self._number += 1
        return f"{self.name}-{self._number}"

    def _text(self, words: int) -> str:
        return " ".join(self._chance.choices(WORDS, k=words))


def resident() -> int:
    """Return the bytes of memory that this process has now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def longest_log(settings: Settings) -> int:
    """Return the bytes of the longest write-ahead log; 0 where there is none."""
    if "sqlite_dir" not in settings:
        return 0
    return max(log.stat().st_size for log in Path(settings["sqlite_dir"]).glob("*-wal"))


async def _watch(settings: Settings, until: float, every: float) -> tuple[list[int], int]:
    """Return the memory of this process at each moment, and the longest write-ahead log."""
    memory, longest = [], 0
    while time.monotonic() < until:
        await asyncio.sleep(every)
        memory.append(resident())
        longest = max(longest, longest_log(settings))
    return memory, longest


async def load(settings: Settings, name: str, clients: int, seconds: float, warm: float) -> None:
    """Be so many clients: first for `warm` seconds, of which only the rows are counted."""
    async with database(settings) as db:
        async with db.session() as session:  # It loads SQLAlchemy.
            await session.execute("SELECT 1")
        say("ready")
        next(heard())
        warming, times = Times(), Times()
        everybody = [Client(db, warming, f"{name}-{number}") for number in range(clients)]
        await _run(everybody, time.monotonic() + warm)
        for client in everybody:
            client.times = times
        until = time.monotonic() + seconds
        watching = asyncio.create_task(_watch(settings, until, seconds / 60))
        await _run(everybody, until)
        memory, longest = await watching
    rows: Counter[str] = Counter()
    for client in everybody:
        rows.update(client.rows)
    say(
        {
            "rows": rows,
            "expiring": sum(client.expiring for client in everybody),
            "purged": sum(client.purged for client in everybody),
            "times": times.steps,
            "memory": memory,
            "longest log": longest,
        }
    )


async def _run(clients: list[Client], until: float) -> None:
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(until))


if __name__ == "__main__":
    main(globals())
