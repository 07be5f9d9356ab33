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

MAX_WHOLE_DIMENSIONS: Final = 2_000
"""Widest `vector` that pgvector indexes; wider ones are indexed as `halfvec`."""

MAX_HALF_DIMENSIONS: Final = 4_000
"""Widest `halfvec` that pgvector indexes."""

ROWS_A_LIST: Final = 1_000
"""Of an ivfflat index: pgvector's own advice up to a million rows."""

MIN_IVFFLAT_ROWS: Final = 1_000
"""ivfflat learns its lists from the rows it is built on; on fewer than this it finds little."""

IVFFLAT_GROWTH: Final = 4
"""How many times the rows that its lists were made for make them anew.

Lists are as many as a thousandth of the rows, so each holds then four times as many, which takes
four times as long to look at, and new clusters have none of their own.
"""

BUILD_MEMORY: Final = "512MB"
"""For building an index: a graph that does not fit is built several times slower.

The 64 MB that PostgreSQL gives are full at some 60,000 vectors of 384 numbers.
"""

WAITING_WORDS: Final = 16 * 1024
"""Kilobytes of new words, of some 20,000 short records, that are put into their index at once.

That takes a fifth of the time that it takes record by record; until then, a search reads them all.
"""

_VECTOR_COLUMN: Final = """
SELECT a.atttypmod AS dimensions, am.amname AS method, i.indisvalid AS valid,
    coalesce(pg_get_expr(i.indexprs, i.indrelid) LIKE '%l2_normalize%', false) AS halves,
    (SELECT split_part(o, '=', 2)::int FROM unnest(x.reloptions) o WHERE o LIKE 'lists=%') AS lists,
    coalesce('fastupdate=on' = ANY(w.reloptions), false) AS words_wait
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' AND NOT a.attisdropped
LEFT JOIN pg_class x ON x.relname = c.relname || '_embedding_idx'
    AND x.relnamespace = c.relnamespace
LEFT JOIN pg_index i ON i.indexrelid = x.oid
LEFT JOIN pg_am am ON am.oid = x.relam
LEFT JOIN pg_class w ON w.relname = c.relname || '_terms_idx' AND w.relnamespace = c.relnamespace
WHERE c.oid = to_regclass($1)
"""


async def is_ready(connection: Any, space: VectorSpace, settings: DatabaseSettings) -> bool:
    """Whether nothing is left to provision."""
    for name in schema.COLLECTIONS:
        if await what_is_missing(connection, name, space, settings) is not None:
            return False
    return True


async def what_is_missing(
    connection: Any, name: str, space: VectorSpace, settings: DatabaseSettings
) -> str | None:
    """Return what `provision` would mend first in a table, as a `Finding` calls it, or None."""
    row = await connection.fetchrow(_VECTOR_COLUMN, name)
    if row is None or await _needs_column(connection, name, row, space):
        return "missing-vector-column"
    if row["words_wait"]:
        return "waiting-words"
    if not await _needs_index(connection, name, row, settings):
        return None
    if row["method"] is None:
        return "missing-index"
    return "stale-index" if row["valid"] else "invalid-index"


async def provision(connection: Any, space: VectorSpace, settings: DatabaseSettings) -> None:
    """Make the vector columns and their indexes as the settings want them.

    Args:
        connection: Holds the migration lock and is in no transaction.
        space: Gives the width of the columns.
        settings: Say which index is wanted and how it is built.
    """
    for table in schema.COLLECTIONS.values():
        await provision_table(connection, table.name, space, settings)


async def provision_table(
    connection: Any, name: str, space: VectorSpace, settings: DatabaseSettings
) -> None:
    """Do what `provision` does for one table."""
    row = await connection.fetchrow(_VECTOR_COLUMN, name)
    if row is None:
        await connection.execute(_column_sql(name, space))
    elif await _needs_column(connection, name, row, space):
        await widen(connection, name, space)
    row = await connection.fetchrow(_VECTOR_COLUMN, name)
    if row["words_wait"]:
        await connection.execute(
            f"ALTER INDEX {name}_terms_idx SET (fastupdate = off);"
            f"ALTER INDEX {name}_terms_idx RESET (gin_pending_list_limit)"
        )
        await connection.execute(f"SELECT gin_clean_pending_list('{name}_terms_idx'::regclass)")
    if await _needs_index(connection, name, row, settings):
        await _build_index(connection, name, row, settings)


