"""A change of embedding model, the filling in of vectors and their cache, on the backends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    DatabaseBusyError,
    EmbeddingModelMismatchError,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.schema import BEST_PRACTICES, TEMPLATES
from paracle_meta.testing import FakeEmbeddings
from tests.faults.changes import (
    NEW,
    OLD,
    SAME_WIDTH,
    Model,
    change_all,
    changing,
    collections,
    database,
    make,
    packed,
    template,
    text,
    vectors_of,
)
from tests.faults.processes import Worker
from tests.migrations.databases import postgres_catalog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.faults.places import Place

ROWS = 40
WIDE = Model(2_500, "wide")
FUNCTIONS = """SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql') ORDER BY proname"""
INDEX = "SELECT indexdef FROM pg_indexes WHERE indexname = 'templates_embedding_idx'"


@pytest.fixture
async def db(place: Place) -> AsyncIterator[MetaDatabase]:
    """A database with ROWS templates, whose vectors are of OLD."""
    async with database(place.settings, OLD) as db:
        await TemplateRepository(db).add_many([template(n) for n in range(ROWS)])
        yield db


@pytest.fixture
async def db_on_postgresql(postgresql: Place) -> AsyncIterator[MetaDatabase]:
    async with database(postgresql.settings, OLD) as db:
        await TemplateRepository(db).add_many([template(n) for n in range(ROWS)])
        yield db


async def holds(db: MetaDatabase, embeddings: FakeEmbeddings, *, missing: int = 0) -> None:
    """See that each vector is of the model and of the text that is stored now."""
    templates = TemplateRepository(db)
    records = await templates.list(limit=1_000)
    without = 0
    for record in records:
        stored = await templates.get(record.id, with_embedding=True)
        assert stored is not None
        if stored.embedding_model is None:
            without += 1
            continue
        assert stored.embedding_model == embeddings.model_id
        assert stored.embedding == pytest.approx(await embeddings.embed(text(record)), abs=1e-6)
    assert without == missing
    status = (await db.status()).vectors["templates"]
    assert (status.embedded, status.missing) == (len(records) - missing, missing)
    assert (status.changing_to, status.changed) == (None, 0)


async def finds(db: MetaDatabase, record: Template, embeddings: FakeEmbeddings) -> None:
    vector = await embeddings.embed(text(record))
    matches = await db.vector_search("templates", vector=vector, top_k=3)
    assert matches[0].id == record.id
    assert matches[0].similarity == pytest.approx(1.0, abs=1e-5)


# --- Filling in ---------------------------------------------------------------------------------


async def test_records_without_a_vector_get_one(place: Place) -> None:
    fake = FakeEmbeddings(16)
    async with database(place.settings, fake) as db:
        templates = TemplateRepository(db)
        await templates.add(template(0))
        fake.down = True
        await templates.add_many([template(n) for n in range(1, 8)])
        fake.down = False
        found = await (await collections(db)).without_vector(TEMPLATES, limit=3, after=None)
        assert [record.id for record in found] == ["tpl-0001", "tpl-0002", "tpl-0003"]
        assert found[0] == await templates.get("tpl-0001")
        rest = await (await collections(db)).without_vector(TEMPLATES, limit=100, after="tpl-0003")
        assert [record.id for record in rest] == [f"tpl-{n:04}" for n in range(4, 8)]
        vectors = await vectors_of([*found, *rest], fake)
        # One gets another text, one is deleted and one has got a vector before these are stored.
        fake.down = True
        await templates.update("tpl-0001", name="another")
        fake.down = False
        await templates.delete("tpl-0002")
        await templates.update("tpl-0003", embedding=await fake.embed("by hand"))
        # What is not embedded does not matter.
        await templates.update("tpl-0004", source="elsewhere")
        await templates.record_use("tpl-0005")
        stored = await (await collections(db)).store_vectors(
            TEMPLATES, vectors, model=fake.model_id
        )
        assert stored == 4
        assert [
            record.id
            for record in await (await collections(db)).without_vector(
                TEMPLATES, limit=9, after=None
            )
        ] == ["tpl-0001"]
        kept = await templates.get("tpl-0007")
        assert kept is not None
        assert kept.updated_at > rest[-1].updated_at
        await finds(db, kept, fake)
        with pytest.raises(EmbeddingModelMismatchError, match="paracle meta reembed"):
            await (await collections(db)).store_vectors(
                TEMPLATES, [replace(vectors[0])], model="another/model"
            )


