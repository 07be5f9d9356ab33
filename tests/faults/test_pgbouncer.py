"""Through PgBouncer in transaction mode, where each transaction may have another connection."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    ConfigurationError,
    CostRepository,
    DatabaseConnectionError,
    DatabaseSettings,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from tests.faults.pgbouncer import CannotInstallError, PgBouncer, unpack
from tests.faults.vectors import TinyEmbeddings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.figures import Faults
    from tests.faults.places import Place
    from tests.postgres import PostgresServer

CONNECTIONS = 5
"""Of PgBouncer to the server: far fewer than clients, so that each call may get another one."""
POOL = 2
"""Connections of each client to PgBouncer."""


@pytest.fixture(scope="module")
def pgbouncer(server: PostgresServer) -> Iterator[PgBouncer]:
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    folder.chmod(0o755)  # It runs as another user where we are root.
    try:
        unpack(folder)
        with PgBouncer(folder, server, CONNECTIONS) as running:
            yield running
    except CannotInstallError as error:
        pytest.skip(str(error))
    finally:
        shutil.rmtree(folder)


def behind(pgbouncer: PgBouncer, place: Place, **more: Any) -> MetaDatabase:
    settings = {
        "postgres_url": pgbouncer.url_of(place.database),
        "migration_url": place.settings["postgres_url"],
        "transaction_pooling": True,
        "pool_size": POOL,
    }
    return MetaDatabase(DatabaseSettings(**(settings | more)), embeddings=TinyEmbeddings())


async def use_all_kinds(db: MetaDatabase, client: int, calls: int) -> int:
    """Make calls of all kinds, see that each answer is right, and return how many were made."""
    generations, templates = GenerationRepository(db), TemplateRepository(db)
    memory, session_id = MemoryRepository(db), f"client-{client}"
    made = 0
    while made < calls:
        name = f"{client}-{made}"
        stored = await generations.add(
            GenerationResult(artifact_type="agent", name=name, content="c", metadata={"n": made})
        )
        assert await generations.get(stored.id) == stored
        await FeedbackRepository(db).add(Feedback(generation_id=stored.id, rating=4))
        template = await templates.add(Template(artifact_type="agent", name=name, content=name))
        assert (await templates.record_use(template.id)).usage_count == 1
        (nearest,) = await templates.find_similar(name, 1, filters={"name": name})
        assert nearest.id == template.id
        (found,) = await db.vector_search(
            "templates", name, 1, mode="hybrid", filters={"name": name}
        )
        assert found.id == template.id
        await memory.set("key", made, session_id=session_id)
        item = await memory.get("key", session_id=session_id)
        assert item is not None
        assert item.value == made
        async with db.session() as session:
            # By turns: the statements have no names, so each makes the server forget the other.
            for tokens in (made, made + 1):
                await session.execute(
                    "UPDATE generations SET tokens_used = :n WHERE id = :id",
                    {"n": tokens, "id": stored.id},
                )
                sql = "SELECT tokens_used FROM generations WHERE id = :id"
                assert await session.scalar(sql, {"id": stored.id}) == tokens
        await CostRepository(db).record("p", "m")
        made += 10
    return made


async def test_many_clients_with_few_connections(
    pgbouncer: PgBouncer, postgresql: Place, faults: Faults
) -> None:
    clients, calls = faults.times((10, 20), (50, 1000))
    databases = [behind(pgbouncer, postgresql) for _ in range(clients)]
    await databases[0].open()
    started = time.monotonic()
    made = await asyncio.gather(
        *(use_all_kinds(db, number, calls) for number, db in enumerate(databases))
    )
    took = time.monotonic() - started
    assert postgresql.rows("SELECT count(*) FROM costs") == [(str(sum(made) // 10),)]
    assert postgresql.rows("SELECT count(*) FROM templates") == [(str(sum(made) // 10),)]
    for db in databases:
        await db.close()
    faults.note(
        f"Clients behind {pgbouncer.version} in transaction mode, with {CONNECTIONS} connections "
        "to the server",
        where="PostgreSQL",
        times=f"{clients} clients, {sum(made)} calls of 10 kinds",
        lost="0 calls failed, 0 wrong answers",
        seen=f"{sum(made) / took:.0f} calls a second",
    )


async def test_searches_have_their_settings(
    pgbouncer: PgBouncer, postgresql: Place, server: PostgresServer
) -> None:
    # PgBouncer lets no connection keep them, so each search has to bring its own.
    server.sql(f"ALTER DATABASE {postgresql.database} SET log_statement = 'all'")
    async with behind(pgbouncer, postgresql, hnsw_ef_search=17) as db:
        await TemplateRepository(db).add(Template(artifact_type="agent", name="n", content="c"))
        for mode in ("vector", "hybrid"):
            before = len((server.folder / "log").read_text())
            assert await db.vector_search("templates", "n", mode=mode)
            lines = (server.folder / "log").read_text()[before:].splitlines()
            searches = [n for n, line in enumerate(lines) if "ORDER BY 0 + (embedding <=>" in line]
            assert searches
            for search in searches:
                assert "SET LOCAL hnsw.ef_search = '17'" in lines[search - 1]


async def test_without_the_setting_the_error_names_it(
    pgbouncer: PgBouncer, postgresql: Place
) -> None:
    db = behind(pgbouncer, postgresql, transaction_pooling=False)
    with pytest.raises(DatabaseConnectionError, match="transaction_pooling: true"):
        await db.open()


async def test_migrations_need_a_url_of_their_own(pgbouncer: PgBouncer, postgresql: Place) -> None:
    db = behind(pgbouncer, postgresql, migration_url=None)
    with pytest.raises(ConfigurationError, match="set migration_url"):
        await db.open()
    async with behind(pgbouncer, postgresql) as migrated:
        await GenerationRepository(migrated).count()
    # Where nothing is left to migrate, it is not needed.
    async with db:
        assert await GenerationRepository(db).count() == 0
        with pytest.raises(ConfigurationError, match="set migration_url"):
            await db.build_index()


@pytest.mark.parametrize(
    ("setting", "name"),
    [({"statement_timeout": 5}, "statement_timeout"), ({"postgres_schema": "a"}, "search_path")],
)
async def test_what_no_connection_can_keep_is_refused(
    pgbouncer: PgBouncer, postgresql: Place, setting: dict[str, Any], name: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"ALTER ROLE \.\.\. SET {name} = "):
        await behind(pgbouncer, postgresql, **setting).open()


async def test_a_tenant_by_the_search_path_of_its_role(
    pgbouncer: PgBouncer, postgresql: Place
) -> None:
    assert postgresql.server is not None
    postgresql.server.sql(
        "CREATE SCHEMA acme; CREATE EXTENSION vector SCHEMA public;"
        f"ALTER DATABASE {postgresql.database} SET search_path = acme, public",
        postgresql.database,
    )
    async with behind(pgbouncer, postgresql) as db:
        await GenerationRepository(db).add(
            GenerationResult(artifact_type="agent", name="n", content="c")
        )
    assert postgresql.rows("SELECT count(*) FROM acme.generations") == [("1",)]
