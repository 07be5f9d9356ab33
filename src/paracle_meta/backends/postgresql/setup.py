"""Getting a database on PostgreSQL ready, on connections outside of the pool."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.postgresql import codec as postgresql_codec
from paracle_meta.backends.postgresql import provision as postgresql_provision
from paracle_meta.backends.postgresql import schema as postgresql_schema
from paracle_meta.backends.postgresql import status as postgresql_status
from paracle_meta.backends.postgresql.errors import DRIVER_ERRORS, translate
from paracle_meta.backends.postgresql.hosts import PostgresHosts
from paracle_meta.backends.postgresql.pool import connection_arguments, describe_place
from paracle_meta.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

    from pydantic import SecretStr

    from paracle_meta.backends.base import DatabaseStatus
    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.postgresql.schema import SchemaState
    from paracle_meta.config import DatabaseSettings
    from paracle_meta.schema import Table

KEPT_BY_POOLERS: Final = frozenset({"application_name"})
"""What we say at connecting that PgBouncer passes on from 1.0 to today; it refuses all the rest."""


def search_settings(settings: DatabaseSettings) -> dict[str, str]:
    """Return the server settings that searches by meaning go by."""
    return {
        # More candidates than pgvector's own 40, which find too little.
        "hnsw.ef_search": str(settings.hnsw_ef_search),
        # Go on until the filter has let enough rows through. A strict order would leave out what is
        # found late, and what is found is put in order anyway.
        "hnsw.iterative_scan": "relaxed_order",
        "ivfflat.probes": str(settings.ivfflat_probes),
        "ivfflat.iterative_scan": "relaxed_order",
        # Compiling a statement takes longer than running it.
        "jit": "off",
    }


def local_search_settings(settings: DatabaseSettings) -> str:
    """Return SQL that makes the same settings for one transaction, where no connection keeps them.

    It is empty where they do.
    """
    if not settings.transaction_pooling:
        return ""
    named = search_settings(settings).items()
    return ";".join(f"SET LOCAL {name} = '{value}'" for name, value in named)


class PostgresSetup:
    """Looks at a database and makes it current."""

    def __init__(self, settings: DatabaseSettings, space: VectorSpace | None) -> None:
        if settings.postgres_url is None:
            raise ConfigurationError("postgres_url is not set, so there is no PostgreSQL to open.")
        self.settings = settings
        self._space = space
        self._migration_url = settings.migration_url or settings.postgres_url
        self.place = describe_place(settings.postgres_url)
        self.hosts = PostgresHosts(settings.postgres_url)

    @property
    def migration_url(self) -> SecretStr:
        """The URL that leads straight to the server.

        Raises:
            ConfigurationError: There is none, as `postgres_url` leads through a pooler.
        """
        if self.settings.transaction_pooling and self.settings.migration_url is None:
            raise ConfigurationError(
                "Migrations, backups and work on vector indexes hold locks that belong to one "
                "connection, which transaction_pooling cannot keep; set migration_url to a URL "
                "that leads straight to the server."
            )
        return self._migration_url

    def arguments(self, state: SchemaState) -> dict[str, Any]:
        """Return what a pool needs; `state` tells where the extension was found."""
        arguments = self._pooled_arguments(state)
        if self._space is not None and state.extension_schema is not None:
            arguments["init"] = partial(postgresql_codec.register, schema=state.extension_schema)
        return arguments

    def _pooled_arguments(self, state: SchemaState | None) -> dict[str, Any]:
        """Return what a connection by `postgres_url` needs."""
        if not self.settings.transaction_pooling:
            return self._direct_arguments(state)
        arguments = self._arguments(state)
        for name, value in arguments["server_settings"].items():
            if name not in KEPT_BY_POOLERS:
                raise ConfigurationError(
                    f"The pooler before {self.place} lets no connection keep {name}, so give it "
                    f"to the role (ALTER ROLE ... SET {name} = {value}), and leave postgres_schema "
                    "and statement_timeout unset."
                )
        # A statement that one connection to the server knows by a name is unknown to the next.
        return {**arguments, "statement_cache_size": 0}

    def _direct_arguments(self, state: SchemaState | None = None) -> dict[str, Any]:
        """Return what a connection by `migration_url` needs."""
        arguments = self._arguments(state)
        if self._space is not None:
            arguments["server_settings"] |= search_settings(self.settings)
        return arguments

    def _arguments(self, state: SchemaState | None) -> dict[str, Any]:
        arguments = connection_arguments(self.settings)
        path = postgresql_schema.search_path(self.settings.postgres_schema, state)
        if path is not None:
            arguments["server_settings"]["search_path"] = path
        return arguments

    async def look(self) -> SchemaState:
        """Return what is in the database.

        Raises:
            ConfigurationError: The server is too old.
        """
        async with self.looking() as (_, state):
            postgresql_schema.check_server(state, self.place)
            return state

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[tuple[Any, SchemaState]]:
        """Lend a connection on which nothing is changed, and tell what is in the database."""
        async with self._alone(self._connect_pooled()) as connection:
            yield connection, await self._read(connection)

    async def status(self) -> DatabaseStatus:
        """See `base.Backend`."""
        async with self.looking() as (connection, state):
            return await postgresql_status.read(connection, state, self.place, self._space)

    async def migrate(self) -> list[str]:
        """See `base.Backend`."""
        async with self._for_migration() as connection:
            return await self._migrate(connection)

    @contextlib.asynccontextmanager
    async def _for_migration(self) -> AsyncIterator[Any]:
        async with self._alone(self._connect_directly()) as connection:
            # Building an index on many rows may take longer than any statement of the application.
            await connection.execute("SET statement_timeout = 0")
            async with postgresql_schema.migration_lock(connection, self.place):
                yield connection

    async def _migrate(self, connection: Any) -> list[str]:
        tenant = self.settings.postgres_schema
        postgresql_schema.check_server(await self._read(connection), self.place)
        if tenant is not None:
            await postgresql_schema.create_schema(connection, tenant)
        if self._space is None:
            return await self._run_history(connection)
        await postgresql_schema.create_extension(connection, self.place, tenant)
        applied = await self._run_history(connection)
        await self._see_extension(connection)
        await postgresql_provision.provision(connection, self._space, self.settings)
        return applied

    async def _see_extension(self, connection: Any) -> None:
        """Make the names of pgvector visible, wherever it was installed."""
        state = await self._read(connection)
        path = postgresql_schema.search_path(self.settings.postgres_schema, state)
        if path is not None:
            await connection.execute(f"SET search_path = {path}")

    async def build_index(self, table: Table[Any]) -> int:
        """See `base.Backend`."""
        if self._space is None:
            raise ConfigurationError("Vectors are switched off, so there is nothing to index.")
        async with self.provisioning() as connection:
            return await postgresql_provision.rebuild(connection, table.name, self.settings)

    @contextlib.asynccontextmanager
    async def provisioning(self) -> AsyncIterator[Any]:
        """Lend a connection that holds the migration lock, and that may take its time."""
        async with self._for_migration() as connection:
            await self._see_extension(connection)
            yield connection

    async def connect(self) -> Any:
        """Return a connection of the role that migrates, for work that takes its time.

        It is the caller's to close.
        """
        with self.translated():
            connection = await self._connect_directly()
            try:
                await connection.execute("SET statement_timeout = 0")
                await self._see_extension(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection

    def migration_sql(self) -> str:
        """See `base.Backend`."""
        from paracle_meta.migrations.runner import upgrade_sql

        before = []
        if (tenant := self.settings.postgres_schema) is not None:
            name = postgresql_schema.quoted(tenant)
            before += [
                f"CREATE SCHEMA IF NOT EXISTS {name}",
                f"SET search_path = {name}, public",
            ]
        after = []
        if self._space is not None:
            before.append(postgresql_schema.extension_sql(tenant))
            after = postgresql_provision.provision_sql(self._space, self.settings)
        history = upgrade_sql("postgresql", {})
        return "".join([*(f"{sql};\n" for sql in before), history, *(f"{sql};\n" for sql in after)])

    async def _run_history(self, connection: Any) -> list[str]:
        from paracle_meta.backends.postgresql.session import PostgresSessions
        from paracle_meta.migrations.runner import upgrade

        async def borrow() -> Any:
            return connection

        async def give_back(_connection: Any, _broken: bool) -> None:
            """Leave it open: it holds the lock."""

        sessions = PostgresSessions(borrow, give_back, partial(translate, place=self.place))
        try:
            return await sessions.run(partial(upgrade, schemas={}))
        finally:
            await sessions.close()

    async def _read(self, connection: Any) -> SchemaState:
        return await postgresql_schema.read_state(connection, self.settings, self._space)

    async def _connect_pooled(self) -> Any:
        return await self.hosts.connect(**self._pooled_arguments(None))

    async def _connect_directly(self) -> Any:
        url = self.migration_url
        same = url is self.settings.postgres_url
        hosts = self.hosts if same else PostgresHosts(url)
        return await hosts.connect(**self._direct_arguments())

    @contextlib.asynccontextmanager
    async def _alone(self, connecting: Awaitable[Any]) -> AsyncIterator[Any]:
        with self.translated():
            connection = await connecting
            try:
                yield connection
            finally:
                await connection.close(timeout=self.settings.connect_timeout)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Raise the driver's errors as those of this package."""
        try:
            yield
        except DRIVER_ERRORS as error:
            translated = translate(error, self.place)
            if translated is None:
                raise
            raise translated from error
