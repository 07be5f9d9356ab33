"""The contract of stored vectors: when they are made, whose they are, and what is read back."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import logging
from typing import Any

import pytest

from paracle_meta import (
    BestPracticeRepository,
    ConfigurationError,
    EmbeddingModelMismatchError,
    EmbeddingProviderError,
    InvalidValueError,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.testing.base import Contract, OpenDatabase, ids, practice, template
from paracle_meta.testing.embeddings import FakeEmbeddings


class VectorContract(Contract):
    """Embedding on add and update, vectors of one's own, other models, no vectors at all."""

    async def test_a_stored_vector_is_read_back_exactly(
        self, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        await templates.add(template(name="Auditor", pattern="audits code"))
        (text,) = embeddings.embedded
        assert "Auditor" in text
        assert "audits code" in text
        stored = await self._with_vector(templates)
        assert stored.embedding == await embeddings.embed(text)
        assert stored.embedding_model == embeddings.model_id
        plain = await templates.get("tpl-1")
        assert plain is not None
        assert plain.embedding is None
        assert plain.embedding_model == embeddings.model_id
        assert [record.embedding for record in await templates.list()] == [None]
        assert await templates.get("tpl-missing", with_embedding=True) is None

    async def test_a_vector_of_ones_own(
        self, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        # Numbers that are exact as float32, from its smallest to a large one.
        mine = [0.0, 2.0**-126, -1.5, 3.0, 2.0**60, 1 / 1024, *[0.25] * 58]
        added = await templates.add(template(embedding=mine))
        assert added.embedding_model == embeddings.model_id
        assert embeddings.embedded == []
        assert (await self._with_vector(templates)).embedding == mine
        named = template("tpl-2", embedding=tuple(mine), embedding_model=embeddings.model_id)
        await templates.add(named)
        assert (await self._with_vector(templates, "tpl-2")).embedding == mine
        with pytest.raises(EmbeddingModelMismatchError, match="another/model"):
            await templates.add(template("tpl-3", embedding=mine, embedding_model="another/model"))
        assert await templates.count() == 2

    async def test_vectors_that_cannot_be(self, templates: TemplateRepository) -> None:
        await templates.add(template("tpl-1"))
        before = await self._with_vector(templates)
        bad: tuple[Any, ...] = (
            [1.0] * 63,
            [1.0] * 65,
            [1.0],
            [],
            [0.0] * 64,
            [float("nan")] * 64,
            [*[1.0] * 63, float("inf")],
            [*[1.0] * 63, 1e39],
            ["1"] * 64,
            "1" * 64,
            b"1" * 64,
            5,
            [1.0] * 16_001,
        )
        for vector in bad:
            with pytest.raises(InvalidValueError):
                await templates.add(template("tpl-2", embedding=vector))
            with pytest.raises(InvalidValueError):
                await templates.update("tpl-1", embedding=vector)
        assert await templates.count() == 1
        assert await self._with_vector(templates) == before

    async def test_an_update_of_the_text_embeds_anew(
        self, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        await templates.add(template(pattern="audits code"))
        first = await self._with_vector(templates)
        embeddings.embedded.clear()
        await templates.update("tpl-1", source="elsewhere", quality_score=3)
        assert embeddings.embedded == []
        assert (await self._with_vector(templates)).embedding == first.embedding
        await templates.update("tpl-1", pattern="writes poems", quality_score=4)
        (text,) = embeddings.embedded
        assert "writes poems" in text
        second = await self._with_vector(templates)
        assert second.embedding == await embeddings.embed(text) != first.embedding
        assert (second.pattern, second.quality_score) == ("writes poems", 4.0)

    async def test_an_update_of_the_vector(
        self, templates: TemplateRepository, database: MetaDatabase, embeddings: FakeEmbeddings
    ) -> None:
        await templates.add(template())
        mine = [float(n + 1) for n in range(64)]
        await templates.update("tpl-1", embedding=mine, name="New name")
        assert (await self._with_vector(templates)).embedding == mine
        removed = await templates.update("tpl-1", embedding=None)
        assert removed.embedding_model is None
        assert (await self._with_vector(templates)).embedding is None
        assert await templates.find_similar("security") == []
        await templates.update("tpl-1", name="Security")
        assert ids(await database.vector_search("templates", "security")) == ["tpl-1"]
        assert (await self._with_vector(templates)).embedding_model == embeddings.model_id

    async def test_a_provider_that_is_away_loses_no_record(
        self,
        templates: TemplateRepository,
        database: MetaDatabase,
        embeddings: FakeEmbeddings,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await templates.add(template("tpl-0", name="Security"))
        embeddings.down = True
        with caplog.at_level(logging.WARNING, logger="paracle_meta"):
            added = await templates.add(template("tpl-1", name="Nightingale"))
        (record,) = [entry for entry in caplog.records if entry.name == "paracle_meta"]
        assert "without a vector" in record.getMessage()
        assert "Nightingale" not in record.getMessage()
        assert added.embedding_model is None
        assert (await self._with_vector(templates, "tpl-1")).embedding is None
        with pytest.raises(EmbeddingProviderError):
            await templates.find_similar("nightingale")
        embeddings.down = False
        assert ids(await templates.find_similar("nightingale")) == ["tpl-0"]
        status = (await database.status()).vectors["templates"]
        assert (status.embedded, status.missing) == (1, 1)
        assert status.models == (embeddings.model_id,)
        # A change of its text is the next occasion.
        await templates.update("tpl-1", pattern="sings")
        assert ids(await templates.find_similar("nightingale sings", top_k=1)) == ["tpl-1"]
        embeddings.down = True
        await templates.update("tpl-1", pattern="is silent")
        assert (await self._with_vector(templates, "tpl-1")).embedding is None

    async def test_one_text_that_cannot_be_embedded_does_not_sink_the_others(
        self,
        practices: BestPracticeRepository,
        embeddings: FakeEmbeddings,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        embeddings.refused.add("unspeakable")
        with caplog.at_level(logging.WARNING, logger="paracle_meta"):
            added = await practices.add_many(
                practice(f"bpr-{n}", title="The unspeakable" if n == 2 else "Fine")
                for n in range(5)
            )
        assert [record.embedding_model is None for record in added] == [n == 2 for n in range(5)]
        assert "1 of 5 records" in caplog.text
        assert sorted(ids(await practices.find_similar("fine"))) == [
            "bpr-0",
            "bpr-1",
            "bpr-3",
            "bpr-4",
        ]

    @pytest.mark.parametrize("dimensions", [64, 32])
    async def test_vectors_of_another_model_are_never_compared(
        self, templates: TemplateRepository, open_database: OpenDatabase, dimensions: int
    ) -> None:
        await templates.add(template("tpl-1"))
        before = await self._with_vector(templates)
        other = FakeEmbeddings(dimensions, name="another")
        database = open_database(embeddings=other)
        elsewhere = TemplateRepository(database)
        for call in (
            database.vector_search("templates", "security"),
            database.vector_search("templates", vector=[1.0] * dimensions),
            elsewhere.add(template("tpl-2")),
            elsewhere.add(template("tpl-2", embedding=[1.0] * dimensions)),
            elsewhere.add_many([template("tpl-2"), template("tpl-3")]),
            elsewhere.update("tpl-1", name="Other name"),
            elsewhere.update("tpl-1", embedding=[1.0] * dimensions),
        ):
            with pytest.raises(EmbeddingModelMismatchError, match="paracle meta reembed"):
                await call
        assert await elsewhere.count() == 1
        assert await self._with_vector(elsewhere) == before
        # What needs no vector goes on.
        assert (await elsewhere.record_use("tpl-1")).usage_count == 1
        assert (await elsewhere.update("tpl-1", source="x")).source == "x"
        assert await BestPracticeRepository(database).add(practice()) is not None
        # With the last vector of the other model gone, the database is free for this one.
        await elsewhere.delete("tpl-1")
        assert await database.vector_search("templates", "security") == []
        await elsewhere.add(template("tpl-2"))
        assert ids(await database.vector_search("templates", "security")) == ["tpl-2"]

    async def test_a_text_changed_without_vectors_is_not_found_by_its_old_one(
        self, templates: TemplateRepository, open_database: OpenDatabase
    ) -> None:
        await templates.add(template("tpl-1", pattern="audits code"))
        plain = TemplateRepository(open_database(enable_vectors=False))
        assert (await plain.update("tpl-1", source="x")).embedding_model is not None
        assert await templates.find_similar("audits code")
        assert (await plain.update("tpl-1", pattern="writes poems")).embedding_model is None
        assert await templates.find_similar("audits code") == []
        assert (await self._with_vector(templates)).embedding is None
        await templates.update("tpl-1", pattern="writes verse")
        assert ids(await templates.find_similar("verse")) == ["tpl-1"]

    async def test_no_vectors(self, open_database: OpenDatabase) -> None:
        database = open_database(enable_vectors=False)
        templates = TemplateRepository(database)
        added = await templates.add(template())
        assert added.embedding_model is None
        assert await templates.get("tpl-1", with_embedding=True) == added
        assert (await templates.update("tpl-1", name="New")).name == "New"
        assert (await templates.record_use("tpl-1")).usage_count == 1
        for call in (
            templates.find_similar("security"),
            database.vector_search("best_practices", vector=[1.0] * 64),
            templates.add(template("tpl-2", embedding=[1.0] * 64)),
            templates.update("tpl-1", embedding=[1.0] * 64),
        ):
            with pytest.raises(ConfigurationError, match="enable_vectors"):
                await call
        assert ids(await templates.list()) == ["tpl-1"]
        assert (await database.status()).vectors == {}

    async def _with_vector(
        self, templates: TemplateRepository, record_id: str = "tpl-1"
    ) -> Template:
        stored = await templates.get(record_id, with_embedding=True)
        assert stored is not None
        return stored
