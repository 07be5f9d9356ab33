"""Search by meaning on PostgreSQL: what the settings of its index do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sqlalchemy

from paracle_meta import (
    ConfigurationError,
    DatabaseSettings,
    EmbeddingModelMismatchError,
    MetaDatabase,
    TemplateRepository,
)
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
            assert await session.scalar("SHOW hnsw.ef_search") == "250"
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
        DatabaseSettings(hnsw_m=80, hnsw_ef_construction=128)


async def test_the_index_finds_nearly_all_whatever_the_filter(postgresql_rows: Filled) -> None:
    filled = postgresql_rows
    queries = clustered(20, 32, seed=1, sample=9)
    async with filled.open() as database:
        for filters, share in (
            ({}, 1),
            ({"quality_score": 3.0}, 10),
            ({"artifact_type": "type-7"}, 100),
            ({"name": "Template 77"}, 4_000),
        ):
            numbers = range(77, 78) if share == 4_000 else range(len(filled.vectors))
            kept = [
                n
                for n in numbers
                if share in (1, 4_000) or (n % 10 == 3 if share == 10 else n % 100 == 7)
            ]
            found = 0
            for query in queries:
                order = (-(filled.vectors[kept] @ query)).argsort(kind="stable")[:10]
                expected = {f"tpl-{kept[n]:05}" for n in order}
                matches = await database.vector_search("templates", vector=query, filters=filters)
                assert len(matches) == len(expected)
                found += len({match.id for match in matches} & expected)
            assert found >= 0.99 * len(queries) * min(10, len(kept)), filters


@pytest.fixture
async def postgresql_rows(postgres18: PostgresServer) -> Filled:
    filled = Filled(postgres18, 4_000, 32)
    async with filled.open() as database:
        await filled.fill(database)
    filled.server.sql("ANALYZE templates", filled.name)
    return filled


async def test_equals_are_in_the_order_of_their_ids_though_the_index_knows_none(
    postgresql_rows: Filled,
) -> None:
    filled = postgresql_rows
    same = clustered(1, 32, seed=1, sample=4)[0]
    async with filled.open() as database:
        await TemplateRepository(database).add_many(
            [template(n, same) for n in range(90_099, 89_999, -1)]
        )
        for top_k in (1, 10, 100):
            matches = await database.vector_search("templates", vector=same, top_k=top_k)
            assert [match.id for match in matches] == [f"tpl-{90_000 + n}" for n in range(top_k)]


async def test_vectors_of_another_model_are_never_compared(postgresql_rows: Filled) -> None:
    filled = postgresql_rows
    filled.server.sql("UPDATE templates SET embedding_model = 'another/model'", filled.name)
    for dimensions in (32, 8):
        embeddings = FakeEmbeddings(dimensions)
        async with MetaDatabase(filled.settings, embeddings=embeddings) as database:
            for filters in (None, {"quality_score": 3.0}, {"name": "none"}):
                with pytest.raises(EmbeddingModelMismatchError, match="reembed"):
                    await database.vector_search(
                        "templates", vector=[1.0] * dimensions, filters=filters
                    )


@pytest.mark.parametrize("dimensions", [8, 2_500])
async def test_numbers_that_have_no_half_are_found(
    postgres18: PostgresServer, dimensions: int
) -> None:
    filled = Filled(postgres18, 300, dimensions)
    rest = [0.0] * (dimensions - 2)
    async with filled.open() as database:
        large_one = np.array([1e6, 0.0, *rest], dtype=np.float32)
        small_one = np.array([0.0, 1e-12, *rest], dtype=np.float32)
        await TemplateRepository(database).add_many(
            [template(1, large_one), template(2, small_one)]
        )
        (large,) = await database.vector_search("templates", vector=[1e9, 0.0, *rest], top_k=1)
        (small,) = await database.vector_search("templates", vector=[0.0, 1.0, *rest], top_k=1)
    assert (large.id, small.id) == ("tpl-00001", "tpl-00002")


async def test_one_vector_of_another_model_is_found_out(postgresql_rows: Filled) -> None:
    filled = postgresql_rows
    other = "UPDATE templates SET embedding_model = 'another/model' WHERE id = 'tpl-00007'"
    async with filled.open() as database:
        query = filled.vectors[7]
        assert (await database.vector_search("templates", vector=query))[0].id == "tpl-00007"
        filled.server.sql(other, filled.name)
        # It would be the nearest of all, had it been made by the same model.
        with pytest.raises(EmbeddingModelMismatchError, match="reembed"):
            await database.vector_search("templates", vector=query)
    async with filled.open() as database:
        with pytest.raises(EmbeddingModelMismatchError, match="reembed"):
            await database.vector_search("templates", vector=-query)


async def test_an_answer_about_a_filter_that_is_old_costs_no_rows(
    postgresql_rows: Filled,
) -> None:
    filled = postgresql_rows
    filters = {"artifact_type": "type-7"}
    query = filled.vectors[7]
    async with filled.open() as database:
        # Few meet it, and a moment later all do; then few again.
        few = await database.vector_search("templates", vector=query, filters=filters, top_k=60)
        assert len(few) == 40
        filled.server.sql("UPDATE templates SET artifact_type = 'type-7'", filled.name)
        many = await database.vector_search("templates", vector=query, filters=filters, top_k=60)
        order = (-(filled.vectors @ query)).argsort(kind="stable")[:60]
        assert {match.id for match in many} == {f"tpl-{n:05}" for n in order}
    async with filled.open() as database:
        assert len(await database.vector_search("templates", vector=query, filters=filters)) == 10
        filled.server.sql(
            "UPDATE templates SET artifact_type = 'x' WHERE id > 'tpl-00005'", filled.name
        )
        left = await database.vector_search("templates", vector=query, filters=filters)
        assert sorted(match.id for match in left) == [f"tpl-{n:05}" for n in range(6)]


async def test_statements_of_ones_own_pass_and_get_vectors_as_text(
    postgresql_rows: Filled,
) -> None:
    filled = postgresql_rows
    nearest = "SELECT id, embedding FROM templates ORDER BY embedding <=> :query LIMIT 1"
    async with filled.open() as database, database.session() as session:
        for query in (str(filled.vectors[5].tolist()), filled.vectors[5].tolist()):
            ((record_id, text),) = await session.execute(sqlalchemy.text(nearest), {"query": query})
            assert record_id == "tpl-00005"
            assert isinstance(text, str)
            assert np.array_equal(np.array(json.loads(text), dtype=np.float32), filled.vectors[5])


async def test_an_invalid_index_is_made_anew(postgresql_rows: Filled) -> None:
    filled = postgresql_rows
    one = "WHERE indexrelid = 'templates_embedding_idx'::regclass"
    filled.server.sql(f"UPDATE pg_index SET indisvalid = false {one}", filled.name)
    async with filled.open() as database:
        await database.vector_search("templates", vector=filled.vectors[0])
    assert filled.server.sql(f"SELECT indisvalid FROM pg_index {one}", filled.name) == "t"


async def test_an_index_of_halves_becomes_one_of_whole_numbers(postgresql_rows: Filled) -> None:
    filled = postgresql_rows
    filled.server.sql(
        "DROP INDEX templates_embedding_idx; CREATE INDEX templates_embedding_idx ON templates"
        " USING hnsw ((l2_normalize(embedding)::halfvec(32)) halfvec_cosine_ops)",
        filled.name,
    )
    async with filled.open() as database:
        await database.vector_search("templates", vector=filled.vectors[0])
    assert "USING hnsw (embedding vector_cosine_ops)" in filled.index()


async def test_lists_are_made_anew_when_the_rows_have_outgrown_them(
    postgres18: PostgresServer,
) -> None:
    filled = Filled(postgres18, 1_200, 8, vector_index="ivfflat")
    async with filled.open() as database:
        await filled.fill(database)
    async with filled.open():
        assert "lists='1'" in filled.index()
    async with filled.open() as database:
        more = clustered(2_900, 8, seed=2)
        await TemplateRepository(database).add_many(
            [template(10_000 + n, vector) for n, vector in enumerate(more)]
        )
    async with filled.open() as database:
        assert "lists='4'" in filled.index()
        (match,) = await database.vector_search("templates", vector=more[5], top_k=1)
        assert match.id == "tpl-10005"
