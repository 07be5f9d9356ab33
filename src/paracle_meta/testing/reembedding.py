"""The contract of a change of the embedding model."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import logging

import pytest

from paracle_meta import (
    BestPracticeRepository,
    ConfigurationError,
    DatabaseBusyError,
    DatabaseSettings,
    EmbeddingModelMismatchError,
    EmbeddingProviderError,
    EmbeddingReport,
    InvalidValueError,
    MetaDatabase,
    TemplateRepository,
)
from paracle_meta.embeddings import LocalEmbeddings
from paracle_meta.testing.base import Contract, OpenDatabase, changed, ids, practice, template
from paracle_meta.testing.embed_missing import BATCH, Watched
from paracle_meta.testing.embedding_cache import agent, stored
from paracle_meta.testing.embeddings import FakeEmbeddings

LOCAL = LocalEmbeddings().model_id
"""A model that every installation has."""


class ReembeddingContract(Contract):
    """Another embedding model takes the place of the one before."""

    async def test_each_record_gets_a_vector_of_the_new_model(
        self,
        database: MetaDatabase,
        templates: TemplateRepository,
        practices: BestPracticeRepository,
        open_database: OpenDatabase,
        embeddings: FakeEmbeddings,
    ) -> None:
        await templates.add_many(agent(number) for number in range(5))
        await practices.add(practice())
        embeddings.down = True
        await templates.add(agent(5))
        for dimensions in (1536, 768, 256):
            new = FakeEmbeddings(dimensions, name="new")
            other = open_database(embeddings=new, embedding_batch_size=BATCH)
            with pytest.raises(EmbeddingModelMismatchError, match="paracle meta reembed"):
                await other.vector_search("templates", "Agent 3")
            new.embedded.clear()
            assert await other.reembed() == {
                "templates": EmbeddingReport(model=new.model_id, embedded=6, failed=0),
                "best_practices": EmbeddingReport(model=new.model_id, embedded=1, failed=0),
            }
            assert len(new.embedded) == 7
            there = TemplateRepository(other)
            for number in range(6):
                record = await stored(there, f"tpl-{number}")
                assert record.embedding == await new.embed(
                    f"Agent {number}: {agent(number).content}"
                )
                assert record.embedding_model == new.model_id
            assert ids(await there.find_similar("Agent 3", top_k=1)) == ["tpl-3"]
            assert len(await other.vector_search("best_practices", "least")) == 1
            status = (await other.status()).vectors["templates"]
            assert (status.embedded, status.missing) == (6, 0)
            assert status.models == (new.model_id,)
            # New and changed records follow.
            await there.update("tpl-3", name=f"Writer {dimensions}")
            assert ids(await there.find_similar("Writer", top_k=1)) == ["tpl-3"]
            await there.update("tpl-3", name="Agent 3")
            await other.close()
        with pytest.raises(EmbeddingModelMismatchError):
            await database.vector_search("templates", vector=[1.0] * 64)

    async def test_where_all_is_of_the_model_nothing_is_done(
        self, database: MetaDatabase, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        nothing = EmbeddingReport(model=embeddings.model_id, embedded=0, failed=0)
        assert await database.reembed() == {"templates": nothing, "best_practices": nothing}
        await templates.add_many(agent(number) for number in range(3))
        assert await database.reembed("templates") == {"templates": nothing}
        assert len(embeddings.embedded) == 3

    async def test_one_collection_alone(
        self,
        templates: TemplateRepository,
        practices: BestPracticeRepository,
        open_database: OpenDatabase,
    ) -> None:
        await templates.add(agent(0))
        await practices.add(practice())
        other = open_database(embeddings=FakeEmbeddings(32, name="new"))
        assert list(await other.reembed("best_practices")) == ["best_practices"]
        assert len(await other.vector_search("best_practices", "least")) == 1
        with pytest.raises(EmbeddingModelMismatchError):
            await other.vector_search("templates", "Agent")

    async def test_searches_answer_from_the_old_model_until_the_switch(
        self, database: MetaDatabase, templates: TemplateRepository, open_database: OpenDatabase
    ) -> None:
        found = []

        async def search(batch: int) -> None:
            del batch
            found.append(ids(await database.vector_search("templates", "Agent 3", top_k=1)))

        await templates.add_many(agent(number) for number in range(6))
        other = open_database(embeddings=Watched(search), embedding_batch_size=BATCH)
        await other.reembed()
        assert found == [["tpl-3"]] * 3
        with pytest.raises(EmbeddingModelMismatchError, match="paracle meta reembed"):
            await database.vector_search("templates", "Agent 3")
        # Words have no model.
        assert len(await database.vector_search("templates", "Agent", mode="text")) == 6

    async def test_what_is_written_meanwhile_is_included(
        self, templates: TemplateRepository, open_database: OpenDatabase
    ) -> None:
        async def write(batch: int) -> None:
            match batch:
                case 2:
                    # One that is done, one that is to come, one before and one after all others.
                    await templates.update("tpl-0", name="Zero")
                    await templates.update("tpl-5", name="Five")
                    await templates.delete("tpl-1")
                    await templates.add_many([template("a"), template("z")])
                case 4:
                    await templates.update("z", name="Last")
                    await templates.add(template("m"))

        await templates.add_many(agent(number) for number in range(6))
        new = Watched(write)
        other = open_database(embeddings=new, embedding_batch_size=BATCH)
        await other.reembed("templates")
        status = (await other.status()).vectors["templates"]
        assert (status.embedded, status.missing, status.models) == (8, 0, (new.model_id,))
        there = TemplateRepository(other)
        for record in await there.list():
            vector = (await stored(there, record.id)).embedding
            assert vector == await new.embed(f"{record.name}: {record.content}")
        assert {record.name for record in await there.list()} >= {"Zero", "Five", "Last"}

    async def test_a_record_in_constant_use_is_changed_like_the_others(
        self, templates: TemplateRepository, open_database: OpenDatabase
    ) -> None:
        async def use(batch: int) -> None:
            # A use is no change of what is embedded; if it were, there would be no end to it.
            assert batch <= 3
            for number in range(5):
                await templates.record_use(f"tpl-{number}")
                await templates.update(f"tpl-{number}", quality_score=batch)

        await templates.add_many(agent(number) for number in range(5))
        new = Watched(use)
        new.refused.add("Agent 2")
        other = open_database(embeddings=new, embedding_batch_size=BATCH)
        assert (await other.reembed())["templates"] == EmbeddingReport(
            model=new.model_id, embedded=4, failed=1
        )
        there = await TemplateRepository(other).list()
        assert [(record.usage_count, record.quality_score) for record in there] == [(3, 3.0)] * 5

    async def test_a_record_in_constant_use_gets_the_vector_that_it_lacks(
        self,
        templates: TemplateRepository,
        open_database: OpenDatabase,
        embeddings: FakeEmbeddings,
    ) -> None:
        async def use(batch: int) -> None:
            del batch
            await templates.record_use("tpl-0")

        embeddings.down = True
        await templates.add_many([agent(0), agent(1)])
        new = Watched(use)
        other = open_database(embeddings=new)
        assert (await other.embed_missing())["templates"].embedded == 2
        record = await stored(TemplateRepository(other), "tpl-0")
        assert (record.embedding_model, record.usage_count) == (new.model_id, 1)

    async def test_it_goes_on_where_the_provider_went_away(
        self, database: MetaDatabase, templates: TemplateRepository, open_database: OpenDatabase
    ) -> None:
        async def go_away(batch: int) -> None:
            new.down = batch in (3, 4)

        await templates.add_many(agent(number) for number in range(9))
        new = Watched(go_away)
        other = open_database(embeddings=new, embedding_batch_size=BATCH, embedding_cache_size=0)
        for _ in range(2):
            with pytest.raises(EmbeddingProviderError, match="goes on"):
                await other.reembed()
            assert ids(await database.vector_search("templates", "Agent 3", top_k=1)) == ["tpl-3"]
        report = (await other.reembed())["templates"]
        assert (report.embedded, report.failed) == (5, 0)
        assert len(new.embedded) == len(set(new.embedded)) == 9

    async def test_a_text_that_is_refused_stays_without_a_vector(
        self,
        templates: TemplateRepository,
        open_database: OpenDatabase,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await templates.add_many(agent(number) for number in range(5))
        new = FakeEmbeddings(32, name="new")
        new.refused.add("Agent 2")
        other = open_database(embeddings=new, embedding_batch_size=BATCH)
        with caplog.at_level(logging.WARNING, logger="paracle_meta"):
            report = (await other.reembed())["templates"]
        assert (report.embedded, report.failed) == (4, 1)
        assert "tpl-2" in caplog.text
        assert "Agent 2" not in caplog.text
        there = TemplateRepository(other)
        record = await stored(there, "tpl-2")
        assert (record.embedding, record.embedding_model) == (None, None)
        assert sorted(ids(await there.find_similar("Agent"))) == [
            f"tpl-{number}" for number in (0, 1, 3, 4)
        ]
        new.refused.clear()
        assert (await other.embed_missing())["templates"].embedded == 1

    async def test_a_refused_text_that_is_mended_meanwhile_gets_its_vector(
        self, templates: TemplateRepository, open_database: OpenDatabase
    ) -> None:
        async def mend(batch: int) -> None:
            if batch == 3:
                await templates.update("tpl-0", name="Mended")

        await templates.add_many(agent(number) for number in range(6))
        new = Watched(mend)
        new.refused.add("Agent 0")
        other = open_database(embeddings=new, embedding_batch_size=BATCH)
        assert (await other.reembed())["templates"].failed == 0
        assert (await stored(TemplateRepository(other), "tpl-0")).embedding is not None

    async def test_another_target_starts_over(
        self, templates: TemplateRepository, open_database: OpenDatabase
    ) -> None:
        async def go_away(batch: int) -> None:
            first.down = batch > 1

        await templates.add_many(agent(number) for number in range(5))
        first = Watched(go_away, 32, name="first")
        with pytest.raises(EmbeddingProviderError):
            await open_database(embeddings=first, embedding_batch_size=BATCH).reembed()
        second = FakeEmbeddings(48, name="second")
        other = open_database(embeddings=second)
        assert (await other.reembed())["templates"].embedded == 5
        assert (await other.status()).vectors["templates"].models == (second.model_id,)

    async def test_one_at_a_time(
        self, templates: TemplateRepository, open_database: OpenDatabase
    ) -> None:
        refused = []

        async def at_the_same_time(batch: int) -> None:
            del batch
            third = open_database(embeddings=FakeEmbeddings(16, name="third"))
            with pytest.raises(DatabaseBusyError) as caught:
                await third.reembed("templates")
            refused.append(caught.value)
            await third.close()

        await templates.add(agent(0))
        new = Watched(at_the_same_time)
        await open_database(embeddings=new).reembed("templates")
        assert len(refused) == 1

    async def test_its_progress_is_told(
        self, templates: TemplateRepository, open_database: OpenDatabase
    ) -> None:
        told: list[tuple[str, int, int]] = []
        await templates.add_many(agent(number) for number in range(5))
        other = open_database(embeddings=FakeEmbeddings(32, name="new"), embedding_batch_size=BATCH)
        await other.reembed(progress=lambda *done: told.append(done))
        assert told == [("templates", done, 5) for done in (0, 2, 4, 5)]

    async def test_to_a_model_that_is_not_configured(
        self, database: MetaDatabase, templates: TemplateRepository, settings: DatabaseSettings
    ) -> None:
        await templates.add_many(agent(number) for number in range(3))
        before = await stored(templates, "tpl-2")
        reports = await database.reembed(to=LOCAL)
        assert reports["templates"] == EmbeddingReport(model=LOCAL, embedded=3, failed=0)
        with pytest.raises(EmbeddingModelMismatchError, match=LOCAL):
            await templates.find_similar("Agent 2")
        async with MetaDatabase(changed(settings, embedding_provider="local")) as configured:
            found = await TemplateRepository(configured).find_similar("Agent 2")
            assert len(found) == 3
        # And back, to the one that this database has.
        reports = await database.reembed()
        assert reports["templates"].embedded == 3
        assert (await stored(templates, "tpl-2")).embedding == before.embedding
        assert len(await templates.find_similar("Agent 2")) == 3

    @pytest.mark.parametrize("model", ["nonsense", "nobody/model", "", "local/gpt"])
    async def test_a_model_that_does_not_exist(
        self, database: MetaDatabase, templates: TemplateRepository, model: str
    ) -> None:
        await templates.add(agent(0))
        with pytest.raises(ConfigurationError):
            await database.reembed(to=model)
        assert len(await templates.find_similar("Agent")) == 1

    async def test_what_cannot_be(
        self, database: MetaDatabase, open_database: OpenDatabase
    ) -> None:
        for call in (database.reembed("costs"), database.embed_missing("costs")):
            with pytest.raises(InvalidValueError, match="no collection"):
                await call
        without = open_database(enable_vectors=False)
        for call in (without.reembed(), without.embed_missing()):
            with pytest.raises(ConfigurationError, match="enable_vectors"):
                await call
