"""On SQLite a change of model keeps its vectors in the table itself, as PostgreSQL does.

The columns for them are made by the first change, see `backends.sqlite.change`: adding a column
cannot be written so that it is harmless where the column is there. What is here makes room for
that: writing such a column is no change of a record, so it is not logged, and a table tells to
which model a change leads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.operations import Operations

revision = "0005"
down_revision = "0004"

EVENTS = ("insert", "update", "delete")
LOGGED = {
    "templates": (
        "id, artifact_type, name, pattern, content, quality_score, usage_count, source, created_at,"
        " embedding, updated_at, embedding_model"
    ),
    "best_practices": (
        "id, category, title, content, tags, quality_score, usage_count, created_at,"
        " embedding, updated_at, embedding_model"
    ),
}
EMBEDDED = {
    "templates": ("name", "pattern", "content"),
    "best_practices": ("title", "content"),
}


def upgrade(op: Operations) -> None:
    """Log only what changes a record, and give up a change of model that goes on."""
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    if op.get_context().dialect.name != "sqlite":
        return
    for table, columns in LOGGED.items():
        place = schemas[table]
        op.execute(
            f"CREATE TABLE IF NOT EXISTS {place}.{table}_new_model"
            " (only INTEGER PRIMARY KEY CHECK (only = 1), model VARCHAR NOT NULL,"
            " bytes INTEGER NOT NULL)"
        )
        for event in EVENTS:
            op.execute(f"DROP TRIGGER IF EXISTS {place}.{table}_{event}_new_vectors")
        op.execute(f"DROP TABLE IF EXISTS {place}.{table}_new_vectors")
        _log_updates(op, table, place, f"UPDATE OF {columns}")


def downgrade(op: Operations) -> None:
    """Take the columns away with what is in them, and make what was there before."""
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    if op.get_context().dialect.name != "sqlite":
        return
    for table, texts in EMBEDDED.items():
        place = schemas[table]
        op.execute(f"DROP TABLE IF EXISTS {place}.{table}_new_model")
        found = op.get_bind().exec_driver_sql(f"PRAGMA {place}.table_info({table})")
        columns = {row.name for row in found}
        if not columns:  # This file has been taken back further already.
            continue
        op.execute(f"DROP TRIGGER IF EXISTS {place}.{table}_new_embedding")
        # Either may be that of the present vectors.
        for index in (f"{table}_embedding_model_idx", f"{table}_new_embedding_model_idx"):
            op.execute(f"DROP INDEX IF EXISTS {place}.{index}")
        op.execute(f"CREATE INDEX {place}.{table}_embedding_model_idx ON {table} (embedding_model)")
        _log_updates(op, table, place, "UPDATE")
        for column in sorted(columns & {"new_embedding", "new_embedding_model"}):
            op.execute(f"ALTER TABLE {place}.{table} DROP COLUMN {column}")
        _create_new_vectors(op, table, place, texts)


def _log_updates(op: Operations, table: str, place: str | None, event: str) -> None:
    # Two statements, for whoever writes INSERT OR REPLACE: see the triggers of 0002.
    op.execute(f"DROP TRIGGER IF EXISTS {place}.{table}_update_changes")
    op.execute(
        f"CREATE TRIGGER {place}.{table}_update_changes AFTER {event} ON {table} BEGIN"
        f" DELETE FROM {table}_changes WHERE id = new.id;"
        f" INSERT INTO {table}_changes (id) VALUES (new.id); END"
    )


def _create_new_vectors(
    op: Operations, table: str, place: str | None, texts: tuple[str, ...]
) -> None:
    op.execute(
        f"CREATE TABLE IF NOT EXISTS {place}.{table}_new_vectors"
        " (id VARCHAR NOT NULL PRIMARY KEY, model VARCHAR NOT NULL, embedding BLOB NOT NULL)"
    )
    written = {
        "insert": ("INSERT", "new"),
        "update": (f"UPDATE OF {', '.join(('id', *texts))}", "old"),
        "delete": ("DELETE", "old"),
    }
    for name, (event, row) in written.items():
        op.execute(
            f"CREATE TRIGGER IF NOT EXISTS {place}.{table}_{name}_new_vectors"
            f" AFTER {event} ON {table} BEGIN"
            f" DELETE FROM {table}_new_vectors WHERE id = {row}.id; END"
        )
