from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING, Literal, TypeAlias

import asyncpg
import pytest

from paracle_meta import DatabaseSettings, MetaDatabase
from paracle_meta.schema import COLLECTIONS, TABLES
from paracle_meta.testing import FakeEmbeddings
from tests.contract.hypothesis_profile import load_profile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.postgres import PostgresServer

Kind: TypeAlias = Literal["sqlite-wal", "sqlite-truncate", "postgresql-18", "postgresql-16"]

KINDS: tuple[Kind, ...] = ("sqlite-wal", "sqlite-truncate", "postgresql-18", "postgresql-16")

load_profile()


class Databases:
    """Hands out databases of each kind, migrated once and then copied or emptied.

    A new folder is copied from a migrated one in a millisecond. On PostgreSQL a copy of a database
    takes 300 ms and a migrated schema 70 ms, emptying the tables 1 ms. What a test can leave in
    them is rows, and a vector column of another width, which the next open sets right.
    """

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        self._numbers = itertools.count(1)
        self._migrated: dict[Kind, DatabaseSettings] = {}

    async def without_records(self, kind: Kind) -> DatabaseSettings:
        """A database with tables and no row."""
        if kind not in self._migrated:
            self._migrated[kind] = await self._migrate(kind)
        settings = self._migrated[kind]
        if settings.postgres_url is None:
            folder = self._new_folder()
            shutil.copytree(settings.sqlite_folder, folder)
            return DatabaseSettings(sqlite_dir=folder, journal_mode=settings.journal_mode)
        connection = await asyncpg.connect(settings.postgres_url.get_secret_value())
        try:
            # Feedback refers to generations, which come first in TABLES.
            names = [f"{name}_cached_vectors" for name in COLLECTIONS]
            names += [table.name for table in reversed(TABLES)]
            await connection.execute(";".join(f"DELETE FROM {name}" for name in names))
        finally:
            await connection.close()
        return settings

    async def without_anything(self, kind: Kind) -> DatabaseSettings:
        """A database without tables: a new folder, or a new schema beside the other tests' own."""
        if kind.startswith("sqlite"):
            return self._new(kind)
        if kind not in self._migrated:
            self._migrated[kind] = await self._migrate(kind)
        url = self._migrated[kind].postgres_url
        return DatabaseSettings(postgres_url=url, postgres_schema=f"empty_{next(self._numbers)}")

    async def _migrate(self, kind: Kind) -> DatabaseSettings:
        settings = self._new(kind)
        async with MetaDatabase(settings, embeddings=FakeEmbeddings()):
            return settings

    def _new(self, kind: Kind) -> DatabaseSettings:
        match kind:
            case "sqlite-wal":
                return DatabaseSettings(sqlite_dir=self._new_folder())
            case "sqlite-truncate":
                return DatabaseSettings(sqlite_dir=self._new_folder(), journal_mode="truncate")
            case _:
                server: PostgresServer = self._request.getfixturevalue(
                    f"postgres{kind.rpartition('-')[2]}"
                )
                name = server.create_database()
                # Nothing is lost here by a crash, and a commit that waits for the disk is slow.
                server.sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
                return DatabaseSettings(postgres_url=server.url_of(name))

    def _new_folder(self) -> Path:
        return self._folder / str(next(self._numbers))


@pytest.fixture(scope="session")
def databases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Databases:
    return Databases(request, tmp_path_factory.mktemp("databases"))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture
async def settings(kind: Kind, databases: Databases) -> DatabaseSettings:
    return await databases.without_records(kind)


@pytest.fixture
async def empty_settings(kind: Kind, databases: Databases) -> DatabaseSettings:
    return await databases.without_anything(kind)


@pytest.fixture
async def pair(databases: Databases) -> AsyncIterator[tuple[MetaDatabase, MetaDatabase]]:
    """The same empty database twice, once on SQLite and once on PostgreSQL."""
    sqlite = await databases.without_records("sqlite-wal")
    postgresql = await databases.without_records("postgresql-18")
    async with (
        MetaDatabase(sqlite, embeddings=FakeEmbeddings(16)) as one,
        MetaDatabase(postgresql, embeddings=FakeEmbeddings(16)) as other,
    ):
        yield one, other
