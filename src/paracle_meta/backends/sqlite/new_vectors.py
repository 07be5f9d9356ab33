"""Vectors that are made of what SQLite stores already: for records without one, and a cache.

Each function is one piece of work for a connection that is in no transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from paracle_meta.backends.portable import encode_time
from paracle_meta.backends.rows import check_models
from paracle_meta.backends.sqlite.files import transaction
from paracle_meta.records import utc_now

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from paracle_meta.backends.collections import NewVector
    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.schema import Table

R = TypeVar("R")


def has_texts(table: Table[Any], first: int) -> str:
    """Return the SQL for whether a row has certain texts to embed.

    Args:
        table: A collection.
        first: The number of the first parameter; there is one a text.
    """
    given = ", ".join(f"?{number}" for number, _ in enumerate(table.embedded, start=first))
    return f"({', '.join(table.embedded)}) IS ({given})"


def without_vector(
    statements: TableStatements[R], limit: int, after: str | None, connection: Any
) -> list[R]:
    """See `collections.Collections`."""
    rows = connection.execute(statements.without_vector, (after or "", limit))
    return [statements.record(row) for row in rows]


def check_stored(statements: TableStatements[Any], model: str, connection: Any) -> None:
    """Raise EmbeddingModelMismatchError where any stored vector is of another model."""
    check_models(statements.table, model, connection.execute(statements.models).fetchone())


def store_vectors(
    statements: TableStatements[Any], vectors: Sequence[NewVector], model: str, connection: Any
) -> int:
    """See `collections.Collections`."""
    table = statements.table
    now = encode_time(utc_now())
    with transaction(connection):
        # A write comes first, so that the models are looked at when it is our turn.
        cursor = connection.executemany(
            f"UPDATE {table.name} SET embedding = ?1, embedding_model = ?2, updated_at = ?3"
            f" WHERE id = ?4 AND embedding_model IS NULL AND {has_texts(table, 5)}",
            [(vector.blob, model, now, vector.record_id, *vector.texts) for vector in vectors],
        )
        check_stored(statements, model, connection)
    return max(int(cursor.rowcount), 0)


def cached_vectors(
    table: str, model: str, hashes: Collection[bytes], connection: Any
) -> dict[bytes, bytes]:
    """See `collections.Collections`."""
    found = {}
    with transaction(connection):
        for text_hash in hashes:
            row = connection.execute(
                f"SELECT embedding FROM {table}_cached_vectors WHERE model = ?1 AND hash = ?2",
                (model, text_hash),
            ).fetchone()
            if row is not None:
                found[text_hash] = row[0]
    return found


def cache_vectors(
    table: str, model: str, vectors: Mapping[bytes, bytes], keep: int, connection: Any
) -> None:
    """See `collections.Collections`."""
    with transaction(connection):
        connection.executemany(
            f"INSERT INTO {table}_cached_vectors (model, hash, embedding) VALUES (?1, ?2, ?3)"
            " ON CONFLICT (model, hash) DO NOTHING",
            [(model, text_hash, blob) for text_hash, blob in vectors.items()],
        )
        connection.execute(
            f"DELETE FROM {table}_cached_vectors"
            f" WHERE seq <= (SELECT max(seq) FROM {table}_cached_vectors) - ?1",
            (keep,),
        )
