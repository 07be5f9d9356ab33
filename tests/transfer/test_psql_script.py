"""What an SQL export does to a database when psql loads it, and what it refuses to do."""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import pglast
import pytest
from pglast import ast

from paracle_meta import (
    DatabaseSettings,
    GenerationResult,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.backends.postgresql.schema import LOCK_KEY
from paracle_meta.backends.postgresql.script import script
from paracle_meta.exceptions import TransferError
from paracle_meta.migrations import HEAD, VERSION_TABLE, runner
from paracle_meta.schema import GENERATIONS, TABLES, TEMPLATES
from paracle_meta.testing import FakeEmbeddings
from tests.migrations.databases import on_postgres, postgres_catalog, upgraded
from tests.postgres import PostgresServer
from tests.transfer.scripts import exported, load, portable, psql, refusal, script_of
from tests.transfer.stock import DIMENSIONS, answers, contents, fill, folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

MODEL = FakeEmbeddings(DIMENSIONS).model_id
HOSTILE = "'); DROP TABLE generations; --\n\\! touch /tmp/x\n\\.\n$$ $_$ \"; COMMIT;"
TEMPLATE = Template(
    id="tpl-1", artifact_type="agent", name="n", content="c", embedding=[1.0, 2.0, 3.0]
)


class Stock(NamedTuple):
    """A database on SQLite with rows of every kind."""

    script: str
    contents: dict[str, list[str]]
    answers: Any


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    async def make() -> Stock:
        async with folder(tmp_path_factory.mktemp("stock") / "db") as db:
            await fill(db)
            return Stock(await exported(db), await contents(db), await answers(db))

    return asyncio.run(make())


def opened(url: str, **settings: Any) -> MetaDatabase:
    return MetaDatabase(
        DatabaseSettings(postgres_url=url, **settings), embeddings=FakeEmbeddings(DIMENSIONS)
    )


def with_model(model: str, dimensions: int = 3) -> str:
    """A file with one template, which has a vector."""
    numbers = [float(number) for number in range(1, dimensions + 1)]
    row = portable(TEMPLATES, replace(TEMPLATE, embedding=numbers, embedding_model=model))
    return script_of([(TEMPLATES, [row])], {"templates": VectorSpace(model, dimensions)})


def tables(server: PostgresServer, database: str) -> str:
    return server.sql(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind = 'r' ORDER BY 1",
        database,
    )


def everything(server: PostgresServer, database: str, place: str = "public") -> str:
    """Every row, and the transaction that wrote it."""
    return server.sql(
        ";".join(f"SELECT xmin, * FROM {place}.{table.name} ORDER BY id" for table in TABLES),
        database,
    )


# --- What it does -------------------------------------------------------------------------------


async def test_an_empty_database_becomes_as_the_other_was(
    postgres: PostgresServer, stock: Stock
) -> None:
    database = postgres.create_database()
    url = postgres.url_of(database)
    load(postgres, url, stock.script)
    before = postgres.sql("SELECT oid, relname FROM pg_class ORDER BY oid", database)
    async with opened(url) as db:
        assert await db.migrate() == []
        assert await contents(db) == stock.contents
        assert await answers(db) == stock.answers
    # Not the index neither: nothing was left to be made.
    assert postgres.sql("SELECT oid, relname FROM pg_class ORDER BY oid", database) == before


async def test_the_second_time_changes_nothing(postgres: PostgresServer, stock: Stock) -> None:
    database = postgres.create_database()
    url = postgres.url_of(database)
    load(postgres, url, stock.script)
    # What was changed since stays, and a key of memory counts as an id does.
    postgres.sql(
        "UPDATE generations SET content = 'changed' WHERE id = 'gen-1';"
        "UPDATE memory SET id = 'mem-other' WHERE key = 'key 1'",
        database,
    )
    before = everything(postgres, database)
    load(postgres, url, stock.script)
    assert everything(postgres, database) == before


@pytest.mark.parametrize("dimensions", [DIMENSIONS, 32])
async def test_tables_that_are_there_already(
    postgres: PostgresServer, stock: Stock, dimensions: int
) -> None:
    url = postgres.url_of(postgres.create_database())
    embeddings = FakeEmbeddings(dimensions)
    async with MetaDatabase(DatabaseSettings(postgres_url=url), embeddings=embeddings) as db:
        await TemplateRepository(db).list()
    load(postgres, url, stock.script)
    async with opened(url) as db:
        assert await db.migrate() == []
        assert await contents(db) == stock.contents
        assert await answers(db) == stock.answers


@pytest.mark.parametrize("revision", ["base", "0001", "0003"])
async def test_tables_of_an_older_version(
    postgres18: PostgresServer, stock: Stock, revision: str
) -> None:
    fresh, older = postgres18.create_database(), postgres18.create_database()
    load(postgres18, postgres18.url_of(fresh), stock.script)

    def downgraded(connection: Connection) -> None:
        runner.upgrade(connection, {})
        runner.downgrade(connection, {}, revision)

    await on_postgres(postgres18, older, downgraded)
    load(postgres18, postgres18.url_of(older), stock.script)
    assert postgres_catalog(postgres18, older) == postgres_catalog(postgres18, fresh)
    assert postgres18.sql(f"SELECT * FROM {VERSION_TABLE}", older) == HEAD
    assert await on_postgres(postgres18, older, upgraded) == []


@pytest.mark.parametrize("dimensions", [2_000, 2_001, 4_001])
async def test_the_index_is_the_one_that_is_wanted(
    postgres18: PostgresServer, dimensions: int
) -> None:
    database = postgres18.create_database()
    embeddings = FakeEmbeddings(dimensions)
    load(postgres18, postgres18.url_of(database), with_model(embeddings.model_id, dimensions))
    index = "SELECT oid FROM pg_class WHERE relname = 'templates_embedding_idx'"
    before = postgres18.sql(index, database)
    assert bool(before) == (dimensions <= 4_000)
    settings = DatabaseSettings(postgres_url=postgres18.url_of(database))
    async with MetaDatabase(settings, embeddings=embeddings) as db:
        assert await db.migrate() == []
    assert postgres18.sql(index, database) == before


async def test_an_index_that_nobody_wants_is_not_made(postgres18: PostgresServer) -> None:
    database = postgres18.create_database()
    url = postgres18.url_of(database)
    async with opened(url, vector_index="none") as db:
        await TemplateRepository(db).list()
    load(postgres18, url, with_model(MODEL, DIMENSIONS))
    assert postgres18.sql("SELECT count(*) FROM templates", database) == "1"
    indexes = "SELECT count(*) FROM pg_class WHERE relname = 'templates_embedding_idx'"
    assert postgres18.sql(indexes, database) == "0"


@pytest.mark.parametrize("extension", ["public", "team", "elsewhere"])
async def test_into_another_schema(
    postgres18: PostgresServer, stock: Stock, extension: str
) -> None:
    database = postgres18.create_database()
    # The tables of another tenant, further back in the search path.
    load(postgres18, postgres18.url_of(database), with_model("theirs"))
    postgres18.sql(
        "CREATE SCHEMA team; CREATE SCHEMA elsewhere;"
        f"ALTER EXTENSION vector SET SCHEMA {extension}",
        database,
    )
    theirs = everything(postgres18, database)
    path = "team" if extension == "public" else "team,public"
    url = postgres18.url_of(database)
    for _ in range(2):
        load(postgres18, url, stock.script, environment={"PGOPTIONS": f"-c search_path={path}"})
    assert everything(postgres18, database) == theirs
    async with opened(url, postgres_schema="team") as db:
        assert await db.migrate() == []
        assert await contents(db) == stock.contents
        assert await answers(db) == stock.answers


async def test_by_a_role_that_is_no_superuser(postgres18: PostgresServer, stock: Stock) -> None:
    database = postgres18.create_database()
    url = postgres18.password_url_of(database)
    line = refusal(postgres18, url, stock.script)
    assert re.search(
        rf"role paracle may not create .* DBA run, in the database {database}: "
        "CREATE EXTENSION vector; then",
        line,
    )
    assert tables(postgres18, database) == ""
    postgres18.sql("CREATE EXTENSION vector", database)
    load(postgres18, url, stock.script)
    async with opened(url) as db:
        assert await db.migrate() == []
        assert await contents(db) == stock.contents


@pytest.mark.parametrize("client", [16, 18])
@pytest.mark.parametrize("option", ["ON_ERROR_STOP=0", "ON_ERROR_ROLLBACK=on", "AUTOCOMMIT=off"])
def test_settings_of_psql_make_no_difference(
    postgres18: PostgresServer, request: pytest.FixtureRequest, client: int, option: str
) -> None:
    program = request.getfixturevalue(f"postgres{client}").psql
    database = postgres18.create_database()
    url = postgres18.url_of(database)
    text = with_model("m")
    broken = text.replace("'tpl-1'", "NULL")
    answer = psql(postgres18, url, broken, "-v", option, program=program)
    assert answer.returncode == 3
    *warnings, line = answer.stderr.splitlines()
    assert "null value in column" in line
    # That a transaction was open already.
    assert all("WARNING" in warning for warning in warnings)
    assert tables(postgres18, database) == ""
    answer = psql(postgres18, url, text, "-v", option, program=program)
    assert answer.returncode == 0
    assert "ERROR" not in answer.stderr
    assert postgres18.sql("SELECT id FROM templates", database) == "tpl-1"


def test_in_a_transaction_of_psql(postgres: PostgresServer, stock: Stock) -> None:
    database = postgres.create_database()
    answer = psql(postgres, postgres.url_of(database), stock.script, "-1")
    assert answer.returncode == 0
    assert "ERROR" not in answer.stderr
    assert postgres.sql("SELECT count(*) FROM templates", database) == "30"


def test_a_timeout_is_not_for_loading(postgres: PostgresServer) -> None:
    text = with_model("m").replace("-- Rows\n", "SHOW statement_timeout;\n-- Rows\n")
    answer = psql(
        postgres,
        postgres.url_of(postgres.create_database()),
        text,
        "-A",
        "-t",
        environment={"PGOPTIONS": "-c statement_timeout=60s"},
    )
    assert (answer.returncode, answer.stdout) == (0, "0\n")


# --- What it refuses ----------------------------------------------------------------------------


def test_vectors_of_another_model(postgres: PostgresServer) -> None:
    database = postgres.create_database()
    url = postgres.url_of(database)
    load(postgres, url, with_model("one's"))
    before = everything(postgres, database)
    # Whatever the width.
    for dimensions in (3, 4):
        line = refusal(postgres, url, with_model("the\nother % $1", dimensions))
        assert '"one\'s"' in line
        assert '"the\\nother % $1"' in line
        assert "paracle meta reembed" in line
    line = refusal(postgres, url, with_model("one's", 4))
    assert "with 3 numbers" in line
    assert everything(postgres, database) == before


def test_tables_of_a_newer_version(postgres18: PostgresServer) -> None:
    database = postgres18.create_database()
    url = postgres18.url_of(database)
    load(postgres18, url, with_model("m"))
    postgres18.sql(f"UPDATE {VERSION_TABLE} SET version_num = '0815'", database)
    line = refusal(postgres18, url, with_model("m"))
    assert "revision 0815" in line
    assert "newer paracle_meta" in line
    assert postgres18.sql(f"SELECT * FROM {VERSION_TABLE}", database) == "0815"


async def test_a_database_that_is_migrated_just_now(postgres18: PostgresServer) -> None:
    url = postgres18.url_of(postgres18.create_database())
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
        line = refusal(postgres18, url, with_model("m"))
        assert "Another process migrates this database just now" in line
    finally:
        await connection.close()
    load(postgres18, url, with_model("m"))


def test_no_schema_to_put_it_in(postgres18: PostgresServer) -> None:
    url = postgres18.url_of(postgres18.create_database())
    environment = {"PGOPTIONS": "-c search_path=nowhere"}
    # The tables of the file itself are temporary, so that this is the first to be missed.
    line = refusal(postgres18, url, with_model("m"), environment=environment)
    assert "None of the schemas in the search_path exists: nowhere" in line


@pytest.fixture(scope="module")
def without_pgvector(server_folder: Path) -> Iterator[PostgresServer]:
    """A server whose installation has no pgvector: a copy, without the extension's control file."""
    server = PostgresServer(18, server_folder / "script", fsync=False)
    package = server.bin.parents[1]
    copy = server_folder / "script-programs"
    for source in (server.bin.parent, package.with_name(f"{package.name}.libs")):
        shutil.copytree(source, copy / source.relative_to(package.parent))
    server.bin = copy / server.bin.relative_to(package.parent)
    (control,) = copy.rglob("vector.control")
    control.unlink()
    with server:
        yield server


@pytest.mark.parametrize("options", [(), ("-v", "ON_ERROR_STOP=0"), ("-v", "ON_ERROR_ROLLBACK=on")])
def test_a_server_without_pgvector(
    without_pgvector: PostgresServer, stock: Stock, options: tuple[str, ...]
) -> None:
    database = without_pgvector.create_database()
    line = refusal(without_pgvector, without_pgvector.url_of(database), stock.script, *options)
    assert re.search(r"pgvector is not installed .*package postgresql-18-pgvector", line)
    assert tables(without_pgvector, database) == ""


async def test_without_search_by_meaning_no_extension_is_needed(
    without_pgvector: PostgresServer,
) -> None:
    url = without_pgvector.url_of(without_pgvector.create_database())
    row = portable(TEMPLATES, replace(TEMPLATE, embedding=None))
    # Its first vector would find no place.
    line = refusal(without_pgvector, url, script_of([(TEMPLATES, [row])]))
    assert "pgvector is not installed" in line
    load(without_pgvector, url, script_of([(TEMPLATES, [row])], searched_by_meaning=False))
    async with opened(url, enable_vectors=False) as db:
        assert await db.migrate() == []
        (found,) = await TemplateRepository(db).list()
    assert replace(found, updated_at=TEMPLATE.updated_at) == replace(TEMPLATE, embedding=None)


# --- A file that was cut ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-1",), ("-v", "AUTOCOMMIT=off")])
@pytest.mark.parametrize("client", [16, 18])
def test_of_a_file_that_was_cut_nothing_is_stored(
    postgres18: PostgresServer,
    request: pytest.FixtureRequest,
    client: int,
    options: tuple[str, ...],
) -> None:
    program = request.getfixturevalue(f"postgres{client}").psql
    database = postgres18.create_database()
    url = postgres18.url_of(database)
    text = with_model("m")
    # After a statement, within a text, after a row, where only the indexes and the end are missing.
    for place in (
        "-- Rows",
        "pl-1",
        "ON CONFLICT",
        "-- End of the rows",
        "INSERT INTO paracle_meta_e",
    ):
        cut = text[: text.rindex(place)]
        psql(postgres18, url, cut, *options, program=program)
        assert tables(postgres18, database) == "", place


# --- What is in it ------------------------------------------------------------------------------

STATEMENTS = (
    ast.TransactionStmt,
    ast.VariableSetStmt,
    ast.CreateStmt,
    ast.IndexStmt,
    ast.CreateFunctionStmt,
    ast.CreateTrigStmt,
    ast.DoStmt,
    ast.InsertStmt,
    ast.DeleteStmt,
)


def parsed(text: str) -> list[Any]:
    """Return the statements after the preamble, which is where commands of psql end."""
    return [raw.stmt for raw in pglast.parse_sql(text[text.index("\nBEGIN;\n") :])]


def targets(statements: list[Any], kind: type[Any]) -> set[str]:
    """Return the tables that statements of a kind write to."""
    return {one.relation.relname for one in statements if isinstance(one, kind)}


def test_only_statements_that_are_intended(stock: Stock) -> None:
    statements = parsed(stock.script)
    assert {type(statement) for statement in statements} == set(STATEMENTS)
    begin, *between, commit = statements
    assert begin.kind == pglast.enums.TransactionStmtKind.TRANS_STMT_BEGIN
    assert commit.kind == pglast.enums.TransactionStmtKind.TRANS_STMT_COMMIT
    assert not any(isinstance(statement, ast.TransactionStmt) for statement in between)
    inserted = targets(between, ast.InsertStmt)
    own = {"paracle_meta_file", "paracle_meta_vectors", "paracle_meta_end", VERSION_TABLE}
    kept_up = {"templates_unread", "best_practices_unread", "cost_days"}
    assert inserted == {table.name for table in TABLES} | own | kept_up
    assert targets(between, ast.DeleteStmt) == {VERSION_TABLE, "cost_days"}


def test_commands_of_psql_stand_in_the_preamble_only(stock: Stock) -> None:
    before, _, _ = stock.script.partition("\nBEGIN;\n")
    assert [line for line in before.splitlines() if not line.startswith("--")] == [
        "\\set ON_ERROR_STOP on",
        "\\set VERBOSITY terse",
        "\\encoding UTF8",
        "SET standard_conforming_strings = on;",
    ]


def test_what_users_wrote_stands_in_values_only() -> None:
    model = f"{HOSTILE}\n-- Rows\nINSERT INTO generations (id) VALUES\n('x')\n"
    texts = {name: f"{name} {HOSTILE}" for name in ("name", "content", "pattern", "source")}
    values: dict[str, Any] = {"id": HOSTILE, "embedding_model": model, **texts}
    row = portable(TEMPLATES, replace(TEMPLATE, **values))
    space = {"templates": VectorSpace(model, 3)}
    plain, hostile = script_of([], {"templates": VectorSpace("m", 3)}), script_of([], space)
    with_row = script_of([(TEMPLATES, [row])], space)
    # The fixed text is the same, whatever the values.
    quoted = model.replace("'", "''")
    assert hostile == plain.replace("'m'", f"'{quoted}'")
    statements = parsed(with_row)
    assert len(statements) == len(parsed(hostile)) + 1
    (added,) = (one for one in statements if targets([one], ast.InsertStmt) == {"templates"})
    ((*literals,),) = added.selectStmt.valuesLists
    found = {
        column.name: literal.val.sval
        for column, literal in zip(added.cols, literals, strict=True)
        if column.name in values
    }
    assert found == values


def test_quotes_of_the_fixed_text_are_in_pairs_on_each_line() -> None:
    # By which the reader finds its way.
    for line in script_of([], {"templates": VectorSpace("m", 3)}).splitlines():
        assert line.count("'") % 2 == 0, line


def test_a_statement_is_neither_long_nor_of_many_rows() -> None:
    writer = script(TABLES, {})
    template = GenerationResult(id="", artifact_type="a", name="n", content="c")
    few = [portable(GENERATIONS, replace(template, id=f"gen-{n}")) for n in range(1_100)]
    statements = writer.rows(GENERATIONS, few).split("ON CONFLICT DO NOTHING;\n")
    assert [text.count("\n(") for text in statements] == [500, 500, 100, 0]
    large = [
        portable(GENERATIONS, replace(template, id=f"gen-{n}", content="x" * 3_000_000))
        for n in range(3)
    ]
    statements = writer.rows(GENERATIONS, [large[0], few[0], *large[1:], few[1]]).split(
        "ON CONFLICT DO NOTHING;\n"
    )
    assert [text.count("\n(") for text in statements] == [2, 1, 2, 0]
    assert writer.rows(GENERATIONS, []) == ""


def test_text_in_a_column_of_numbers_is_never_written() -> None:
    writer = script(TABLES, {})
    row = list(portable(GENERATIONS, GenerationResult(artifact_type="a", name="n", content="c")))
    for name in ("tokens_used", "cost", "quality_score"):
        place = [column.name for column in GENERATIONS.columns].index(name)
        with pytest.raises((TypeError, ValueError)):
            writer.rows(GENERATIONS, [(*row[:place], "1); DROP TABLE x", *row[place + 1 :])])


def test_a_vector_that_is_not_of_the_model() -> None:
    row = portable(TEMPLATES, TEMPLATE)
    for spaces in ({}, {"templates": VectorSpace("m", 4)}):
        with pytest.raises(TransferError, match="reembed"):
            script(TABLES, spaces).rows(TEMPLATES, [row])
