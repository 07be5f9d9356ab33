"""Search by meaning on PostgreSQL: what the settings of its index do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import ConfigurationError, DatabaseSettings, MetaDatabase, TemplateRepository
from paracle_meta.testing import FakeEmbeddings
from tests.search.collection import template
from tests.search.vectors import clustered

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

INDEX = "SELECT indexdef FROM pg_indexes WHERE indexname = 'templates_embedding_idx'"


class Filled:
    """A database of its own with some templates."""

    def __init__(self, server: PostgresServer, rows: int, dimensions: int, **settings: Any) -> None:
        self.server = server
        self.name = server.create_database()
        self.vectors = clustered(rows, dimensions, seed=1)
        self.settings = DatabaseSettings(postgres_url=server.url_of(self.name), **settings)
        self.embeddings = FakeEmbeddings(dimensions)

    def open(self, **settings: Any) -> MetaDatabase:
        changed = self.settings.model_copy(update=settings)
        return MetaDatabase(changed, embeddings=self.embeddings)

    async def fill(self, database: MetaDatabase) -> None:
        await TemplateRepository(database).add_many(
            [template(n, vector) for n, vector in enumerate(self.vectors)]
        )

    def index(self) -> str:
        return self.server.sql(INDEX, self.name)


async def test_the_settings_reach_the_index(postgres18: PostgresServer) -> None:
    filled = Filled(postgres18, 1_200, 8, hnsw_m=8, hnsw_ef_construction=40)
    async with filled.open() as database:
        await filled.fill(database)
        assert "m='8'" in filled.index()
        assert "ef_construction='40'" in filled.index()
        async with database.session() as session:
            assert await session.scalar("SHOW hnsw.ef_search") == "200"
    async with filled.open(hnsw_ef_search=77, hnsw_m=12) as database:
        # An index that serves is not made anew unasked.
        assert "m='8'" in filled.index()
        assert await database.build_index("templates") == {"templates": 1_200}
        assert "m='12'" in filled.index()
        async with database.session() as session:
            assert await session.scalar("SHOW hnsw.ef_search") == "77"


async def test_lists_of_ivfflat(postgres18: PostgresServer) -> None:
    filled = Filled(postgres18, 1_200, 8, vector_index="ivfflat", ivfflat_lists=7)
    async with filled.open() as database:
        await filled.fill(database)
        assert filled.index() == ""
        assert await database.build_index() == {"templates": 1_200, "best_practices": 0}
    assert "lists='7'" in filled.index()
    async with filled.open(ivfflat_probes=3) as database:
        async with database.session() as session:
            assert await session.scalar("SHOW ivfflat.probes") == "3"
        matches = await database.vector_search("templates", vector=filled.vectors[5], top_k=1)
        assert matches[0].id == "tpl-00005"


async def test_wide_vectors_are_found_by_halves_and_compared_in_full(
    postgres18: PostgresServer,
) -> None:
    filled = Filled(postgres18, 300, 2_500)
    async with filled.open() as database:
        await filled.fill(database)
        assert "halfvec(2500)" in filled.index()
        filled.server.sql("ANALYZE templates", filled.name)
        for query in filled.vectors[:5]:
            products = filled.vectors @ query
            expected = [f"tpl-{n:05}" for n in (-products).argsort(kind="stable")[:10]]
            matches = await database.vector_search("templates", vector=query)
            assert [match.id for match in matches] == expected
            assert matches[0].similarity == pytest.approx(1.0, abs=1e-6)
        (rare,) = await database.vector_search(
            "templates", vector=filled.vectors[0], filters={"name": "Template 7"}
        )
        assert rare.id == "tpl-00007"


def test_too_few_candidates_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"hnsw_ef_construction.*twice hnsw_m"):
        DatabaseSettings(hnsw_m=40, hnsw_ef_construction=64)
