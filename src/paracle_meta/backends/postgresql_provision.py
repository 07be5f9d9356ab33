"""The vector columns on PostgreSQL and their indexes, beside the migration history.

The width of a vector column depends on the configured model, and its index is built outside of any
transaction, so neither can be part of the history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from paracle_meta import schema

if TYPE_CHECKING:
    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.config import DatabaseSettings

MAX_INDEXED_DIMENSIONS: Final = 2_000
"""Widest `vector` that pgvector indexes; wider ones are indexed as `halfvec`."""

MAX_HALF_DIMENSIONS: Final = 4_000
"""Widest `halfvec` that pgvector indexes."""

MIN_IVFFLAT_ROWS: Final = 1_000
"""ivfflat learns its lists from the rows it is built on; on fewer than this it finds little."""

_VECTOR_COLUMN: Final = """
SELECT a.atttypmod AS dimensions, am.amname AS method, i.indisvalid AS valid
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' AND NOT a.attisdropped
LEFT JOIN pg_class x ON x.relname = c.relname || '_embedding_idx'
    AND x.relnamespace = c.relnamespace
LEFT JOIN pg_index i ON i.indexrelid = x.oid
LEFT JOIN pg_am am ON am.oid = x.relam
WHERE c.oid = to_regclass($1)
"""


async def is_ready(connection: Any, space: VectorSpace, settings: DatabaseSettings) -> bool:
    """Whether nothing is left to provision."""
    for table in schema.COLLECTIONS.values():
        row = await connection.fetchrow(_VECTOR_COLUMN, table.name)
        if row is None or await _needs_column(connection, table.name, row, space):
            return False
        if await _needs_index(connection, table.name, row, settings):
            return False
    return True


async def provision(connection: Any, space: VectorSpace, settings: DatabaseSettings) -> None:
    """Make the vector columns and their indexes as the settings want them.

    Args:
        connection: Holds the migration lock and is in no transaction.
        space: Gives the width of the columns.
        settings: Say which index is wanted and how it is built.
    """
    for table in schema.COLLECTIONS.values():
        name = table.name
        row = await connection.fetchrow(_VECTOR_COLUMN, name)
        if row is None:
            await connection.execute(_column_sql(name, space))
        elif await _needs_column(connection, name, row, space):
            await _widen(connection, name, space)
        row = await connection.fetchrow(_VECTOR_COLUMN, name)
        if await _needs_index(connection, name, row, settings):
            await _build_index(connection, name, row, settings)


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
            await connection.execute(_column_sql(name, space))


async def _needs_index(connection: Any, name: str, row: Any, settings: DatabaseSettings) -> bool:
    if row["method"] == settings.vector_index and row["valid"]:
        return False
    return await _wants_index(connection, name, row, settings)


async def _wants_index(connection: Any, name: str, row: Any, settings: DatabaseSettings) -> bool:
    if settings.vector_index == "none" or row["dimensions"] > MAX_HALF_DIMENSIONS:
        return False
    if settings.vector_index == "hnsw":
        return True
    return await _ivfflat_rows(connection, name) >= MIN_IVFFLAT_ROWS


async def _ivfflat_rows(connection: Any, name: str) -> int:
    return int(
        await connection.fetchval(
            f"SELECT count(*) FROM (SELECT 1 FROM {name} WHERE embedding IS NOT NULL"
            f" LIMIT {MIN_IVFFLAT_ROWS}) AS sample"
        )
    )


async def _build_index(connection: Any, name: str, row: Any, settings: DatabaseSettings) -> None:
    if row["method"] is not None:
        # Of another method, or left invalid by a build that failed.
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_embedding_idx")
    rows = await _embedded_rows(connection, name)
    await connection.execute(_index_sql(name, row["dimensions"], settings, rows))


async def rebuild(connection: Any, name: str, settings: DatabaseSettings) -> int:
    """Make an index anew beside the old one, and return how many rows it has.

    Args:
        connection: Holds the migration lock and is in no transaction.
        name: The table's.
        settings: Say which index is wanted and how it is built.
    """
    row = await connection.fetchrow(_VECTOR_COLUMN, name)
    rows = await _embedded_rows(connection, name)
    if not await _wants_index(connection, name, row, settings):
        return 0
    # Of an earlier try that was stopped.
    await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_embedding_new_idx")
    await connection.execute(_index_sql(name, row["dimensions"], settings, rows, suffix="_new"))
    async with connection.transaction():
        await connection.execute(f"DROP INDEX IF EXISTS {name}_embedding_idx")
        await connection.execute(
            f"ALTER INDEX {name}_embedding_new_idx RENAME TO {name}_embedding_idx"
        )
    return rows


async def _embedded_rows(connection: Any, name: str) -> int:
    return int(await connection.fetchval(f"SELECT count(embedding) FROM {name}"))


def _column_sql(name: str, space: VectorSpace) -> str:
    return f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS embedding vector({space.dimensions})"


def _index_sql(
    name: str, dimensions: int, settings: DatabaseSettings, rows: int, suffix: str = ""
) -> str:
    if settings.vector_index == "hnsw":
        options = f"m = {settings.hnsw_m}, ef_construction = {settings.hnsw_ef_construction}"
    else:
        # pgvector's own advice up to a million rows: rows / 1,000 lists.
        options = f"lists = {settings.ivfflat_lists or max(1, rows // 1_000)}"
    return (
        f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name}_embedding{suffix}_idx ON {name}"
        f" USING {settings.vector_index} ({indexed(dimensions)}) WITH ({options})"
    )


def indexed(dimensions: int) -> str:
    """Return what the index of vectors of this width holds, with its operator class."""
    if dimensions <= MAX_INDEXED_DIMENSIONS:
        return "embedding vector_cosine_ops"
    return f"(embedding::halfvec({dimensions})) halfvec_cosine_ops"


def provision_sql(space: VectorSpace, settings: DatabaseSettings) -> list[str]:
    """Return the statements that provision empty tables."""
    statements = [_column_sql(name, space) for name in schema.COLLECTIONS]
    # ivfflat waits for rows.
    if settings.vector_index == "hnsw" and space.dimensions <= MAX_HALF_DIMENSIONS:
        statements += [
            _index_sql(name, space.dimensions, settings, 0) for name in schema.COLLECTIONS
        ]
    return statements
