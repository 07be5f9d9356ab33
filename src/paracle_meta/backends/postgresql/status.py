"""What state a database on PostgreSQL is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta import schema
from paracle_meta.backends.base import DatabaseStatus, VectorStatus
from paracle_meta.backends.postgresql import change as postgresql_change
from paracle_meta.migrations import HEAD

if TYPE_CHECKING:
    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.postgresql.schema import SchemaState


async def read(
    connection: Any, state: SchemaState, place: str, space: VectorSpace | None
) -> DatabaseStatus:
    """Return the status of the database that the connection leads to."""
    counts: dict[str, int] = {}
    vectors: dict[str, VectorStatus] = {}
    if state.revision == HEAD:
        for table in schema.TABLES:
            counts[table.name] = await connection.fetchval(f"SELECT count(*) FROM {table.name}")
            if table.has_vector and space is not None:
                vectors[table.name] = await _vectors(connection, table.name, counts[table.name])
    version = f"PostgreSQL {state.server_name}"
    if state.extension is not None:
        version += f", pgvector {state.extension}"
    return DatabaseStatus(
        backend="postgresql",
        location=place,
        version=version,
        revision=state.revision,
        head=HEAD,
        counts=counts,
        vectors=vectors,
    )


async def _vectors(connection: Any, table_name: str, rows: int) -> VectorStatus:
    models = await connection.fetch(
        f"SELECT embedding_model, count(*) AS number FROM {table_name}"
        " WHERE embedding_model IS NOT NULL GROUP BY embedding_model ORDER BY embedding_model"
    )
    index = await connection.fetchval(
        "SELECT indexrelid::regclass::text FROM pg_index"
        " WHERE indexrelid = to_regclass($1) AND indisvalid",
        f"{table_name}_embedding_idx",
    )
    embedded = sum(row["number"] for row in models)
    changing_to, changed = await postgresql_change.progress(connection, table_name)
    return VectorStatus(
        embedded=embedded,
        missing=rows - embedded,
        models=tuple(row["embedding_model"] for row in models),
        index=index,
        changing_to=changing_to,
        changed=changed,
    )
