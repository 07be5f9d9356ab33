"""Servers that refuse: each time a typed error that says what to do, and no secret anywhere."""

from __future__ import annotations

import shutil
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    DatabaseConnectionError,
    DatabaseSettings,
    GenerationRepository,
    GenerationResult,
    MetaDatabase,
    MigrationError,
    ParacleMetaError,
    QueryError,
    TemplateRepository,
)
from tests.faults.vectors import TinyEmbeddings
from tests.postgres import PASSWORD, PASSWORD_ROLE, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.places import Place

SECRET = "correct-battery-staple"


def database(url: str, **more: Any) -> MetaDatabase:
    return MetaDatabase(DatabaseSettings(postgres_url=url, **more), embeddings=TinyEmbeddings())


def words(error: BaseException) -> str:
    """Return all that can be read of an error: itself, its causes, the lines of its traceback."""
    return f"{error!s} {error!r} {''.join(traceback.format_exception(error))}"


async def refusal(db: MetaDatabase, kind: type[ParacleMetaError], match: str) -> None:
    """See that every way to use it is refused with this error."""
    for use in (
        db.open(),
        GenerationRepository(db).count(),
        TemplateRepository(db).find_similar("anything"),
        db.migrate(),
    ):
        with pytest.raises(kind, match=match) as raised:
            await use
        assert SECRET not in words(raised.value)
        assert PASSWORD not in words(raised.value)
    with pytest.raises(kind, match=match):
        async with db.session() as session:
            await session.execute("SELECT 1")
    await db.close()
    assert SECRET not in f"{db!r} {db.settings!r} {db.settings!s}"


async def test_a_wrong_password(postgresql: Place, server: PostgresServer) -> None:
    url = server.password_url_of(postgresql.database, SECRET)
    await refusal(database(url), DatabaseConnectionError, "refused the role or its password.*check")


async def test_a_role_that_does_not_exist(postgresql: Place, server: PostgresServer) -> None:
    url = f"postgresql://nobody:{SECRET}@127.0.0.1:{server.port}/{postgresql.database}"
    await refusal(database(url), DatabaseConnectionError, "role .*check postgres_url")


async def test_a_database_that_does_not_exist(server: PostgresServer) -> None:
    await refusal(
        database(server.url_of("missing")), DatabaseConnectionError, "no such database.*create it"
    )


async def test_no_server() -> None:
    url = f"postgresql://someone:{SECRET}@127.0.0.1:1/missing"  # Nobody listens on port 1.
    await refusal(database(url), DatabaseConnectionError, "see that PostgreSQL runs there")


async def test_a_host_that_does_not_exist() -> None:
    url = f"postgresql://someone:{SECRET}@no-such-host.invalid/missing"
    await refusal(
        database(url, connect_timeout=5),
        DatabaseConnectionError,
        r"no-such-host\.invalid.*see that",
    )


async def test_a_role_that_may_not_create_the_extension(
    postgresql: Place, server: PostgresServer
) -> None:
    url = server.password_url_of(postgresql.database)
    await refusal(database(url), MigrationError, "Have a DBA run.*CREATE EXTENSION vector")
    tables = "SELECT relname FROM pg_class WHERE relname IN ('templates', 'generations')"
    assert postgresql.rows(tables) == []
    server.sql("CREATE EXTENSION vector", postgresql.database)
    async with database(url) as db:
        assert await TemplateRepository(db).find_similar("anything") == []


async def test_a_role_that_may_not_create_tables(postgresql: Place, server: PostgresServer) -> None:
    server.sql(f"ALTER DATABASE {postgresql.database} OWNER TO postgres")
    server.sql("CREATE EXTENSION vector", postgresql.database)
    db = database(server.password_url_of(postgresql.database))
    with pytest.raises((MigrationError, QueryError), match="permission denied") as raised:
        await db.open()
    assert PASSWORD not in words(raised.value)
    await db.close()


async def test_without_vectors_no_extension_is_needed(
    postgresql: Place, server: PostgresServer
) -> None:
    url = server.password_url_of(postgresql.database)
    async with database(url, enable_vectors=False) as db:
        assert await GenerationRepository(db).count() == 0
    assert postgresql.rows("SELECT 1 FROM pg_extension WHERE extname = 'vector'") == []


@pytest.fixture
def bare_server(server_folder: Path) -> Iterator[PostgresServer]:
    """A server on which pgvector was never installed."""
    folder = server_folder / "bare"
    server = PostgresServer(18, folder, fsync=False)
    install, package = server.bin.parent, server.bin.parents[1]
    # The programs look for their libraries where they lie in the package.
    for source in (install, package.with_name(f"{package.name}.libs")):
        if source.exists():
            copy = folder / "bare" / source.relative_to(package.parent)
            shutil.copytree(source, copy, symlinks=True)
    server.bin = folder / "bare" / install.relative_to(package.parent) / "bin"
    controls = list((folder / "bare").rglob("vector.control"))
    assert controls
    for control in controls:
        control.unlink()
    with server:
        yield server


async def test_pgvector_that_is_not_installed(bare_server: PostgresServer) -> None:
    url = bare_server.url_of(bare_server.create_database())
    await refusal(
        database(url), MigrationError, "pgvector is not installed.*Install it.*enable_vectors"
    )
    async with database(url, enable_vectors=False) as db:
        assert await GenerationRepository(db).count() == 0


async def test_many_are_stored_where_rows_have_a_policy(postgresql: Place) -> None:
    server = postgresql.server
    assert server is not None
    async with postgresql.open():
        pass
    server.sql(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {PASSWORD_ROLE};"
        "ALTER TABLE generations ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY agents ON generations USING (artifact_type = 'agent')",
        postgresql.database,
    )
    url = server.password_url_of(postgresql.database)
    many = [
        GenerationResult(artifact_type="agent", name=f"Reviewer {n}", content="You review.")
        for n in range(100)
    ]
    async with postgresql.open(postgres_url=url, auto_migrate=False) as db:
        generations = GenerationRepository(db)
        assert await generations.add_many(many) == many
        assert await generations.count() == len(many)
        with pytest.raises(QueryError):
            await generations.add_many(
                [replace(one, id=f"{one.id}-2", artifact_type="policy") for one in many]
            )
        assert await generations.count() == len(many)
