"""What state a folder of SQLite files is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta.backends.base import DatabaseStatus, VectorStatus
from paracle_meta.backends.sqlite.files import SCHEMAS, tables_of
from paracle_meta.exceptions import StorageError
from paracle_meta.migrations import HEAD, VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.sqlite.files import SqliteFiles
    from paracle_meta.schema import Table


def revisions(connection: Any, tables: Sequence[Table[Any]] | None = None) -> set[str | None]:
    """Return the revisions stamped in files; None stands for a file without a stamp.

    Args:
        connection: It may lack damaged files.
        tables: Whose files; None for all that the connection has.
    """
    found: set[str | None] = set()
    for table in tables_of(connection) if tables is None else tables:
        place = SCHEMAS[table.name]
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


def emptied(connection: Any, tables: Sequence[Table[Any]]) -> list[Table[Any]]:
    """Return the tables that are gone from their files while others have the newest revision.

    No migration leaves them so, as each revision is in all files before the next begins.
    """
    stamps = {table.name: revisions(connection, [table]) for table in tables}
    if {HEAD} not in stamps.values():
        return []
    return [table for table in tables if stamps[table.name] == {None}]


def refuse_emptied(files: SqliteFiles, connection: Any) -> None:
    """See that no file was emptied; see `emptied`.

    Raises:
        StorageError: One was.
    """
    if gone := emptied(connection, tables_of(connection)):
        raise StorageError(
            f"{', '.join(str(files.path(table.name)) for table in gone)} is empty, while the other "
            "files are not; restore it from a backup. To go on without its records, have its "
            "tables made anew: paracle meta db migrate."
        )


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


def read(
    files: SqliteFiles,
    with_vectors: bool,
    connection: Any,
    tables: Sequence[Table[Any]] | None = None,
) -> DatabaseStatus:
    """Return the status of a folder that holds all files.

    Args:
        files: The folder.
        with_vectors: Whether to look how far the collections can be searched.
        connection: It may lack damaged files.
        tables: What to look at; None for all that the connection has.

    Raises:
        StorageError: It has none.
    """
    if tables is None:
        tables = tables_of(connection)
    if not tables:
        files.refuse_damaged()
    stamps = revisions(connection, tables)
    counts: dict[str, int] = {}
    vectors: dict[str, VectorStatus] = {}
    if stamps == {HEAD}:
        for table in tables:
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
