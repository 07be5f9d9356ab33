"""Sums of costs, whoever writes the costs, and whatever else goes on."""

from __future__ import annotations

import asyncio
import random
from contextlib import closing
from datetime import date
from math import fsum
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from pysqlite3 import dbapi2 as pysqlite

from paracle_meta import CostRecord, CostReport, CostRepository, DatabaseSettings, MetaDatabase
from paracle_meta.backends.sqlite.cost_days import count_wrong
from paracle_meta.backends.sqlite.files import SCHEMAS
from paracle_meta.health import examine
from paracle_meta.migrations import HEAD, runner
from paracle_meta.schema import COSTS
from paracle_meta.transfer import back_up, restore
from tests.faults.places import Place, attached
from tests.faults.vectors import TinyEmbeddings
from tests.migrations.databases import FILES, on_postgres, sqlite_engine

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from tests.postgres import PostgresServer

MARCH = date(2026, 3, 1)
ADD = "INSERT INTO costs (id, provider, model, input_tokens, cost, period_start) VALUES "
SUMS = (
    "SELECT provider, sum(calls), sum(priced), sum(input_tokens) FROM cost_days"
    " GROUP BY provider ORDER BY provider"
)


@pytest.fixture(params=["sqlite", "postgresql16", "postgresql18"])
def anywhere(request: pytest.FixtureRequest) -> Place:
    """An empty database, on SQLite and on both PostgreSQL servers in turn."""
    if request.param == "sqlite":
        place: Place = request.getfixturevalue("sqlite")
        return place
    return on_server(request.getfixturevalue(f"postgres{request.param[-2:]}"))


@pytest.fixture
async def tables(postgres: PostgresServer) -> Place:
    """A migrated database on each server in turn."""
    place = on_server(postgres)
    async with place.open():
        return place


@pytest.fixture
async def files(sqlite: Place) -> Place:
    async with sqlite.open():
        return sqlite


def on_server(server: PostgresServer) -> Place:
    database = server.create_database()
    settings = {"postgres_url": server.url_of(database)}
    return Place(settings=settings, server=server, database=database)


async def connected(place: Place) -> Any:
    """Return a raw connection, on which nobody waits for a lock for long."""
    return await asyncpg.connect(
        place.settings["postgres_url"], server_settings={"lock_timeout": "2s"}
    )


async def reported(place: Place, **more: Any) -> CostReport:
    async with place.open(**more) as db:
        return await CostRepository(db).get_report("monthly", MARCH)


async def found(place: Place, *, fix: bool = False) -> dict[str, bool]:
    """What the doctor finds, and whether it was mended."""
    db = MetaDatabase(DatabaseSettings(**place.given()), embeddings=TinyEmbeddings())
    try:
        return {each.name: each.fixed for each in (await examine(db, fix=fix)).findings}
    finally:
        await db.close()


def run_sql(place: Place, *statements: str) -> None:
    """Do what a foreign program does, past the package."""
    if place.server is not None:
        place.server.sql(";".join(statements), place.database)
        return
    with closing(attached(place.folder)) as connection:
        for statement in statements:
            connection.execute(statement)


async def taken_back(place: Place, revision: str) -> None:
    def down(connection: Connection) -> list[str]:
        return runner.downgrade(connection, {} if place.server else FILES, revision)

    if place.server is not None:
        await on_postgres(place.server, place.database, down)
        return
    with sqlite_engine(place.folder).connect() as connection:
        down(connection)


# Both databases


async def test_a_migration_adds_up_what_is_there(anywhere: Place) -> None:
    async with anywhere.open():
        pass
    await taken_back(anywhere, "0005")
    amounts = [n * 0.0001371 for n in range(1000)]
    rows = ",".join(
        f"('c{n}', 'p{n % 3}', 'm', {n}, {amount!r}, '2026-03-{1 + n % 31:02}')"
        for n, amount in enumerate(amounts)
    )
    run_sql(anywhere, ADD + rows, ADD + "('none', 'p0', 'm', NULL, NULL, '2026-03-01')")

    report = await reported(anywhere)
    assert (report.total, report.calls) == (round(fsum(amounts), 9), 1001)
    assert (report.unpriced_calls, report.input_tokens) == (1, sum(range(1000)))
    run_sql(anywhere, "DELETE FROM costs WHERE id <> 'c500'")
    assert (await reported(anywhere)).total == round(amounts[500], 9)
    assert await found(anywhere) == {}


