from __future__ import annotations

import logging
import re
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from paracle_meta import migrations, schema
from paracle_meta.exceptions import MigrationError
from paracle_meta.migrations import HEAD, VERSION_TABLE, runner
from paracle_meta.tables import build_metadata
from tests.migrations.databases import (
    FILES,
    NAMES,
    created,
    on_postgres,
    postgres_catalog,
    sqlite_catalog,
    sqlite_engine,
    sqlite_stamps,
    upgraded,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from tests.migrations.databases import Catalog
    from tests.postgres import PostgresServer


# --- Models equal migrations --------------------------------------------------------------------


def test_head_is_that_of_the_scripts_and_they_form_one_line() -> None:
    scripts = ScriptDirectory(migrations.__path__[0])
    assert scripts.get_heads() == [HEAD]
    assert all(not script.is_branch_point for script in scripts.walk_revisions())


def test_comparing_a_stamp_needs_neither_alembic_nor_sqlalchemy() -> None:
    code = "import sys, paracle_meta.migrations; print({'alembic', 'sqlalchemy'} & {*sys.modules})"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"


def test_sqlite_migrations_make_what_the_models_describe(tmp_path: Path, complete: Catalog) -> None:
    with sqlite_engine(tmp_path / "models").connect() as connection:
        created(build_metadata(FILES))(connection)
    assert sqlite_catalog(tmp_path / "models") == without_search(complete)
    assert all(("table", name) in [item[:2] for item in complete[name]] for name in NAMES)


def without_search(catalog: Catalog) -> Catalog:
    """What is of the tables of records: what searching keeps beside them has no model."""
    return {
        name: [
            (kind, item, sql)
            for kind, item, sql in items
            if kind == "index" or (kind == "table" and item in NAMES)
        ]
        for name, items in catalog.items()
    }


def without_search_tables(catalog: str) -> str:
    beside = re.compile(
        r"(templates|best_practices)_(terms|unread|note_unread|cached_vectors)"
        r"|cost_days|costs_(insert|update|delete|truncate)_days"
    )
    return "\n".join(line for line in catalog.splitlines() if not beside.search(line))


async def test_postgres_migrations_make_what_the_models_describe(postgres: PostgresServer) -> None:
    migrated, modelled = postgres.create_database(), postgres.create_database()
    metadata = build_metadata(vectors=False)
    await on_postgres(postgres, migrated, upgraded)
    await on_postgres(postgres, modelled, created(metadata))
    complete = postgres_catalog(postgres, migrated)
    assert without_search_tables(complete) == postgres_catalog(postgres, modelled)

    def differences(connection: Connection) -> list[Any]:
        options = {"compare_server_default": True, "include_object": is_of_records}
        context = MigrationContext.configure(connection, opts=options)
        return [*compare_metadata(context, metadata)]

    def is_of_records(_: object, name: str | None, kind: str, *_rest: object) -> bool:
        return kind != "table" or name in NAMES

    assert await on_postgres(postgres, migrated, differences) == []


def test_sqlite_logs_a_change_of_any_column(complete: Catalog) -> None:
    for table in schema.TABLES:
        if table.has_vector:
            (trigger,) = [
                sql for _, item, sql in complete[table.name] if item.endswith("_update_changes")
            ]
            names = ", ".join(column.name for column in table.columns)
            assert f"AFTER UPDATE OF {names} ON {table.name} " in trigger


def test_sqlite_has_the_documented_columns(tmp_path: Path) -> None:
    with sqlite_engine(tmp_path).connect() as connection:
        runner.upgrade(connection, FILES)
        inspector = inspect(connection)
        types = {
            f"{name}.{column['name']}": str(column["type"])
            for name in NAMES
            for column in inspector.get_columns(name, FILES[name])
        }
    documented = {
        "generations.id": "VARCHAR",
        "generations.name": "VARCHAR",
        "generations.description": "TEXT",
        "generations.quality_score": "FLOAT",
        "generations.tokens_used": "INTEGER",
        "generations.created_at": "TIMESTAMP",
        "generations.metadata": "JSON",
        "templates.pattern": "VARCHAR",
        "templates.embedding": "BLOB",
        "costs.period_start": "DATE",
        "memory.value": "TEXT",
        "best_practices.tags": "TEXT",
        "best_practices.embedding": "BLOB",
    }
    assert {name: types[name] for name in documented} == documented


async def test_postgres_has_the_documented_columns(postgres: PostgresServer) -> None:
    database = postgres.create_database()
    await on_postgres(postgres, database, upgraded)
    rows = postgres.sql(
        "SELECT table_name || '.' || column_name, udt_name, collation_name "
        "FROM information_schema.columns WHERE table_schema = 'public'",
        database,
    )
    lines = rows.splitlines()
    for line in (
        "generations.id|varchar|C",
        "generations.name|varchar|C",
        "generations.content|text|C",
        "generations.quality_score|float8|",
        "generations.created_at|timestamptz|",
        "generations.metadata|jsonb|",
        "costs.period_start|date|",
        "memory.value|text|C",
        "best_practices.tags|_text|C",
        "templates.embedding_model|varchar|C",
    ):
        assert line in lines
    # Its width depends on the model: provisioned elsewhere.
    assert not any(f"{table}.embedding|" in rows for table in ("templates", "best_practices"))


# --- Up, down and up again ----------------------------------------------------------------------


def test_sqlite_goes_up_down_and_up_by_each_revision(tmp_path: Path, complete: Catalog) -> None:
    revisions = [*ScriptDirectory(migrations.__path__[0]).walk_revisions()]
    folder = tmp_path / "files"
    with sqlite_engine(folder).connect() as connection:
        assert runner.upgrade(connection, FILES)[-1] == HEAD
        assert runner.upgrade(connection, FILES) == []
        for script in revisions:
            below = str(script.down_revision or "base")
            assert runner.downgrade(connection, FILES, below) == [script.revision]
            assert runner.downgrade(connection, FILES, below) == []
        assert not any(sqlite_catalog(folder).values())
        assert runner.upgrade(connection, FILES) == [s.revision for s in reversed(revisions)]
    assert sqlite_catalog(folder) == complete
    assert sqlite_stamps(folder) == [[(HEAD,)]] * 6


async def test_postgres_goes_up_down_and_up_by_each_revision(postgres: PostgresServer) -> None:
    revisions = [*ScriptDirectory(migrations.__path__[0]).walk_revisions()]
    database = postgres.create_database()
    await on_postgres(postgres, database, upgraded)
    catalog = postgres_catalog(postgres, database)
    for script in revisions:
        below = str(script.down_revision or "base")

        def down(connection: Connection, below: str = below) -> list[str]:
            return runner.downgrade(connection, {}, below)

        assert await on_postgres(postgres, database, down) == [script.revision]
    assert postgres_catalog(postgres, database) == ""
    assert await on_postgres(postgres, database, upgraded) == [
        script.revision for script in reversed(revisions)
    ]
    assert postgres_catalog(postgres, database) == catalog
    assert postgres.sql(f"SELECT * FROM {VERSION_TABLE}", database) == HEAD


def test_downgrade_to_an_unknown_revision_is_refused(tmp_path: Path) -> None:
    with sqlite_engine(tmp_path).connect() as connection:
        runner.upgrade(connection, FILES)
        with pytest.raises(MigrationError, match=r"'0815'.*base, 0001"):
            runner.downgrade(connection, FILES, "0815")
    assert sqlite_stamps(tmp_path) == [[(HEAD,)]] * 6


# --- Stamps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAMES[0], NAMES[3]])
def test_sqlite_newer_than_the_code_is_refused_untouched(tmp_path: Path, name: str) -> None:
    with sqlite_engine(tmp_path).connect() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {FILES[name]}.{VERSION_TABLE} (version_num)")
        connection.exec_driver_sql(f"INSERT INTO {FILES[name]}.{VERSION_TABLE} VALUES ('9999')")
        connection.commit()
        with pytest.raises(MigrationError, match=r"newer paracle_meta.*[Uu]pgrade the package"):
            runner.upgrade(connection, FILES)
        with pytest.raises(MigrationError, match="newer paracle_meta"):
            runner.downgrade(connection, FILES, "base")
    assert not any(sqlite_catalog(tmp_path).values())


async def test_postgres_newer_than_the_code_is_refused_untouched(postgres: PostgresServer) -> None:
    database = postgres.create_database()
    postgres.sql(
        f"CREATE TABLE {VERSION_TABLE} (version_num varchar(32));"
        f"INSERT INTO {VERSION_TABLE} VALUES ('9999')",
        database,
    )
    with pytest.raises(MigrationError, match="newer paracle_meta"):
        await on_postgres(postgres, database, upgraded)
    assert postgres_catalog(postgres, database) == ""


def test_sqlite_lowest_stamp_wins(tmp_path: Path, complete: Catalog) -> None:
    folder = tmp_path / "files"
    with sqlite_engine(folder).connect() as connection:
        runner.upgrade(connection, FILES)
        with connection.begin():
            connection.exec_driver_sql(
                "INSERT INTO main.generations (id, artifact_type, name, "
                "content) VALUES ('gen-1', 'agent', 'a', 'text')"
            )
            connection.exec_driver_sql("DROP TABLE costs.costs")
            connection.exec_driver_sql(f"DROP TABLE costs.{VERSION_TABLE}")
        assert runner.upgrade(connection, FILES)[0] == "0001"
        assert connection.exec_driver_sql("SELECT id FROM generations").all() == [("gen-1",)]
    assert sqlite_catalog(folder) == complete
    assert sqlite_stamps(folder) == [[(HEAD,)]] * 6


async def test_postgres_tenants_do_not_see_one_another(postgres: PostgresServer) -> None:
    # A bare name is also found in later schemas of the search path: neither the stamp nor a table
    # of the one in `public` may be taken for the tenant's.
    database = postgres.create_database()
    await on_postgres(postgres, database, upgraded)
    complete = postgres_catalog(postgres, database)
    postgres.sql("CREATE SCHEMA tenant", database)
    tenant = "tenant, public"

    revisions = await on_postgres(postgres, database, upgraded, search_path=tenant)
    assert revisions[-1] == HEAD
    assert postgres_catalog(postgres, database, "tenant") == complete

    def down(connection: Connection) -> list[str]:
        with connection.begin():  # As if it had been stopped half way.
            connection.execute(text("DROP TABLE tenant.feedback"))
        return runner.downgrade(connection, dict.fromkeys(NAMES, None), "base")

    undone = await on_postgres(postgres, database, down, search_path=tenant)
    assert undone == revisions[::-1]
    assert postgres_catalog(postgres, database, "tenant") == ""
    assert postgres_catalog(postgres, database) == complete


# --- Offline ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [None, "tenant"])
async def test_postgres_offline_sql_makes_the_same_under_psql(
    postgres: PostgresServer, place: str | None
) -> None:
    online, offline = postgres.create_database(), postgres.create_database()
    await on_postgres(postgres, online, upgraded)
    if place:
        postgres.sql(f"CREATE SCHEMA {place}", offline)
    statements = runner.upgrade_sql("postgresql", dict.fromkeys(NAMES, place))
    for _ in range(2):  # It may be run again.
        postgres.sql(statements, offline)
    where = place or "public"
    assert postgres_catalog(postgres, offline, where) == postgres_catalog(postgres, online)
    assert postgres.sql(f"SELECT * FROM {where}.{VERSION_TABLE}", offline) == HEAD
    assert await on_postgres(postgres, offline, upgraded, search_path=where) == []


def test_sqlite_offline_sql_makes_the_same(tmp_path: Path, complete: Catalog) -> None:
    folder = tmp_path / "offline"
    with closing(sqlite_engine(folder).raw_connection()) as connection:
        for _ in range(2):
            connection.executescript(runner.upgrade_sql("sqlite", FILES))
    assert sqlite_catalog(folder) == complete
    assert sqlite_stamps(folder) == [[(HEAD,)]] * 6


def test_nothing_is_printed_or_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    with sqlite_engine(tmp_path).connect() as connection:
        runner.upgrade(connection, FILES)
        runner.upgrade_sql("sqlite", FILES)
        runner.downgrade(connection, FILES, "base")
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