async def test_the_cache_keeps_the_newest(place: Place) -> None:
    async with database(place.settings, OLD) as db:
        cache = await collections(db)

        def made(*numbers: int) -> dict[bytes, bytes]:
            return {bytes([n]) * 32: packed([n, 1.0]) for n in numbers}

        await cache.cache_vectors(TEMPLATES, "a/b", made(1, 2, 3), keep=5)
        # What is there already does not count again.
        for _ in range(10):
            await cache.cache_vectors(TEMPLATES, "a/b", made(1, 2, 3), keep=5)
        await cache.cache_vectors(TEMPLATES, "a/c", made(4), keep=5)
        wanted = list(made(1, 2, 3, 4, 9))
        assert await cache.cached_vectors(TEMPLATES, "a/b", wanted) == made(1, 2, 3)
        assert await cache.cached_vectors(TEMPLATES, "a/c", wanted) == made(4)
        assert await cache.cached_vectors(BEST_PRACTICES, "a/b", wanted) == {}
        await cache.cache_vectors(TEMPLATES, "a/b", made(5, 6), keep=5)
        kept = await cache.cached_vectors(TEMPLATES, "a/b", list(made(1, 2, 3, 5, 6)))
        assert kept == made(2, 3, 5, 6)
        assert await cache.cached_vectors(TEMPLATES, "a/c", wanted) == made(4)
        await asyncio.gather(
            *(cache.cache_vectors(TEMPLATES, "a/b", made(n, 100), keep=5) for n in range(20, 40))
        )
        # A few less where PostgreSQL has given a number to one that another process was first with.
        ((rows,),) = place.rows("SELECT count(*) FROM templates_cached_vectors")
        assert 1 <= int(rows) <= 5


# --- Changing -----------------------------------------------------------------------------------


async def test_old_vectors_answer_until_the_switch(db: MetaDatabase, place: Place) -> None:
    async with changing(db, NEW) as change:
        assert await change.remaining() == ROWS
        assert len(await make(change, NEW)) == ROWS
        assert await change.remaining() == 0
        assert await change.pending(limit=9, after=None) == []
        status = (await db.status()).vectors["templates"]
        assert (status.changing_to, status.changed) == (NEW.model_id, ROWS)
        assert status.models == (OLD.model_id,)
        await finds(db, template(3), OLD)
        await change.prepare()
        await finds(db, template(3), OLD)
        assert await change.switch(())
        with pytest.raises(EmbeddingModelMismatchError, match="paracle meta reembed"):
            await finds(db, template(3), OLD)
    await holds(db, NEW)
    async with database(place.settings, NEW) as other:
        await finds(other, template(3), NEW)
        await TemplateRepository(other).add(template(ROWS))
        await finds(other, template(ROWS), NEW)


async def test_what_is_written_meanwhile_is_not_lost(db: MetaDatabase) -> None:
    templates = TemplateRepository(db)
    async with changing(db, NEW) as change:
        # Read, then changed or deleted before its vector is stored.
        records = await change.pending(limit=4, after=None)
        vectors = await vectors_of(records, NEW)
        await templates.update("tpl-0000", name="flutes and gardens")
        await templates.delete("tpl-0001")
        await change.store(vectors)
        await make(change, NEW)
        # Changed or deleted after it was stored, or added.
        await templates.update("tpl-0005", content="harbours")  # the embedded text stays in use
        await templates.update("tpl-0006", pattern="engines of copper")
        await templates.update("tpl-0007", quality_score=3.0)
        await templates.record_use("tpl-0008")
        await templates.delete("tpl-0009")
        async with db.session() as session:
            await session.execute("UPDATE templates SET name = 'by hand' WHERE id = 'tpl-0010'")
        await templates.add(template(ROWS))
        pending = [record.id for record in await change.pending(limit=99, after=None)]
        assert pending == ["tpl-0005", "tpl-0006", "tpl-0010", f"tpl-{ROWS:04}"]
        assert await change.remaining() == 4
        await change.prepare()
        assert not await change.switch(())
        assert not await change.switch(["tpl-0005"])
        assert await make(change, NEW) == pending
        assert await change.switch(())
    await holds(db, NEW)
    assert await templates.get("tpl-0001") is None
    assert await templates.get("tpl-0009") is None