async def defer_indexes(connection: Any, name: str) -> None:
    """Make storing many rows quick: drop the index of the vectors, have new words wait in a list.

    `provision_table` makes up for it, also where whoever called this was killed.

    Args:
        connection: Holds the migration lock and is in no transaction.
        name: The table's.
    """
    await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_embedding_idx")
    await connection.execute(
        f"ALTER INDEX {name}_terms_idx"
        f" SET (fastupdate = on, gin_pending_list_limit = {WAITING_WORDS})"
    )


async def _needs_column(connection: Any, name: str, row: Any, space: VectorSpace) -> bool:
    # Vectors of another width stay: a search then says which model they are of.
    return row["dimensions"] != space.dimensions and not await _holds_vectors(connection, name)


async def _holds_vectors(connection: Any, name: str) -> bool:
    return bool(
        await connection.fetchval(
            f"SELECT EXISTS (SELECT 1 FROM {name} WHERE embedding IS NOT NULL)"
        )
    )


async def widen(connection: Any, name: str, space: VectorSpace) -> None:
    """Make the column of another width, with its index gone, if it holds no vector."""
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
        if not await _holds_vectors(connection, name):
            await connection.execute(f"ALTER TABLE {name} DROP COLUMN embedding")
            await connection.execute(_column_sql(name, space))


async def _needs_index(connection: Any, name: str, row: Any, settings: DatabaseSettings) -> bool:
    halves = row["dimensions"] > MAX_WHOLE_DIMENSIONS
    if (row["method"], row["valid"], row["halves"]) != (settings.vector_index, True, halves):
        return await _wants_index(connection, name, row["dimensions"], settings)
    return await _outgrown(connection, name, row["lists"], settings)


async def _outgrown(
    connection: Any, name: str, lists: int | None, settings: DatabaseSettings
) -> bool:
    if lists is None or settings.ivfflat_lists is not None:
        return False
    return await _at_least(connection, name, "embedding", lists * ROWS_A_LIST * IVFFLAT_GROWTH)


async def _wants_index(
    connection: Any,
    name: str,
    dimensions: int,
    settings: DatabaseSettings,
    column: str = "embedding",
) -> bool:
    if settings.vector_index == "none" or dimensions > MAX_HALF_DIMENSIONS:
        return False
    if settings.vector_index == "hnsw":
        return True
    return await _at_least(connection, name, column, MIN_IVFFLAT_ROWS)


async def _at_least(connection: Any, name: str, column: str, rows: int) -> bool:
    """Return whether so many rows have a vector."""
    return bool(
        await connection.fetchval(
            f"SELECT count(*) >= $1 FROM (SELECT 1 FROM {name} WHERE {column} IS NOT NULL"
            " LIMIT $1) AS sample",
            rows,
        )
    )


async def _build_index(connection: Any, name: str, row: Any, settings: DatabaseSettings) -> None:
    if row["valid"] and row["method"] == settings.vector_index:
        # It serves until the new one is there.
        await rebuild(connection, name, settings)
        return
    if row["method"] is not None:
        # Of another method, or left invalid by a build that failed.
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_embedding_idx")
    rows = await _embedded_rows(connection, name)
    await create_index(connection, _index_sql(name, row["dimensions"], settings, rows))


async def index_in_transaction(connection: Any, name: str, settings: DatabaseSettings) -> None:
    """Index a column that the caller's transaction has made, if an index is wanted.

    Args:
        connection: In a transaction; its settings are changed.
        name: The table's.
        settings: Say which index is wanted and how it is built.
    """
    row = await connection.fetchrow(_VECTOR_COLUMN, name)
    if await _needs_index(connection, name, row, settings):
        rows = await _embedded_rows(connection, name)
        sql = _index_sql(name, row["dimensions"], settings, rows)
        await create_index(connection, sql.replace(" CONCURRENTLY", ""))


