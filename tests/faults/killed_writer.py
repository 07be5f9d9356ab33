"""A writer of all six kinds, which says what was acknowledged, and which is killed or cut off.

Each line is one of:

``["there", table, id, version]``  acknowledged: the row is stored, in this version or a later one
``["going", table, id]``           the row is being deleted: it may be there or not
``["gone", table, id]``            acknowledged: the row is deleted
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from typing import TYPE_CHECKING, Any

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
from paracle_meta.ids import new_id
from tests.faults.workers import database, heard, load_all, main, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from paracle_meta import MetaDatabase

    Say = Callable[[Any], None]

SHARED = Template(id="tpl-shared", artifact_type="agent", name="used by all writers", content="c")

PAIR = (
    "INSERT INTO generations (id, artifact_type, name, content)"
    " VALUES ('gen-pair-{0}', 'pair', '0', 'c')",
    "INSERT INTO feedback (id, generation_id, rating) VALUES ('fb-pair-{0}', 'gen-pair-{0}', 1)",
    "INSERT INTO memory (id, key, value) VALUES ('mem-pair-{0}', 'pair-{0}', '0')",
)
"""A transaction of raw SQL over three files."""


async def write(db: MetaDatabase, tell: Say, numbers: Iterable[int], *, size: int) -> None:
    """Write a round of all kinds for each number, several files at a time.

    Args:
        db: Where.
        tell: Called with each line.
        numbers: One a round.
        size: Characters of a generation; those of each eighth are a hundred times as many, so that
            write-ahead logs grow until SQLite empties them.
    """
    await TemplateRepository(db).add(SHARED)
    tell(["there", "templates", SHARED.id, 0])
    for number in numbers:
        content = "x" * (size if number % 8 else 100 * size)
        await asyncio.gather(
            _generations(db, tell, content),
            _costs(db, tell),
            _memory(db, tell),
            _practices(db, tell),
        )
        if number % 3 == 1:
            await _session(db, tell)


async def _generations(db: MetaDatabase, tell: Say, content: str) -> None:
    generations, feedback, templates = (
        GenerationRepository(db),
        FeedbackRepository(db),
        TemplateRepository(db),
    )
    kept, dropped = (
        GenerationResult(artifact_type="agent", name="0", description="d", content=content)
        for _ in range(2)
    )
    await generations.add_many([kept, dropped])
    tell(["there", "generations", kept.id, 0])
    tell(["there", "generations", dropped.id, 0])
    rating = await feedback.add(Feedback(generation_id=kept.id, rating=1))
    tell(["there", "feedback", rating.id, 1])
    lost = await feedback.add(Feedback(generation_id=dropped.id, rating=1))
    tell(["there", "feedback", lost.id, 1])
    await generations.update(kept.id, name="1")
    tell(["there", "generations", kept.id, 1])
    await feedback.update(rating.id, rating=2)
    tell(["there", "feedback", rating.id, 2])
    tell(["going", "feedback", lost.id])
    tell(["going", "generations", dropped.id])
    await generations.delete(dropped.id, cascade=True)
    tell(["gone", "feedback", lost.id])
    tell(["gone", "generations", dropped.id])
    template = await templates.promote_from_generation(kept.id)
    tell(["there", "templates", template.id, 0])
    used = await templates.record_use(template.id)
    tell(["there", "templates", template.id, used.usage_count])
    used = await templates.record_use(SHARED.id)
    tell(["there", "templates", SHARED.id, used.usage_count])


async def _costs(db: MetaDatabase, tell: Say) -> None:
    costs = CostRepository(db)
    for number in range(3):
        tell(["there", "costs", (await costs.record("p", "m", number, 2, 0.5)).id, number])


async def _memory(db: MetaDatabase, tell: Say) -> None:
    memory = MemoryRepository(db)
    key = new_id("key")
    for version in range(3):
        item = await memory.set(key, version, session_id="s")
        tell(["there", "memory", item.id, version])
    dropped = await memory.set(f"{key} dropped", 0)
    tell(["there", "memory", dropped.id, 0])
    tell(["going", "memory", dropped.id])
    await memory.delete(f"{key} dropped")
    tell(["gone", "memory", dropped.id])


async def _practices(db: MetaDatabase, tell: Say) -> None:
    practices = BestPracticeRepository(db)
    kept, dropped = await practices.add_many(
        BestPractice(category="c", title="0", content="c", tags=["x"]) for _ in range(2)
    )
    tell(["there", "best_practices", kept.id, 0])
    tell(["there", "best_practices", dropped.id, 0])
    await practices.update(kept.id, title="1")
    tell(["there", "best_practices", kept.id, 1])
    tell(["going", "best_practices", dropped.id])
    await practices.delete(dropped.id)
    tell(["gone", "best_practices", dropped.id])


async def _session(db: MetaDatabase, tell: Say) -> None:
    name = new_id("x")
    async with db.session(write=True) as session:
        for statement in PAIR:
            await session.execute(statement.format(name))
    tell(["there", "generations", f"gen-pair-{name}", 0])
    tell(["there", "feedback", f"fb-pair-{name}", 1])
    tell(["there", "memory", f"mem-pair-{name}", 0])


async def _write_until_killed(settings: dict[str, Any], opened: int) -> None:
    db = database(settings)
    await db.open()
    os.write(opened, b".")
    await write(db, say, itertools.count(1), size=200)


def writers_to_kill() -> None:
    """Start a writer for each order that comes and kill it.

    An order is the settings, the seconds to wait, and whether they begin when the database is open;
    otherwise they begin with the writer. The answer is how it ended.

    The writers are forked, as starting Python a thousand times takes longer than all they write.
    """
    load_all()
    for settings, delay, once_open in heard():
        opened, opens = os.pipe()
        if (child := os.fork()) == 0:
            asyncio.run(_write_until_killed(settings, opens))
        os.close(opens)
        if once_open:
            os.read(opened, 1)  # Nothing, at once, where the writer has failed.
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os.close(opened)


if __name__ == "__main__":
    main(globals())
