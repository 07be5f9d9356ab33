"""What raw SQL may have put into SQLite, and no other database can hold."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import struct
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    DatabaseSettings,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MetaDatabase,
    UnportableError,
)
from paracle_meta.backends.bulk import Period
from paracle_meta.schema import (
    BEST_PRACTICES,
    COSTS,
    FEEDBACK,
    GENERATIONS,
    MEMORY,
    TABLES,
    TEMPLATES,
    Table,
)
from paracle_meta.testing import FakeEmbeddings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from paracle_meta.backends.bulk import Bulk, Snapshot, Unportable

NUL = "has a NUL character, which PostgreSQL cannot store"
NO_UTF8 = "has bytes that are no Unicode text in UTF-8"
TOO_LARGE = "must be from -2,147,483,647 to 2,147,483,647"
INSTEAD = "\N{REPLACEMENT CHARACTER}"

GOOD: dict[str, dict[str, Any]] = {
    "generations": {"id": "x", "artifact_type": "agent", "name": "n", "content": "c"},
    "templates": {"id": "x", "artifact_type": "agent", "name": "n", "content": "c"},
    "feedback": {"id": "x", "generation_id": "gen-1", "rating": 5},
    "costs": {"id": "x", "provider": "p", "model": "m"},
    "memory": {"id": "x", "key": "k", "value": "1"},
    "best_practices": {"id": "x", "category": "c", "title": "t", "content": "c"},
}
"""What a row of each table has to have."""


def vector(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


# Table, column, an expression of SQLite, the reason, and what a repair makes of it.
DAMAGE: list[tuple[Table[Any], str, str, str, Any]] = [
    (GENERATIONS, "content", "'a' || char(0) || 'b'", NUL, f"a{INSTEAD}b"),
    (GENERATIONS, "content", "CAST(x'61eda08062' AS TEXT)", NO_UTF8, f"a{INSTEAD}b"),
    (GENERATIONS, "content", "CAST(x'ff61c3' AS TEXT)", NO_UTF8, f"{INSTEAD}a{INSTEAD}"),
    (GENERATIONS, "description", "x'616200'", "is a BLOB and no text", f"ab{INSTEAD}"),
    (GENERATIONS, "name", "char(0)", NUL, INSTEAD),
    (
        GENERATIONS,
        "provider",
        "hex(zeroblob(300))",
        "has 600 bytes in UTF-8; at most 512 are allowed",
        "0" * 512,
    ),
    (GENERATIONS, "tokens_used", "'many'", "is no number", None),
    (GENERATIONS, "tokens_used", "1.5", "must be a whole number, not float", None),
    (GENERATIONS, "tokens_used", "3000000000", TOO_LARGE, None),
    (GENERATIONS, "cost", "9e999", "must be a finite number", None),
    (GENERATIONS, "cost", "-1", "must be at least 0", None),
    (GENERATIONS, "quality_score", "x'00'", "is no number", None),
    (GENERATIONS, "metadata", "'{'", "is no JSON", None),
    (GENERATIONS, "metadata", "12", "is a number and no JSON", None),
    (GENERATIONS, "metadata", "x'7b7d'", "is a BLOB and no JSON", "{}"),
    (GENERATIONS, "metadata", """'{"a":"\\u0000"}'""", NUL, f'{{"a":"{INSTEAD}"}}'),
    (
        GENERATIONS,
        "metadata",
        """'{"\\ud800":["x\\udfffy"]}'""",
        "has a lone surrogate, which is no valid Unicode text",
        f'{{"{INSTEAD}":["x{INSTEAD}y"]}}',
    ),
    (GENERATIONS, "metadata", """'{"a":NaN}'""", "is no JSON", '{"a":null}'),
    (GENERATIONS, "metadata", """'{"a":1e999}'""", "must be a finite number", '{"a":null}'),
    (
        GENERATIONS,
        "metadata",
        """CAST(x'7b2261223a22ff227d' AS TEXT)""",
        NO_UTF8,
        f'{{"a":"{INSTEAD}"}}',
    ),
    (TEMPLATES, "usage_count", "'often'", "is no number", 0),
    (TEMPLATES, "usage_count", "3000000000", TOO_LARGE, 0),
    (FEEDBACK, "rating", "3.4", "must be a whole number, not float", 3),
    (FEEDBACK, "rating", "9", "must be at most 5", 5),
    (FEEDBACK, "rating", "'good'", "is no number", 1),
    (FEEDBACK, "comment", "char(0)", NUL, INSTEAD),
    (COSTS, "period_start", "'2026-02-30'", "is no day", "now"),
    (COSTS, "period_start", "'soon'", "is no day", "now"),
    (COSTS, "period_type", "'yearly'", "must be one of daily, monthly", "daily"),
    (COSTS, "created_at", "'2026-02-30 00:00:00.000000'", "is no time", "now"),
    (COSTS, "created_at", "20260230", "is no time", "now"),
    (COSTS, "updated_at", "CAST(x'ff' AS TEXT)", "is no time", "now"),
    (
        COSTS,
        "created_at",
        "'9999-12-31 23:59:59.999999'",
        "is the first or last moment that Python knows",
        "now",
    ),
    (MEMORY, "expires_at", "'never'", "is no time", None),
    (MEMORY, "value", "'undefined'", "is no JSON", "null"),
    (MEMORY, "value", """'"\\u0000"'""", NUL, f'"{INSTEAD}"'),
    (MEMORY, "session_id", "'s' || char(0)", NUL, f"s{INSTEAD}"),
    (MEMORY, "scope", "char(0)", NUL, INSTEAD),
    (BEST_PRACTICES, "tags", "'tag'", "is no JSON", None),
    (BEST_PRACTICES, "tags", """'{"a":1}'""", "must be a list of texts", None),
    (BEST_PRACTICES, "tags", """'["a",1,"b"]'""", "must be text, not int", '["a","b"]'),
    (BEST_PRACTICES, "tags", """'["a\\u0000"]'""", NUL, f'["a{INSTEAD}"]'),
]

GOOD_VALUES: list[tuple[Table[Any], str, str, Any]] = [
    (GENERATIONS, "name", "'  '", "  "),
    (GENERATIONS, "content", "''", ""),
    (GENERATIONS, "content", "'\\u0000 \ufffd \U0001f600'", "\\u0000 \ufffd \U0001f600"),
    (GENERATIONS, "content", "12.50", "12.5"),
    (GENERATIONS, "metadata", """'{ "a" : 1E5 }'""", '{ "a" : 1E5 }'),
    (GENERATIONS, "metadata", """'{"a":"\\u001f\\ud83d\\ude00"}'""", None),
    (GENERATIONS, "metadata", "'[1]'", "[1]"),
    (GENERATIONS, "metadata", "'null'", "null"),
    (GENERATIONS, "cost", "1", 1.0),
    (COSTS, "created_at", "'2026-01-31 09:00:00'", "2026-01-31 09:00:00.000000"),
    (COSTS, "created_at", "'2026-01-31T10:00:00.5+01:00'", "2026-01-31 09:00:00.500000"),
    (COSTS, "created_at", "'2026-01-31'", "2026-01-31 00:00:00.000000"),
    (COSTS, "period_start", "'2026-W05-6'", "2026-01-31"),
    (BEST_PRACTICES, "tags", "NULL", None),
    (BEST_PRACTICES, "tags", """'[ "" ]'""", '[ "" ]'),
    (MEMORY, "value", "'12'", "12"),
]
"""What only raw SQL stores, and others can hold all the same."""


class Folder:
    """A database on files, written to by hand."""

    def __init__(self, folder: Path, database: MetaDatabase) -> None:
        self.database = database
        self._folder = folder

    def insert(self, table: Table[Any], record_id: str = "'x'", **columns: str) -> None:
        """Insert a row past all checks; values are expressions."""
        values = {name: repr(value) for name, value in GOOD[table.name].items()}
        values |= {"id": record_id, **columns}
        with closing(sqlite3.connect(self._folder / f"{table.name}.db")) as connection, connection:
            connection.execute("PRAGMA ignore_check_constraints = on")
            names, expressions = ", ".join(values), ", ".join(values.values())
            connection.execute(f"INSERT INTO {table.name} ({names}) VALUES ({expressions})")

    async def bulk(self) -> Bulk:
        return (await self.database.backend()).bulk

    async def unportable(self, *tables: Table[Any]) -> list[Unportable]:
        async with (await self.bulk()).snapshot() as snapshot:
            return [value for table in tables async for value in snapshot.unportable(table)]

    async def repaired(self, table: Table[Any]) -> list[dict[str, Any]]:
        async with (await self.bulk()).snapshot(repair=True) as snapshot:
            return await read(snapshot, table)


async def read(
    snapshot: Snapshot, table: Table[Any], *, tested: bool = False
) -> list[dict[str, Any]]:
    names = [column.name for column in table.columns]
    return [
        dict(zip(names, row, strict=True))
        async for rows in snapshot.rows(table, tested=tested)
        for row in rows
    ]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrated once and then copied, which takes a millisecond."""
    folder = tmp_path_factory.mktemp("migrated")

    async def migrate() -> None:
        settings = DatabaseSettings(sqlite_dir=folder)
        async with MetaDatabase(settings, embeddings=FakeEmbeddings()) as database:
            await GenerationRepository(database).add(
                GenerationResult(id="gen-1", artifact_type="a", name="n", content="c")
            )

    asyncio.run(migrate())
    return folder


