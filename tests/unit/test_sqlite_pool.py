from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from pysqlite3 import dbapi2 as pysqlite

from paracle_meta.backends.sqlite.pool import MAX_CONNECTIONS, WorkerPool
from paracle_meta.exceptions import DatabaseConnectionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ENDLESS = """
WITH RECURSIVE n(i) AS (SELECT begun() UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"""
"""A statement that only an interruption stops; `started` says when it runs."""


class Opened:
    """Opens connections to one file and remembers them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[Any] = []
        self.error: Exception | None = None

    def connect(self) -> Any:
        if self.error is not None:
            raise self.error
        connection = pysqlite.connect(self.path, isolation_level=None, check_same_thread=False)
        self.connections.append(connection)
        return connection


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    return Opened(tmp_path / "file.db")


@pytest.fixture
async def pool(opened: Opened) -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(opened.connect)
    await pool.run(lambda connection: connection.execute("CREATE TABLE t (n)"))
    yield pool
    await pool.close()


def count(connection: Any) -> int:
    return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


async def test_calls_one_after_another_share_a_connection(pool: WorkerPool, opened: Opened) -> None:
    for _ in range(5):
        await pool.run(count)
    assert len(opened.connections) == 1


async def test_no_more_connections_than_allowed_work_at_once(
    pool: WorkerPool, opened: Opened
) -> None:
    together = threading.Barrier(MAX_CONNECTIONS)

    def meet(_connection: Any) -> int:
        return together.wait(30)  # Fewer at once would never get past here.

    await asyncio.gather(*(pool.run(meet) for _ in range(3 * MAX_CONNECTIONS)))
    assert len(opened.connections) == MAX_CONNECTIONS


async def test_work_runs_beside_the_loop(pool: WorkerPool) -> None:
    gate = threading.Event()
    waiting = asyncio.create_task(pool.run(lambda _: gate.wait(30)))
    await pool.run(count)
    gate.set()
    assert await waiting


async def test_an_error_is_passed_on_and_its_transaction_undone(pool: WorkerPool) -> None:
    def fail(connection: Any) -> None:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (1)")
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        await pool.run(fail)
    assert await pool.run(count) == 0
    assert not await pool.run(lambda connection: connection.in_transaction)


async def test_work_that_forgets_to_commit_is_undone(pool: WorkerPool) -> None:
    def forget(connection: Any) -> None:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (1)")

    await pool.run(forget)
    assert await pool.run(count) == 0


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def started(pool: WorkerPool, work: Callable[[Any], Any]) -> asyncio.Task[Any]:
    """Return a task whose work has come to call ``begun()``, in Python or in SQL."""
    begun = threading.Event()

    def run(connection: Any) -> Any:
        def begin() -> int:
            begun.set()
            return 1

        connection.create_function("begun", 0, begin)
        return work(connection)

    task = asyncio.create_task(pool.run(run))
    assert await asyncio.to_thread(begun.wait, 30)
    return task


async def waiting_at(pool: WorkerPool, gate: threading.Event) -> asyncio.Task[Any]:
    """Return a task whose work writes a row once the gate is open."""

    def write(connection: Any) -> None:
        connection.execute("SELECT begun()").fetchone()
        gate.wait(30)
        connection.execute("INSERT INTO t VALUES (1)")

    return await started(pool, write)


async def test_a_cancelled_reading_is_stopped_and_its_connection_lent_again(
    pool: WorkerPool, opened: Opened
) -> None:
    for _ in range(2 * MAX_CONNECTIONS):
        task = await started(pool, lambda connection: connection.execute(ENDLESS).fetchall())
        await cancelled(task)
    async with asyncio.timeout(10):  # If they went on, no connection would be left.
        assert await pool.run(count) == 0
    assert len(opened.connections) <= MAX_CONNECTIONS


async def test_a_cancelled_writing_is_whole_or_undone(pool: WorkerPool) -> None:
    def write(connection: Any) -> None:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute(ENDLESS)
        connection.execute("COMMIT")

    await cancelled(await started(pool, write))
    async with asyncio.timeout(10):
        await pool.run(lambda connection: connection.execute("INSERT INTO t VALUES (2)"))
        assert await pool.run(count) == 1


async def test_cancelled_while_waiting_for_a_connection(pool: WorkerPool) -> None:
    gate = threading.Event()
    busy = [asyncio.create_task(pool.run(lambda _: gate.wait(30))) for _ in range(MAX_CONNECTIONS)]
    waiting = asyncio.create_task(pool.run(count))
    await asyncio.sleep(0)
    await cancelled(waiting)
    gate.set()
    assert all(await asyncio.gather(*busy))
    assert await pool.run(count) == 0


async def test_a_connection_that_could_not_be_opened_is_tried_again(opened: Opened) -> None:
    pool = WorkerPool(opened.connect)
    opened.error = OSError("on purpose")
    for _ in range(2 * MAX_CONNECTIONS):
        with pytest.raises(OSError, match="on purpose"):
            await pool.run(lambda _: None)
    opened.error = None
    assert await pool.run(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
    await pool.close()


async def test_closing_ends_threads_and_connections(pool: WorkerPool, opened: Opened) -> None:
    await pool.run(count)
    await pool.close()
    await pool.close()
    for thread in threading.enumerate():
        if thread.name.startswith("paracle-meta-sqlite"):
            thread.join(10)
            assert not thread.is_alive()
    for connection in opened.connections:
        with pytest.raises(pysqlite.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    with pytest.raises(DatabaseConnectionError, match="closed"):
        await pool.run(count)


async def test_closing_waits_for_work(pool: WorkerPool) -> None:
    gate = threading.Event()
    working = await waiting_at(pool, gate)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await closing
    await working


async def test_a_closing_that_is_cancelled_can_be_repeated(
    pool: WorkerPool, opened: Opened
) -> None:
    gate = threading.Event()
    working = [await waiting_at(pool, gate) for _ in range(2)]
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    await cancelled(closing)
    gate.set()
    await asyncio.gather(*working)
    await pool.close()
    for connection in opened.connections:
        with pytest.raises(pysqlite.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
