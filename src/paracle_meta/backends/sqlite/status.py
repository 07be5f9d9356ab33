"""What state a folder of SQLite files is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta import schema
from paracle_meta.backends.base import DatabaseStatus, VectorStatus
from paracle_meta.backends.sqlite.files import SCHEMAS
from paracle_meta.migrations import HEAD, VERSION_TABLE

if TYPE_CHECKING:
    from paracle_meta.backends.sqlite.files import SqliteFiles


def revisions(connection: Any) -> set[str | None]:
    """Return the revisions stamped in the files; None stands for a file without a stamp."""
    found: set[str | None] = set()
    for place in SCHEMAS.values():
        stamped = connection.execute(
            f"SELECT 1 FROM {place}.sqlite_master WHERE name = '{VERSION_TABLE}'"
        ).fetchone()
        row = (
            connection.execute(f"SELECT version_num FROM {place}.{VERSION_TABLE}").fetchone()
            if stamped
            else None
        )
        found.add(row[0] if row else None)
    return found


def not_created(files: SqliteFiles) -> DatabaseStatus:
    """Return the status of a folder that does not hold all files yet."""
    return DatabaseStatus(
        backend="sqlite",
        location=str(files.folder),
        version=f"SQLite {files.driver.sqlite_version}",
        revision=None,
        head=HEAD,
        counts={},
        vectors={},
    )


def read(files: SqliteFiles, with_vectors: bool, connection: Any) -> DatabaseStatus:
    """Return the status of a folder that holds all files."""
    stamps = revisions(connection)
    counts: dict[str, int] = {}
    vectors: dict[str, VectorStatus] = {}
    if stamps == {HEAD}:
        for table in schema.TABLES:
            (counts[table.name],) = connection.execute(
                f"SELECT count(*) FROM {table.name}"
            ).fetchone()
            if table.has_vector and with_vectors:
                vectors[table.name] = _vectors(connection, table.name, counts[table.name])
    return DatabaseStatus(
        backend="sqlite",
        location=str(files.folder),
        version=f"SQLite {files.driver.sqlite_version}",
        revision=None if None in stamps else min(stamp for stamp in stamps if stamp),
        head=HEAD,
        counts=counts,
        vectors=vectors,
    )


def _vectors(connection: Any, table_name: str, rows: int) -> VectorStatus:
    models = connection.execute(
        f"SELECT embedding_model, count(*) FROM {table_name}"
        " WHERE embedding_model IS NOT NULL GROUP BY embedding_model ORDER BY embedding_model"
    ).fetchall()
    embedded = sum(number for _, number in models)
    (index,) = connection.execute(
        f"SELECT token FROM {table_name}_index WHERE only = 1"
    ).fetchone() or (None,)
    (changing_to,) = connection.execute(f"SELECT model FROM {table_name}_new_model").fetchone() or (
        None,
    )
    changed = 0
    if changing_to is not None:  # Else what is in the column, if it exists, is of a former change.
        (changed,) = connection.execute(
            f"SELECT count(new_embedding_model) FROM {table_name}"
        ).fetchone()
    return VectorStatus(
        embedded=embedded,
        missing=rows - embedded,
        models=tuple(model for model, _ in models),
        index=index,
        changing_to=changing_to,
        changed=changed,
    )