@pytest.fixture
async def folder(tmp_path: Path, migrated: Path) -> AsyncIterator[Folder]:
    shutil.copytree(migrated, tmp_path, dirs_exist_ok=True)
    settings = DatabaseSettings(sqlite_dir=tmp_path)
    async with MetaDatabase(settings, embeddings=FakeEmbeddings()) as database:
        yield Folder(tmp_path, database)


@pytest.mark.parametrize(("table", "column", "expression", "reason", "repaired"), DAMAGE)
async def test_damage_is_named_and_can_be_repaired(
    table: Table[Any], column: str, expression: str, reason: str, repaired: Any, folder: Folder
) -> None:
    folder.insert(table, **{column: expression})
    (value,) = await folder.unportable(*TABLES)
    assert (value.table, value.record_id, value.column) == (table.name, "x", column)
    async with (await folder.bulk()).snapshot() as snapshot:
        with pytest.raises(UnportableError):
            await read(snapshot, table, tested=True)
    assert value.reason == reason
    before = datetime.now(UTC)
    row = next(row for row in await folder.repaired(table) if row["id"] == "x")
    if repaired == "now":
        instead = datetime.fromisoformat(row[column])
        assert abs(before.replace(tzinfo=None) - instead).days <= 1
    else:
        assert row[column] == repaired
    for name, good in GOOD[table.name].items():
        assert name == column or row[name] == good


