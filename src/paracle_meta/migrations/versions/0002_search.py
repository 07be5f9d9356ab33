"""What searching keeps beside the tables: on SQLite a log of changes for the vector index."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.operations import Operations

revision = "0002"
down_revision = "0001"

COLLECTIONS = ("templates", "best_practices")


def upgrade(op: Operations) -> None:
    """Create the log of changed ids, the triggers that write it, and the name of the index."""
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    if op.get_context().dialect.name != "sqlite":
        return
    for table in COLLECTIONS:
        place = schemas[table]
        # AUTOINCREMENT: a number is never given twice, also after the log was emptied.
        op.execute(
            f"CREATE TABLE IF NOT EXISTS {place}.{table}_changes"
            " (seq INTEGER PRIMARY KEY AUTOINCREMENT, id VARCHAR NOT NULL UNIQUE)"
        )
        op.execute(
            f"CREATE TABLE IF NOT EXISTS {place}.{table}_index"
            " (only INTEGER PRIMARY KEY CHECK (only = 1), token VARCHAR, seq INTEGER NOT NULL)"
        )
        # Not INSERT OR REPLACE: whoever writes INSERT OR IGNORE would have it applied here too
        # (sqlite.org/lang_createtrigger.html), and the change would not be logged.
        for event, row in (("insert", "new"), ("update", "new"), ("delete", "old")):
            op.execute(
                f"CREATE TRIGGER IF NOT EXISTS {place}.{table}_{event}_changes"
                f" AFTER {event.upper()} ON {table} BEGIN"
                f" DELETE FROM {table}_changes WHERE id = {row}.id;"
                f" INSERT INTO {table}_changes (id) VALUES ({row}.id); END"
            )
        # What is there already needs no entry: it is read from the table.
        op.execute(f"INSERT OR IGNORE INTO {place}.{table}_index (only, seq) VALUES (1, 0)")


def downgrade(op: Operations) -> None:
    """Drop them."""
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    if op.get_context().dialect.name != "sqlite":
        return
    for table in COLLECTIONS:
        place = schemas[table]
        for event in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER IF EXISTS {place}.{table}_{event}_changes")
        op.execute(f"DROP TABLE IF EXISTS {place}.{table}_index")
        op.execute(f"DROP TABLE IF EXISTS {place}.{table}_changes")
