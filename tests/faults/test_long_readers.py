"""Readers that read for long: the write-ahead logs of SQLite grow meanwhile, and shrink again.

PostgreSQL has no test here: its log does not wait for readers, and what they still see of replaced
rows is its autovacuum's to remove.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

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
from paracle_meta.backends.sqlite.files import WAL_SIZE_LIMIT
from paracle_meta.schema import TABLES
from tests.faults.places import NAMES, Place, attached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from paracle_meta import MetaDatabase
    from tests.faults.figures import Faults

    Write = Callable[[str], Awaitable[object]]

MIB = 1024 * 1024
PLAIN = {"enable_vectors": False}
TEXT = 256 * 1024
"""Characters of a text that is written: a log grows by many of them, and each is soon stored."""
MOST_WRITES = 10
"""Writes to a file within which its log has to be small again: one copies it into the database, one
begins it anew and cuts it."""

MARKS = dict.fromkeys(NAMES, "created_at IS NOT NULL") | {
    "generations": "name = 'written'",
    "costs": "provider = 'p'",
}
"""Which rows of a file there are one of for each write."""


@asynccontextmanager
async def session(db: MetaDatabase) -> AsyncIterator[None]:
    """Read in a session, and keep it open."""
    async with db.session() as reader:
        for name in NAMES:
            await reader.execute(f"SELECT count(*) FROM {name}")
        yield


@asynccontextmanager
async def snapshot(db: MetaDatabase) -> AsyncIterator[None]:
    """Read as an export does, and stop in the middle."""
    async with (await db.backend()).bulk.snapshot() as reader:
        for table in TABLES:
            await reader.count(table)
        yield


@asynccontextmanager
async def other_program(db: MetaDatabase) -> AsyncIterator[None]:
    """Read past the package, as a shell does, with a statement that never comes to its end."""
    with closing(attached(db.settings.sqlite_folder)) as connection:
        cursors = [connection.execute(f"SELECT id FROM {name}") for name in NAMES]
        assert all(cursor.fetchone() for cursor in cursors)
        yield


async def writes(db: MetaDatabase) -> dict[str, Write]:
    """Return for each file what writes a text, and stores a first one."""
    generation = await GenerationRepository(db).add(
        GenerationResult(artifact_type="agent", name="n", content="c")
    )

    async def add_costs(text: str) -> None:
        # No text of a cost is long, so there are as many as make up for that.
        row = await CostRepository(db).record("p", "m")
        await CostRepository(db).add_many(
            replace(row, id=f"{row.id}-{number}", provider="p" * 500, model="m" * 500)
            for number in range(len(text) // 1_000)
        )

    found: dict[str, Write] = {
        "generations": lambda text: GenerationRepository(db).add(
            GenerationResult(artifact_type="agent", name="written", content=text)
        ),
        "templates": lambda text: TemplateRepository(db).add(
            Template(artifact_type="agent", name="n", content=text)
        ),
        "feedback": lambda text: FeedbackRepository(db).add(
            Feedback(generation_id=generation.id, rating=3, comment=text)
        ),
        "costs": add_costs,
        "memory": lambda text: MemoryRepository(db).set(f"{time.monotonic_ns()}", text),
        "best_practices": lambda text: BestPracticeRepository(db).add(
            BestPractice(category="c", title="t", content=text)
        ),
    }
    for write in found.values():
        await write("a first one")
    return found


@pytest.mark.parametrize("reader", [session, snapshot, other_program])
async def test_the_log_shrinks_when_a_long_reader_has_ended(
    sqlite: Place,
    faults: Faults,
    reader: Callable[[MetaDatabase], AbstractAsyncContextManager[None]],
) -> None:
    # One file does in the short form: they are treated alike.
    names = faults.times(["memory"], NAMES)
    wanted = faults.times(WAL_SIZE_LIMIT + 2 * MIB, 64 * MIB)
    written: Counter[str] = Counter()
    async with sqlite.open(**PLAIN) as db:
        functions = await writes(db)

        async def write(name: str, text: str = "x") -> None:
            await functions[name](text)
            written[name] += 1

        async with reader(db):
            for name in names:
                while size(sqlite, name) < wanted:
                    await write(name, "x" * TEXT)
        grown = {name: size(sqlite, name) for name in names}
        slowest, needed = 0.0, 0
        for name in names:
            for number in range(MOST_WRITES):
                if size(sqlite, name) <= WAL_SIZE_LIMIT:
                    break
                started = time.monotonic()
                await write(name)
                slowest = max(slowest, time.monotonic() - started)
                needed = max(needed, number + 1)
        shrunk = {name: size(sqlite, name) for name in NAMES}
        assert max(shrunk.values()) <= WAL_SIZE_LIMIT
        # From here on it stays so, as what is written takes the place of what was copied.
        for name in names:
            for _ in range(2 * WAL_SIZE_LIMIT // TEXT):
                await write(name, "x" * TEXT)
            assert size(sqlite, name) <= WAL_SIZE_LIMIT
    assert [path.name for path in sqlite.folder.glob("*-wal")] == []
    for name in names:
        # Each text is that of one row: a first one and all that followed.
        texts = f"SELECT count(*) FROM {name} WHERE {MARKS[name]}"
        assert sqlite.rows(texts) == [(str(1 + written[name]),)]
    faults.note(
        f"Written while a long reader reads ({reader.__name__.replace('_', ' ')}), which then ends",
        where="SQLite",
        times=f"{sum(grown.values()) // MIB:,} MB of write-ahead log in {len(names)} files, "
        f"{written.total():,} writes",
        lost="0 rows",
        seen=f"at most {max(shrunk.values()) // MIB} MB a file after {needed} writes, of which the "
        f"slowest took {slowest:.2f} s; 0 MB after closing",
    )


def size(place: Place, name: str) -> int:
    """Return the bytes of a file's write-ahead log."""
    return (place.folder / f"{name}.db-wal").stat().st_size
