"""The contract of searching by words and by meaning at once."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from paracle_meta import (
    EmbeddingModelMismatchError,
    EmbeddingProviderError,
    MetaDatabase,
    TemplateRepository,
)
from paracle_meta.testing.base import Contract, OpenDatabase, ids, template
from paracle_meta.testing.embeddings import FakeEmbeddings
from paracle_meta.testing.texts import TEXTS, some_templates

if TYPE_CHECKING:
    from paracle_meta.records import SearchMode

MODES: tuple[SearchMode, ...] = ("text", "hybrid")


class HybridSearchContract(Contract):
    """The mode ``hybrid``, where it differs from ``text``, which `TextSearchContract` is about."""

    @pytest.fixture
    async def filled(self, templates: TemplateRepository) -> TemplateRepository:
        """The repository with a template for each of TEXTS."""
        await templates.add_many(some_templates())
        return templates

    async def test_hybrid_gives_the_similarity_of_the_search_by_meaning(
        self, database: MetaDatabase, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        await templates.add_many(some_templates())
        query = "security of a server"
        by_meaning = await database.vector_search("templates", query, len(TEXTS))
        similarities = {match.id: match.similarity for match in by_meaning}
        by_both = await database.vector_search("templates", query, len(TEXTS), mode="hybrid")
        assert {match.id: match.similarity for match in by_both} == pytest.approx(similarities)
        vector = await embeddings.embed(query)
        asked = len(embeddings.embedded)
        given = await database.vector_search(
            "templates", query, len(TEXTS), mode="hybrid", vector=vector
        )
        assert given == by_both
        assert len(embeddings.embedded) == asked

    async def test_what_either_side_finds_is_found_by_both(
        self, database: MetaDatabase, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        near = [1.0] * embeddings.dimensions
        far = [-1.0] * embeddings.dimensions
        await templates.add_many(
            [
                *[template(f"n-{n}", name="x", content="y", embedding=near) for n in range(3)],
                template("word", name="needle", content="y", embedding=far),
                *[template(f"f-{n}", name="x", content="y", embedding=far) for n in range(3)],
            ]
        )
        found = await database.vector_search("templates", "needle", 4, mode="hybrid", vector=near)
        # One word that no other has stands out from six equal ones more than the near from the far.
        assert ids(found) == ["word", "n-0", "n-1", "n-2"]

    async def test_more_than_the_usual_candidates(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        await templates.add_many(
            template(f"tpl-{n:03}", name=f"Agent {n}", content="writes code") for n in range(250)
        )
        for mode in MODES:
            found = await database.vector_search("templates", "agent", 220, mode=mode)
            assert len(set(ids(found))) == 220, mode

    async def test_while_the_provider_is_away(
        self, database: MetaDatabase, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        await templates.add(template("with", name="alpha one", content="beta"))
        embeddings.down = True
        await templates.add(template("without", name="alpha two", content="beta"))
        asked = len(embeddings.embedded)
        found = await templates.find_similar("two", mode="text")
        assert ids(found) == ["without"]
        with pytest.raises(EmbeddingProviderError):
            await templates.find_similar("two", mode="hybrid")
        assert len(embeddings.embedded) == asked
        vector = [1.0] * embeddings.dimensions
        both = await database.vector_search("templates", "two", mode="hybrid", vector=vector)
        similarities = {match.id: match.similarity for match in both}
        assert similarities["without"] is None
        assert similarities["with"] is not None
        cut = await database.vector_search(
            "templates", "two", mode="hybrid", vector=vector, min_similarity=-1
        )
        assert ids(cut) == ["with"]

    async def test_min_similarity_cuts_the_list_of_both(self, filled: TemplateRepository) -> None:
        query = "security audit of code"
        everything = await filled.find_similar(query, len(TEXTS), mode="hybrid")
        for cut in (-1, 0.1, 0.3, 0.999):
            found = await filled.find_similar(query, len(TEXTS), mode="hybrid", min_similarity=cut)
            assert found == [m for m in everything if (m.similarity or 0) >= cut]
        few = await filled.find_similar(query, 2, mode="hybrid", min_similarity=0.1)
        assert few == [m for m in everything if (m.similarity or 0) >= 0.1][:2]

    async def test_vectors_of_another_model(
        self, open_database: OpenDatabase, templates: TemplateRepository
    ) -> None:
        await templates.add_many(some_templates())
        other = open_database(embeddings=FakeEmbeddings(name="other"))
        with pytest.raises(EmbeddingModelMismatchError):
            await other.vector_search("templates", "pytest", mode="hybrid")
        assert await other.vector_search("templates", "pytest", 1, mode="text")
