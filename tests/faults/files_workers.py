"""A process whose disk is full from a certain write on: see files_full.c, which it is run with."""

from __future__ import annotations

import ctypes
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paracle_meta import (
    BestPractice,
    BestPracticeRepository,
    CostRepository,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    MemoryRepository,
    MetaDatabase,
    ParacleMetaError,
    Template,
    TemplateRepository,
)
from tests.faults.places import NAMES, unsound_files
from tests.faults.workers import database, generation, heard, load_all, main, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TEXT = "x" * 9_000
"""More than two pages, so that each row takes several writes."""


def _full_from(number: int, folder: str) -> None:
    ctypes.CDLL(None).full_from(ctypes.c_long(number), folder.encode())


async def _writes(db: MetaDatabase) -> AsyncIterator[tuple[str, str]]:
    """Write each kind and say what was acknowledged: the table and the id."""
    parent = (await GenerationRepository(db).add(generation(TEXT))).id
    yield "generations", parent
    yield "memory", (await MemoryRepository(db).set("key", TEXT, session_id=parent)).id
    yield "costs", (await CostRepository(db).record("p", TEXT[:500])).id
    template = Template(artifact_type="agent", name="t", content=TEXT)
    yield "templates", (await TemplateRepository(db).add(template)).id
    rating = Feedback(generation_id=parent, rating=1, comment=TEXT)
    yield "feedback", (await FeedbackRepository(db).add(rating)).id
    practice = BestPractice(category="c", title="t", content=TEXT, tags=["x"])
    yield "best_practices", (await BestPracticeRepository(db).add(practice)).id
    changed = await TemplateRepository(db).update(template.id, content=TEXT + "y")
    yield "templates", changed.id
    async with db.session(write=True) as session:
        await session.execute("UPDATE costs SET model = model || 'y'")
        await session.execute("UPDATE memory SET key = key || 'y'")


async def write_until_full(template: str, folder: str) -> None:
    """For each number that comes, copy the folder and write until the n-th write finds it full.

    With a template that is empty, the database is made in the new folder.
    """
    load_all()
    # It warns of vectors that are not in the cache, which a full disk may well keep it from.
    logging.getLogger("paracle_meta").addHandler(logging.NullHandler())
    for number in heard():
        copy = Path(folder) / str(number)
        if template:
            shutil.copytree(template, copy)
        settings = {"sqlite_dir": str(copy), "busy_timeout": 5}
        say(await _until_full(settings, copy, number))
        shutil.rmtree(copy)


async def _until_full(settings: dict[str, Any], folder: Path, number: int) -> dict[str, Any]:
    db = database(settings)
    acknowledged: list[tuple[str, str]] = []
    answer: dict[str, Any] = {"error": None, "read": 0, "lost": [], "unsound": {}, "more": False}
    _full_from(number, str(folder))
    try:
        async for written in _writes(db):
            acknowledged.append(written)  # noqa: PERF401 - kept until the one that fails
    except ParacleMetaError as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["calls"] = ctypes.CDLL(None).full_calls()
    if acknowledged:
        # Still no room: all six files can be read.
        answer["lost"] = await _missing(db, acknowledged)
        answer["read"] = len(acknowledged)
    _full_from(-1, "")
    acknowledged += [written async for written in _writes(db)]
    answer["more"] = True
    answer["lost"] += await _missing(db, acknowledged)
    await db.close()
    # As another process finds it.
    again = database(settings)
    answer["lost"] += await _missing(again, acknowledged)
    await again.close()
    answer["unsound"] = unsound_files(folder)
    return answer


async def _missing(db: MetaDatabase, acknowledged: list[tuple[str, str]]) -> list[list[str]]:
    async with db.session() as session:
        stored = {name: set(await session.scalars(f"SELECT id FROM {name}")) for name in NAMES}
    return [[name, record_id] for name, record_id in acknowledged if record_id not in stored[name]]


if __name__ == "__main__":
    main(globals())
