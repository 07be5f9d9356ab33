"""The index of vectors on PostgreSQL: that it is there, is used, and loses nothing."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from paracle_meta import DatabaseSettings, MetaDatabase, TemplateRepository
from paracle_meta.backends.postgresql import vectors as postgresql_vectors
from paracle_meta.backends.postgresql.dialect import PostgresDialect
from paracle_meta.backends.postgresql.setup import search_settings
from paracle_meta.backends.statements import Statements
from paracle_meta.filters import parse_filters
from paracle_meta.schema import TEMPLATES
from tests.faults.places import Place
from tests.faults.vectors import TinyEmbeddings

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

ROWS = 10_000
INDEX = "templates_embedding_idx"
COPIES = itertools.count(1)

# Pseudo-random vectors that need no model, one template in a hundred of a rare type.
FILL = f"""
INSERT INTO templates (id, artifact_type, name, content, embedding, embedding_model)
SELECT 'tpl-' || n, CASE WHEN n % 100 = 0 THEN 'rare' ELSE 'common' END, 'n', 'c',
       (SELECT array_agg(1 + (hashint4(n * 8 + d) & 255))::float4[]
        FROM generate_series(0, 7) d)::vector,
       '{TinyEmbeddings().model_id}'
FROM generate_series(1, {ROWS}) n"""


@pytest.fixture(scope="module")
def filled_database(server: PostgresServer) -> str:
    """A database with the tables, the rows and no index, for others to be copied from."""
    name = server.create_database()

    async def make() -> None:
        settings = DatabaseSettings(postgres_url=server.url_of(name), vector_index="none")
        async with MetaDatabase(settings, embeddings=TinyEmbeddings()):
            pass

    asyncio.run(make())
    server.sql(f"{FILL}; ANALYZE templates", name)
    return name


@pytest.fixture
def filled(server: PostgresServer, filled_database: str) -> Place:
    name = f"{filled_database}_{next(COPIES)}"
    server.sql(f"CREATE DATABASE {name} TEMPLATE {filled_database}")
    return Place(settings={"postgres_url": server.url_of(name)}, server=server, database=name)


async def plan(place: Place, filters: dict[str, Any] | None, limit: int) -> str:
    """Return how the server runs the statement of a search, on a connection like the backend's."""
    statements = Statements(PostgresDialect()).of(TEMPLATES)
    tests, parameters = statements.tests(parse_filters(TEMPLATES, filters), start=2)
    sql = postgresql_vectors.search(
        TEMPLATES.name,
        tests,
        TinyEmbeddings().dimensions,
        limit,
        output=statements.output,
        by_index=True,
    )
    connection = await asyncpg.connect(
        place.settings["postgres_url"], server_settings=search_settings(DatabaseSettings())
    )
    try:
        vector = await TinyEmbeddings().embed("a question")
        rows = await connection.fetch(f"EXPLAIN {sql}", str(vector), *parameters)
    finally:
        await connection.close()
    return "\n".join(row[0] for row in rows)


def index_definition(place: Place) -> list[tuple[str, ...]]:
    return place.rows(f"SELECT indexdef FROM pg_indexes WHERE indexname = '{INDEX}'")


async def exact(place: Place, where: str, limit: int) -> list[str]:
    """Return the nearest ids by a scan of every row."""
    vector = await TinyEmbeddings().embed("a question")
    rows = place.rows(
        "SET enable_indexscan = off;"
        f" SELECT id FROM templates WHERE {where}"
        f" ORDER BY embedding <=> '{vector}', id LIMIT {limit}"
    )
    return [row[0] for row in rows]


async def test_there_after_the_first_run(postgresql: Place) -> None:
    async with postgresql.open() as db:
        ((definition,),) = index_definition(postgresql)
        assert "USING hnsw (embedding vector_cosine_ops)" in definition
        status = (await db.status()).vectors
    assert (status["templates"].index, status["best_practices"].index) == (
        INDEX,
        "best_practices_embedding_idx",
    )


async def test_used_at_ten_thousand_rows(filled: Place) -> None:
    async with filled.open() as db:
        found = await TemplateRepository(db).find_similar("a question", 10)
    assert f"Index Scan using {INDEX}" in await plan(filled, None, 10)
    # What an approximate index is good for: nearly all of the nearest, in order.
    assert len(found) == 10
    assert len({match.id for match in found} & set(await exact(filled, "true", 10))) >= 9
    similarities = [match.score for match in found]
    assert similarities == sorted(similarities, reverse=True)


async def test_a_filter_that_one_row_in_a_hundred_meets_still_gives_as_many_as_wanted(
    filled: Place,
) -> None:
    async with filled.open() as db:
        for wanted in (1, 10, 50, 100):
            found = await TemplateRepository(db).find_similar(
                "a question", wanted, artifact_type="rare"
            )
            assert len({match.id for match in found}) == wanted
            assert {match.artifact_type for match in found} == {"rare"}
            nearest = await exact(filled, "artifact_type = 'rare'", wanted)
            assert len({match.id for match in found} & set(nearest)) >= 0.9 * wanted


async def test_ivfflat_is_built_once_there_are_rows_to_learn_from(
    postgresql: Place, filled: Place
) -> None:
    async with postgresql.open(vector_index="ivfflat"):
        assert index_definition(postgresql) == []
    async with filled.open(vector_index="ivfflat") as db:
        ((definition,),) = index_definition(filled)
        assert "USING ivfflat (embedding vector_cosine_ops)" in definition
        assert (await db.status()).vectors["templates"].index == INDEX
        assert len(await TemplateRepository(db).find_similar("a question", 10)) == 10
        rare = await TemplateRepository(db).find_similar("a question", 100, artifact_type="rare")
        assert len({match.id for match in rare}) == 100
    assert f"Index Scan using {INDEX}" in await plan(filled, None, 10)


async def test_without_an_index_every_search_is_exact(filled: Place) -> None:
    async with filled.open(vector_index="none") as db:
        assert (await db.status()).vectors["templates"].index is None
        found = await TemplateRepository(db).find_similar("a question", 20)
    assert index_definition(filled) == []
    assert [match.id for match in found] == await exact(filled, "true", 20)


async def test_a_changed_setting_replaces_the_index(filled: Place) -> None:
    for method in ("hnsw", "ivfflat", "hnsw"):
        async with filled.open(vector_index=method) as db:
            ((definition,),) = index_definition(filled)
            assert f"USING {method}" in definition
            await TemplateRepository(db).find_similar("a question")
