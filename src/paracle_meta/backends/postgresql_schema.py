"""The schema on PostgreSQL: looking at it, migrating it, and the vector columns beside it.

The width of a vector column depends on the configured model and its index is built outside of any
transaction, so neither is part of the migration history. Both are provisioned here, under the same
advisory lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from paracle_meta import schema
from paracle_meta.exceptions import ConfigurationError, MigrationError
from paracle_meta.migrations import HEAD, VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from paracle_meta.backends.base import VectorSpace

MINIMUM_SERVER: Final = 14_00_00
"""PostgreSQL 14, as `SHOW server_version_num` writes it."""

MAX_INDEXED_DIMENSIONS: Final = 2_000
"""Widest `vector` that pgvector indexes."""

MIN_IVFFLAT_ROWS: Final = 1_000
"""ivfflat learns its lists from the rows it is built on; on fewer than this it finds little."""

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
       current_schema() AS schema,
       e.extversion AS extension,
       n.nspname AS extension_schema,
       n.nspname = ANY(current_schemas(false)) AS extension_visible,
       to_regclass('{VERSION_TABLE}') IS NOT NULL AS stamped
FROM (SELECT 1) one
LEFT JOIN pg_extension e ON e.extname = 'vector'
LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
"""

_VECTOR_COLUMNS: Final = """
SELECT c.relname AS table, a.atttypmod AS dimensions, am.amname AS method, i.indisvalid AS valid
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' AND NOT a.attisdropped
LEFT JOIN pg_class x ON x.relname = c.relname || '_embedding_idx'
    AND x.relnamespace = c.relnamespace
LEFT JOIN pg_index i ON i.indexrelid = x.oid
LEFT JOIN pg_am am ON am.oid = x.relam
WHERE c.oid = to_regclass($1)
"""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What was found in a database.

    Attributes:
        server: The server's version as a number, such as 160_004.
        server_name: The same in words.
        schema: Where new tables go; None where `postgres_schema` does not exist yet.
        extension: The version of pgvector, or None.
        extension_schema: Where it lives.
        extension_visible: Whether its names are found without naming that schema.
        revision: The stamped revision, or None.
    """

    server: int
    server_name: str
    schema: str | None
    extension: str | None
    extension_schema: str | None
    extension_visible: bool
    revision: str | None


async def read_state(connection: Any) -> SchemaState:
    """Return what is in the database, without changing it."""
    row = await connection.fetchrow(_STATE)
    revision = (
        await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")
        if row["stamped"]
        else None
    )
    return SchemaState(
        server=row["server"],
        server_name=row["server_name"],
        schema=row["schema"],
        extension=row["extension"],
        extension_schema=row["extension_schema"],
        extension_visible=bool(row["extension_visible"]),
        revision=revision,
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
        others = [name for name in ("public", extension) if name and name != postgres_schema]
        return ", ".join(f'"{name}"' for name in dict.fromkeys([postgres_schema, *others]))
    if state is None or extension is None or state.extension_visible:
        return None
    return f'"$user", public, "{extension}"'


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
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{name}"')
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            f'The role may not create the schema {name}. Have a DBA run: CREATE SCHEMA "{name}" '
            "AUTHORIZATION <this role>;"
        ) from error


async def create_extension(connection: Any, place: str) -> None:
    """Make the extension pgvector, which must be missing.

    Raises:
        MigrationError: The server does not have it, or the role may not; the message is what to do.
    """
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
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


async def vectors_are_ready(connection: Any, space: VectorSpace, index: str) -> bool:
    """Whether nothing is left to provision."""
    for table in schema.COLLECTIONS.values():
        row = await connection.fetchrow(_VECTOR_COLUMNS, table.name)
        if row is None or await _needs_column(connection, table.name, row, space):
            return False
        if await _needs_index(connection, table.name, row, index):
            return False
    return True


async def provision_vectors(connection: Any, space: VectorSpace, index: str) -> None:
    """Make the vector columns and their indexes as the settings want them.

    Args:
        connection: Holds the migration lock and is in no transaction.
        space: Gives the width of the columns.
        index: ``hnsw``, ``ivfflat`` or ``none``.
    """
    for table in schema.COLLECTIONS.values():
        name = table.name
        row = await connection.fetchrow(_VECTOR_COLUMNS, name)
        if row is None:
            await connection.execute(
                f"ALTER TABLE {name} ADD COLUMN embedding vector({space.dimensions})"
            )
        elif await _needs_column(connection, name, row, space):
            await _widen(connection, name, space)
        row = await connection.fetchrow(_VECTOR_COLUMNS, name)
        if await _needs_index(connection, name, row, index):
            await _build_index(connection, name, row, index)


async def _needs_column(connection: Any, name: str, row: Any, space: VectorSpace) -> bool:
    # Vectors of another width stay: a search then says which model they are of.
    return row["dimensions"] != space.dimensions and not await _holds_vectors(connection, name)


async def _holds_vectors(connection: Any, name: str) -> bool:
    return bool(
        await connection.fetchval(
            f"SELECT EXISTS (SELECT 1 FROM {name} WHERE embedding IS NOT NULL)"
        )
    )


async def _widen(connection: Any, name: str, space: VectorSpace) -> None:
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
        if not await _holds_vectors(connection, name):
            await connection.execute(f"ALTER TABLE {name} DROP COLUMN embedding")
            await connection.execute(
                f"ALTER TABLE {name} ADD COLUMN embedding vector({space.dimensions})"
            )


async def _needs_index(connection: Any, name: str, row: Any, index: str) -> bool:
    if index == "none" or row["dimensions"] > MAX_INDEXED_DIMENSIONS:
        return False
    if row["method"] == index and row["valid"]:
        return False
    return index != "ivfflat" or await _ivfflat_rows(connection, name) >= MIN_IVFFLAT_ROWS


async def _ivfflat_rows(connection: Any, name: str) -> int:
    return int(
        await connection.fetchval(
            f"SELECT count(*) FROM (SELECT 1 FROM {name} WHERE embedding IS NOT NULL"
            f" LIMIT {MIN_IVFFLAT_ROWS}) some"
        )
    )


async def _build_index(connection: Any, name: str, row: Any, index: str) -> None:
    if row["method"] is not None:
        # Of another method, or left invalid by a build that failed.
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_embedding_idx")
    options = ""
    if index == "ivfflat":
        rows = await connection.fetchval(f"SELECT count(*) FROM {name} WHERE embedding IS NOT NULL")
        # pgvector's own advice up to a million rows: rows / 1,000 lists.
        options = f" WITH (lists = {max(1, rows // 1_000)})"
    await connection.execute(
        f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name}_embedding_idx ON {name}"
        f" USING {index} (embedding vector_cosine_ops){options}"
    )


def is_current(state: SchemaState, space: VectorSpace | None) -> bool:
    """Whether the tables and the extension are as this version of the package needs them."""
    return state.revision == HEAD and (space is None or state.extension is not None)