async def test_200000_amounts_that_come_and_go_leave_no_trace(anywhere: Place) -> None:
    numbers = random.Random(6)
    amounts = [numbers.choice([0.1, 1 / 3, 1e-7, 2.675]) * 10 ** numbers.uniform(-3, 3)
               for _ in range(200_000)]  # fmt: skip
    moment = "2026-03-01 12:00:00.000000"
    day = "2026-03-01"
    rows = [
        (f"{n:06}", "p", "m", 1, None, round(amount, 12), "daily", day, moment, moment)
        for n, amount in enumerate(amounts)
    ]
    async with anywhere.open() as db:
        costs = CostRepository(db)
        backend = await db.backend()
        async with backend.bulk.loading() as loading:
            for start in range(0, len(rows), 500):
                await loading.insert(COSTS, rows[start : start + 500])
        report = await costs.get_report("monthly", MARCH)
        assert report.total == round(fsum(row[5] for row in rows), 9)
        async with db.session(write=True) as session:
            for first in range(1, 10):
                await session.execute(f"DELETE FROM costs WHERE id LIKE '_____{first}'")
        report = await costs.get_report("monthly", MARCH)
        assert report.total == round(fsum(row[5] for row in rows if row[0][-1] == "0"), 9)
        assert report.calls == 20_000


async def test_sums_that_another_program_has_left_wrong(anywhere: Place) -> None:
    async with anywhere.open() as db:
        await CostRepository(db).add(
            CostRecord(provider="p", model="m", cost=0.25, period_start=MARCH, id="c1")
        )
        await CostRepository(db).add(
            CostRecord(provider="q", model="m", cost=0.5, period_start=MARCH)
        )
    for statement in (
        "UPDATE cost_days SET total = total + 0.000000002 WHERE provider = 'p'",
        "UPDATE cost_days SET calls = calls + 1 WHERE provider = 'p'",
        "UPDATE cost_days SET priced = 0 WHERE provider = 'p'",
        "UPDATE cost_days SET output_tokens = 7 WHERE provider = 'p'",
        "UPDATE cost_days SET period_start = '2026-03-02' WHERE provider = 'p'",
        "DELETE FROM cost_days WHERE provider = 'q'",
    ):
        run_sql(anywhere, statement)
        assert await found(anywhere) == {"wrong-sums": False}
        assert await found(anywhere, fix=True) == {"wrong-sums": True}
        assert await found(anywhere) == {}
        report = await reported(anywhere)
        assert (report.total, report.calls, report.output_tokens) == (0.75, 2, 0)
        # What mends them leaves them as triggers can go on with them.
        run_sql(anywhere, "UPDATE costs SET cost = cost WHERE id = 'c1'")
        assert await found(anywhere) == {}


async def test_a_trigger_that_is_gone(anywhere: Place) -> None:
    async with anywhere.open():
        pass
    if anywhere.server is None:
        run_sql(anywhere, "DROP TRIGGER costs.costs_delete_days")
        again = runner.upgrade_sql("sqlite", SCHEMAS)
    else:
        run_sql(anywhere, "DROP TRIGGER costs_delete_days ON costs")
        again = runner.upgrade_sql("postgresql", {})
    run_sql(anywhere, ADD + "('c1', 'p', 'm', 1, 0.5, '2026-03-01')", "DELETE FROM costs")
    assert await found(anywhere) == {"missing-structure": False}
    if anywhere.server is None:
        with closing(attached(anywhere.folder)) as connection:
            connection.executescript(again)
    else:
        run_sql(anywhere, again)
    assert await found(anywhere) == {}
    assert (await reported(anywhere)).calls == 0


# PostgreSQL


async def test_a_migration_waits_for_whoever_writes_costs(tables: Place) -> None:
    await taken_back(tables, "0005")
    before, after = await connected(tables), await connected(tables)
    db = tables.open()
    try:
        transaction = before.transaction()
        await transaction.start()
        await before.execute(ADD + "('c1', 'p', 'm', 1, 0.1, '2026-03-01')")
        migrating = asyncio.create_task(db.migrate())
        while not await after.fetchval(
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND relation = $1::regclass)",
            "costs",
        ):
            assert not migrating.done()
            await asyncio.sleep(0.01)
        writing = asyncio.create_task(after.execute(ADD + "('c2', 'p', 'm', 1, 0.1, '2026-03-01')"))
        await transaction.commit()
        await writing
        assert await migrating == [HEAD]
    finally:
        await db.close()
        await before.close()
        await after.close()
    assert tables.rows(SUMS) == [("p", "2", "2", "2")]


