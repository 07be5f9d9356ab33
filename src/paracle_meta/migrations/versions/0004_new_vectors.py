"""Vectors beside those that answer: a cache, and those of a model that is to come.

On PostgreSQL the vectors to come are in columns that exist only during a change of model, as their
width is the new model's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.operations import Operations

revision = "0004"
down_revision = "0003"

EMBEDDED = {
    "templates": ("name", "pattern", "content"),
    "best_practices": ("title", "content"),
}


def upgrade(op: Operations) -> None:
    """Create the cache and, on SQLite, the new vectors with triggers that keep them right."""
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    sqlite = op.get_context().dialect.name == "sqlite"
    for table, columns in EMBEDDED.items():
        place = _prefix(op, schemas[table])
        # Oldest first by `seq`. SQLite gives one more than the greatest that is stored, which is
        # never deleted before the others.
        seq = (
            "seq INTEGER PRIMARY KEY"
            if sqlite
            else "seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
        )
        model = "varchar" if sqlite else 'varchar COLLATE "C"'
        blob = "BLOB" if sqlite else "bytea"
        op.execute(
            f"CREATE TABLE IF NOT EXISTS {place}{table}_cached_vectors"
            f" ({seq}, model {model} NOT NULL, hash {blob} NOT NULL, embedding {blob} NOT NULL,"
            " UNIQUE (model, hash))"
        )
        if sqlite:
            _create_new_vectors(op, table, place, columns)


def _create_new_vectors(op: Operations, table: str, place: str, columns: tuple[str, ...]) -> None:
    op.execute(
        f"CREATE TABLE IF NOT EXISTS {place}{table}_new_vectors"
        " (id VARCHAR NOT NULL PRIMARY KEY, model VARCHAR NOT NULL, embedding BLOB NOT NULL)"
    )
    events = {
        # By whoever writes INSERT OR REPLACE, for whom no other trigger speaks.
        "insert": ("INSERT", "new"),
        "update": (f"UPDATE OF {', '.join(('id', *columns))}", "old"),
        "delete": ("DELETE", "old"),
    }
    for name, (event, row) in events.items():
        op.execute(
            f"CREATE TRIGGER IF NOT EXISTS {place}{table}_{name}_new_vectors"
            f" AFTER {event} ON {table} BEGIN"
            f" DELETE FROM {table}_new_vectors WHERE id = {row}.id; END"
        )


def downgrade(op: Operations) -> None:
    """Drop them, and on PostgreSQL what a change of model that goes on has made."""
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    for table in EMBEDDED:
        place = _prefix(op, schemas[table])
        op.execute(f"DROP TABLE IF EXISTS {place}{table}_cached_vectors")
        if op.get_context().dialect.name == "sqlite":
            for event in ("insert", "update", "delete"):
                op.execute(f"DROP TRIGGER IF EXISTS {place}{table}_{event}_new_vectors")
            op.execute(f"DROP TABLE IF EXISTS {place}{table}_new_vectors")
            continue
        # With the trigger.
        op.execute(f"DROP FUNCTION IF EXISTS {place}{table}_new_embedding() CASCADE")
        for column in ("new_embedding", "new_embedding_model"):
            op.execute(f"ALTER TABLE {place}{table} DROP COLUMN IF EXISTS {column}")


def _prefix(op: Operations, place: str | None) -> str:
    if place is None:
        return ""
    return f"{op.get_context().dialect.identifier_preparer.quote_schema(place)}."
