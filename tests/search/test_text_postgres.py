"""Search by words on PostgreSQL: what its locks, its limits and its schemas make of it."""

from __future__ import annotations

import asyncio
import itertools
import string
from typing import TYPE_CHECKING

import asyncpg
import pytest

from paracle_meta import DatabaseSettings, MetaDatabase, NotFoundError, Template, TemplateRepository
from paracle_meta.testing import FakeEmbeddings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.postgres import PostgresServer

INSERT = "INSERT INTO templates (id, artifact_type, name, content) VALUES ($1, 'agent', $2, 'text')"


@pytest.fixture
def url(postgres18: PostgresServer) -> str:
    return postgres18.url_of(postgres18.create_database())


@pytest.fixture
async def database(url: str) -> AsyncIterator[MetaDatabase]:
    settings = DatabaseSettings(postgres_url=url)
    async with MetaDatabase(settings, embeddings=FakeEmbeddings(8)) as opened:
        yield opened


@pytest.fixture
async def plain(url: str, database: MetaDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A connection of somebody else, who knows nothing of searches."""
    await database.open()
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


def template(record_id: str, name: str, content: str = "text") -> Template:
    return Template(id=record_id, artifact_type="agent", name=name, content=content)


async def found(database: MetaDatabase, query: str, top_k: int = 10) -> list[str]:
    matches = await database.vector_search("templates", query, top_k, mode="text")
    return [match.id for match in matches]


async def test_writers_searches_and_plain_sql_at_once(url: str, database: MetaDatabase) -> None:
    templates = TemplateRepository(database)
    ids = [f"tpl-{n:02}" for n in range(30)]
    await templates.add_many([template(record_id, "first") for record_id in ids])
    words = itertools.count(1)
    latest: dict[str, str] = {}

    async def change(record_id: str) -> None:
        word = f"word{next(words)}"
        await templates.update(record_id, name=word)

    async def by_repository(order: list[str]) -> None:
        for record_id in order:
            await change(record_id)

    async def by_plain_sql(order: list[str]) -> None:
        connection = await asyncpg.connect(url)
        for record_id in order:
            async with connection.transaction():
                await connection.execute(
                    "UPDATE templates SET name = $2 WHERE id = $1", record_id, f"word{next(words)}"
                )
        await connection.close()

    async def delete_and_add() -> None:
        for record_id in ids[::3]:
            await templates.delete(record_id)
            await templates.add(template(record_id, f"word{next(words)}"))

    async def search() -> None:
        for _ in range(40):
            await found(database, "word1 first", 50)

    async def unless_deleted(order: list[str]) -> None:
        for record_id in order:
            try:
                await change(record_id)
            except NotFoundError:
                assert record_id in ids[::3]

    kept = [record_id for record_id in ids if record_id not in ids[::3]]
    await asyncio.gather(
        by_repository(kept),
        by_repository(kept[::-1]),
        by_plain_sql(ids),
        by_plain_sql(ids[::-1]),
        unless_deleted(ids),
        delete_and_add(),
        search(),
        search(),
    )
    for record in await templates.list(limit=100):
        latest[record.id] = record.name
    assert sorted(latest) == ids
    for record_id, word in latest.items():
        # Each word was given once, so it is first where it is found at all.
        assert (await found(database, word))[0] == record_id
    current = set(latest.values())
    for number in range(1, next(words)):
        if f"word{number}" not in current:
            matches = await database.vector_search("templates", f"word{number}", 1, mode="text")
            # By its first letters it is like all others, which is worth nothing.
            assert all(match.score < 1e-3 for match in matches), number


async def test_a_search_finds_what_was_committed_while_another_takes_over(
    database: MetaDatabase, plain: asyncpg.Connection
) -> None:
    await TemplateRepository(database).add(template("first", "alpha"))
    async with plain.transaction():
        await plain.executemany(INSERT, [(f"tpl-{n:03}", f"needle{n}") for n in range(400)])
    searches = [found(database, f"needle{n}", 1) for n in (0, 150, 399, 399, 0)]
    answers = await asyncio.gather(*searches)
    assert answers == [["tpl-000"], ["tpl-150"], ["tpl-399"], ["tpl-399"], ["tpl-000"]]


async def test_a_search_waits_for_no_writer_of_a_record_that_it_knows(
    database: MetaDatabase, plain: asyncpg.Connection
) -> None:
    templates = TemplateRepository(database)
    await templates.add_many([template("a", "alpha"), template("b", "beta")])
    transaction = plain.transaction()
    await transaction.start()
    await plain.execute("UPDATE templates SET name = 'gamma' WHERE id = 'a'")
    await plain.execute(INSERT, "c", "gamma")
    async with asyncio.timeout(10):
        assert await found(database, "alpha") == ["a"]
        assert await found(database, "gamma") == []
    await transaction.commit()
    assert (await found(database, "gamma"), await found(database, "alpha")) == (["a", "c"], [])


async def test_a_change_of_what_is_unread_is_not_lost(
    database: MetaDatabase, plain: asyncpg.Connection
) -> None:
    await TemplateRepository(database).add(template("a", "alpha"))
    await plain.execute("UPDATE templates SET name = 'beta' WHERE id = 'a'")
    transaction = plain.transaction()
    await transaction.start()
    await plain.execute("UPDATE templates SET name = 'gamma' WHERE id = 'a'")
    # It takes over beta, for which it has to wait until the other has committed gamma.
    search = asyncio.create_task(found(database, "gamma"))
    await asyncio.wait([search], timeout=0.5)
    await transaction.commit()
    assert await search == ["a"]
    assert await found(database, "beta") == []


def hostile_texts() -> Iterator[str]:
    """Texts over 256 kB whose terms are as many, or as long, as they can be."""
    words = [
        "".join(p) for p in itertools.product(string.ascii_lowercase + string.digits, repeat=3)
    ]
    yield " ".join(words * 2)
    yield " ".join(f"{one}-{other}" for one, other in zip(words, reversed(words), strict=True))
    # One character that becomes six, each of three bytes.
    yield " ".join(f"{one}㌖-{other}㌖" for one, other in itertools.pairwise(words))
    yield " ".join(f"{chr(0x20000 + n)}{chr(0x20001 + n * 7 % 40_000)}" for n in range(40_000))
    yield "ﷺ" * 90_000
    yield "ΐ" * 140_000
    yield "x" * 300_000
    yield "-" * 300_000


async def test_the_longest_texts_are_stored_and_found(database: MetaDatabase) -> None:
    templates = TemplateRepository(database)
    for n, text in enumerate(hostile_texts()):
        assert len(text.encode()) > 256 * 1024
        await templates.add(template(f"tpl-{n}", f"needle{n}", text))
        await templates.update(f"tpl-{n}", content=f"changed {text}")
    for n in range(8):
        assert (await found(database, f"needle{n}"))[0] == f"tpl-{n}"


async def test_long_texts_do_not_hold_up_the_event_loop(database: MetaDatabase) -> None:
    text = next(hostile_texts())
    await TemplateRepository(database).add(template("tpl-0", "first"))
    longest, running = 0.0, True

    async def watch() -> None:
        nonlocal longest
        loop = asyncio.get_running_loop()
        while running:
            before = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - before)

    watcher = asyncio.create_task(watch())
    await TemplateRepository(database).add_many(
        [template(f"tpl-{n}", "long", text) for n in range(1, 5)]
    )
    await found(database, text[: 200 * 1024])
    running = False
    await watcher
    # Making the terms takes over 0.3 s each; a busy machine may add a slice or two to a turn.
    assert longest < 0.2


async def test_sql_in_a_query_or_a_text_is_only_words(
    database: MetaDatabase, plain: asyncpg.Connection
) -> None:
    templates = TemplateRepository(database)
    await templates.add(template("safe", "keeper"))
    for n, text in enumerate(
        (
            "'; DROP TABLE templates; --",
            "' & pg_sleep(10) & '",
            "$1::tsquery",
            "\\'); DELETE FROM templates_terms; --",
            "'a' | !'keeper'",
            "keeper':*ABCD",
        )
    ):
        await templates.add(template(f"tpl-{n}", text))
        async with asyncio.timeout(5):
            assert f"tpl-{n}" in await found(database, text)
    assert "safe" in await found(database, "keeper")
    assert await plain.fetchval("SELECT count(*) FROM templates_terms") == 7


async def test_each_tenant_finds_its_own(url: str) -> None:
    first, second = [
        MetaDatabase(
            DatabaseSettings(postgres_url=url, postgres_schema=name), embeddings=FakeEmbeddings(8)
        )
        for name in ("tenant_a", "tenant_b")
    ]
    async with first, second:
        await TemplateRepository(first).add(template("one", "alpha"))
        await TemplateRepository(second).add(template("two", "alpha"))
        connection = await asyncpg.connect(url)
        # A search path of its own, or none, changes nothing.
        await connection.execute("SET search_path = tenant_b")
        insert = INSERT.replace("templates", "tenant_a.templates", 1)
        await connection.execute(insert, "three", "omega")
        await connection.close()
        assert await found(first, "alpha") == ["one"]
        assert await found(first, "omega") == ["three"]
        assert await found(second, "alpha") == ["two"]
        assert await found(second, "omega") == []


async def test_without_pgvector(postgres18: PostgresServer) -> None:
    name = postgres18.create_database()
    settings = DatabaseSettings(postgres_url=postgres18.url_of(name), enable_vectors=False)
    async with MetaDatabase(settings) as database:
        await TemplateRepository(database).add(template("one", "pytest-xdist"))
        assert await found(database, "pytestxdist") == ["one"]
    assert postgres18.sql("SELECT count(*) FROM pg_extension WHERE extname = 'vector'", name) == "0"


async def test_records_from_before_there_were_words(
    database: MetaDatabase, plain: asyncpg.Connection
) -> None:
    await TemplateRepository(database).add_many(
        template(f"tpl-{n:03}", f"needle{n}") for n in range(350)
    )
    await plain.execute("DELETE FROM templates_terms")
    await plain.execute("INSERT INTO templates_unread (id) SELECT id FROM templates")
    assert await found(database, "needle349", 1) == ["tpl-349"]
    assert await plain.fetchval("SELECT count(*) FROM templates_unread") == 0
    assert await plain.fetchval("SELECT count(*) FROM templates_terms") == 350
