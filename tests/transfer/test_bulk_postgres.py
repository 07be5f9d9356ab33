"""What PostgreSQL alone has: columns of a fixed width, indexes that slow a load, one server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from paracle_meta import (
    ConfigurationError,
    DatabaseSettings,
    EmbeddingModelMismatchError,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    InvalidValueError,
    MetaDatabase,
    MigrationError,
    Template,
    TemplateRepository,
)
from paracle_meta.backends.bulk import Inserted
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.schema import FEEDBACK, GENERATIONS, MEMORY, TEMPLATES, Table
from paracle_meta.testing import FakeEmbeddings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from paracle_meta.backends.bulk import Bulk
    from paracle_meta.backends.portable import Row
    from tests.postgres import PostgresServer

NARROW = VectorSpace("fake/trigrams@16", 16)


@pytest.fixture
async def settings(postgres18: PostgresServer) -> DatabaseSettings:
    return DatabaseSettings(postgres_url=postgres18.url_of(postgres18.create_database()))


@pytest.fixture
async def database(settings: DatabaseSettings) -> AsyncIterator[MetaDatabase]:
    async with MetaDatabase(settings, embeddings=FakeEmbeddings()) as database:
        yield database


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[MetaDatabase]:
    settings = DatabaseSettings(sqlite_dir=tmp_path)
    async with MetaDatabase(settings, embeddings=FakeEmbeddings(16)) as database:
        await GenerationRepository(database).add_many(generation(f"gen-{n}") for n in range(20))
        await FeedbackRepository(database).add_many(
            Feedback(id=f"fbk-{n}", generation_id=f"gen-{n}", rating=5) for n in range(20)
        )
        await TemplateRepository(database).add_many(
            Template(id=f"tpl-{n}", artifact_type="agent", name=f"Name {n}", content="Content")
            for n in range(3)
        )
        yield database


def generation(record_id: str) -> GenerationResult:
    return GenerationResult(id=record_id, artifact_type="agent", name="n", content="c")


async def bulk_of(database: MetaDatabase) -> Bulk:
    return (await database.backend()).bulk


async def rows_of(database: MetaDatabase, table: Table[Any]) -> list[Row]:
    async with (await bulk_of(database)).snapshot() as snapshot:
        return [row async for rows in snapshot.rows(table) for row in rows]


async def index_of(database: MetaDatabase) -> str | None:
    return (await database.status()).vectors["templates"].index


async def width_of(database: MetaDatabase) -> int:
    async with database.session() as session:
        width = await session.scalar(
            text(
                "SELECT atttypmod FROM pg_attribute WHERE attrelid = 'templates'::regclass"
                " AND attname = 'embedding'"
            )
        )
    return int(width)


async def words_wait(database: MetaDatabase) -> bool:
    """Whether new words wait in a list, which each search has to read."""
    async with database.session() as session:
        options = await session.scalar(
            text("SELECT reloptions::text FROM pg_class WHERE relname = 'templates_terms_idx'")
        )
    return "fastupdate=on" in str(options)


async def test_the_index_is_made_after_the_load(
    database: MetaDatabase, source: MetaDatabase
) -> None:
    rows = await rows_of(source, TEMPLATES)
    await database.backend()
    assert await index_of(database) is not None
    async with (await bulk_of(database)).loading() as loading:
        await loading.prepare(TEMPLATES, NARROW)
        assert await index_of(database) is None
        assert await loading.insert(TEMPLATES, rows) == Inserted()
        await loading.finish(TEMPLATES)
    assert await index_of(database) is not None
    assert not await words_wait(database)
    assert await rows_of(database, TEMPLATES) == rows


async def test_whoever_opens_it_next_makes_up_for_a_load_that_was_killed(
    database: MetaDatabase, source: MetaDatabase, settings: DatabaseSettings
) -> None:
    rows = await rows_of(source, TEMPLATES)
    async with (await bulk_of(database)).loading() as loading:
        await loading.prepare(TEMPLATES, NARROW)
        await loading.insert(TEMPLATES, rows)
    assert await index_of(database) is None
    assert await words_wait(database)
    async with MetaDatabase(settings, embeddings=FakeEmbeddings(16)) as other:
        await other.backend()
        assert await index_of(other) is not None
        assert not await words_wait(other)
        assert len(await TemplateRepository(other).find_similar("name")) == 3


async def test_one_transaction_makes_the_column_and_its_index_or_neither(
    database: MetaDatabase, source: MetaDatabase
) -> None:
    rows = await rows_of(source, TEMPLATES)

    async def load(*, fail: bool) -> None:
        async with (await bulk_of(database)).loading(whole=True) as loading:
            await loading.insert(TEMPLATES, [without_vector(row) for row in rows[:1]])
            await loading.prepare(TEMPLATES, NARROW)
            await loading.insert(TEMPLATES, rows[1:])
            await loading.finish(TEMPLATES)
            if fail:
                raise LookupError

    with pytest.raises(LookupError):
        await load(fail=True)
    assert await width_of(database) == 64
    assert await index_of(database) is not None
    await load(fail=False)
    assert await width_of(database) == 16
    assert await index_of(database) is not None
    assert await rows_of(database, TEMPLATES) == [without_vector(rows[0]), *rows[1:]]


def without_vector(row: Row) -> Row:
    names = [column.name for column in TEMPLATES.columns]
    return tuple(
        None if name.startswith("embedding") else value
        for name, value in zip(names, row, strict=True)
    )


async def test_vectors_that_count_no_more_do_not_stand_in_the_way(
    database: MetaDatabase, source: MetaDatabase
) -> None:
    await TemplateRepository(database).add(
        Template(id="old", artifact_type="agent", name="Old", content="c")
    )
    async with database.session(write=True) as session:
        await session.execute(text("UPDATE templates SET embedding_model = NULL"))
    rows = await rows_of(source, TEMPLATES)
    async with (await bulk_of(database)).loading() as loading:
        await loading.prepare(TEMPLATES, NARROW)
        assert await loading.insert(TEMPLATES, rows) == Inserted()
    assert await width_of(database) == 16


async def test_without_the_right_to_migrate(
    settings: DatabaseSettings, database: MetaDatabase, source: MetaDatabase
) -> None:
    await database.backend()
    rows = await rows_of(source, TEMPLATES)
    fixed = DatabaseSettings(postgres_url=settings.postgres_url, auto_migrate=False)
    async with MetaDatabase(fixed, embeddings=FakeEmbeddings()) as careful:
        async with (await bulk_of(careful)).loading() as loading:
            with pytest.raises(MigrationError, match="auto_migrate"):
                await loading.prepare(TEMPLATES, NARROW)
            with pytest.raises(InvalidValueError, match="16 dimensions"):
                await loading.insert(TEMPLATES, rows)
            await loading.prepare(TEMPLATES, VectorSpace("fake/trigrams@64", 64))
        assert await index_of(careful) is not None


async def test_vectors_switched_off(postgres18: PostgresServer, source: MetaDatabase) -> None:
    url = postgres18.url_of(postgres18.create_database())
    settings = DatabaseSettings(postgres_url=url, enable_vectors=False)
    rows = await rows_of(source, TEMPLATES)
    async with MetaDatabase(settings) as plain:
        async with (await bulk_of(plain)).loading() as loading:
            for call in (loading.prepare(TEMPLATES, NARROW), loading.insert(TEMPLATES, rows)):
                with pytest.raises(ConfigurationError, match="enable_vectors"):
                    await call
            bare = [without_vector(row) for row in rows]
            assert await loading.insert(TEMPLATES, bare) == Inserted()
            await loading.overwrite(TEMPLATES, bare)
            assert await loading.stored(TEMPLATES, rows) == bare
            await loading.finish(TEMPLATES)
        assert await rows_of(plain, TEMPLATES) == bare
        async with (await bulk_of(plain)).snapshot() as snapshot:
            assert await snapshot.vector_spaces(TEMPLATES) == []


async def test_a_taken_id_is_left_out_before_its_vector_is_looked_at(
    database: MetaDatabase, source: MetaDatabase
) -> None:
    await TemplateRepository(database).add(
        Template(id="tpl-0", artifact_type="agent", name="Mine", content="c")
    )
    rows = await rows_of(source, TEMPLATES)
    async with (await bulk_of(database)).loading() as loading:
        assert await loading.insert(TEMPLATES, rows[:1]) == Inserted(("tpl-0",), ())
        with pytest.raises(EmbeddingModelMismatchError):
            await loading.insert(TEMPLATES, rows)


async def test_two_loads_of_the_same_rows(
    database: MetaDatabase, source: MetaDatabase, settings: DatabaseSettings
) -> None:
    generations, feedback = await rows_of(source, GENERATIONS), await rows_of(source, FEEDBACK)
    async with MetaDatabase(settings, embeddings=FakeEmbeddings()) as other:

        async def load(database: MetaDatabase) -> int:
            stored = 0
            async with (await bulk_of(database)).loading() as loading:
                for n in range(20):
                    for table, rows in ((GENERATIONS, generations), (FEEDBACK, feedback)):
                        inserted = await loading.insert(table, rows[: n + 1])
                        assert inserted.orphans == ()
                        stored += n + 1 - len(inserted.taken)
            return stored

        await database.backend()
        assert sum(await asyncio.gather(load(database), load(other))) == 40
    assert await rows_of(database, FEEDBACK) == feedback


async def test_a_snapshot_may_take_longer_than_a_statement(settings: DatabaseSettings) -> None:
    hasty = DatabaseSettings(
        postgres_url=settings.postgres_url, statement_timeout=0.2, pool_size=2, pool_timeout=1
    )
    async with MetaDatabase(hasty, embeddings=FakeEmbeddings()) as database:
        await GenerationRepository(database).add_many(generation(f"gen-{n}") for n in range(3_000))
        async with (await bulk_of(database)).snapshot() as snapshot:
            number = 0
            async for rows in snapshot.rows(GENERATIONS):
                number += len(rows)
                await asyncio.sleep(0.15)
            assert number == 3_000
            assert await snapshot.count(MEMORY) == 0
        async with database.session() as session:
            # What the snapshot has set is not left to others.
            assert await session.scalar(text("SHOW statement_timeout")) == "200ms"