@pytest.mark.parametrize(("table", "column", "expression", "read_as"), GOOD_VALUES)
async def test_what_can_be_held_elsewhere_is_not_named(
    table: Table[Any], column: str, expression: str, read_as: Any, folder: Folder
) -> None:
    folder.insert(table, **{column: expression})
    assert await folder.unportable(*TABLES) == []
    async with (await folder.bulk()).snapshot() as snapshot:
        rows = await read(snapshot, table)
        assert await read(snapshot, table, tested=True) == rows
    row = next(row for row in rows if row["id"] == "x")
    assert read_as is None or row[column] == read_as
    assert [row] == [row for row in await folder.repaired(table) if row["id"] == "x"]


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (vector(1.0, float("nan")), "has no direction"),
        (vector(0.0, 0.0), "has no direction"),
        (vector(3e38, 3e38), "has no direction"),
        (vector(1.0, 2.0)[:-1], "is no vector of numbers of 4 bytes"),
        (b"", "has 0 dimensions"),
    ],
)
async def test_vectors_that_are_none(blob: bytes, reason: str, folder: Folder) -> None:
    good = f"x'{vector(1.0, 2.0).hex()}'"
    folder.insert(TEMPLATES, "'a'", embedding=good, embedding_model="'m'")
    folder.insert(TEMPLATES, embedding=f"x'{blob.hex()}'", embedding_model="'m'")
    # One without its model does not count.
    folder.insert(TEMPLATES, "'b'", embedding=f"x'{blob.hex()}'")
    (value,) = await folder.unportable(TEMPLATES)
    assert (value.record_id, value.column) == ("x", "embedding")
    assert reason in value.reason
    rows = {
        row["id"]: (row["embedding"], row["embedding_model"])
        for row in await folder.repaired(TEMPLATES)
    }
    assert rows == {"a": (vector(1.0, 2.0), "m"), "b": (None, None), "x": (None, None)}


