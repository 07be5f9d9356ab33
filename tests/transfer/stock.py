"""A database with rows of every kind and every sort of value, and how to look at it again."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from paracle_meta import (
    BestPractice,
    BestPracticeRepository,
    CostRecord,
    CostRepository,
    DatabaseSettings,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.testing import FakeEmbeddings

if TYPE_CHECKING:
    from pathlib import Path

    from paracle_meta.transfer import CopyReport
    from tests.postgres import PostgresServer

DIMENSIONS = 16
MOMENT = datetime(2026, 1, 31, 9, 0, 0, 123_456, tzinfo=UTC)
CONTENTS = (
    "plain",
    'it\'s "quoted" \\. \\N \\\\ $$ $1 %s ?',
    "lines\nand\r\ntabs\tand a\x0bbell\x07",
    "Grüße 漢字 🦄 \u202eright to left\u202c \ufffd \ue000",
    "NULL",
)
METADATA: tuple[dict[str, Any] | None, ...] = (
    None,
    {},
    {"big": 2**70, "float": 1.0, "whole": 1, "tiny": 5e-324, "huge": 1.7976931348623157e308},
    {"z": [1, [2, {"deep": None}]], "a": True, "e": 1e16, "é\n\"'": "\\u0000 is no NUL"},
    {"zero": -0.0, "in text": "-0.0"},
)
QUERIES = ("security review", "poem about a unicorn", "quoted")


def folder(path: Path, **settings: Any) -> MetaDatabase:
    """A database on SQLite."""
    return MetaDatabase(
        DatabaseSettings(sqlite_dir=path, index_in_background=False, **settings),
        embeddings=FakeEmbeddings(DIMENSIONS),
    )


def on(server: PostgresServer, **settings: Any) -> MetaDatabase:
    """A new, empty database on a server, opened by a model of another width."""
    url = server.url_of(server.create_database())
    return MetaDatabase(
        DatabaseSettings(postgres_url=url, **settings), embeddings=FakeEmbeddings(DIMENSIONS)
    )


def later(number: int) -> datetime:
    return MOMENT + timedelta(microseconds=number)


async def fill(db: MetaDatabase) -> None:
    """Store rows of all six kinds with every sort of value that their columns may have."""
    random = np.random.default_rng(7)
    generations = [
        GenerationResult(
            id=f"gen-{number}",
            artifact_type="agent",
            name=f"name {number}",
            description=content if number % 2 else None,
            content=content,
            quality_score=None if number == 0 else number / 3,
            provider=None if number == 1 else "p'\"\\",
            model="m",
            tokens_used=None if number == 2 else 2**31 - 1,
            cost=None if number == 3 else 0.1 + number,
            created_at=later(number),
            updated_at=later(number),
            metadata=metadata,
        )
        for number, (content, metadata) in enumerate(zip(CONTENTS, METADATA, strict=True))
    ]
    await GenerationRepository(db).add_many(generations)
    await FeedbackRepository(db).add_many(
        [
            Feedback(id=f"fbk-{n}", generation_id=f"gen-{n % 3}", rating=1 + n % 5, comment=text)
            for n, text in enumerate([None, *CONTENTS])
        ]
    )
    await CostRepository(db).add_many(
        [
            CostRecord(id="cst-1", provider="p", model="m", period_start=date(2026, 2, 28)),
            CostRecord(
                id="cst-2",
                provider="p",
                model="m",
                input_tokens=0,
                output_tokens=5,
                cost=1e-9,
                period_type="monthly",
                period_start=date(1999, 12, 1),
            ),
        ]
    )
    memory = MemoryRepository(db)
    values: list[Any] = [None, 1, 1.0, "text", *METADATA, [], 2**70]
    for number, value in enumerate(values):
        await memory.set(f"key {number}", value, session_id=None if number % 2 else "s'1")
    await memory.set("passes", 1, scope="global", ttl_seconds=3600)
    words = ("A security reviewer", "A unicorn that writes a poem", "Quoted 'words' and reviews")
    await TemplateRepository(db).add_many(
        [
            Template(
                id=f"tpl-{n}",
                artifact_type="agent",
                name=words[n % 3],
                pattern=None if n % 2 else f"pattern {n}",
                content=f"{words[n % 3]} {CONTENTS[n % len(CONTENTS)]}",
                quality_score=n % 10,
                usage_count=n,
                source="gen-1" if n == 1 else None,
                embedding=random.standard_normal(DIMENSIONS).astype(np.float32),
            )
            for n in range(30)
        ]
    )
    practices = BestPracticeRepository(db)
    await practices.add_many(
        [
            BestPractice(
                id=f"bpr-{n}",
                category="security",
                title=f"{words[n % 3]} {n}",
                content=CONTENTS[n % len(CONTENTS)],
                tags=[] if n == 0 else ["a,b", 'quo"te', "back\\slash", f"tag {n}"],
            )
            for n in range(12)
        ]
    )
    # One that came while the provider was away, so that it has no vector.
    embeddings = db.embeddings()
    assert isinstance(embeddings, FakeEmbeddings)
    embeddings.down = True
    await practices.add(BestPractice(id="bpr-z", category="c", title="no vector", content="c"))
    embeddings.down = False


ROWS = {
    "generations": 5,
    "templates": 30,
    "feedback": 6,
    "costs": 2,
    "memory": 12,
    "best_practices": 13,
}
"""What `fill` stores."""


async def contents(db: MetaDatabase) -> dict[str, list[str]]:
    """Return all that the API tells of each record, as text in which 1 and 1.0 differ."""
    templates, practices = TemplateRepository(db), BestPracticeRepository(db)
    records: dict[str, list[Any]] = {
        "generations": await GenerationRepository(db).list(limit=10_000),
        "templates": [
            await templates.get(one.id, with_embedding=True)
            for one in await templates.list(limit=10_000)
        ],
        "feedback": await FeedbackRepository(db).list(limit=10_000),
        "costs": await CostRepository(db).list(limit=10_000),
        "memory": await MemoryRepository(db).list(limit=10_000),
        "best_practices": [
            await practices.get(one.id, with_embedding=True)
            for one in await practices.list(limit=10_000)
        ],
    }
    return {
        name: [
            json.dumps(dataclasses.asdict(one), sort_keys=True, default=str).replace(
                " -0.0", " 0.0"
            )
            for one in found
        ]
        for name, found in records.items()
    }


async def answers(db: MetaDatabase) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return what searches of each sort find."""
    found = []
    for collection in ("templates", "best_practices"):
        for mode in ("vector", "text", "hybrid"):
            for query in QUERIES:
                matches = await db.vector_search(collection, query, 5, mode=mode)
                found.append((query, [(one.id, round(one.score, 4)) for one in matches]))
    return found


def counts(report: CopyReport) -> dict[str, tuple[int, int, int]]:
    """Return copied, updated and unchanged rows of each table where one was copied or updated."""
    return {
        table.table: (table.copied, table.updated, table.unchanged)
        for table in report.tables
        if table.copied or table.updated
    }
