"""Damage to files at random places, and what the package makes of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from paracle_meta import (
    BestPractice,
    BestPracticeRepository,
    CostRepository,
    DatabaseError,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    ParacleMetaError,
    Template,
    TemplateRepository,
)
from tests.contract.test_hostile_filters import repositories
from tests.faults.places import NAMES, Place, unsound_files

if TYPE_CHECKING:
    import random
    from pathlib import Path

ROWS: Final = 40
NEXT: Final = ("restore it from a backup", "check that it exists", "make room", "it has room")
"""What to do next, as the messages say it."""


async def fill(db: MetaDatabase) -> None:
    """Store so many of each kind that each file has several pages of rows and of indexes."""
    for n in range(ROWS):
        text = f"{n} " * 150
        parent = GenerationResult(
            id=f"gen-{n}", artifact_type="a", name="n", content=text, metadata={"n": [n, text[:9]]}
        )
        await GenerationRepository(db).add(parent)
        await FeedbackRepository(db).add(Feedback(generation_id=parent.id, rating=3, comment=text))
        await MemoryRepository(db).set(f"{n}", [n, text], session_id="s")
        await CostRepository(db).record("p", f"m{n}" * 40, 1, 2, 0.5)
        await TemplateRepository(db).add(Template(artifact_type="a", name=f"n{n}", content=text))
        await BestPracticeRepository(db).add(
            BestPractice(category="c", title=f"t{n}", content=text, tags=[f"tag{n}", "b"])
        )


async def add_one(db: MetaDatabase, name: str) -> None:
    """Store one more record of a kind."""
    match name:
        case "generations":
            await GenerationRepository(db).add(
                GenerationResult(artifact_type="a", name="new", content="c")
            )
        case "templates":
            await TemplateRepository(db).add(Template(artifact_type="a", name="new", content="c"))
        case "feedback":
            await FeedbackRepository(db).add(Feedback(generation_id="gen-1", rating=5))
        case "costs":
            await CostRepository(db).record("p", "m")
        case "memory":
            await MemoryRepository(db).set("new", 1)
        case _:
            await BestPracticeRepository(db).add(
                BestPractice(category="c", title="new", content="c")
            )


async def contents(db: MetaDatabase, name: str) -> str:
    """Return all records of a kind as text, having asked for them in several ways."""
    repository = repositories(db)[name]
    records = await repository.list(limit=1_000)
    for record in records[::9]:
        await repository.get(record.id) if name != "memory" else await repository.get(
            record.key, session_id="s"
        )
    if name in {"templates", "best_practices"}:
        for mode in ("vector", "text", "hybrid"):
            await db.vector_search(name, "12 13", 5, mode=mode)
    return json.dumps([str(vars_of(record)) for record in records])


def vars_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


@dataclass
class Outcome:
    """What one damage led to.

    Attributes:
        refused: The error of each kind that could not be read or written.
        changed: Kinds of which other records were read than were stored, with no error.
        raw: Errors that are not this package's, or that do not say what to do next.
    """

    refused: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)


async def look(place: Place, truth: dict[str, str]) -> Outcome:
    """Read everything in a folder, and write one record of each kind."""
    outcome = Outcome()
    db = place.open(index_in_background=False, busy_timeout=5)
    try:
        for name in NAMES:
            try:
                found = await contents(db, name)
            except DatabaseError as error:
                outcome.refused[name] = str(error)
                if not any(word in str(error) for word in NEXT):
                    outcome.raw.append(f"{name}: {error!r}")
            except Exception as error:  # noqa: BLE001 - whatever it is, the test says so
                outcome.raw.append(f"{name}: {error!r}")
            else:
                if found != truth[name]:
                    outcome.changed.append(name)
        writes = {
            "costs": CostRepository(db).record("p", "m"),
            "memory": MemoryRepository(db).set("new", 1),
        }
        for name, write in writes.items():
            try:
                await write
            except ParacleMetaError as error:
                outcome.refused.setdefault(name, str(error))
            except Exception as error:  # noqa: BLE001 - as above
                outcome.raw.append(f"writing {name}: {error!r}")
    finally:
        await db.close()
    return outcome


def damage(path: Path, chance: random.Random) -> str:
    """Damage a file at a random place, in a random way, and return what was done."""
    size = path.stat().st_size
    where = chance.randrange(size)
    ways = ("one bit", "bytes", "a page", "zeros", "cut off", "header")
    way = chance.choice(ways)
    with path.open("r+b") as file:
        if way == "cut off":
            file.truncate(where)
            return f"{path.name} cut off at {where}"
        if way == "header":
            where = chance.randrange(min(size, 128))
        count = {"one bit": 1, "header": 1, "bytes": 16}.get(way, 4_096)
        where = where - where % 4_096 if count == 4_096 else where
        file.seek(where)
        old = file.read(count)
        file.seek(where)
        if way == "zeros":
            file.write(bytes(len(old)))
        elif way == "one bit":
            file.write(bytes([old[0] ^ (1 << chance.randrange(8))]))
        else:
            file.write(chance.randbytes(len(old)))
    return f"{path.name}: {way} at {where}"


def copy(source: Path, target: Path) -> Place:
    shutil.copytree(source, target)
    return Place(settings={"sqlite_dir": str(target)})


def noticed(folder: Path) -> bool:
    """Whether SQLite's own check of all pages notices something."""
    try:
        return bool(unsound_files(folder))
    except Exception:  # noqa: BLE001 - it cannot even be checked
        return True
