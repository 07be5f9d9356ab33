"""The contract of making up for vectors that could not be made when a record was stored."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from paracle_meta import (
    BestPracticeRepository,
    EmbeddingModelMismatchError,
    EmbeddingProviderError,
    EmbeddingReport,
    MetaDatabase,
    TemplateRepository,
)
from paracle_meta.testing.base import Contract, OpenDatabase, ids, practice
from paracle_meta.testing.embedding_cache import agent, stored
from paracle_meta.testing.embeddings import FakeEmbeddings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

BATCH = 2
"""Records a batch, so that a few records are several."""


class Watched(FakeEmbeddings):
    """Fake embeddings of another model, which let the test act before each batch."""

    def __init__(
        self,
        act: Callable[[int], Awaitable[object]],
        dimensions: int = 32,
        *,
        name: str = "watched",
    ) -> None:
        super().__init__(dimensions, name=name)
        self._act = act
        self._batches = 0

    async def embed_many(self, texts: Sequence[str]) -> list[list[float]]:
        self._batches += 1
        await self._act(self._batches)
        return await super().embed_many(texts)


class EmbedMissingContract(Contract):
    """Records that were stored without a vector get one later."""

    async def test_records_without_a_vector_get_one(
        self,
        database: MetaDatabase,
        templates: TemplateRepository,
        practices: BestPracticeRepository,
        embeddings: FakeEmbeddings,
    ) -> None:
        await templates.add(agent(0))
        embeddings.down = True
        for number in range(1, 6):
            await templates.add(agent(number))
        await practices.add(practice(tags=["one"]))
        assert (await database.status()).vectors["templates"].missing == 5
        embeddings.down = False
        model = embeddings.model_id
        assert await database.embed_missing() == {
            "templates": EmbeddingReport(model=model, embedded=5, failed=0),
            "best_practices": EmbeddingReport(model=model, embedded=1, failed=0),
        }
        assert len(embeddings.embedded) == 7
        status = (await database.status()).vectors["templates"]
        assert (status.embedded, status.missing, status.models) == (6, 0, (model,))
        assert ids(await templates.find_similar("Agent 4", top_k=1)) == ["tpl-4"]
        assert await database.embed_missing("templates") == {
            "templates": EmbeddingReport(model=model, embedded=0, failed=0)
        }
        assert len(embeddings.embedded) == 8  # The search was one.

    async def test_the_vector_is_of_the_same_text(
        self, templates: TemplateRepository, open_database: OpenDatabase, embeddings: FakeEmbeddings
    ) -> None:
        for record in (
            agent(1, pattern="audits code"),
            agent(2, pattern=""),
            agent(3, content="ä😀" * 3_000),
        ):
            await templates.add(record)
        wanted = [(await stored(templates, f"tpl-{number}")).embedding for number in (1, 2, 3)]
        texts = list(embeddings.embedded)
        for number in (1, 2, 3):
            await templates.update(f"tpl-{number}", embedding=None)
        embeddings.embedded.clear()
        await open_database(embedding_cache_size=0).embed_missing()
        assert embeddings.embedded == texts
        assert [
            (await stored(templates, f"tpl-{number}")).embedding for number in (1, 2, 3)
        ] == wanted

    async def test_a_text_that_is_refused_keeps_none_back(
        self,
        open_database: OpenDatabase,
        embeddings: FakeEmbeddings,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        database = open_database(embedding_batch_size=BATCH)
        templates = TemplateRepository(database)
        embeddings.down = True
        await templates.add_many(
            agent(number, pattern="unspeakable" if number in (2, 3) else None)
            for number in range(6)
        )
        embeddings.down = False
        embeddings.refused.add("unspeakable")
        with caplog.at_level(logging.WARNING, logger="paracle_meta"):
            report = (await database.embed_missing())["templates"]
        assert (report.embedded, report.failed) == (4, 2)
        assert "tpl-2" in caplog.text
        assert "unspeakable" not in caplog.text
        embeddings.refused.clear()
        report = (await database.embed_missing())["templates"]
        assert (report.embedded, report.failed) == (2, 0)

    async def test_it_goes_on_where_the_provider_went_away(
        self, open_database: OpenDatabase
    ) -> None:
        async def go_away(batch: int) -> None:
            embeddings.down = batch in (1, 4)

        embeddings = Watched(go_away)
        database = open_database(
            embeddings=embeddings, embedding_batch_size=BATCH, embedding_cache_size=0
        )
        templates = TemplateRepository(database)
        await templates.add_many(agent(number) for number in range(7))  # This is batch 1.
        assert (await database.status()).vectors["templates"].missing == 7
        with pytest.raises(EmbeddingProviderError, match="goes on"):
            await database.embed_missing()
        assert (await database.status()).vectors["templates"].missing == 3
        await database.embed_missing()
        assert len(embeddings.embedded) == len(set(embeddings.embedded)) == 7

    async def test_what_changes_meanwhile_is_left_to_its_writer(
        self, templates: TemplateRepository, open_database: OpenDatabase, embeddings: FakeEmbeddings
    ) -> None:
        async def write(batch: int) -> None:
            if batch == 1:
                await templates.update("tpl-0", name="Other name")
                await templates.delete("tpl-1")
                await templates.update("tpl-2", embedding=[1.0] * embeddings.dimensions)

        embeddings.down = True
        await templates.add_many(agent(number) for number in range(4))
        embeddings.down = False
        database = open_database(embeddings=Watched(write, 64, name="trigrams"))
        report = (await database.embed_missing("templates"))["templates"]
        assert (report.embedded, report.failed) == (1, 0)
        assert (await stored(templates, "tpl-0")).embedding == await embeddings.embed(
            f"Other name: {agent(0).content}"
        )
        assert (await stored(templates, "tpl-2")).embedding == [1.0] * 64
        assert await templates.get("tpl-1") is None

    async def test_vectors_of_another_model_are_not_joined(
        self, templates: TemplateRepository, open_database: OpenDatabase, embeddings: FakeEmbeddings
    ) -> None:
        await templates.add(agent(0))
        embeddings.down = True
        await templates.add(agent(1))
        other = FakeEmbeddings(32, name="another")
        with pytest.raises(EmbeddingModelMismatchError, match="paracle meta reembed"):
            await open_database(embeddings=other).embed_missing()
        # It was not paid for what cannot be stored.
        assert other.embedded == []