async def test_transactions_in_the_same_groups_do_not_wait_for_each_other(tables: Place) -> None:
    connections = [await connected(tables) for _ in range(3)]
    try:
        for turn in range(3):
            transactions = [connection.transaction() for connection in connections]
            for transaction in transactions:
                await transaction.start()
            # Each in another order: whoever waited here would do so for ever.
            for step in range(3):
                for n, connection in enumerate(connections):
                    provider = f"p{(n + step) % 3}"
                    await connection.execute(
                        f"{ADD} ('{turn}{step}{n}', '{provider}', 'm', 1, 0.1, '2026-03-01')"
                    )
            await transactions[0].commit()
            await transactions[1].rollback()
            await transactions[2].commit()
    finally:
        for connection in connections:
            await connection.close()
    assert tables.rows(SUMS) == [(f"p{n}", "6", "6", "6") for n in range(3)]
    # Rows are made for those at once, and then used again.
    assert int(tables.rows("SELECT count(*) FROM cost_days")[0][0]) <= 9
    assert (await reported(tables)).total == 1.8


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_transaction_that_sees_one_moment_counts_too(tables: Place, isolation: str) -> None:
    run_sql(tables, ADD + "('c0', 'p', 'm', 1, 0.1, '2026-03-01')")
    first, second = await connected(tables), await connected(tables)
    try:
        transaction = first.transaction(isolation=isolation)
        await transaction.start()
        assert await first.fetchval("SELECT sum(calls) FROM cost_days") == 1
        await second.execute(ADD + "('c1', 'p', 'm', 1, 0.1, '2026-03-01')")
        await first.execute(ADD + "('c2', 'p', 'm', 1, 0.1, '2026-03-01')")
        await first.execute("DELETE FROM costs WHERE id = 'c0'")
        assert await first.fetchval("SELECT sum(calls) FROM cost_days") == 1
        await transaction.commit()
    finally:
        await first.close()
        await second.close()
    assert tables.rows(SUMS) == [("p", "2", "2", "2")]
    assert await found(tables) == {}
    run_sql(tables, "DELETE FROM costs")
    assert (await reported(tables)).by_provider == {}


async def test_copy_and_truncate(tables: Place) -> None:
    connection = await connected(tables)
    try:
        await connection.copy_records_to_table(
            "costs",
            records=[(f"c{n}", f"p{n % 2}", "m", 0.1, MARCH) for n in range(100)],
            columns=["id", "provider", "model", "cost", "period_start"],
        )
        assert (await reported(tables)).total == 10.0
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("TRUNCATE costs")
        assert await connection.fetchval("SELECT count(*) FROM cost_days") == 0
        await transaction.rollback()
        assert (await reported(tables)).total == 10.0
        await connection.execute("TRUNCATE costs")
        await connection.execute(ADD + "('c2', 'p', 'm', 1, 0.1, '2026-03-01')")
    finally:
        await connection.close()
    assert tables.rows(SUMS) == [("p", "1", "1", "1")]


async def test_a_tenants_costs_are_his_whatever_the_search_path(tables: Place) -> None:
    name = "order"  # A word of SQL.
    async with tables.open(postgres_schema=name):
        pass
    quoted = '"order"'
    for path in ("public", "pg_catalog", f"{quoted}, public"):
        run_sql(
            tables,
            f"SET search_path = {path}",
            ADD.replace("costs", f"{quoted}.costs") + f"('{path}', 'p', 'm', 1, 1, '2026-03-01')",
        )
    run_sql(tables, f"UPDATE {quoted}.costs SET cost = 2; TRUNCATE public.costs")
    assert (await reported(tables)).calls == 0
    report = await reported(tables, postgres_schema=name)
    assert (report.total, report.calls) == (6.0, 3)
    run_sql(tables, f"DELETE FROM {quoted}.costs")
    assert (await reported(tables, postgres_schema=name)).calls == 0


async def test_a_backup_brings_back_the_sums_once(postgres: PostgresServer, tmp_path: Path) -> None:
    def owned() -> Place:
        """A database of a role that may do little."""
        database = postgres.create_database()
        postgres.sql("CREATE EXTENSION vector", database)
        settings = {"postgres_url": postgres.password_url_of(database)}
        return Place(settings=settings, server=postgres, database=database)

    one, other = owned(), owned()
    async with one.open() as db:
        costs = CostRepository(db)
        for n in range(30):
            await costs.add(
                CostRecord(provider=f"p{n % 3}", model="m", cost=0.1, period_start=MARCH)
            )
        was = await costs.get_report("monthly", MARCH)
        await back_up(db, tmp_path / "backup", pg_bin=postgres.bin)
        await costs.add(CostRecord(provider="late", model="m", cost=9, period_start=MARCH))
    for place, replace in ((other, False), (one, True)):
        db = place.open()  # Not entered, as that would make the tables.
        await restore(db, tmp_path / "backup", replace=replace, pg_bin=postgres.bin)
        await db.close()
        assert await reported(place) == was
        assert await found(place) == {}
        async with place.open() as db:
            await CostRepository(db).add(
                CostRecord(provider="p1", model="m", cost=1, period_start=MARCH)
            )
        assert (await reported(place)).total == 4.0


