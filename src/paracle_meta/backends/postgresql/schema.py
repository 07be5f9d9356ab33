"""The schema on PostgreSQL: looking at it, and what has to be there before the history runs."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from paracle_meta.backends.postgresql import provision as postgresql_provision
from paracle_meta.exceptions import ConfigurationError, MigrationError
from paracle_meta.migrations import HEAD, VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.config import DatabaseSettings

MINIMUM_SERVER: Final = 14_00_00
"""PostgreSQL 14, as `SHOW server_version_num` writes it."""

LOCK_KEY: Final = 0x70617261636C65
"""The advisory lock of all migrations in a database: "paracle" in ASCII."""

LOCK_POLL: Final = 0.05
"""Seconds between two tries for the lock.

It is polled because a session that waits for a lock holds a snapshot, and CREATE INDEX CONCURRENTLY
waits for all snapshots: the two would wait for each other.
"""

LOCK_WAIT: Final = 600.0
"""Seconds to wait for another process that migrates; an index on many rows takes minutes."""

_STATE: Final = f"""
SELECT current_setting('server_version_num')::int AS server,
       current_setting('server_version') AS server_name,
       e.extversion AS extension,
       n.nspname AS extension_schema,
       n.nspname = ANY(current_schemas(false)) AS extension_visible,
       to_regclass(format('%I.{VERSION_TABLE}', COALESCE($1, current_schema())))::text AS stamps
FROM (SELECT 1) one
LEFT JOIN pg_extension e ON e.extname = 'vector'
LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
"""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What was found in a database.

    Attributes:
        server: The server's version as a number, such as 160_004.
        server_name: The same in words.
        extension: The version of pgvector, or None.
        extension_schema: Where it lives.
        extension_visible: Whether its names are found without naming that schema.
        revision: The stamped revision, or None.
        is_current: Whether nothing is left to migrate or to provision.
    """

    server: int
    server_name: str
    extension: str | None
    extension_schema: str | None
    extension_visible: bool
    revision: str | None
    is_current: bool


async def read_state(
    connection: Any, settings: DatabaseSettings, space: VectorSpace | None
) -> SchemaState:
    """Return what is in the database, without changing it.

    Args:
        connection: Any connection to it.
        settings: Of their `postgres_schema`, or the role's own schema, only the stamp counts: one
            in another schema of the search path is another installation's.
        space: The vectors to be stored, or None for none.
    """
    row = await connection.fetchrow(_STATE, settings.postgres_schema)
    revision = None
    if row["stamps"] is not None:
        revision = await connection.fetchval(f"SELECT version_num FROM {row['stamps']}")
    is_current = revision == HEAD
    if is_current and space is not None:
        is_current = row["extension"] is not None and await postgresql_provision.is_ready(
            connection, space, settings
        )
    return SchemaState(
        server=row["server"],
        server_name=row["server_name"],
        extension=row["extension"],
        extension_schema=row["extension_schema"],
        extension_visible=bool(row["extension_visible"]),
        revision=revision,
        is_current=is_current,
    )


def check_server(state: SchemaState, place: str) -> None:
    """Raise ConfigurationError where the server is too old."""
    if state.server < MINIMUM_SERVER:
        raise ConfigurationError(
            f"{place} is PostgreSQL {state.server_name}; paracle_meta needs 14 or later."
        )


def search_path(postgres_schema: str | None, state: SchemaState | None) -> str | None:
    """Return the `search_path` to connect with, or None for the role's own.

    Args:
        postgres_schema: The setting.
        state: What was found, if one has looked; the extension's schema is added where its names
            would not be found.
    """
    extension = state.extension_schema if state is not None else None
    if postgres_schema is not None:
        return ", ".join(map(quoted, dict.fromkeys([postgres_schema, extension or "public"])))
    if state is None or extension is None or state.extension_visible:
        return None
    return f'"$user", public, {quoted(extension)}'


def quoted(name: str) -> str:
    """Return an identifier in quotes."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


@contextlib.asynccontextmanager
async def migration_lock(connection: Any, place: str) -> AsyncIterator[None]:
    """Hold the advisory lock that lets one process migrate at a time.

    Raises:
        MigrationError: It was not free within LOCK_WAIT.
    """
    async with _patience(place):
        while not await connection.fetchval(  # noqa: ASYNC110 - the event is in the server
            "SELECT pg_try_advisory_lock($1)", LOCK_KEY
        ):
            await asyncio.sleep(LOCK_POLL)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.fetchval("SELECT pg_advisory_unlock($1)", LOCK_KEY)


@contextlib.asynccontextmanager
async def _patience(place: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(LOCK_WAIT):
            yield
    except TimeoutError as error:
        raise MigrationError(
            f"Another process has been migrating {place} for over {LOCK_WAIT:g} seconds; see "
            "what it does, then try again."
        ) from error


async def create_schema(connection: Any, name: str) -> None:
    """Make the schema that holds all tables, unless it exists.

    Raises:
        MigrationError: The role may not.
    """
    exists = await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", name)
    if exists:
        return
    try:
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(name)}")
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            f"The role may not create the schema {name}. Have a DBA run: CREATE SCHEMA "
            f"{quoted(name)} AUTHORIZATION <this role>;"
        ) from error


def extension_sql(postgres_schema: str | None) -> str:
    """Return the statement that makes pgvector.

    It goes to `public` where each tenant has a schema, since all of them share it.
    """
    place = "" if postgres_schema is None else " SCHEMA public"
    return f"CREATE EXTENSION IF NOT EXISTS vector{place}"


async def create_extension(connection: Any, place: str, postgres_schema: str | None) -> None:
    """Make the extension pgvector.

    Raises:
        MigrationError: The server does not have it, or the role may not; the message is what to do.
    """
    try:
        await connection.execute(extension_sql(postgres_schema))
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            f"The role may not create the extension pgvector on {place}. Have a DBA run, in this "
            "database: CREATE EXTENSION vector; or set enable_vectors: false."
        ) from error
    except (asyncpg.FeatureNotSupportedError, asyncpg.UndefinedFileError) as error:
        raise MigrationError(
            f"pgvector is not installed on {place}. Install it there (on Debian the package "
            "postgresql-<version>-pgvector), or set enable_vectors: false."
        ) from error


async def update_extension(connection: Any, place: str) -> None:
    """Bring pgvector to the version that the server has.

    Raises:
        MigrationError: The role may not; the message is what to do.
    """
    try:
        await connection.execute("ALTER EXTENSION vector UPDATE")
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            f"The role may not update the extension pgvector on {place}. Have its owner run, in "
            "this database: ALTER EXTENSION vector UPDATE;"
        ) from error