async def create_index(connection: Any, sql: str) -> None:
    """Run a statement that makes an index, with memory enough.

    Where the server gives more than BUILD_MEMORY, it is left as it is. Elsewhere one process builds
    alone, as several would share that memory, and containers often have only 64 MB to share.
    """
    await connection.execute(
        "SELECT set_config('max_parallel_maintenance_workers', '0', false),"
        f" set_config('maintenance_work_mem', '{BUILD_MEMORY}', false)"
        " WHERE pg_size_bytes(current_setting('maintenance_work_mem'))"
        f" < pg_size_bytes('{BUILD_MEMORY}')"
    )
    await connection.execute(sql)


async def rebuild(connection: Any, name: str, settings: DatabaseSettings) -> int:
    """Make an index anew beside the old one, and return how many rows it has.

    Args:
        connection: Holds the migration lock and is in no transaction.
        name: The table's.
        settings: Say which index is wanted and how it is built.
    """
    row = await connection.fetchrow(_VECTOR_COLUMN, name)
    rows = await _embedded_rows(connection, name)
    if not await _wants_index(connection, name, row["dimensions"], settings):
        return 0
    # Of an earlier try that was stopped.
    await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_embedding_new_idx")
    sql = _index_sql(name, row["dimensions"], settings, rows, suffix="_new")
    await create_index(connection, sql)
    async with connection.transaction():
        await connection.execute(f"DROP INDEX IF EXISTS {name}_embedding_idx")
        await connection.execute(
            f"ALTER INDEX {name}_embedding_new_idx RENAME TO {name}_embedding_idx"
        )
    return rows


async def new_index_sql(
    connection: Any, name: str, space: VectorSpace, settings: DatabaseSettings
) -> str | None:
    """Return the statement that indexes the vectors of a model to come, or None for no index.

    Args:
        connection: In no transaction.
        name: The table's, whose new vectors are in ``new_embedding``.
        space: Gives their width.
        settings: Say which index is wanted and how it is built.
    """
    column = "new_embedding"
    if not await _wants_index(connection, name, space.dimensions, settings, column):
        return None
    rows = await _embedded_rows(connection, name, column)
    return _index_sql(name, space.dimensions, settings, rows, column=column)


async def _embedded_rows(connection: Any, name: str, column: str = "embedding") -> int:
    return int(await connection.fetchval(f"SELECT count({column}) FROM {name}"))


def _column_sql(name: str, space: VectorSpace) -> str:
    return f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS embedding vector({space.dimensions})"


def _index_sql(
    name: str,
    dimensions: int,
    settings: DatabaseSettings,
    rows: int,
    *,
    column: str = "embedding",
    suffix: str = "",
) -> str:
    if settings.vector_index == "hnsw":
        options = f"m = {settings.hnsw_m}, ef_construction = {settings.hnsw_ef_construction}"
    else:
        options = f"lists = {settings.ivfflat_lists or max(1, rows // ROWS_A_LIST)}"
    if dimensions <= MAX_WHOLE_DIMENSIONS:
        held = f"{column} vector_cosine_ops"
    else:
        held = f"({indexed(column, dimensions)}) halfvec_cosine_ops"
    return (
        f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name}_{column}{suffix}_idx ON {name}"
        f" USING {settings.vector_index} ({held}) WITH ({options})"
    )


def indexed(vector: str, dimensions: int) -> str:
    """Return what the index holds of a vector: all of it, or half of each number of a wide one.

    What is found by halves is compared again in full. A number beyond 65,504 has no half, so a wide
    vector is brought to length 1 before, which leaves its direction as it is.

    Args:
        vector: A column or parameter.
        dimensions: Its length.
    """
    if dimensions <= MAX_WHOLE_DIMENSIONS:
        return vector
    return f"l2_normalize({vector})::halfvec({dimensions})"


def provision_sql(space: VectorSpace, settings: DatabaseSettings) -> list[str]:
    """Return the statements that provision empty tables."""
    statements = [_column_sql(name, space) for name in schema.COLLECTIONS]
    # ivfflat waits for rows.
    if settings.vector_index == "hnsw" and space.dimensions <= MAX_HALF_DIMENSIONS:
        statements += [
            _index_sql(name, space.dimensions, settings, 0) for name in schema.COLLECTIONS
        ]
    return statements
