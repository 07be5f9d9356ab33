from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import json
import random
import re
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import (
    JSON,
    Column,
    Enum,
    ForeignKey,
    MetaData,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from paracle_meta.backends.postgresql.session import PostgresSessions
from paracle_meta.backends.sqlite import session as sqlite_session
from paracle_meta.backends.sqlite.driver import translate as translate_sqlite
from paracle_meta.backends.sqlite.session import SqliteSessions
from paracle_meta.exceptions import (
    DatabaseBusyError,
    DatabaseConnectionError,
    IntegrityError,
    ParacleMetaError,
    QueryError,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from types import ModuleType

    from sqlalchemy import Connection

    from paracle_meta.backends.session import MetaSession
    from tests.postgres import PostgresServer

FILES = ("generations", "templates", "feedback", "costs", "memory", "best_practices")
BUSY_SECONDS = 20.0  # Longer than writers queue on a busy machine.
SHORT_SECONDS = 0.2
SECRET = "sk-a-key-that-nobody-may-see"
POOL_SIZE = 4


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "generations"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent: Mapped[str | None] = mapped_column(ForeignKey("generations.id"))


SCHEMA = """
    CREATE TABLE {0}generations (
        id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL,
        parent VARCHAR REFERENCES generations (id) DEFERRABLE INITIALLY DEFERRED
    )
"""


class SqliteHarness:
    """Six real files, and a count of the connections to them."""

    def __init__(self, folder: Path, driver: ModuleType) -> None:
        self.folder = folder
        self.driver = driver
        self.busy_seconds = BUSY_SECONDS
        self.opened = 0
        self.open_now = 0
        self.most_open = 0
        self._lock = threading.Lock()
        harness = self

        class Counted(driver.Connection):  # type: ignore[name-defined,misc]
            def close(self) -> None:
                super().close()
                with harness._lock:
                    harness.open_now -= 1

        self._factory = Counted
        self.sessions = SqliteSessions(
            self.connect, functools.partial(translate_sqlite, place=str(folder)), driver
        )
        connection = self.connect()
        connection.execute(SCHEMA.format("main."))
        for name in FILES[1:]:
            connection.execute(f"CREATE TABLE {name}.{name} (id VARCHAR PRIMARY KEY)")
        connection.close()
        self.opened = self.most_open = 0

    def connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = self.driver.connect(
            self.folder / "generations.db",
            isolation_level=None,
            check_same_thread=False,
            timeout=self.busy_seconds,
            factory=self._factory,
        )
        with self._lock:
            self.opened += 1
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        for name in FILES[1:]:
            connection.execute("ATTACH ? AS " + name, (str(self.folder / f"{name}.db"),))
        for schema in ("main", *FILES[1:]):
            connection.execute(f"PRAGMA {schema}.journal_mode = WAL")
            connection.execute(f"PRAGMA {schema}.synchronous = OFF")  # No crash is tested here.
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    @property
    def in_use(self) -> int:
        return self.open_now

    async def close(self) -> None:
        await self.sessions.close()


class PostgresHarness:
    """A database, and an account of every connection borrowed and given back."""

    def __init__(self, pool: asyncpg.Pool, **options: bool) -> None:
        self.pool = pool
        self.opened = 0
        self.returned: list[bool] = []
        self.sessions = PostgresSessions(self.acquire, self.release, translate_postgres, **options)

    async def acquire(self) -> Any:
        connection = await self.pool.acquire()
        self.opened += 1
        return connection

    async def release(self, connection: Any, broken: bool) -> None:
        self.returned.append(broken)
        if broken:
            with suppress(asyncpg.InterfaceError):  # The pool has taken a lost one back by itself.
                connection.terminate()
        else:
            assert not connection.is_in_transaction()
        await self.pool.release(connection)

    @property
    def in_use(self) -> int:
        return self.opened - len(self.returned)

    async def close(self) -> None:
        await self.sessions.close()
        await self.pool.close()


def translate_postgres(error: BaseException) -> ParacleMetaError | None:
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return IntegrityError("A rule of the schema would be broken.")
    if isinstance(error, (asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
        return DatabaseConnectionError("The connection was lost.")
    if isinstance(error, asyncpg.AdminShutdownError):
        return DatabaseConnectionError("The server ended the connection.")
    if isinstance(error, asyncpg.PostgresError):
        return QueryError(f"The server refused the statement ({error.sqlstate}).")
    return None


@functools.cache
def own_database(server: PostgresServer) -> str:
    """One database for all tests of this file: creating and removing one takes seconds."""
    return server.create_database()


@asynccontextmanager
async def postgres_harness(
    server: PostgresServer,
    *,
    size: int = POOL_SIZE,
    settings: dict[str, str] | None = None,
    pool_options: dict[str, Any] | None = None,
    **options: bool,
) -> AsyncIterator[PostgresHarness]:
    database = own_database(server)
    empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public;"
    server.sql(empty + SCHEMA.format(""), database)
    pool = await asyncpg.create_pool(
        server.url_of(database),
        min_size=1,
        max_size=size,
        ssl=False,  # asyncpg forgets a future when it is cancelled while it asks for TLS.
        server_settings={"synchronous_commit": "off", **(settings or {})},
        **(pool_options or {}),
    )
    harness = PostgresHarness(pool, **options)
    yield harness
    await harness.close()


Harness = SqliteHarness | PostgresHarness
DRIVERS = ("sqlite3", "pysqlite3.dbapi2")


def sqlite_driver(name: str) -> ModuleType:
    module: ModuleType = pytest.importorskip(name, reason=f"{name} has no wheel for this platform")
    return module


@pytest.fixture(params=DRIVERS)
async def lite(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteHarness]:
    harness = SqliteHarness(tmp_path, sqlite_driver(request.param))
    yield harness
    await harness.close()
    assert harness.open_now == 0


@pytest.fixture
async def post(postgres18: PostgresServer) -> AsyncIterator[PostgresHarness]:
    async with postgres_harness(postgres18) as harness:
        yield harness
        assert harness.in_use == 0


@pytest.fixture(params=[*DRIVERS, "postgres16", "postgres18"])
async def harness(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Harness]:
    """Each kind of database in turn. At the end no connection is in use and no error was hidden."""
    hidden: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: hidden.append(context))
    if request.param in DRIVERS:
        lite = SqliteHarness(tmp_path, sqlite_driver(request.param))
        yield lite
        await lite.close()
        assert lite.in_use == 0
    else:
        server: PostgresServer = request.getfixturevalue(request.param)
        async with postgres_harness(server) as post:
            yield post
            assert post.in_use == 0
    gc.collect()  # An error that nobody fetched is reported when its task is collected.
    assert hidden == []
    assert caplog.get_records("call") == []


async def names(harness: Harness) -> list[str]:
    async with harness.sessions.session() as session:
        return list(await session.scalars("SELECT name FROM generations ORDER BY name"))


async def in_session(harness: Harness, work: Callable[[MetaSession], Awaitable[object]]) -> None:
    async with harness.sessions.session() as session:
        await work(session)


async def add(harness: Harness, record_id: str, *, write: bool = False) -> None:
    async with harness.sessions.session(write=write) as session:
        await session.execute(
            "INSERT INTO generations (id, name) VALUES (:id, :id)", {"id": record_id}
        )


class TestPlainSql:
    async def test_the_guides_snippet(self, harness: Harness) -> None:
        await add(harness, "gen-123")
        async with harness.sessions.session() as session:
            result = await session.execute(
                "SELECT * FROM generations WHERE id = :id", {"id": "gen-123"}
            )
            row = result.fetchone()
        assert row is not None
        assert row.id == "gen-123"
        assert tuple(row) == ("gen-123", "gen-123", None)

    async def test_every_method_takes_a_string(self, harness: Harness) -> None:
        rows = [{"id": f"gen-{n}", "name": f"name {n}"} for n in range(200)]
        sql = "SELECT name FROM generations WHERE id <> :id ORDER BY name"
        expected = sorted(row["name"] for row in rows[1:])
        async with harness.sessions.session() as session:
            await session.execute("INSERT INTO generations (id, name) VALUES (:id, :name)", rows)
            assert await session.scalar("SELECT count(*) FROM generations") == len(rows)
            assert list(await session.scalars(sql, {"id": "gen-0"})) == expected
            streamed = await session.stream(sql, {"id": "gen-0"})
            assert [row.name async for row in streamed] == expected
            scalars = await session.stream_scalars(sql, {"id": "gen-0"})
            assert [name async for name in scalars] == expected

    async def test_a_statement_of_sqlalchemy_is_left_as_it_is(self, harness: Harness) -> None:
        async with harness.sessions.session() as session:
            await session.execute(insert(Item), [{"id": "gen-1", "name": "a"}])
            name: str | None = await session.scalar(select(Item.name).where(Item.id == "gen-1"))
            assert name == "a"
            assert (await session.execute(text("SELECT id FROM generations"))).all() == [("gen-1",)]


class TestTransaction:
    async def test_the_end_of_the_block_commits(self, harness: Harness) -> None:
        await add(harness, "gen-1")
        assert await names(harness) == ["gen-1"]

    async def test_an_error_rolls_back(self, harness: Harness) -> None:
        async def work(session: MetaSession) -> None:
            await session.execute("INSERT INTO generations VALUES ('gen-1', 'a', NULL)")
            raise ValueError("of the caller")

        with pytest.raises(ValueError, match="of the caller"):
            await in_session(harness, work)
        assert await names(harness) == []

    async def test_a_cancellation_rolls_back(self, harness: Harness) -> None:
        written = asyncio.Event()

        async def write() -> None:
            async with harness.sessions.session() as session:
                await session.execute("INSERT INTO generations VALUES ('gen-1', 'a', NULL)")
                written.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(write())
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert harness.in_use == 0
        assert await names(harness) == []

    async def test_a_session_that_does_nothing_takes_no_connection(self, harness: Harness) -> None:
        async with harness.sessions.session():
            pass
        async with harness.sessions.session(write=True) as session:
            await session.commit()
        assert harness.opened == 0

    async def test_mapped_objects(self, harness: Harness) -> None:
        async with harness.sessions.session() as session:
            item = Item(id="gen-1", name="a")
            session.add(item)
            session.add(Item(id="gen-2", name="b", parent="gen-1"))
        assert item.name == "a"  # Still readable, without a connection.
        async with harness.sessions.session() as session:
            loaded = await session.get_one(Item, "gen-2")
            loaded.name = "c"
            assert loaded.parent == "gen-1"
            await session.execute(delete(Item).where(Item.id == "nothing"))
        assert await names(harness) == ["a", "c"]

    async def test_a_savepoint_undoes_its_own_part_only(self, harness: Harness) -> None:
        async def undone(session: MetaSession) -> None:
            async with session.begin_nested():
                await session.execute("INSERT INTO generations VALUES ('gen-2', 'b', NULL)")
                await session.execute("INSERT INTO generations VALUES ('gen-2', 'c', NULL)")

        async with harness.sessions.session() as session:
            session.add(Item(id="gen-1", name="kept"))
            with pytest.raises(IntegrityError):
                await undone(session)
            session.add(Item(id="gen-3", name="kept too"))
        assert await names(harness) == ["kept", "kept too"]

    async def test_a_commit_in_the_middle_stays(self, harness: Harness) -> None:
        async def work(session: MetaSession) -> None:
            session.add(Item(id="gen-1", name="first"))
            await session.commit()
            assert harness.in_use == 0
            session.add(Item(id="gen-2", name="second"))
            await session.flush()
            raise ValueError("later")

        with pytest.raises(ValueError, match="later"):
            await in_session(harness, work)
        assert await names(harness) == ["first"]

    async def test_many_at_once(self, harness: Harness) -> None:
        await asyncio.gather(*(add(harness, f"gen-{n}", write=True) for n in range(50)))
        assert len(await names(harness)) == 50

    async def test_a_trivial_session_is_quick(
        self, harness: Harness, record_property: Callable[[str, object], None]
    ) -> None:
        seconds = []
        for _ in range(30):
            started = time.perf_counter()
            async with harness.sessions.session() as session:
                await session.execute("SELECT * FROM generations WHERE id = :id", {"id": "gen-1"})
            seconds.append(time.perf_counter() - started)
        median = sorted(seconds)[len(seconds) // 2]
        record_property("trivial_session_ms", round(median * 1e3, 2))
        # One to three milliseconds on an idle machine; the bound is for one that runs other tests.
        assert median < 0.1


class TestErrors:
    async def test_one_at_the_commit_is_typed_and_rolls_back(self, harness: Harness) -> None:
        with pytest.raises(IntegrityError) as caught:
            async with harness.sessions.session() as session:
                session.add(Item(id="gen-1", name="a", parent="gen-missing"))
        assert caught.value.__cause__ is not None
        assert harness.in_use == 0
        assert await names(harness) == []
        await add(harness, "gen-2", write=True)

    async def test_one_of_a_statement_is_typed(self, harness: Harness) -> None:
        with pytest.raises(QueryError) as caught:
            async with harness.sessions.session() as session:
                await session.execute("SELECT nothing FROM nowhere")
        assert caught.value.__cause__ is not None

    async def test_one_of_a_flush_is_typed(self, harness: Harness) -> None:
        async def work(session: MetaSession) -> None:
            session.add(Item(id="gen-1", name="again"))
            await session.flush()

        await add(harness, "gen-1")
        with pytest.raises(IntegrityError):
            await in_session(harness, work)

    async def test_one_while_rows_are_read_is_typed(self, harness: Harness) -> None:
        await add(harness, "gen-1")
        numbers = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) "
            + (
                "SELECT CASE WHEN i < 400 THEN '1' ELSE json('no json') END FROM n"
                if isinstance(harness, SqliteHarness)
                else "SELECT 1 / (400 - i) FROM n"
            )
        )

        async def work(session: MetaSession) -> None:
            async for _ in await session.stream_scalars(numbers):
                pass

        with pytest.raises(QueryError):
            await in_session(harness, work)

    async def test_no_message_shows_a_parameter(self, harness: Harness) -> None:
        await add(harness, SECRET)
        verdict = Enum("good", "bad", native_enum=False, validate_strings=True)
        statements: list[Any] = [
            "INSERT INTO generations (id, name) VALUES (:id, 'again')",
            "SELECT CAST(:id AS VARCHAR) FROM nowhere",
            "INSERT INTO generations (id, name) VALUES (:id, :missing)",
            select(bindparam("id", type_=verdict)),
        ]
        for statement in statements:
            with pytest.raises(ParacleMetaError) as caught:
                async with harness.sessions.session() as session:
                    await session.execute(statement, {"id": SECRET})
            assert SECRET not in str(caught.value)
            assert SECRET not in repr(caught.value)

    async def test_a_missing_parameter_is_named(self, harness: Harness) -> None:
        with pytest.raises(QueryError, match="'id'"):
            async with harness.sessions.session() as session:
                await session.execute("SELECT * FROM generations WHERE id = :id")

    async def test_misuse_of_sqlalchemy_stays_its_own_error(self, harness: Harness) -> None:
        async with harness.sessions.session() as session:
            with pytest.raises(InvalidRequestError):
                await session.refresh(Item(id="gen-1", name="never added"))

    async def test_a_timeout_while_a_connection_is_given_back_is_a_timeout(
        self, post: PostgresHarness
    ) -> None:
        giving_back, go_on = asyncio.Event(), asyncio.Event()

        async def release(connection: Any, broken: bool) -> None:
            giving_back.set()
            await go_on.wait()
            await post.release(connection, broken)

        sessions = PostgresSessions(post.acquire, release, translate_postgres)

        async def work(limit: asyncio.Timeout) -> None:
            async with limit:
                async with sessions.session() as session:
                    await session.execute("INSERT INTO generations VALUES ('gen-1', 'a', NULL)")
                await asyncio.Event().wait()

        limit = asyncio.timeout(None)
        task = asyncio.create_task(work(limit))
        await giving_back.wait()
        limit.reschedule(0)
        await asyncio.sleep(0)  # The time limit strikes in this turn of the event loop.
        await asyncio.sleep(0)
        assert limit.expired()
        go_on.set()
        with pytest.raises(TimeoutError):
            await task
        assert post.returned == [False]
        assert await names(post) == ["a"]


class TestWork:
    async def test_it_controls_its_transactions(self, harness: Harness) -> None:
        def work(connection: Connection) -> int:
            with connection.begin():
                connection.execute(text("CREATE TABLE revisions (id INTEGER PRIMARY KEY)"))
                connection.execute(text("INSERT INTO revisions VALUES (1)"))
            with connection.begin() as undone:
                connection.execute(text("INSERT INTO revisions VALUES (2)"))
                connection.execute(text("CREATE TABLE undone (id INTEGER)"))
                undone.rollback()
            connection.execute(text("INSERT INTO revisions VALUES (3)"))  # Never committed.
            return connection.execute(
                select(func.count()).select_from(text("revisions"))
            ).scalar_one()

        assert await harness.sessions.run(work) == 2

        def look(connection: Connection) -> list[int]:
            assert not connection.dialect.has_table(connection, "undone")
            return list(connection.execute(text("SELECT id FROM revisions")).scalars())

        assert await harness.sessions.run(look) == [1]

    async def test_autocommit(self, harness: Harness) -> None:
        # Both refuse these inside a transaction.
        statement = (
            "VACUUM"
            if isinstance(harness, SqliteHarness)
            else "CREATE INDEX CONCURRENTLY name_idx ON generations (name)"
        )

        def work(connection: Connection) -> None:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text("INSERT INTO generations VALUES ('gen-1', 'a', NULL)"))
            connection.execute(text(statement))

        await harness.sessions.run(work)
        assert await names(harness) == ["a"]

    async def test_its_errors_are_typed(self, harness: Harness) -> None:
        def work(connection: Connection) -> None:
            with connection.begin():
                connection.execute(text("INSERT INTO generations VALUES ('gen-1', 'a', NULL)"))
                connection.execute(text("nonsense"))

        with pytest.raises(QueryError):
            await harness.sessions.run(work)
        assert await names(harness) == []


async def test_two_hundred_cancellations_leak_nothing(harness: Harness) -> None:
    chance = random.Random(0)
    # So some are cancelled while they wait for a connection or a lock.
    together = POOL_SIZE + 2
    outcomes = {"cancelled": 0, "done": 0, "busy": 0}

    async def work(number: int) -> None:
        async with harness.sessions.session(write=number % 4 != 0) as session:
            await session.scalar("SELECT count(*) FROM generations")
            await session.execute(
                "INSERT INTO generations (id, name) VALUES (:id, :id)", {"id": f"gen-{number}"}
            )
            async with session.begin_nested():
                await session.execute("UPDATE generations SET name = name WHERE id = 'gen-0'")
            await session.commit()
            await session.scalar("SELECT count(*) FROM generations")

    async def cancel_at_random(number: int) -> None:
        task = asyncio.create_task(work(number))
        await asyncio.sleep(chance.random() * longest)
        task.cancel()
        if number % 3 == 0:  # A second one, while the first is being obeyed.
            await asyncio.sleep(chance.random() * 0.002)
            task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            outcomes["cancelled"] += 1
        elif task.exception() is None:
            outcomes["done"] += 1
        else:  # A deferred transaction on SQLite may be told that it came too late.
            assert isinstance(task.exception(), DatabaseBusyError)
            outcomes["busy"] += 1

    started = time.perf_counter()
    await work(-1)
    longest = min(4 * (time.perf_counter() - started), 0.1)
    numbers = itertools.count()
    while outcomes["cancelled"] < 200:
        await asyncio.gather(*(cancel_at_random(next(numbers)) for _ in range(together)))
    assert outcomes["done"] > 0, outcomes
    started = time.perf_counter()
    await add(harness, "gen-after", write=True)
    assert time.perf_counter() - started < 1
    await harness.sessions.close()
    assert harness.in_use == 0
    for found in await asyncio.gather(*(names(harness) for _ in range(POOL_SIZE))):
        assert "gen-after" in found


class TestSqlite:
    async def test_a_writing_session_waits_for_its_turn_at_its_first_statement(
        self, lite: SqliteHarness
    ) -> None:
        lite.busy_seconds = SHORT_SECONDS
        async with lite.sessions.session(write=True) as first:
            await first.scalar("SELECT count(*) FROM generations")  # Already holds the locks.
            with pytest.raises(DatabaseBusyError):
                await add(lite, "gen-1")
            assert await first.scalar("SELECT count(*) FROM generations") == 0
        await add(lite, "gen-2")
        assert await names(lite) == ["gen-2"]

    async def test_readers_go_on_beside_a_writer(self, lite: SqliteHarness) -> None:
        async with lite.sessions.session(write=True) as writer:
            await writer.execute("INSERT INTO generations VALUES ('gen-1', 'a', NULL)")
            async with asyncio.timeout(BUSY_SECONDS / 2):
                assert await names(lite) == []
        assert await names(lite) == ["a"]

    async def test_a_read_sees_one_state_of_the_database(self, lite: SqliteHarness) -> None:
        async with lite.sessions.session() as session:
            assert await session.scalar("SELECT count(*) FROM generations") == 0
            await add(lite, "gen-1")
            assert await session.scalar("SELECT count(*) FROM generations") == 0
            with pytest.raises(DatabaseBusyError):
                await session.execute("INSERT INTO generations VALUES ('gen-2', 'b', NULL)")

    async def test_all_six_files_are_seen(self, lite: SqliteHarness) -> None:
        async with lite.sessions.session(write=True) as session:
            for name in FILES[1:]:
                await session.execute(f"INSERT INTO {name} (id) VALUES (:id)", {"id": name})
                assert await session.scalar(f"SELECT id FROM {name}") == name

    async def test_a_cancelled_statement_stops_at_once(self, lite: SqliteHarness) -> None:
        async def count_forever() -> None:
            async with lite.sessions.session() as session:
                await session.execute(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
                    "SELECT count(*) FROM n"
                )

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await count_forever()
        assert lite.in_use == 0

    async def test_a_cancelled_wait_for_a_lock_does_not_hold_up_its_task(
        self, lite: SqliteHarness
    ) -> None:
        async with lite.sessions.session(write=True) as session:
            await session.execute("INSERT INTO generations VALUES ('gen-1', 'a', NULL)")
            started = time.perf_counter()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await add(lite, "gen-2", write=True)
            assert time.perf_counter() - started < BUSY_SECONDS / 2
            assert lite.in_use == 2
        await lite.sessions.close()
        assert lite.in_use == 0
        assert await names(lite) == ["a"]

    async def test_a_cancelled_opening_closes_what_came_of_it(self, tmp_path: Path) -> None:
        opening, go_on = threading.Event(), threading.Event()
        harness = SqliteHarness(tmp_path, import_module("sqlite3"))

        def connect() -> sqlite3.Connection:
            opening.set()
            go_on.wait()
            return harness.connect()

        sessions = SqliteSessions(connect, lambda _: None, harness.driver)

        async def work() -> None:
            async with sessions.session() as session:
                await session.execute("SELECT 1")

        task = asyncio.create_task(work())
        await asyncio.to_thread(opening.wait)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        go_on.set()
        await sessions.close()
        assert harness.opened == 1
        assert harness.in_use == 0

    async def test_no_more_connections_than_a_process_may_have(self, lite: SqliteHarness) -> None:
        most = sqlite_session._CONNECTIONS
        everybody = asyncio.Barrier(most)

        async def read() -> None:
            async with lite.sessions.session() as session:
                await session.scalar("SELECT count(*) FROM generations")
                await everybody.wait()

        await asyncio.gather(*(read() for _ in range(3 * most)))
        assert lite.most_open == most

    async def test_a_wait_for_a_connection_ends(
        self, lite: SqliteHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_session, "_OPEN_SECONDS", 0.05)
        full = asyncio.Barrier(sqlite_session._CONNECTIONS + 1)
        done = asyncio.Event()

        async def hold() -> None:
            async with lite.sessions.session() as session:
                await session.scalar("SELECT 1")
                await full.wait()
                await done.wait()

        holders = [asyncio.create_task(hold()) for _ in range(sqlite_session._CONNECTIONS)]
        await full.wait()
        with pytest.raises(DatabaseBusyError, match="in use"):
            await names(lite)
        done.set()
        await asyncio.gather(*holders)
        assert await names(lite) == []

    @pytest.mark.parametrize("name", DRIVERS)
    async def test_a_failing_open_is_typed_and_keeps_no_place(
        self, tmp_path: Path, name: str
    ) -> None:
        driver = sqlite_driver(name)
        sessions = SqliteSessions(
            lambda: driver.connect(tmp_path / "missing" / "generations.db"),
            functools.partial(translate_sqlite, place="the folder"),
            driver,
        )
        for _ in range(2 * sqlite_session._CONNECTIONS):
            with pytest.raises(ParacleMetaError, match="cannot be opened"):
                async with sessions.session() as session:
                    await session.execute("SELECT 1")
        await sessions.close()

    async def test_the_driver_begins_nothing_by_itself(self, lite: SqliteHarness) -> None:
        def work(connection: Connection) -> None:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text("INSERT INTO generations VALUES ('gen-1', 'a', NULL)"))
            connection.commit()
            # Setting a level would put the driver into its legacy mode of implicit transactions.
            connection.execution_options(isolation_level="SERIALIZABLE")
            with connection.begin():
                connection.execute(text("INSERT INTO generations VALUES ('gen-2', 'b', NULL)"))
            raw: Any = connection.connection.driver_connection
            assert raw.isolation_level is None
            assert not raw.in_transaction

        await lite.sessions.run(work)
        assert await names(lite) == ["a", "b"]

    async def test_no_thread_outlives_a_session(self, lite: SqliteHarness) -> None:
        before = set(threading.enumerate())
        await names(lite)
        for thread in set(threading.enumerate()) - before:
            await asyncio.to_thread(thread.join, 1)  # It has been told to end.
            assert not thread.is_alive()

    @pytest.mark.parametrize("orderly", [True, False])
    def test_a_program_that_never_closes_ends(self, tmp_path: Path, orderly: bool) -> None:
        program = textwrap.dedent(
            """
            import asyncio, sqlite3, sys
            from paracle_meta.backends.sqlite.session import SqliteSessions

            def connect():
                return sqlite3.connect(
                    sys.argv[1], isolation_level=None, check_same_thread=False
                )

            async def main():
                sessions = SqliteSessions(connect, lambda error: None, sqlite3)
                async with sessions.session() as session:
                    await session.execute("SELECT 1")
                kept.append(sessions.session())
                session = await kept[-1].__aenter__()
                print(await session.scalar("SELECT 42"))

            kept = []
            if sys.argv[2] == "True":
                asyncio.run(main())
            else:  # The event loop is left as it is, so nothing ends the session.
                kept.append(asyncio.new_event_loop())
                kept[0].run_until_complete(main())
            """
        )
        # Python itself warns of an event loop that is left open.
        python = [sys.executable, *(("-X", "dev", "-W", "error") if orderly else ())]
        ended = subprocess.run(
            [*python, "-c", program, str(tmp_path / "db"), str(orderly)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "42\n", "")


async def kill_own_connection(session: MetaSession, server: PostgresServer) -> None:
    pid = await session.scalar("SELECT pg_backend_pid()")
    server.sql(f"SELECT pg_terminate_backend({pid})")


class TestPostgres:
    async def test_fifty_sessions_share_the_connections_of_the_pool(
        self, post: PostgresHarness
    ) -> None:
        counts = []

        async def work(number: int) -> None:
            async with post.sessions.session() as session:
                await session.execute(
                    "INSERT INTO generations (id, name) VALUES (:id, :id)", {"id": f"gen-{number}"}
                )
                counts.append(
                    await session.scalar(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                        " AND backend_type = 'client backend'"
                    )
                )

        await asyncio.gather(*(work(number) for number in range(50)))
        assert max(counts) == POOL_SIZE
        assert len(await names(post)) == 50
        assert post.returned == [False] * 51

    async def test_json_is_read_the_same_before_and_after_a_session(
        self, postgres18: PostgresServer
    ) -> None:
        sql = """SELECT '{"a": [1]}'::json AS j, '{"a": [1]}'::jsonb AS b"""
        documents = Table("documents", MetaData(), Column("j", JSON), Column("b", JSONB))
        prepared = "SELECT name, prepare_time FROM pg_prepared_statements ORDER BY name"
        async with postgres_harness(postgres18, size=1) as post:
            async with post.pool.acquire() as connection:
                await connection.execute("CREATE TABLE documents (j JSON, b JSONB)")
                before = await connection.fetchrow(sql)
                await connection.fetch(prepared)
                cached = await connection.fetch(prepared)
                assert len(cached) == 2
            document = {"a": [1, {"b": None}]}
            async with post.sessions.session() as session:
                await session.execute(insert(documents), {"j": document, "b": document})
                assert (await session.execute(select(documents))).one() == (document, document)
                # Plain SQL knows no types: JSON is text there, as it is on SQLite.
                assert json.loads(await session.scalar("SELECT b FROM documents")) == document
            async with post.pool.acquire() as connection:
                assert await connection.fetchrow(sql) == before
                assert before["b"] == '{"a": [1]}'
                # Those of the session are closed later; the ones from before are still the same.
                after = await connection.fetch(prepared)
                assert [statement for statement in after if statement in cached] == cached
            assert post.opened == 1

    async def test_without_prepared_statements(self, postgres18: PostgresServer) -> None:
        async with (
            postgres_harness(
                postgres18,
                pool_options={"statement_cache_size": 0},
                prepares=False,
            ) as post,
            post.sessions.session() as session,
        ):
            for number in range(3):
                await session.execute(
                    "INSERT INTO generations (id, name) VALUES (:id, :id)",
                    {"id": f"gen-{number}"},
                )
                assert await session.scalar("SELECT count(*) FROM generations") == number + 1
            assert await session.scalar("SELECT count(*) FROM pg_prepared_statements") == 0

    async def test_a_lost_connection_is_typed_and_given_back_as_broken(
        self, post: PostgresHarness, postgres18: PostgresServer
    ) -> None:
        async def work(session: MetaSession) -> None:
            await kill_own_connection(session, postgres18)
            await session.execute("SELECT 1")

        with pytest.raises(DatabaseConnectionError):
            await in_session(post, work)
        assert post.returned == [True]
        await add(post, "gen-1")

    async def test_the_callers_error_is_not_hidden_by_a_lost_connection(
        self, post: PostgresHarness, postgres18: PostgresServer
    ) -> None:
        async def work(session: MetaSession) -> None:
            await kill_own_connection(session, postgres18)
            raise ValueError("of the caller")

        with pytest.raises(ValueError, match="of the caller"):
            await in_session(post, work)
        assert post.returned == [True]

    async def test_a_connection_lost_at_the_commit_is_an_error(
        self, post: PostgresHarness, postgres18: PostgresServer
    ) -> None:
        async def work(session: MetaSession) -> None:
            await session.execute("INSERT INTO generations VALUES ('gen-1', 'a', NULL)")
            await kill_own_connection(session, postgres18)

        with pytest.raises(DatabaseConnectionError):
            await in_session(post, work)
        assert post.returned == [True]
        assert await names(post) == []

    async def test_a_cancelled_statement_stops_on_the_server(self, post: PostgresHarness) -> None:
        async def sleep() -> None:
            async with post.sessions.session() as session:
                await session.execute("SELECT pg_sleep(60)")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await sleep()
        assert post.returned == [True]
        async with post.sessions.session() as session:
            assert not await session.scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'"
                " AND state = 'active' AND pid <> pg_backend_pid()"
            )

    async def test_a_failed_statement_that_was_swallowed_is_told_at_the_commit(
        self, post: PostgresHarness
    ) -> None:
        async def work(session: MetaSession) -> None:
            await session.execute("INSERT INTO generations VALUES ('gen-1', 'a', NULL)")
            with pytest.raises(IntegrityError):
                await session.execute("INSERT INTO generations VALUES ('gen-1', 'b', NULL)")

        with pytest.raises(QueryError):
            await in_session(post, work)
        assert await names(post) == []

    async def test_an_error_of_the_pool_is_passed_on(self, post: PostgresHarness) -> None:
        refused = DatabaseBusyError("All connections are in use.")

        async def acquire() -> Any:
            raise refused

        sessions = PostgresSessions(acquire, post.release, translate_postgres)
        with pytest.raises(DatabaseBusyError) as caught:
            async with sessions.session() as session:
                await session.execute("SELECT 1")
        assert caught.value is refused

    async def test_the_dialect_asks_the_server_once(self, postgres18: PostgresServer) -> None:
        log = postgres18.folder / "log"

        def statements(since: int) -> list[str]:
            return re.findall(r"(?:statement|execute [^:]*): (\w+.*)", log.read_text()[since:])

        async with postgres_harness(postgres18, settings={"log_statement": "all"}) as post:
            await asyncio.gather(*(names(post) for _ in range(20)))
            assert sum("pg_catalog.version()" in sql for sql in statements(0)) == 1
            start = len(log.read_text())
            await names(post)
            assert [sql.split()[0].strip(";") for sql in statements(start)[:3]] == [
                "BEGIN",
                "SELECT",
                "COMMIT",
            ]

    async def test_isolation_is_read_committed(self, post: PostgresHarness) -> None:
        async with post.sessions.session() as session:
            assert await session.scalar("SHOW transaction_isolation") == "read committed"
