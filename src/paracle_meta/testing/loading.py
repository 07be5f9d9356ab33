"""The contract of loading: many rows of another database stored at once."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import asyncio

import pytest

from paracle_meta import (
    BestPracticeRepository,
    CostRepository,
    EmbeddingModelMismatchError,
    FeedbackRepository,
    GenerationRepository,
    InvalidValueError,
    MemoryRepository,
    MetaDatabase,
    NotFoundError,
    TemplateRepository,
)
from paracle_meta.backends.bulk import Inserted
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.schema import (
    BEST_PRACTICES,
    COLLECTIONS,
    COSTS,
    FEEDBACK,
    GENERATIONS,
    MEMORY,
    TABLES,
    TEMPLATES,
)
from paracle_meta.testing.base import (
    OpenDatabase,
    generation,
    ids,
    rating,
    template,
)
from paracle_meta.testing.bulk import (
    BulkContract,
    bulk_of,
    changed_row,
    copy,
    delete_all,
    everything,
    fill,
    insert_everything,
    remembered,
)
from paracle_meta.testing.embeddings import FakeEmbeddings


class LoadingContract(BulkContract):
    """Copies there and back, what is left out, overwriting, vectors, all or nothing."""

    async def test_everything_is_the_same_after_a_copy_there_and_back(
        self, database: MetaDatabase, other: OpenDatabase
    ) -> None:
        source, back = other(), other()
        await fill(source)
        given = await everything(source)
        assert all(given.values())
        await copy(source, database)
        await copy(database, back)
        assert await everything(database) == given
        assert await everything(back) == given
        for repository, record_id in (
            (GenerationRepository, "gen-1"),
            (TemplateRepository, "tpl-0"),
            (FeedbackRepository, "fbk-1"),
            (CostRepository, "cst-1"),
            (BestPracticeRepository, "bpr-0"),
        ):
            assert await repository(database).get(record_id) == await repository(source).get(
                record_id
            )
        assert await MemoryRepository(database).get("odd-1") == await MemoryRepository(source).get(
            "odd-1"
        )

    async def test_what_is_stored_is_never_overwritten(
        self, database: MetaDatabase, other: OpenDatabase
    ) -> None:
        await GenerationRepository(database).add(generation("gen-1", name="Mine"))
        await MemoryRepository(database).set("key", "mine", session_id="s")
        source = other()
        await GenerationRepository(source).add_many([generation("gen-1"), generation("gen-2")])
        await FeedbackRepository(source).add_many(
            [rating("fbk-1"), rating("fbk-2", generation_id="gen-2")]
        )
        items = [
            await MemoryRepository(source).set("key", "theirs", session_id=session_id)
            for session_id in ("s", None)
        ]
        given = await everything(source)
        taken_id, free_id = (item.id for item in items)
        async with (await bulk_of(database)).loading() as loading:
            feedback = given["feedback"]
            assert await loading.insert(FEEDBACK, feedback) == Inserted((), ("fbk-2",))
            assert await loading.insert(FEEDBACK, feedback) == Inserted(("fbk-1",), ("fbk-2",))
            generations = given["generations"]
            assert await loading.insert(GENERATIONS, generations) == Inserted(("gen-1",), ())
            assert await loading.insert(FEEDBACK, feedback[1:]) == Inserted()
            assert await loading.insert(MEMORY, given["memory"]) == Inserted((taken_id,), ())
            assert await loading.insert(COSTS, []) == Inserted()
            stored = await loading.stored(MEMORY, given["memory"])
            assert len(stored) == 2
            assert free_id in {row[0] for row in stored}
            assert taken_id not in {row[0] for row in stored}
            assert await loading.stored(GENERATIONS, given["generations"][1:]) == generations[1:]
        mine = await GenerationRepository(database).get("gen-1")
        assert mine is not None
        assert mine.name == "Mine"
        assert await remembered(database, "key", session_id="s") == "mine"
        assert await remembered(database, "key") == "theirs"

    async def test_of_rows_with_one_id_the_first_is_stored(
        self, database: MetaDatabase, other: OpenDatabase
    ) -> None:
        source = other()
        await GenerationRepository(source).add(generation("gen-1", name="First"))
        await MemoryRepository(source).set("key", 1)
        given = await everything(source)
        (row,) = given["generations"]
        (item,) = given["memory"]
        async with (await bulk_of(database)).loading() as loading:
            rows = [row, changed_row(GENERATIONS, row, name="Second")]
            assert await loading.insert(GENERATIONS, rows) == Inserted(("gen-1",), ())
            items = [item, changed_row(MEMORY, item, id="mem-2", value="2")]
            assert await loading.insert(MEMORY, items) == Inserted(("mem-2",), ())
        assert await everything(database) == given

    async def test_all_or_nothing(self, database: MetaDatabase, other: OpenDatabase) -> None:
        source = other()
        await fill(source)
        given = await everything(source)
        bulk = await bulk_of(database)

        async def fail() -> None:
            async with bulk.loading(whole=True) as loading:
                await insert_everything(loading, given)
                assert len(await loading.stored(FEEDBACK, given["feedback"])) == 2
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert not any((await everything(database)).values())
        async with bulk.loading(whole=True) as loading:
            await insert_everything(loading, given)
            # One call that fails has stored nothing, and takes nothing with it.
            one, other_one = given["feedback"]
            changed_one = changed_row(FEEDBACK, one, rating=3)
            orphan = changed_row(FEEDBACK, other_one, generation_id="gen-missing")
            with pytest.raises(NotFoundError, match="gen-missing"):
                await loading.overwrite(FEEDBACK, [changed_one, orphan])
        assert await everything(database) == given
        found = await TemplateRepository(database).find_similar("auditor", mode="text")
        assert ids(found) == ["tpl-1"]

    async def test_overwriting(self, database: MetaDatabase, other: OpenDatabase) -> None:
        await fill(database)
        source = other()
        await GenerationRepository(source).add(generation("gen-1", name="New", quality_score=1))
        templates = [template("tpl-1", name="Gardener", pattern="plants"), template("tpl-9")]
        await TemplateRepository(source).add_many(templates)
        await MemoryRepository(source).set("odd-1", "new")
        given = await everything(source)
        async with (await bulk_of(database)).loading() as loading:
            for table in TABLES:
                await loading.overwrite(table, given[table.name])
        assert await GenerationRepository(database).get("gen-1") == await GenerationRepository(
            source
        ).get("gen-1")
        assert await remembered(database, "odd-1") == "new"
        there = TemplateRepository(database)
        assert ids(await there.find_similar("gardener", mode="text")) == ["tpl-1"]
        assert ids(await there.find_similar("auditor", mode="text")) == []
        assert ids(await there.find_similar("gardener plants", 1, mode="vector")) == ["tpl-1"]
        row = changed_row(FEEDBACK, (await everything(database))["feedback"][0])
        async with (await bulk_of(database)).loading() as loading:
            with pytest.raises(NotFoundError, match="gen-missing"):
                await loading.overwrite(
                    FEEDBACK, [changed_row(FEEDBACK, row, generation_id="gen-missing")]
                )

    async def test_searches_find_what_was_loaded(
        self, database: MetaDatabase, other: OpenDatabase
    ) -> None:
        source = other()
        await fill(source)
        await copy(source, database)
        here, there = BestPracticeRepository(source), BestPracticeRepository(database)
        for mode in ("text", "vector", "hybrid"):
            found = await there.find_similar("which tools", mode=mode)
            assert "bpr-1" in ids(found)
            assert ids(found) == ids(await here.find_similar("which tools", mode=mode))
        async with (await bulk_of(database)).snapshot() as snapshot:
            (row,) = await snapshot.rows_of(BEST_PRACTICES, ["bpr-1"])
        row = changed_row(BEST_PRACTICES, row, id="bpr-9", tags='["line\\nbreak", "\\u00e4rger"]')
        async with (await bulk_of(database)).loading() as loading:
            await loading.insert(BEST_PRACTICES, [row])
        for query in ("break", "\u00e4rger"):
            assert ids(await there.find_similar(query, mode="text")) == ["bpr-9"]
        assert await there.find_similar("nbreak", mode="text") == []

    async def test_vectors_of_another_model_are_refused(
        self, database: MetaDatabase, other: OpenDatabase
    ) -> None:
        await TemplateRepository(database).add(template("tpl-0"))
        source = other(FakeEmbeddings(16, name="others"))
        await TemplateRepository(source).add_many([template("tpl-0"), template("tpl-1")])
        rows = (await everything(source))["templates"]
        async with (await bulk_of(database)).loading() as loading:
            with pytest.raises(EmbeddingModelMismatchError, match=r"trigrams.*others"):
                await loading.prepare(TEMPLATES, VectorSpace("fake/others@16", 16))
            with pytest.raises(EmbeddingModelMismatchError, match=r"trigrams.*others"):
                await loading.insert(TEMPLATES, rows)
            # Where another has its id, a row's vector does not matter.
            assert await loading.insert(TEMPLATES, rows[:1]) == Inserted(("tpl-0",), ())
            mixed = changed_row(TEMPLATES, rows[1], embedding_model="fake/trigrams@64")
            with pytest.raises(InvalidValueError, match="16 dimensions"):
                await loading.insert(TEMPLATES, [mixed])
        assert await TemplateRepository(database).count() == 1

    async def test_an_empty_collection_takes_vectors_of_any_model(
        self, database: MetaDatabase, other: OpenDatabase, open_database: OpenDatabase
    ) -> None:
        source = other(FakeEmbeddings(16, name="others"))
        await fill(source)
        given = await everything(source)
        await copy(source, database)
        assert await everything(database) == given
        reader = open_database(embeddings=FakeEmbeddings(16, name="others"))
        found = await TemplateRepository(reader).find_similar("auditor", mode="vector")
        assert ids(found) == ["tpl-1", "tpl-0"]
        # And all at once, into what was emptied.
        for table in reversed(TABLES):
            await delete_all(database, table)
        async with (await bulk_of(database)).loading(whole=True) as loading:
            for name, table in COLLECTIONS.items():
                space = VectorSpace("fake/trigrams@24", 24)
                await loading.prepare(table, space)
                assert await loading.insert(table, given[name][:0]) == Inserted()
                await loading.finish(table)
        # Nothing was stored, so whoever comes next stores its own.
        writer = open_database()
        await TemplateRepository(writer).add(template("tpl-7"))
        assert ids(await TemplateRepository(writer).find_similar("reviewer")) == ["tpl-7"]

    async def test_a_vector_and_its_model_are_one(
        self, database: MetaDatabase, other: OpenDatabase
    ) -> None:
        source = other()
        await TemplateRepository(source).add_many([template("tpl-1"), template("tpl-2")])
        one, two = (await everything(source))["templates"]
        async with (await bulk_of(database)).loading() as loading:
            rows = [
                changed_row(TEMPLATES, one, embedding=None),
                changed_row(TEMPLATES, two, embedding_model=None),
            ]
            assert await loading.insert(TEMPLATES, rows) == Inserted()
        stored = (await everything(database))["templates"]
        assert [changed_row(TEMPLATES, one, embedding=None, embedding_model=None)] == stored[:1]
        report = (await database.embed_missing("templates"))["templates"]
        assert report.embedded == 2

    async def test_a_cancelled_load_leaves_nothing_half_done(
        self, database: MetaDatabase, other: OpenDatabase
    ) -> None:
        source = other()
        await GenerationRepository(source).add_many(generation(f"gen-{n}") for n in range(300))
        rows = (await everything(source))["generations"]
        bulk = await bulk_of(database)

        async def load() -> None:
            async with bulk.loading(whole=True) as loading:
                for first in range(0, 300, 10):
                    await loading.insert(GENERATIONS, rows[first : first + 10])
                    begun.set()
                await asyncio.Event().wait()

        for _ in range(3):
            begun = asyncio.Event()
            task = asyncio.create_task(load())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await GenerationRepository(database).count() == 0
        async with bulk.loading() as loading:
            assert await loading.insert(GENERATIONS, rows) == Inserted()
