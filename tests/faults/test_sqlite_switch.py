"""The switch of a change of embedding model on SQLite, which exchanges the names of columns."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from pysqlite3 import dbapi2 as pysqlite

from paracle_meta import IntegrityError, MetaDatabase, TemplateRepository
from paracle_meta.backends.sqlite import change as sqlite_change
from paracle_meta.migrations import HEAD, runner
from tests.faults.changes import (
    NEW,
    OLD,
    SAME_WIDTH,
    change_all,
    changing,
    database,
    make,
    packed,
    template,
    text,
)
from tests.faults.places import unsound_files
from tests.migrations.databases import FILES, sqlite_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from paracle_meta.testing import FakeEmbeddings
    from tests.faults.places import Place

ROWS = 60
MANY = 2_500
"""More than are emptied at once, and 2 MB of vectors."""

INDEXED = """SELECT i.name FROM pragma_index_list('templates', 'templates') l,
pragma_index_info(l.name, 'templates') i WHERE l.name LIKE '%model%'"""
NEW_ONES = "SELECT count(new_embedding), count(new_embedding_model) FROM templates"


@pytest.fixture
async def db(sqlite: Place) -> AsyncIterator[MetaDatabase]:
    """A database with ROWS templates, whose vectors are of OLD."""
    async with database(sqlite.settings, OLD) as db:
        await TemplateRepository(db).add_many([template(n) for n in range(ROWS)])
        yield db


def run(place: Place, sql: str) -> None:
    """Run SQL of somebody else on the templates."""
    with closing(pysqlite.connect(place.folder / "templates.db", isolation_level=None)) as own:
        own.executescript(sql)


async def holds(place: Place, embeddings: FakeEmbeddings) -> None:
    """See that each record has the vector of its text, and is found by it."""
    async with database(place.settings, embeddings) as db:
        templates = TemplateRepository(db)
        records = await templates.list(MANY + ROWS)
        status = (await db.status()).vectors["templates"]
        assert (status.models, status.embedded) == ((embeddings.model_id,), len(records))
        assert (status.changing_to, status.changed) == (None, 0)
        for record in records[::100]:
            vector = await embeddings.embed(text(record))
            stored = await templates.get(record.id, with_embedding=True)
            assert stored is not None
            assert stored.embedding == pytest.approx(vector, abs=1e-6)
            found = await db.vector_search("templates", vector=vector, top_k=1)
            assert found[0].id == record.id
    assert unsound_files(place.folder) == {}


async def test_it_writes_no_row_and_what_is_left_of_it_is_cleared_away_later(
    db: MetaDatabase, sqlite: Place
) -> None:
    await TemplateRepository(db).add_many([template(n) for n in range(ROWS, MANY)])
    async with changing(db, NEW) as change:
        await make(change, NEW, batch=500)
        await change.prepare()
        # Stops it as a kill would: after the switch and before any old vector is removed.
        run(
            sqlite,
            "CREATE TRIGGER stop BEFORE UPDATE OF new_embedding ON templates"
            " WHEN new.new_embedding IS NULL BEGIN SELECT RAISE(ABORT, 'stopped'); END;"
            "PRAGMA wal_checkpoint(TRUNCATE)",
        )
        log = sqlite.folder / "templates.db-wal"
        assert log.stat().st_size == 0
        with pytest.raises(IntegrityError, match="stopped"):
            await change.switch(())
        assert log.stat().st_size < 40 * 4096
    await holds(sqlite, NEW)
    assert sqlite.rows(NEW_ONES) == [(str(MANY), str(MANY))]
    run(sqlite, "DROP TRIGGER stop")
    async with changing(db, SAME_WIDTH) as change:
        assert sqlite.rows(NEW_ONES) == [("0", "0")]
        assert await change.remaining() == MANY
        await make(change, SAME_WIDTH, batch=500)
        await change.prepare()
        assert await change.switch(())
    assert sqlite.rows(NEW_ONES) == [("0", "0")]
    await holds(sqlite, SAME_WIDTH)


@pytest.mark.parametrize("finish", ["build_index", "reembed"])
async def test_old_vectors_that_a_killed_change_has_left_go_with_the_next_index(
    db: MetaDatabase, sqlite: Place, finish: str
) -> None:
    await change_all(db, NEW)
    # As if killed when half of them were removed.
    run(
        sqlite,
        "UPDATE templates SET new_embedding = zeroblob(192), new_embedding_model = 'fake/old@48'"
        f" WHERE id >= 'tpl-{ROWS // 2:04}'",
    )
    async with database(sqlite.settings, NEW) as other:
        await getattr(other, finish)("templates")
    assert sqlite.rows(NEW_ONES) == [("0", "0")]
    await holds(sqlite, NEW)


async def test_what_a_change_has_made_so_far_is_not_taken_for_what_was_left(
    db: MetaDatabase, sqlite: Place
) -> None:
    async with changing(db, NEW) as change:
        await make(change, NEW, but={"tpl-0005"})
        await db.build_index("templates")
    # Neither while it goes on nor while it waits for being gone on with.
    await db.build_index("templates")
    assert sqlite.rows(NEW_ONES) == [(str(ROWS - 1), str(ROWS - 1))]
    async with changing(db, NEW) as change:
        assert await change.remaining() == 1


async def test_a_file_in_use_makes_no_failure_of_a_change_that_is_made(
    db: MetaDatabase,
    sqlite: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # One at a time takes so long that somebody comes between.
    monkeypatch.setattr(sqlite_change, "BATCH", 1)
    await TemplateRepository(db).add_many([template(n) for n in range(ROWS, MANY)])
    done = threading.Event()

    def come_between() -> None:
        with closing(
            pysqlite.connect(sqlite.folder / "templates.db", isolation_level=None, timeout=60)
        ) as own:
            while own.execute("SELECT count(*) FROM templates_new_model").fetchone() != (0,):
                """Wait for the switch."""
            own.execute("BEGIN IMMEDIATE")
            done.wait(60)

    async with (
        database({**sqlite.settings, "busy_timeout": 0.1}, OLD) as impatient,
        changing(impatient, NEW) as change,
    ):
        await make(change, NEW, batch=500)
        await change.prepare()
        between = asyncio.create_task(asyncio.to_thread(come_between))
        assert await change.switch(())
        done.set()
        await between
    assert "Old vectors are left in templates" in caplog.text
    await holds(sqlite, NEW)


async def test_one_index_of_models_is_left_each_time(db: MetaDatabase, sqlite: Place) -> None:
    for model in (NEW, SAME_WIDTH, OLD):
        await change_all(db, model)
        assert sqlite.rows(INDEXED) == [("embedding_model",)]
        assert sqlite.rows(NEW_ONES) == [("0", "0")]
        assert sqlite.rows("SELECT * FROM templates_new_model") == []
        await holds(sqlite, model)


async def test_what_others_have_made_goes_on_to_mean_the_columns_by_their_names(
    db: MetaDatabase, sqlite: Place
) -> None:
    run(
        sqlite,
        """
        CREATE VIEW "in ""use" AS SELECT id, embedding_model FROM templates;
        CREATE TRIGGER tell INSTEAD OF DELETE ON "in ""use" BEGIN SELECT 1; END;
        CREATE VIEW "of what is no more" AS SELECT * FROM no_table;
        CREATE TABLE seen (model);
        CREATE TRIGGER see AFTER UPDATE OF embedding ON templates
        BEGIN INSERT INTO seen VALUES (new.embedding_model); END;
        """,
    )
    theirs = """SELECT name, sql FROM templates.sqlite_master WHERE type IN ('view', 'trigger')
    AND name NOT LIKE 'templates_%' ORDER BY name"""
    before = sqlite.rows(theirs)
    assert len(before) == 4
    await change_all(db, NEW)
    assert sqlite.rows(theirs) == before
    models = 'SELECT DISTINCT embedding_model FROM "in ""use"'
    assert sqlite.rows(models) == [(NEW.model_id,)]
    assert sqlite.rows("SELECT * FROM seen") == []
    async with database(sqlite.settings, NEW) as other:
        await TemplateRepository(other).update("tpl-0001", name="copper")
    assert sqlite.rows("SELECT * FROM seen") == [(NEW.model_id,)]


async def test_new_vectors_are_no_news_for_those_who_search(
    db: MetaDatabase, sqlite: Place
) -> None:
    log = "SELECT seq, id FROM templates_changes ORDER BY seq"
    before = sqlite.rows(log)
    async with changing(db, NEW) as change:
        await make(change, NEW)
        assert sqlite.rows(log) == before
        await TemplateRepository(db).update("tpl-0001", name="copper")
        assert [record.id for record in await change.pending(limit=9, after=None)] == ["tpl-0001"]
        assert len(sqlite.rows(log)) == len(before)
        assert sqlite.rows(log)[-1][1] == "tpl-0001"
        await make(change, NEW)
        assert await change.switch(())
        assert sqlite.rows(log) == []


async def test_a_text_that_is_written_as_it_was_keeps_its_new_vector(
    db: MetaDatabase, sqlite: Place
) -> None:
    async with changing(db, NEW) as change:
        await make(change, NEW)
        run(sqlite, "UPDATE templates SET name = name, pattern = pattern, content = content")
        assert await change.remaining() == 0
        # Made anew by whoever writes like this, so nothing that belongs to the former row is left.
        run(
            sqlite,
            "INSERT OR REPLACE INTO templates (id, artifact_type, name, content)"
            " VALUES ('tpl-0003', 'agent', 'another', 'text')",
        )
        assert [record.id for record in await change.pending(limit=9, after=None)] == ["tpl-0003"]
        await make(change, NEW)
        assert await change.switch(())
    await holds(sqlite, NEW)


async def test_a_change_that_is_given_up_leaves_what_there_was(
    db: MetaDatabase, sqlite: Place
) -> None:
    columns = "SELECT name FROM pragma_table_info('templates')"
    async with changing(db, NEW) as change:
        await make(change, NEW, but={"tpl-0005"})
        assert (await db.status()).vectors["templates"].changed == ROWS - 1
        between = sqlite.rows(columns)
    await change_all(db, OLD)
    assert sqlite.rows(columns) == between
    assert sqlite.rows(NEW_ONES) == [("0", "0")]
    assert sqlite.rows(INDEXED) == [("embedding_model",)]
    await holds(sqlite, OLD)


async def test_vectors_that_are_of_the_model_already_take_part_in_the_swap(
    db: MetaDatabase, sqlite: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_change, "BATCH", 7)
    run(
        sqlite,
        f"UPDATE templates SET embedding_model = '{SAME_WIDTH.model_id}' WHERE id < 'tpl-0030'",
    )
    by_hand = packed(await SAME_WIDTH.embed("by hand"))
    async with changing(db, SAME_WIDTH) as change:
        assert len(await make(change, SAME_WIDTH)) == ROWS - 30
        await change.prepare()
        assert sqlite.rows(NEW_ONES) == [(str(ROWS), str(ROWS))]
        # After it was copied, or made, somebody stores another one.
        with closing(pysqlite.connect(sqlite.folder / "templates.db", isolation_level=None)) as own:
            own.execute(
                "UPDATE templates SET embedding = ?, embedding_model = ?"
                " WHERE id IN ('tpl-0003', 'tpl-0040')",
                (by_hand, SAME_WIDTH.model_id),
            )
        assert await change.remaining() == 0
        assert await change.switch(())
    stored = f"SELECT id FROM templates WHERE embedding = X'{by_hand.hex()}' ORDER BY id"
    assert sqlite.rows(stored) == [("tpl-0003",), ("tpl-0040",)]
    async with database(sqlite.settings, SAME_WIDTH) as other:
        status = (await other.status()).vectors["templates"]
        assert (status.embedded, status.models) == (ROWS, (SAME_WIDTH.model_id,))


@pytest.mark.parametrize("changes", [1, 2])
async def test_back_to_an_older_revision_and_forth(sqlite: Place, changes: int) -> None:
    models = [NEW, SAME_WIDTH][:changes]
    async with database(sqlite.settings, OLD) as db:
        await TemplateRepository(db).add_many([template(n) for n in range(ROWS)])
        for model in models:
            await change_all(db, model)
        async with changing(db, OLD) as change:
            await make(change, OLD)
    with sqlite_engine(sqlite.folder).connect() as connection:
        assert runner.downgrade(connection, FILES, "0004") == ["0006", "0005"]
    assert sqlite.rows(INDEXED) == [("embedding_model",)]
    assert sqlite.rows("SELECT count(*) FROM templates_new_vectors") == [("0",)]
    assert "new_embedding" not in [
        name for (name,) in sqlite.rows("SELECT name FROM pragma_table_info('templates')")
    ]
    with sqlite_engine(sqlite.folder).connect() as connection:
        assert runner.upgrade(connection, FILES) == ["0005", HEAD]
    await holds(sqlite, models[-1])
    async with database(sqlite.settings, OLD) as db:
        await change_all(db, OLD)
    await holds(sqlite, OLD)
