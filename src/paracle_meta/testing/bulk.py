"""What the contracts of a database as a whole share: records of all kinds, and all rows."""

# ruff: noqa: S101 - asserting is its purpose

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    BestPracticeRepository,
    CostRecord,
    CostRepository,
    DatabaseSettings,
    FeedbackRepository,
    GenerationRepository,
    MemoryRepository,
    MetaDatabase,
    TemplateRepository,
)
from paracle_meta.backends.bulk import Inserted, Period
from paracle_meta.schema import (
    COLLECTIONS,
    TABLES,
    Kind,
    Table,
)
from paracle_meta.testing.base import (
    START,
    Contract,
    OpenDatabase,
    generation,
    practice,
    rating,
    template,
)
from paracle_meta.testing.embeddings import FakeEmbeddings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from paracle_meta.backends.bulk import Bulk, Snapshot

ODD_TEXTS = (
    'it\'s "quoted" \\ back\\slashed \\. $$ $1 %s {} ; --',
    "\t\n\r\x01\x1f\x7f\x85\u2028\ufeff",
    "\u00e4\u4e2d\U0001f600\u202e\u0645\u0631\u062d\u0628\u0627 \ufffd\uffff",
    "x" * 20_000,
)
"""What both databases can hold, and some ways of writing it cannot."""

ODD_JSON: tuple[dict[str, Any], ...] = (
    {},
    {"whole": 2**70, "float": 1e16, "large": 1.5e300, "small": 1e-300, "one": 1.0, "yes": True},
    {"e": '1e5 " 1e+16', "nested": [{"a": [None, [], {}]}], "\u00e4": ODD_TEXTS[1]},
)


class BulkContract(Contract):
    """Base of the two contracts."""

    @pytest.fixture
    async def other(self, tmp_path: Path) -> AsyncIterator[OpenDatabase]:
        """Make further databases, each new, on files."""
        async with AsyncExitStack() as stack:
            folders = iter(range(1_000))

            def make(embeddings: FakeEmbeddings | None = None, **changes: Any) -> MetaDatabase:
                settings = DatabaseSettings(sqlite_dir=tmp_path / str(next(folders)), **changes)
                database = MetaDatabase(settings, embeddings=embeddings or FakeEmbeddings())
                stack.push_async_callback(database.close)
                return database

            yield make


async def bulk_of(database: MetaDatabase) -> Bulk:
    """Return the database as a whole."""
    return (await database.backend()).bulk


async def remembered(database: MetaDatabase, key: str, **named: Any) -> Any:
    """Return the value under a key."""
    item = await MemoryRepository(database).get(key, **named)
    return None if item is None else item.value


async def fill(database: MetaDatabase) -> None:
    """Store records of all kinds with all that is odd and allowed."""
    await GenerationRepository(database).add_many(
        [
            generation("gen-1", content="plain", metadata={"a": 1}),
            *(
                generation(
                    f"gen-{n + 2}",
                    name=text,
                    content=text,
                    description=text,
                    metadata=ODD_JSON[n % 3],
                    quality_score=n * 3.3,
                    tokens_used=2**31 - 1,
                    cost=(0.1, 1e9, 5e-324, 0.0)[n],
                    provider="p",
                    model="m",
                    created_at=(
                        datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
                        datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC),
                        START,
                        START + timedelta(microseconds=1),
                    )[n],
                )
                for n, text in enumerate(ODD_TEXTS)
            ),
            generation("l" * 512),
            generation("\u00e4" * 256, metadata=None),
        ]
    )
    await TemplateRepository(database).add_many(
        [template("tpl-0", content=ODD_TEXTS[1]), template("tpl-1", name="Auditor", pattern="")]
    )
    await BestPracticeRepository(database).add_many(
        [
            practice("bpr-0", tags=[]),
            practice("bpr-1", tags=["tools", "", "\u00e4 \"'\\,{}"][::2], quality_score=10),
        ]
    )
    await FeedbackRepository(database).add_many(
        [rating("fbk-1", comment=ODD_TEXTS[0]), rating("fbk-2", 1, generation_id="gen-3")]
    )
    costs = CostRepository(database)
    await costs.add_many(
        CostRecord(
            id=f"cst-{n}",
            provider=ODD_TEXTS[0],
            model="m",
            period_start=day,
            cost=None if n else 0.25,
            input_tokens=n or None,
        )
        for n, day in enumerate([date.min, date.max, date(2026, 2, 28)])
    )
    memory = MemoryRepository(database)
    for n, value in enumerate((None, 1.0, 1, True, "text", [*ODD_JSON], {"a": ODD_TEXTS[2]})):
        await memory.set(f"odd-{n}", value, session_id="s" if n == 2 else None)
    await memory.set("leaves", 0, ttl_seconds=3e9)


async def everything(database: MetaDatabase) -> dict[str, list[Any]]:
    """Return all rows by table, JSON in one spelling."""
    async with (await bulk_of(database)).snapshot() as snapshot:
        return {
            table.name: [comparable(table, row) for row in await rows_of(snapshot, table)]
            for table in TABLES
        }


def comparable(table: Table[Any], row: Any) -> Any:
    """Return a row with its JSON in one spelling."""
    kinds = (Kind.JSON, Kind.TAGS)
    return tuple(
        json.dumps(json.loads(value), sort_keys=True)
        if column.kind in kinds and value is not None
        else value
        for column, value in zip(table.columns, row, strict=True)
    )


def changed_row(table: Table[Any], row: Any, **changes: Any) -> Any:
    """Return a row with some columns changed."""
    return tuple(
        changes.get(column.name, value) for column, value in zip(table.columns, row, strict=True)
    )


async def rows_of(snapshot: Snapshot, table: Table[Any], period: Period | None = None) -> list[Any]:
    """Return all rows of a snapshot."""
    batches = snapshot.rows(table, period) if period is not None else snapshot.rows(table)
    return [row async for batch in batches for row in batch]


async def insert_everything(loading: Any, given: dict[str, list[Any]]) -> None:
    """Store rows of all tables."""
    for table in TABLES:
        assert await loading.insert(table, given[table.name]) == Inserted()


async def copy(source: MetaDatabase, target: MetaDatabase) -> None:
    """Store all rows of one database in another."""
    async with (
        (await bulk_of(source)).snapshot() as snapshot,
        (await bulk_of(target)).loading() as loading,
    ):
        for table in TABLES:
            for space in await snapshot.vector_spaces(table):
                await loading.prepare(table, space)
            async for rows in snapshot.rows(table):
                assert await loading.insert(table, rows) == Inserted()
    async with (await bulk_of(target)).loading() as loading:
        for table in COLLECTIONS.values():
            await loading.finish(table)


async def delete_all(database: MetaDatabase, table: Table[Any]) -> None:
    """Delete all rows of a table."""
    await (await database.backend()).delete_where(table, [])