async def test_records_that_cannot_be_embedded_lose_their_vector(db: MetaDatabase) -> None:
    async with changing(db, NEW) as change:
        await make(change, NEW, but={"tpl-0002", "tpl-0003"})
        assert await change.remaining() == 2
        await change.prepare()
        assert not await change.switch(["tpl-0002"])
        await finds(db, template(2), OLD)
        # Of one that is not missing nothing is taken away.
        assert await change.switch(["tpl-0002", "tpl-0003", "tpl-0004", "gone"])
    await holds(db, NEW, missing=2)
    found = await (await collections(db)).without_vector(TEMPLATES, limit=9, after=None)
    assert [record.id for record in found] == ["tpl-0002", "tpl-0003"]


async def test_from_model_to_model(db: MetaDatabase, place: Place) -> None:
    models = [
        Model(1_536, "first"),
        Model(768, "first"),
        Model(256, "first"),
        Model(256, "other"),
        Model(2_500, "first"),
    ]
    for model in models:
        await change_all(db, model)
        await holds(db, model)
        async with database(place.settings, model) as other:
            await finds(other, template(7), model)
            await TemplateRepository(other).update("tpl-0007", name="apples 7")
            await TemplateRepository(other).update("tpl-0007", name=template(7).name)


@pytest.mark.parametrize("model", [SAME_WIDTH, NEW], ids=["same width", "other width"])
async def test_a_program_with_the_old_model_is_told(
    db: MetaDatabase, place: Place, model: Model
) -> None:
    templates = TemplateRepository(db)
    async with database(place.settings, model) as new_db:
        for record in (template(1), template(2)):  # prepares all statements
            await finds(db, record, OLD)
        await templates.update("tpl-0003", name="apples")
        with pytest.raises(EmbeddingModelMismatchError, match="paracle meta reembed"):
            await finds(new_db, template(1), model)
        await change_all(db, model)
        await finds(new_db, template(1), model)
        await TemplateRepository(new_db).add(template(100))
        refused: list[Any] = [
            finds(db, template(1), OLD),
            db.vector_search("templates", "apples", mode="hybrid"),
            templates.add(template(200)),
            templates.add_many([template(201), template(202)]),
            templates.update("tpl-0004", name="bridges"),
            templates.update("tpl-0004", embedding=await OLD.embed("bridges")),
        ]
        for call in refused:
            with pytest.raises(EmbeddingModelMismatchError, match="paracle meta reembed"):
                await call
        # All that needs no vector goes on.
        assert await templates.count() == ROWS + 1
        assert (await templates.record_use("tpl-0004")).usage_count == 1
        assert len(await templates.list(limit=99)) == ROWS + 1
        await holds(new_db, model)


async def test_begun_anew_for_another_target(db: MetaDatabase) -> None:
    other = Model(24, "other")
    wider = Model(36, "other")
    for given_up in (NEW, other):
        async with changing(db, given_up) as change:
            await make(change, given_up, but={"tpl-0001"})
            assert await change.remaining() == 1
            await change.prepare()
    async with changing(db, wider) as change:
        assert await change.remaining() == ROWS
        await make(change, wider)
        await change.prepare()
        assert await change.switch(())
    await holds(db, wider)


async def test_vectors_of_the_new_model_are_not_made_again(db: MetaDatabase, place: Place) -> None:
    # A change to the model that is there already, also of what is written meanwhile.
    templates = TemplateRepository(db)
    async with changing(db, OLD) as change:
        assert await change.remaining() == 0
        by_hand = await OLD.embed("something else")
        await templates.update("tpl-0001", embedding=by_hand)
        await templates.add(template(ROWS))
        await templates.update("tpl-0002", name="harbours of copper")
        assert await change.remaining() == 0
        await change.prepare()
        assert await change.switch(())
    stored = await templates.get("tpl-0001", with_embedding=True)
    assert stored is not None
    assert stored.embedding == pytest.approx(by_hand, abs=1e-6)
    await templates.update("tpl-0001", name="apples 1")
    await holds(db, OLD)
    # A collection of two models, as only somebody else's SQL makes it.
    async with db.session() as session:
        await session.execute(
            "UPDATE templates SET embedding_model = :model WHERE id < 'tpl-0010'",
            {"model": SAME_WIDTH.model_id},
        )
    async with changing(db, SAME_WIDTH) as change:
        assert await make(change, SAME_WIDTH) == [f"tpl-{n:04}" for n in range(10, ROWS + 1)]
        await change.prepare()
        assert await change.switch(())
    async with database(place.settings, SAME_WIDTH) as other:
        await finds(other, template(20), SAME_WIDTH)


