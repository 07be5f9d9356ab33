"""Vectors that are made of what PostgreSQL stores already: for records without one, and a cache.

Each function is one piece of work for a connection that is in no transaction, safe to repeat.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, TypeVar

from paracle_meta.backends.postgresql.vectors import check_stored
from paracle_meta.records import utc_now
from paracle_meta.values import vector_to_list

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from paracle_meta.backends.collections import NewVector
    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.schema import Table

R = TypeVar("R")


def numbers(blob: bytes) -> array[float]:
    """Return the numbers of a vector, as asyncpg takes them."""
    return array("f", vector_to_list(blob))


def in_order(vectors: Sequence[NewVector]) -> list[NewVector]:
    """Return vectors by the id of their record: two writers who keep an order never deadlock."""
    return sorted(vectors, key=lambda vector: vector.record_id)


def has_texts(table: Table[Any], first: int) -> str:
    """Return the SQL for whether a row has certain texts to embed.

    Args:
        table: A collection.
        first: The number of the first parameter; there is one a text.
    """
    given = ", ".join(f"${number}::text" for number, _ in enumerate(table.embedded, start=first))
    return f"({', '.join(table.embedded)}) IS NOT DISTINCT FROM ({given})"


async def without_vector(
    statements: TableStatements[R], limit: int, after: str | None, connection: Any
) -> list[R]:
    """See `collections.Collections`."""
    rows = await connection.fetch(statements.without_vector, after or "", limit)
    return [statements.record(row) for row in rows]


async def store_vectors(
    statements: TableStatements[Any], vectors: Sequence[NewVector], model: str, connection: Any
) -> int:
    """See `collections.Collections`."""
    table = statements.table
    now = utc_now()
    async with connection.transaction():
        await check_stored(statements, model, connection)
        stored = await connection.fetchmany(
            f"UPDATE {table.name} SET embedding = $1::float4[]::vector, embedding_model = $2,"
            " updated_at = $3 WHERE id = $4 AND embedding_model IS NULL"
            f" AND {has_texts(table, 5)} RETURNING id",
            [
                (numbers(vector.blob), model, now, vector.record_id, *vector.texts)
                for vector in in_order(vectors)
            ],
        )
    return len(stored)


async def cached_vectors(
    table: str, model: str, hashes: Collection[bytes], connection: Any
) -> dict[bytes, bytes]:
    """See `collections.Collections`."""
    rows = await connection.fetch(
        f"SELECT hash, embedding FROM {table}_cached_vectors WHERE model = $1 AND hash = ANY($2)",
        model,
        list(hashes),
    )
    return {row["hash"]: row["embedding"] for row in rows}


async def cache_vectors(
    table: str, model: str, vectors: Mapping[bytes, bytes], keep: int, connection: Any
) -> None:
    """See `collections.Collections`."""
    hashes = sorted(vectors)
    async with connection.transaction():
        # Numbers are given to what is inserted only, or the oldest would go before their time.
        await connection.execute(
            f"INSERT INTO {table}_cached_vectors (model, hash, embedding)"
            " SELECT $1::varchar, n.hash, n.embedding"
            " FROM unnest($2::bytea[], $3::bytea[]) AS n (hash, embedding)"
            f" WHERE NOT EXISTS (SELECT 1 FROM {table}_cached_vectors c"
            " WHERE c.model = $1::varchar AND c.hash = n.hash)"
            " ON CONFLICT (model, hash) DO NOTHING",
            model,
            hashes,
            [vectors[text_hash] for text_hash in hashes],
        )
        await connection.execute(
            f"DELETE FROM {table}_cached_vectors"
            f" WHERE seq <= (SELECT max(seq) FROM {table}_cached_vectors) - $1::bigint",
            keep,
        )
