"""The contract of the cache of vectors: equal texts are embedded once."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

from typing import Any

from paracle_meta import BestPracticeRepository, Template, TemplateRepository
from paracle_meta.testing.base import Contract, OpenDatabase, practice, template
from paracle_meta.testing.embeddings import FakeEmbeddings


def agent(number: int, **values: Any) -> Template:
    """Return a template with a text of its own."""
    return template(f"tpl-{number}", **{"name": f"Agent {number}", **values})


async def stored(repository: TemplateRepository, record_id: str) -> Template:
    """Return a template that must be there, with its vector."""
    record = await repository.get(record_id, with_embedding=True)
    assert record is not None
    return record


class EmbeddingCacheContract(Contract):
    """Equal texts are embedded once, as far as the cache goes."""

    async def test_equal_texts_of_one_call_are_embedded_once(
        self, open_database: OpenDatabase, embeddings: FakeEmbeddings
    ) -> None:
        # Without a cache, too.
        templates = TemplateRepository(open_database(embedding_cache_size=0))
        await templates.add_many(
            template(f"tpl-{number}", name="Auditor", source=f"file {number}")
            for number in range(5)
        )
        (text,) = embeddings.embedded
        vector = await embeddings.embed(text)
        for number in range(5):
            assert (await stored(templates, f"tpl-{number}")).embedding == vector

    async def test_a_text_is_embedded_once_by_all_processes(
        self, templates: TemplateRepository, open_database: OpenDatabase, embeddings: FakeEmbeddings
    ) -> None:
        await templates.add(template("tpl-1"))
        (text,) = embeddings.embedded
        await templates.add(template("tpl-2", source="elsewhere"))
        again = FakeEmbeddings()
        elsewhere = TemplateRepository(open_database(embeddings=again))
        await elsewhere.add_many([template("tpl-3"), template("tpl-4", name="Other")])
        assert embeddings.embedded == [text]
        (other,) = again.embedded
        assert "Other" in other
        vector = await embeddings.embed(text)
        for record_id in ("tpl-1", "tpl-2", "tpl-3"):
            record = await stored(elsewhere, record_id)
            assert (record.embedding, record.embedding_model) == (vector, embeddings.model_id)

    async def test_many_texts_at_once(
        self, practices: BestPracticeRepository, embeddings: FakeEmbeddings
    ) -> None:
        # More than one statement can ask for.
        for copy in ("a", "b"):
            await practices.add_many(
                practice(f"bpr-{copy}{number}", title=f"Number {number}") for number in range(3_000)
            )
        assert len(embeddings.embedded) == len(set(embeddings.embedded)) == 3_000

    async def test_a_text_that_comes_back_is_known(
        self, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        await templates.add(template(pattern="audits code"))
        first = (await stored(templates, "tpl-1")).embedding
        await templates.update("tpl-1", pattern="writes poems")
        embeddings.down = True
        await templates.update("tpl-1", pattern="audits code")
        assert (await stored(templates, "tpl-1")).embedding == first

    async def test_what_a_failed_call_embedded_is_known(
        self, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        embeddings.refused.add("unspeakable")
        names = ["First", "The unspeakable", "Last"]
        for copy in ("a", "b"):
            await templates.add_many(
                template(f"tpl-{copy}{number}", name=name) for number, name in enumerate(names)
            )
        asked = [text.partition(":")[0] for text in embeddings.embedded]
        assert (asked.count("First"), asked.count("Last")) == (1, 1)
        embeddings.down = True
        # Also without the provider, which is asked for one text only.
        await templates.add_many([agent(1), template("tpl-c", name="First")])
        assert (await stored(templates, "tpl-c")).embedding is not None
        assert (await stored(templates, "tpl-1")).embedding is None

    async def test_without_a_cache(
        self, open_database: OpenDatabase, embeddings: FakeEmbeddings
    ) -> None:
        templates = TemplateRepository(open_database(embedding_cache_size=0))
        await templates.add(template("tpl-1"))
        await templates.add(template("tpl-2"))
        assert len(embeddings.embedded) == 2

    async def test_the_newest_stay(
        self, open_database: OpenDatabase, embeddings: FakeEmbeddings
    ) -> None:
        templates = TemplateRepository(open_database(embedding_cache_size=2))

        async def asked_for(name: str) -> bool:
            before = len(embeddings.embedded)
            await templates.add(Template(artifact_type="agent", name=name, content="..."))
            return len(embeddings.embedded) > before

        assert [await asked_for(name) for name in "abc"] == [True, True, True]
        assert [await asked_for(name) for name in "cb"] == [False, False]
        assert await asked_for("a")
        assert await asked_for("b")

    async def test_each_model_has_its_own(
        self, templates: TemplateRepository, open_database: OpenDatabase, embeddings: FakeEmbeddings
    ) -> None:
        await templates.add(template("tpl-1"))
        await templates.delete("tpl-1")
        other = FakeEmbeddings(name="other")
        elsewhere = TemplateRepository(open_database(embeddings=other))
        await elsewhere.add(template("tpl-1"))
        assert other.embedded == embeddings.embedded
        assert (await stored(elsewhere, "tpl-1")).embedding_model == other.model_id

    async def test_what_was_not_embedded_for_a_record_is_not_kept(
        self, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        mine = [1.0] * embeddings.dimensions
        await templates.add(template("tpl-1", embedding=mine))
        await templates.find_similar("security")
        await templates.find_similar("security")
        assert embeddings.embedded == ["security", "security"]
        await templates.add(template("tpl-2"))
        assert len(embeddings.embedded) == 3
        assert (await stored(templates, "tpl-2")).embedding != mine