# SQLite


async def test_a_row_that_is_replaced_counts_once(files: Place) -> None:
    async with files.open() as db:
        costs = CostRepository(db)
        await costs.add(CostRecord(provider="p", model="m", cost=0.25, period_start=MARCH, id="c1"))
        await costs.add(CostRecord(provider="p", model="m", cost=0.5, period_start=MARCH, id="c2"))
        async with db.session(write=True) as session:
            for statement in (
                ADD.replace("INSERT", "INSERT OR REPLACE") + "('c1','q','m',1,4,'2026-03-02')",
                ADD.replace("INSERT", "REPLACE").replace("REPLACE INTO", "REPLACE INTO")
                + "('c1', 'q', 'm', 1, 8, '2026-03-02')",
                ADD.replace("INSERT", "INSERT OR IGNORE") + "('c1','q','m',1,1,'2026-03-02')",
                "UPDATE OR REPLACE costs SET id = 'c1' WHERE id = 'c2'",
            ):
                await session.execute(statement)
        report = await costs.get_report("monthly", MARCH)
    assert (report.total, report.calls, list(report.by_provider)) == (0.5, 1, ["p"])
    assert await found(files) == {}


async def test_a_program_that_replaces_rows_is_found_out(files: Place) -> None:
    replace = ADD.replace("INSERT", "INSERT OR REPLACE") + "('c1', 'p', 'm', 1, 4, '2026-03-02')"
    run_sql(files, replace, replace)
    assert await found(files) == {"wrong-sums": False}
    assert await found(files, fix=True) == {"wrong-sums": True}
    assert (await reported(files)).total == 4.0


async def test_whatever_is_stored_by_other_programs_counts_or_counts_nothing(
    files: Place,
) -> None:
    odd: list[tuple[Any, ...]] = [
        ("p", "abc", 1, "2026-03-01"),
        ("p", b"\xff", 2, "2026-03-01"),
        ("p", float("inf"), 3, "2026-03-01"),
        ("p", 1e300, 4, "2026-03-01"),
        ("p", -5, 5, "2026-03-01"),
        ("p", float("nan"), 6, "2026-03-01"),
        ("p", "0.5", "7", "2026-03-01"),
        ("p", 0.25, "many", "2026-03-01"),
        ("p", 0.25, 2**62, "2026-03-01"),
        ("p", 0.25, 2**62, "2026-03-01"),
        ("p", 0.25, -8, "2026-03-01"),
        ("p", 0.25, b"8", "2026-03-01"),
        (b"p", 0.25, 8, "rubbish"),
        ("p", 0.25, 8, b"\0\xff"),
        ("p", 0.25, 8, 20260301),
        ("p", 0.25, 8, 1.5),
        ("", 0.25, 8, "2026-03-01 10:00"),
    ]
    with closing(pysqlite.connect(files.folder / "costs.db")) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for n, row in enumerate(odd):
            connection.execute(
                "INSERT INTO costs (id, provider, model, cost, input_tokens, period_start)"
                " VALUES (?, ?, 'm', ?, ?, ?)",
                (f"c{n}", *row),
            )
        connection.execute("UPDATE costs SET model = 'other' WHERE id IN ('c2', 'c8', 'c12')")
        connection.execute("DELETE FROM costs WHERE id IN ('c16')")
    report = await reported(files)
    # Five amounts of a quarter, and the text that is a number; the numbers of tokens up to 2**31.
    assert (report.total, report.calls) == (0.5 + 5 * 0.25, 12)
    assert report.input_tokens == 1 + 2 + 3 + 4 + 5 + 6 + 7
    with closing(attached(files.folder)) as connection:
        assert count_wrong(connection) == 0
    await taken_back(files, "0005")
    async with files.open() as db:
        assert (await db.status()).revision == HEAD
    assert await reported(files) == report
    run_sql(files, "DELETE FROM costs")
    assert files.rows("SELECT * FROM cost_days") == []


async def test_processes_that_share_the_files_add_up_together(files: Place) -> None:
    async with files.open() as one, files.open() as other:

        async def record(db: MetaDatabase) -> None:
            for _ in range(50):
                await CostRepository(db).add(
                    CostRecord(
                        provider="p", model="m", cost=0.1, input_tokens=1, period_start=MARCH
                    )
                )

        await asyncio.gather(record(one), record(other), record(one), record(other))
    report = await reported(files)
    assert (report.total, report.calls, report.input_tokens) == (20.0, 200, 200)