async def test_an_empty_collection(place: Place) -> None:
    async with database(place.settings, OLD) as db:
        await change_all(db, NEW)
    async with database(place.settings, NEW) as db:
        await TemplateRepository(db).add(template(1))
        await finds(db, template(1), NEW)


async def test_nothing_stored_is_made_again_after_a_kill(db: MetaDatabase, place: Place) -> None:
    with Worker("change_in_steps", place.settings, module="change_workers") as worker:
        assert worker.receive() == "begun"
        with Worker("change_in_steps", place.settings, module="change_workers") as second:
            assert "wait for it" in second.receive()
        stored = [*worker.ask(), *worker.ask(), *worker.ask()]
        worker.send()
        worker.process.kill()
        worker.process.wait()
        await finds(db, template(3), OLD)
        async with changing(db, NEW) as change:
            pending = {record.id for record in await change.pending(limit=99, after=None)}
            assert len(stored) == 15
            assert pending.isdisjoint(stored)
            await make(change, NEW)
            await change.prepare()
            assert await change.switch(())
    await holds(db, NEW)


async def test_two_changes_at_once_are_refused(db: MetaDatabase) -> None:
    async with changing(db, NEW):
        with pytest.raises(DatabaseBusyError, match="templates anew"):
            async with changing(db, NEW):
                """Never reached."""
    async with changing(db, NEW) as change:
        assert await change.remaining() == ROWS


async def test_searches_and_writes_go_on(db: MetaDatabase, place: Place) -> None:
    """Nobody meets any other error than that the model is another one, and nothing is lost."""
    templates = TemplateRepository(db)
    switched = asyncio.Event()
    added: list[str] = []
    answers = {"old": 0, "new": 0}

    async def search(embeddings: FakeEmbeddings, key: str) -> None:
        async with database(place.settings, embeddings) as mine:
            while not switched.is_set() or answers["new"] < 3:
                try:
                    await finds(mine, template(11), embeddings)
                    answers[key] += 1
                except EmbeddingModelMismatchError:
                    pass
                # A search that has all in memory does not wait for anything.
                await asyncio.sleep(0)

    async def write() -> None:
        for number in range(1_000, 9_000):
            try:
                record = await templates.add(template(number))
                added.append(record.id)
                await templates.update("tpl-0012", name=f"copper {number}")
            except EmbeddingModelMismatchError:
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(search(OLD, "old"))
        tasks.create_task(search(SAME_WIDTH, "new"))
        tasks.create_task(write())
        async with changing(db, SAME_WIDTH) as change:
            await make(change, SAME_WIDTH)
            await change.prepare()
            while not await change.switch(()):
                await make(change, SAME_WIDTH)
        switched.set()
    assert answers["old"] > 0
    assert added
    for record_id in added:
        assert await templates.get(record_id) is not None
    await holds(db, SAME_WIDTH)


# --- On SQLite ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [SAME_WIDTH, NEW], ids=["same width", "other width"])
async def test_the_index_of_old_vectors_is_never_used_for_new_ones(
    sqlite: Place, model: Model
) -> None:
    settings = {**sqlite.settings, "index_in_background": False}
    async with database(settings, OLD) as db, database(settings, model) as other:
        # Enough that an index is worth it.
        await TemplateRepository(db).add_many([template(n) for n in range(5_100)])
        assert await db.build_index("templates") == {"templates": 5_100}
        await finds(db, template(4_000), OLD)
        async with changing(db, model) as change:
            await make(change, model, batch=2_000)
            # One that is being made meanwhile is of old or of new vectors, and known to be.
            built, switched = await asyncio.gather(
                db.build_index("templates"), change.switch(()), return_exceptions=True
            )
            assert switched is True
            assert isinstance(built, dict | DatabaseBusyError)
        await finds(other, template(4_000), model)
        await TemplateRepository(other).add(template(5_100))
        assert await other.build_index("templates") == {"templates": 5_101}
        for number in (1, 2_500, 5_100):
            await finds(other, template(number), model)
        with pytest.raises(EmbeddingModelMismatchError):
            await finds(db, template(1), OLD)
    async with database(settings, model) as again:
        await finds(again, template(4_000), model)


# --- On PostgreSQL ------------------------------------------------------------------------------