async def test_ids_stay_different_and_whoever_refers_to_them_still_does(folder: Folder) -> None:
    broken = ["'a' || char(0)", "CAST(x'61ff' AS TEXT)", "x'61ff'", f"'a{INSTEAD}'"]
    for n, record_id in enumerate(broken):
        folder.insert(GENERATIONS, record_id, name=f"'{n}'")
        folder.insert(FEEDBACK, f"'fbk-{n}'", generation_id=record_id)
    named = await folder.unportable(GENERATIONS)
    assert [value.record_id for value in named] == [r"'a\x00'", r"b'a\xff'", r"b'a\xff'"]
    assert {value.column for value in named} == {"id"}
    assert len(await folder.unportable(FEEDBACK)) == 3
    names = {row["id"]: row["name"] for row in await folder.repaired(GENERATIONS)}
    assert len(names) == 5
    assert names[f"a{INSTEAD}"] == "3"
    for row in await folder.repaired(FEEDBACK):
        assert names[row["generation_id"]] == row["id"].removeprefix("fbk-")
    async with (await folder.bulk()).snapshot(repair=True) as snapshot:
        versions = [pair async for batch in snapshot.versions(GENERATIONS) for pair in batch]
        assert [record_id for record_id, _ in versions] == list(names)
        for record_id, name in names.items():
            ((_, _, found, *_),) = await snapshot.rows_of(GENERATIONS, [record_id])
            assert found == name


async def test_damage_is_found_among_many_rows(folder: Folder) -> None:
    repository = GenerationRepository(folder.database)
    await repository.add_many(
        GenerationResult(id=f"gen-{n:05}", artifact_type="a", name="n", content="c")
        for n in range(3_000)
    )
    for n in ("00999", "01000", "01500x", "02999x"):
        folder.insert(GENERATIONS, f"'gen-{n}y'", content="CAST(x'ff' AS TEXT)")
        folder.insert(GENERATIONS, f"'gen-{n}z'", metadata="'{'", description="char(0)")
    named = await folder.unportable(GENERATIONS)
    assert len(named) == 12
    assert {value.record_id[-1] for value in named} == {"y", "z"}
    async with (await folder.bulk()).snapshot() as snapshot:
        with pytest.raises(UnportableError, match="generations"):
            await read(snapshot, GENERATIONS)
    assert len(await folder.repaired(GENERATIONS)) == 3_009


async def test_damage_outside_the_period_does_not_matter(folder: Folder) -> None:
    early, late = "'2026-01-01 00:00:00.000000'", "'2026-02-01 00:00:00.000000'"
    folder.insert(GENERATIONS, "'old'", content="char(0)", created_at=early)
    folder.insert(GENERATIONS, "'older'", content="char(0)", created_at=early)
    folder.insert(FEEDBACK, generation_id="'old'", created_at=late)
    since = Period(since=datetime(2026, 1, 15, tzinfo=UTC), until=datetime(2026, 3, 1, tzinfo=UTC))
    async with (await folder.bulk()).snapshot() as snapshot:
        named = [value async for value in snapshot.unportable(GENERATIONS, since)]
    assert [value.record_id for value in named] == ["old"]


async def test_no_text_of_a_record_is_told(folder: Folder) -> None:
    folder.insert(
        GENERATIONS, content="CAST(x'736563726574ff' AS TEXT)", name="'secret' || char(0)"
    )
    told = repr(await folder.unportable(GENERATIONS))
    async with (await folder.bulk()).snapshot() as snapshot:
        with pytest.raises(UnportableError) as caught:
            await read(snapshot, GENERATIONS)
    assert "secret" not in f"{told} {caught.value} {caught.value.__cause__}"
    assert caught.value.__suppress_context__


async def test_feedback_is_read_as_before(folder: Folder) -> None:
    await FeedbackRepository(folder.database).add(Feedback(id="f", generation_id="gen-1", rating=1))
    assert await folder.unportable(FEEDBACK) == []
