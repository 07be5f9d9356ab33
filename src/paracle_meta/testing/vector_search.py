"""The contract of searching by meaning: exact similarities, filters, order, bad input."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    BestPracticeRepository,
    EmbeddingError,
    InvalidValueError,
    MetaDatabase,
    TemplateMatch,
    TemplateRepository,
)
from paracle_meta.testing.base import Contract, at, ids, practice, template
from paracle_meta.testing.embeddings import FakeEmbeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

DIMENSIONS = 16
TOLERANCE = 1e-5
"""How far a similarity may be from the exact one."""

BAD_TOP_K: tuple[Any, ...] = (0, -1, 10_001, 2**31, 10**30, True, 1.0, "5", None)


def random_vectors(count: int, seed: int = 7) -> list[list[float]]:
    """Return vectors whose numbers are exact as float32."""
    import numpy as np

    numbers = np.random.default_rng(seed).standard_normal((count, DIMENSIONS))
    vectors: list[list[float]] = numbers.astype(np.float32).tolist()
    return vectors


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the exact cosine similarity."""
    import numpy as np

    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


class VectorSearchContract(Contract):
    """`MetaDatabase.vector_search` and the repositories' `find_similar`."""

    @pytest.fixture
    def embeddings(self) -> FakeEmbeddings:
        """Few dimensions, so that many vectors are stored quickly."""
        return FakeEmbeddings(DIMENSIONS)

    async def test_the_guides_search(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        await templates.add_many(
            [
                template("tpl-1", name="Poet", pattern="writes sonnets", content="Write."),
                template("tpl-2", name="Security audit", pattern="agent that audits security"),
            ]
        )
        similar = await database.vector_search(
            collection="templates", query="security audit agent", top_k=5
        )
        assert [found.name for found in similar] == ["Security audit", "Poet"]
        assert f"{similar[0].name}: {similar[0].similarity:.2f}".startswith("Security audit: 0.")
        found = await templates.find_similar(description="Python security scanner", top_k=5)
        assert {type(match) for match in found} == {TemplateMatch}

    async def test_a_match_is_the_stored_record_with_its_similarity(
        self, templates: TemplateRepository
    ) -> None:
        stored = await templates.add(
            template(pattern="p", quality_score=7, source="s", usage_count=2)
        )
        (match,) = await templates.find_similar("anything at all")
        extra = {"similarity": match.similarity, "score": match.similarity}
        assert asdict(match) == {**asdict(stored), **extra}
        assert -1 <= match.score <= 1

    async def test_similarity_is_the_cosine_and_the_order_follows_it(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        vectors = random_vectors(300)
        await templates.add_many(
            template(f"tpl-{n:03}", embedding=vector) for n, vector in enumerate(vectors)
        )
        (query,) = random_vectors(1, seed=8)
        exact = {f"tpl-{n:03}": cosine(query, vector) for n, vector in enumerate(vectors)}
        best = sorted(exact, key=lambda record_id: (-exact[record_id], record_id))
        for top_k in (1, 10, 300, 10_000):
            found = await database.vector_search("templates", vector=query, top_k=top_k)
            assert ids(found) == best[:top_k]
            for match in found:
                assert match.similarity == pytest.approx(exact[match.id], abs=TOLERANCE)
        assert await database.vector_search("best_practices", vector=query) == []

    async def test_the_same_opposite_and_orthogonal_direction(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        base = [1.0, 2.0, *[0.0] * (DIMENSIONS - 2)]
        await templates.add_many(
            [
                template("same", embedding=[1e-3 * number for number in base]),
                template("opposite", embedding=[-5e3 * number for number in base]),
                template("orthogonal", embedding=[2.0, -1.0, *[0.0] * (DIMENSIONS - 2)]),
            ]
        )
        found = await database.vector_search("templates", vector=base)
        assert ids(found) == ["same", "orthogonal", "opposite"]
        assert [match.similarity for match in found] == pytest.approx([1, 0, -1], abs=TOLERANCE)
        assert all(-1 <= match.score <= 1 for match in found)

    async def test_ties_are_broken_by_id_bytewise(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        names = ["z", "a", "B", "ä", "Z", "b", "_"]
        await templates.add_many(
            template(name, embedding=[1.0] * DIMENSIONS, created_at=at(n))
            for n, name in enumerate(names)
        )
        expected = sorted(names, key=str.encode)
        for top_k in (3, 7):
            found = await database.vector_search(
                "templates", vector=[2.0] * DIMENSIONS, top_k=top_k
            )
            assert ids(found) == expected[:top_k]

    async def test_filters_leave_as_many_as_there_are(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        vectors = random_vectors(400, seed=9)
        records = [
            template(
                f"tpl-{n:03}",
                embedding=vector,
                artifact_type="rare" if n % 50 == 0 else "agent",
                quality_score=None if n % 3 == 0 else n % 10,
                created_at=at(n),
            )
            for n, vector in enumerate(vectors)
        ]
        await templates.add_many(records)
        (query,) = random_vectors(1, seed=10)
        exact = {r.id: cosine(query, v) for r, v in zip(records, vectors, strict=True)}
        cases: tuple[tuple[dict[str, Any], set[str]], ...] = (
            ({"artifact_type": "rare"}, {r.id for r in records if r.artifact_type == "rare"}),
            (
                {"quality_score": {"$gte": 8}},
                {r.id for r in records if (r.quality_score or 0) >= 8},
            ),
            ({"quality_score": None}, {r.id for r in records if r.quality_score is None}),
            (
                {"artifact_type": "rare", "created_at": {"$lt": at(200)}},
                {r.id for r in records[:200] if r.artifact_type == "rare"},
            ),
            ({"id": {"$in": ["tpl-007", "tpl-009", "x"]}}, {"tpl-007", "tpl-009"}),
            ({"artifact_type": "none such"}, set()),
        )
        for filters, members in cases:
            best = sorted(members, key=lambda record_id: (-exact[record_id], record_id))
            for top_k in (1, max(1, len(best)), 500):
                found = await database.vector_search(
                    "templates", vector=query, top_k=top_k, filters=filters
                )
                assert ids(found) == best[:top_k], filters
        found = await templates.find_similar("x", top_k=50, artifact_type="rare")
        assert {match.artifact_type for match in found} == {"rare"}
        assert len(found) == 8

    async def test_min_similarity_cuts_the_list(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        vectors = random_vectors(60)
        await templates.add_many(
            template(f"tpl-{n:02}", embedding=vector) for n, vector in enumerate(vectors)
        )
        query = vectors[0]
        everything = await database.vector_search("templates", vector=query, top_k=60)
        for cut in (-1, 0, 0.25, 0.5, 0.999):
            found = await database.vector_search(
                "templates", vector=query, top_k=60, min_similarity=cut
            )
            assert found == [match for match in everything if match.score >= cut]
        (best,) = await database.vector_search("templates", vector=query, min_similarity=0.999)
        assert best.id == "tpl-00"

    async def test_a_text_is_searched_as_its_vector(
        self, database: MetaDatabase, practices: BestPracticeRepository, embeddings: FakeEmbeddings
    ) -> None:
        words = ["caching", "logging", "retries", "secrets", "tests"]
        await practices.add_many(practice(f"bpr-{w}", title=w, content=w) for w in words)
        by_text = await database.vector_search("best_practices", "use tests", 3)
        vector = await embeddings.embed("use tests")
        assert await database.vector_search("best_practices", vector=vector, top_k=3) == by_text
        assert len(by_text) == 3
        assert by_text[0].id == "bpr-tests"

    async def test_a_numpy_vector(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        import numpy as np

        mine: Any = np.ones(DIMENSIONS, dtype=np.float64)
        await templates.add(template(embedding=mine))
        (match,) = await database.vector_search("templates", vector=mine.astype(np.float32))
        assert match.similarity == pytest.approx(1, abs=TOLERANCE)

    async def test_a_search_writes_nothing(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        await templates.add_many(template(f"tpl-{n}") for n in range(5))
        before = await templates.list()
        await database.vector_search("templates", "security")
        await templates.find_similar("security")
        assert await templates.list() == before

    async def test_changes_are_found_and_deleted_records_are_not(
        self, templates: TemplateRepository
    ) -> None:
        await templates.add_many(
            [template("tpl-1", pattern="audits code"), template("tpl-2", pattern="paints walls")]
        )
        await templates.update("tpl-2", name="Poet", pattern="sonnets")
        assert ids(await templates.find_similar("poet sonnets", top_k=1)) == ["tpl-2"]
        await templates.delete("tpl-2")
        assert ids(await templates.find_similar("poet sonnets", top_k=5)) == ["tpl-1"]

    async def test_an_empty_collection(self, database: MetaDatabase) -> None:
        assert await database.vector_search("templates", "anything") == []
        assert await database.vector_search("best_practices", vector=[1.0] * DIMENSIONS) == []

    async def test_bad_arguments(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        await templates.add(template())
        collections: tuple[Any, ...] = (
            "generations",
            "",
            "Templates",
            "templates; DROP TABLE templates",
            None,
            5,
            ["templates"],
        )
        for collection in collections:
            with pytest.raises(InvalidValueError, match="no collection"):
                await database.vector_search(collection, "x")
        for top_k in BAD_TOP_K:
            with pytest.raises(InvalidValueError, match="top_k"):
                await database.vector_search("templates", "x", top_k)
            with pytest.raises(InvalidValueError, match="top_k"):
                await templates.find_similar("x", top_k)
        vector = [1.0] * DIMENSIONS
        with pytest.raises(InvalidValueError, match="either a query or a vector"):
            await database.vector_search("templates")
        with pytest.raises(InvalidValueError, match="either a query or a vector"):
            await database.vector_search("templates", "x", vector=vector)
        queries: tuple[Any, ...] = ("", "  ", "a\0", "\ud800", 5, b"x", "x" * (8 * 2**20 + 1))
        for query in queries:
            with pytest.raises((InvalidValueError, EmbeddingError)):
                await database.vector_search("templates", query)
        vectors: tuple[Any, ...] = (
            vector[1:],
            [*vector, 1.0],
            [],
            [0.0] * DIMENSIONS,
            [float("nan"), *vector[1:]],
            [float("-inf"), *vector[1:]],
            [1e39, *vector[1:]],
            ["x", *vector[1:]],
            "x" * DIMENSIONS,
            5,
        )
        for bad in vectors:
            with pytest.raises(InvalidValueError, match="vector"):
                await database.vector_search("templates", vector=bad)
        cuts: tuple[Any, ...] = (float("nan"), float("inf"), 1.1, -2, "0.5", True, [0.5])
        for cut in cuts:
            with pytest.raises(InvalidValueError, match="min_similarity"):
                await database.vector_search("templates", "x", min_similarity=cut)
        filters: tuple[Any, ...] = (
            {"embedding": 1}, {"similarity": 1}, {"score": {"$gt": 0}}, {"content; --": 1},
            {"name": {"$like": "%"}}, "name", 5,
        )  # fmt: skip
        for wrong in filters:
            with pytest.raises(InvalidValueError):
                await database.vector_search("templates", "x", filters=wrong)
        assert ids(await templates.list()) == ["tpl-1"]