async def test_nothing_is_left_but_what_a_new_database_has(
    db_on_postgresql: MetaDatabase, postgresql: Place
) -> None:
    server = postgresql.server
    assert server is not None
    await change_all(db_on_postgresql, NEW)
    await change_all(db_on_postgresql, WIDE)
    fresh = server.create_database()
    # The other collection has no vectors, so its column follows whoever opens.
    for name in (postgresql.database, fresh):
        async with database({"postgres_url": server.url_of(name)}, WIDE) as other:
            await other.open()
    changed, expected = (
        sorted(postgres_catalog(server, name).splitlines()) for name in (postgresql.database, fresh)
    )
    assert changed == expected
    assert any("halfvec(2500)" in line for line in changed)
    assert postgresql.rows(FUNCTIONS) == [
        tuple(line.split("|")) for line in server.sql(FUNCTIONS, fresh).splitlines()
    ]
    # A program that opens it finds nothing to do.
    async with database({**postgresql.settings, "auto_migrate": False}, WIDE) as other:
        await finds(other, template(1), WIDE)


@pytest.mark.parametrize(
    ("vector_index", "rows", "expected"),
    [("none", ROWS, ""), ("ivfflat", ROWS, ""), ("ivfflat", 1_000, "ivfflat"), ("hnsw", 0, "hnsw")],
)
async def test_the_new_vectors_get_the_index_of_the_settings(
    postgresql: Place, vector_index: str, rows: int, expected: str
) -> None:
    settings = {**postgresql.settings, "vector_index": vector_index}
    async with database(settings, OLD) as db:
        await TemplateRepository(db).add_many([template(n) for n in range(rows)])
        await change_all(db, NEW)
        index = (await db.status()).vectors["templates"].index
        assert (index is not None) == bool(expected)
    assert [expected in line for (line,) in postgresql.rows(INDEX)] == [True] * bool(expected)


async def test_each_tenant_changes_alone(postgresql: Place) -> None:
    """The search path of a tenant leads to `public` too, where another one may change as well."""
    tenant = {**postgresql.settings, "postgres_schema": "tenant_1"}
    async with database(postgresql.settings, OLD) as public, database(tenant, OLD) as db:
        for one in (public, db):
            await TemplateRepository(one).add_many([template(n) for n in range(ROWS)])
        async with changing(public, NEW) as others:
            await make(others, NEW)
            await others.prepare()
            async with changing(db, SAME_WIDTH) as change:
                await make(change, SAME_WIDTH)
                # Not prepared: the look-up of its indexes must not find those of `public`.
                assert await change.switch(())
            await holds(db, SAME_WIDTH)
            await finds(public, template(1), OLD)
            assert await others.remaining() == 0
            assert await others.switch(())
        await holds(public, NEW)
    async with database(tenant, SAME_WIDTH) as db, database(postgresql.settings, NEW) as public:
        await finds(db, template(1), SAME_WIDTH)
        await finds(public, template(1), NEW)


async def test_an_index_that_was_left_unfinished_is_made_anew(
    db_on_postgresql: MetaDatabase, postgresql: Place
) -> None:
    server = postgresql.server
    assert server is not None
    async with changing(db_on_postgresql, NEW) as change:
        await make(change, NEW)
        await change.prepare()
        server.sql(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text"
            " ~ '^templates_new_embedding'",
            postgresql.database,
        )
        await change.prepare()
        assert await change.switch(())
    await holds(db_on_postgresql, NEW)
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    assert postgresql.rows(invalid) == [("0",)]


async def test_sessions_get_over_a_switch(db_on_postgresql: MetaDatabase) -> None:
    """What a connection has prepared is of columns that are no more."""
    queries = [
        "SELECT * FROM templates WHERE id = 'tpl-0001'",
        "SELECT embedding, embedding_model FROM templates WHERE id = 'tpl-0001'",
        "SELECT count(*) FROM templates",
    ]

    async def ask() -> None:
        for query in queries:
            async with db_on_postgresql.session() as session:
                assert len((await session.execute(query)).all()) == 1

    await ask()
    async with changing(db_on_postgresql, NEW) as change:
        await ask()
        await make(change, NEW)
        await change.prepare()
        await ask()
        assert await change.switch(())
    await ask()


async def test_a_table_in_use_is_left_alone_after_a_while(db_on_postgresql: MetaDatabase) -> None:
    async with changing(db_on_postgresql, NEW) as change:
        await make(change, NEW)
        await change.prepare()
        async with db_on_postgresql.session() as session:
            await session.execute("SELECT count(*) FROM templates")
            with pytest.raises(DatabaseBusyError, match="long transactions"):
                await change.switch(())
        await finds(db_on_postgresql, template(1), OLD)
        assert await change.switch(())
    await holds(db_on_postgresql, NEW)
