"""The words of the searchable records, for searches by words.

Terms are made by the program and not by the database. So triggers only note the ids of records
whose text was written, by whomever; their terms are taken over by the next write or search of this
package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.operations import Operations

revision = "0003"
down_revision = "0002"

SEARCHED = {
    "templates": ("name", "pattern", "content"),
    "best_practices": ("title", "content", "tags"),
}


def upgrade(op: Operations) -> None:
    """Create the terms and the ids of what is unread, and the triggers that note those."""
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    upgrade_table = (
        _upgrade_sqlite if op.get_context().dialect.name == "sqlite" else _upgrade_postgresql
    )
    for table, columns in SEARCHED.items():
        upgrade_table(op, table, _prefix(op, schemas[table]), columns)


def _upgrade_sqlite(op: Operations, table: str, place: str, columns: tuple[str, ...]) -> None:
    # A number of its own: VACUUM may change the rowid of a table whose key is a text.
    op.execute(
        f"CREATE TABLE IF NOT EXISTS {place}{table}_documents"
        " (doc INTEGER PRIMARY KEY, id VARCHAR NOT NULL UNIQUE)"
    )
    # "ascii" takes each byte over 127 as part of a term, so that terms come out as they went in.
    op.execute(
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {place}{table}_terms"
        " USING fts5(terms, tokenize=\"ascii tokenchars '_'\")"
    )
    op.execute(f"CREATE TABLE IF NOT EXISTS {place}{table}_unread (id VARCHAR PRIMARY KEY)")
    events = {
        "insert": ("INSERT", ("new",)),
        "update": (f"UPDATE OF {', '.join(('id', *columns))}", ("old", "new")),
        "delete": ("DELETE", ("old",)),
    }
    for name, (event, rows) in events.items():
        # Two statements, for whoever writes INSERT OR REPLACE: see the triggers of 0002.
        notes = " ".join(
            f"DELETE FROM {table}_unread WHERE id = {row}.id;"
            f" INSERT INTO {table}_unread (id) VALUES ({row}.id);"
            for row in rows
        )
        op.execute(
            f"CREATE TRIGGER IF NOT EXISTS {place}{table}_{name}_unread"
            f" AFTER {event} ON {table} BEGIN {notes} END"
        )
    op.execute(
        f"INSERT OR IGNORE INTO {place}{table}_unread (id) SELECT id FROM {place}{table}"
        f" WHERE id NOT IN (SELECT id FROM {place}{table}_documents)"
    )


def _upgrade_postgresql(op: Operations, table: str, place: str, columns: tuple[str, ...]) -> None:
    # Bytewise like all ids, which makes comparing them cheap. Rows go with their record, also those
    # of what is unread: else who takes over words could forget an id that is stored again just now.
    identifier = (
        'id varchar COLLATE "C" PRIMARY KEY'
        f" REFERENCES {place}{table} (id) ON DELETE CASCADE ON UPDATE CASCADE"
    )
    op.execute(
        f"CREATE TABLE IF NOT EXISTS {place}{table}_terms"
        f" ({identifier}, terms tsvector NOT NULL, length integer NOT NULL)"
    )
    # Else new terms would wait in a list, which each search goes through for each of its words: 20
    # ms instead of 1.5 after 5,000 records were added. That they do not costs 0.1 ms a record.
    op.execute(
        f"CREATE INDEX IF NOT EXISTS {table}_terms_idx ON {place}{table}_terms"
        " USING gin (terms) WITH (fastupdate = off)"
    )
    op.execute(f"CREATE TABLE IF NOT EXISTS {place}{table}_unread ({identifier})")
    # Named by the table that the trigger is on: by a bare name, the search path of whoever writes
    # would choose, and may choose that of another tenant.
    op.execute(
        f"CREATE OR REPLACE FUNCTION {place}{table}_note_unread() RETURNS trigger"
        " LANGUAGE plpgsql AS $$ BEGIN"
        " EXECUTE format('INSERT INTO %I.%I (id) VALUES ($1) ON CONFLICT (id) DO NOTHING',"
        " TG_TABLE_SCHEMA, TG_TABLE_NAME || '_unread') USING NEW.id;"
        " RETURN NULL; END $$"
    )
    op.execute(
        f"CREATE OR REPLACE TRIGGER {table}_unread"
        f" AFTER INSERT OR UPDATE OF {', '.join(columns)} ON {place}{table}"
        f" FOR EACH ROW EXECUTE FUNCTION {place}{table}_note_unread()"
    )
    op.execute(
        f"INSERT INTO {place}{table}_unread (id) SELECT id FROM {place}{table}"
        f" WHERE id NOT IN (SELECT id FROM {place}{table}_terms) ON CONFLICT (id) DO NOTHING"
    )


def downgrade(op: Operations) -> None:
    """Drop them."""
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    for table in SEARCHED:
        place = _prefix(op, schemas[table])
        if op.get_context().dialect.name == "sqlite":
            for event in ("insert", "update", "delete"):
                op.execute(f"DROP TRIGGER IF EXISTS {place}{table}_{event}_unread")
            op.execute(f"DROP TABLE IF EXISTS {place}{table}_documents")
        else:
            # With the trigger.
            op.execute(f"DROP FUNCTION IF EXISTS {place}{table}_note_unread() CASCADE")
        op.execute(f"DROP TABLE IF EXISTS {place}{table}_terms")
        op.execute(f"DROP TABLE IF EXISTS {place}{table}_unread")


def _prefix(op: Operations, place: str | None) -> str:
    if place is None:
        return ""
    return f"{op.get_context().dialect.identifier_preparer.quote_schema(place)}."
