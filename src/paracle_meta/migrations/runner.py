"""Run the revisions on a connection, or write down the SQL that would run.

There is no ``env.py`` and no ``alembic.ini``: Alembic's pieces are put together here, as its own
command line expects one database with one stamp, and SQLite has six files with a stamp each.

The caller holds the lock that keeps a second migration away, and turns the driver's errors into
this package's.
"""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Alembic tells at INFO which plugins it loads and what it assumes about the database. An
# application that logs at INFO did not ask for that; one that set this logger's level keeps it.
if not logging.getLogger("alembic").level:
    logging.getLogger("alembic").setLevel(logging.WARNING)

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, inspect, select
from sqlalchemy.schema import CreateTable

from paracle_meta.exceptions import MigrationError
from paracle_meta.migrations import VERSION_TABLE
from paracle_meta.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from alembic.script import Script
    from sqlalchemy import Connection

    Schemas = Mapping[str, str | None]


def upgrade(connection: Connection, schemas: Schemas) -> list[str]:
    """Bring the tables to the newest revision.

    Each revision runs in a transaction of its own, at the end of which every SQL schema is
    stamped. Where that transaction ends in some files only (SQLite in WAL mode commits file by
    file), the lowest stamp tells from where to go on.

    Args:
        connection: One that is not in a transaction.
        schemas: The SQL schema of each table, by the table's name. None, or a table that is not
            named, means the connection's default schema.

    Returns:
        The revisions that were run, oldest first.

    Raises:
        MigrationError: A stamp is unknown, so a newer version of this package was here. Nothing
            has been touched then.
        sqlalchemy.exc.DBAPIError: The database refused a statement.
    """
    history = _history()
    places = _places(schemas, connection.dialect.default_schema_name)
    start = min(_positions(connection, places, history))
    context = _context(connection, places)
    for script in history[start:]:
        _run(context, script.module.upgrade, stamp=script.revision)
    return [script.revision for script in history[start:]]


def downgrade(connection: Connection, schemas: Schemas, revision: str) -> list[str]:
    """Take the tables back to an older revision; what only newer ones hold is lost.

    The highest stamp tells from where, so that a stopped downgrade is finished by the next one.

    Args:
        connection: One that is not in a transaction.
        schemas: As for `upgrade`.
        revision: The revision to go back to, or ``base`` for none of the tables.

    Returns:
        The revisions that were undone, newest first.

    Raises:
        MigrationError: `revision` or a stamp is unknown. Nothing has been touched then.
        sqlalchemy.exc.DBAPIError: The database refused a statement.
    """
    history = _history()
    known: list[str | None] = [None, *(script.revision for script in history)]
    target = None if revision == "base" else revision
    if target not in known:
        raise MigrationError(
            f"There is no revision {revision!r} to go back to. Give one of "
            f"{', '.join(['base', *(script.revision for script in history)])}."
        )
    places = _places(schemas, connection.dialect.default_schema_name)
    start = max(_positions(connection, places, history))
    context = _context(connection, places)
    undone = range(start, known.index(target), -1)
    for position in undone:
        _run(context, history[position - 1].module.downgrade, stamp=known[position - 1])
    return [history[position - 1].revision for position in undone]


def upgrade_sql(dialect_name: str, schemas: Schemas, *, in_transactions: bool = True) -> str:
    """Return the SQL of the whole history, for people who run it themselves.

    It can be run again, and on a database that an older version made. For PostgreSQL it is ready
    for ``psql``; for SQLite the files have to be attached first under the names in `schemas`.

    Args:
        dialect_name: ``postgresql.backend`` or ``sqlite.backend``.
        schemas: As for `upgrade`; None leaves the name of the table as it is.
        in_transactions: Whether each revision is in a transaction of its own; otherwise the
            statements are for a transaction of the caller's.
    """
    buffer = StringIO()
    context = MigrationContext.configure(
        dialect_name=dialect_name,
        # Without it, the driver's style of parameters would double every percent sign.
        dialect_opts={"paramstyle": "named"},
        opts={
            "as_sql": True,
            "literal_binds": True,
            "output_buffer": buffer,
            "transactional_ddl": in_transactions,
            "schemas": _places(schemas, None),
        },
    )
    for script in _history():
        buffer.write(f"-- Revision {script.revision}: {script.doc}\n\n")
        _run(context, script.module.upgrade, stamp=script.revision)
    return buffer.getvalue()


def _history() -> Sequence[Script]:
    """Return the revisions, oldest first; none branches off."""
    return [*ScriptDirectory(Path(__file__).parent).walk_revisions()][::-1]


def _places(schemas: Schemas, default: str | None) -> dict[str, str | None]:
    """Return the schema of every table, with `default` where none is given.

    It is named rather than left to the search path of PostgreSQL, by which a bare name also finds
    the table of another tenant in a later schema: a stamp to be misled by, or a table to drop.
    """
    return {table.name: schemas.get(table.name) or default for table in TABLES}


def _context(connection: Connection, places: Schemas) -> MigrationContext:
    # Alembic believes that SQLite cannot roll back DDL; with BEGIN sent by us, it can.
    return MigrationContext.configure(
        connection, opts={"transactional_ddl": True, "schemas": places}
    )


def _run(
    context: MigrationContext, revise: Callable[[Operations], None], *, stamp: str | None
) -> None:
    """Run one revision up or down and stamp every schema, in one transaction."""
    with context.begin_transaction():
        revise(Operations(context))
        for place in dict.fromkeys(context.opts["schemas"].values()):
            table = _version_table(place)
            context.execute(CreateTable(table, if_not_exists=True))
            context.execute(table.delete())
            if stamp is not None:
                context.execute(table.insert().values(version_num=stamp))


def _version_table(place: str | None) -> Table:
    """Return the table of the stamp, as Alembic itself makes it, so that its tools can read it."""
    return Table(
        VERSION_TABLE,
        MetaData(),
        Column("version_num", String(32), nullable=False),
        PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
        schema=place,
    )


def _positions(connection: Connection, places: Schemas, history: Sequence[Script]) -> list[int]:
    """Return how many revisions each schema has been through, by its stamp."""
    known = {script.revision: position for position, script in enumerate(history, start=1)}
    positions = []
    with connection.begin():
        for place in dict.fromkeys(places.values()):
            stamps = _stamps(connection, place)
            unknown = [stamp for stamp in stamps if stamp not in known]
            if unknown:
                raise MigrationError(
                    f"The tables are at revision {unknown[0]!r}, which this version does not know: "
                    "they were made by a newer paracle_meta. Upgrade the package."
                )
            positions += [known[stamp] for stamp in stamps] or [0]
    return positions


def _stamps(connection: Connection, place: str | None) -> list[Any]:
    if not inspect(connection).has_table(VERSION_TABLE, schema=place):
        return []
    return [*connection.scalars(select(_version_table(place).c.version_num))]
