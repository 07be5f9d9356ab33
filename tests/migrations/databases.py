"""Both databases as the migrations meet them, and what is in them, for comparing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pysqlite3 import dbapi2 as pysqlite
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from paracle_meta import schema
from paracle_meta.migrations import VERSION_TABLE, runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Engine, MetaData

    from tests.postgres import PostgresServer

Catalog = dict[str, list[tuple[str, str, str]]]
"""Kind, name and SQL of everything in each SQLite file."""

NAMES = [table.name for table in schema.TABLES]
FILES = {name: "main" if name == NAMES[0] else name for name in NAMES}


# --- SQLite: six files on one connection --------------------------------------------------------


def sqlite_engine(folder: Path) -> Engine:
    folder.mkdir(exist_ok=True)

    def connect() -> Any:
        connection = pysqlite.connect(folder / f"{NAMES[0]}.db", isolation_level=None)
        for name in NAMES[1:]:
            connection.execute(f"ATTACH ? AS {name}", (str(folder / f"{name}.db"),))
        for place in FILES.values():
            connection.execute(f"PRAGMA {place}.journal_mode = WAL")
        return connection

    engine = create_engine("sqlite://", module=pysqlite, creator=connect, poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def sqlite_catalog(folder: Path) -> Catalog:
    """Everything that each file contains, in SQLite's own words, without the layout of the text."""
    catalog = {}
    for name in NAMES:
        with closing(sqlite3.connect(folder / f"{name}.db")) as connection:
            rows = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2")
            catalog[name] = [
                (str(kind), str(item), " ".join((sql or "").split()))
                for kind, item, sql in rows
                # SQLite keeps its own tables, also when nothing is left to need them.
                if VERSION_TABLE not in item and not item.startswith("sqlite_")
            ]
    return catalog


def sqlite_stamps(folder: Path) -> list[list[tuple[str]]]:
    stamps = []
    for name in NAMES:
        with closing(sqlite3.connect(folder / f"{name}.db")) as connection:
            stamps.append(connection.execute(f"SELECT * FROM {VERSION_TABLE}").fetchall())
    return stamps


# --- PostgreSQL ---------------------------------------------------------------------------------

COLUMNS = """
SELECT table_name, column_name, data_type, udt_name, is_nullable, column_default, collation_name
FROM information_schema.columns
WHERE table_schema = 'SCHEMA' AND table_name <> 'paracle_meta_version'
ORDER BY table_name, ordinal_position"""
INDEXES = """
SELECT indexdef FROM pg_indexes WHERE schemaname = 'SCHEMA' AND tablename <> 'paracle_meta_version'
ORDER BY indexname"""
CONSTRAINTS = """
SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'SCHEMA'::regnamespace AND conname NOT LIKE 'paracle_meta_version%'
ORDER BY conrelid::regclass::text, conname"""
TRIGGERS = """
SELECT tgname, pg_get_triggerdef(pg_trigger.oid) FROM pg_trigger
JOIN pg_class ON pg_class.oid = tgrelid
WHERE relnamespace = 'SCHEMA'::regnamespace AND NOT tgisinternal ORDER BY tgname"""
FUNCTIONS = """
SELECT proname FROM pg_proc WHERE pronamespace = 'SCHEMA'::regnamespace ORDER BY proname"""


def postgres_catalog(server: PostgresServer, database: str, schema_name: str = "public") -> str:
    queries = ";".join([COLUMNS, INDEXES, CONSTRAINTS, TRIGGERS, FUNCTIONS]).replace(
        "SCHEMA", schema_name
    )
    return server.sql(queries, database).replace(f"{schema_name}.", "")


async def on_postgres(
    server: PostgresServer,
    database: str,
    work: Callable[[Connection], Any],
    *,
    search_path: str = "public",
    prepare: Callable[[Engine], None] | None = None,
) -> Any:
    engine = create_async_engine(
        server.url_of(database).replace("postgresql://", "postgresql+asyncpg://"),
        poolclass=NullPool,
        connect_args={"server_settings": {"search_path": search_path}},
    )
    if prepare is not None:
        prepare(engine.sync_engine)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def upgraded(connection: Connection) -> list[str]:
    return runner.upgrade(connection, {})


def created(metadata: MetaData) -> Callable[[Connection], None]:
    def create(connection: Connection) -> None:
        with connection.begin():
            metadata.create_all(connection)

    return create
