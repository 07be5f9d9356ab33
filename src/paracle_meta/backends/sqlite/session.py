"""SQLAlchemy sessions over connections to the SQLite files that the backend opens."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import aiosqlite
from sqlalchemy import NullPool, event
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_dbapi,
)
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util.concurrency import await_, in_greenlet

from paracle_meta.backends.session import (
    ENGINE_NAME,
    MetaSession,
    Translate,
    finish,
    keep_rows_from_log,
    raise_typed_errors,
    run_work,
    session_scope,
)
from paracle_meta.exceptions import DatabaseBusyError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import ModuleType

    from sqlalchemy import Connection

T = TypeVar("T")

_CONNECTIONS: Final = 16
"""Most connections at once. Each may hold a database and a log open for each of the six files, and
macOS lets a process have 256 files open unless told otherwise."""

_OPEN_SECONDS: Final = 30.0
"""Longest wait for one of those, as SQLAlchemy's own pools wait."""

_CLOSE_SECONDS: Final = 0.2
"""Longest wait of a cancelled task for its connection to close. An interrupted statement ends
within milliseconds; only one that waits for another writer goes on for up to the busy timeout."""

_ROWS_A_READ: Final = 64
"""Rows that the connection's thread reads at once for a streamed result; aiosqlite's default."""

_WRITE: Final = "paracle_meta_write"
"""The execution option that makes a transaction take the write locks when it begins."""


class SqliteSessions:
    """Sessions and migrations on the SQLite files.

    Every session opens a connection and closes it (`NullPool`). Opening the six files costs about
    as much as two statements through SQLAlchemy, and no thread, file or lock outlives a session:
    a program that forgets to close still ends, and files can be replaced while nobody uses them.
    """

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], translate: Translate, driver: ModuleType
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            connect: Opens a connection that sees all six files, with `isolation_level=None` and
                `check_same_thread=False`. It is called in the connection's own thread.
            translate: Returns this package's error for one of the driver's.
            driver: The module that `connect` uses: `sqlite3`, or `pysqlite3.dbapi2`, whose error
                classes are others.
        """
        self._connections = _Connections(connect)
        self._engine = create_async_engine(
            "sqlite+aiosqlite://",
            module=_Driver(self._connections, driver),
            poolclass=NullPool,
            pool_reset_on_return=None,  # A connection that is closed is rolled back.
            hide_parameters=True,
            logging_name=ENGINE_NAME,
        )
        self._writing_engine = self._engine.execution_options(**{_WRITE: True})
        event.listen(self._engine.sync_engine, "begin", _begin)
        keep_rows_from_log()
        raise_typed_errors(self._engine, translate)

    def session(self, *, write: bool = False) -> AbstractAsyncContextManager[MetaSession]:
        """Open a session; see `session_scope`.

        Args:
            write: Take the write locks of all six files with the first statement, and wait for
                them there. Without it a transaction that reads before it writes is refused as busy
                when another one has written meanwhile.
        """
        return session_scope(self._writing_engine if write else self._engine)

    def run(self, work: Callable[[Connection], T]) -> Awaitable[T]:
        """Run a migration: synchronous code that begins and commits its own transactions.

        Each takes the write locks when it begins, as a migration reads before it writes. Under the
        execution option ``isolation_level="AUTOCOMMIT"`` there are no transactions.
        """
        return run_work(self._writing_engine, work)

    async def close(self) -> None:
        """Wait for connections of cancelled sessions that are still closing; safe to repeat."""
        await self._engine.dispose()
        await self._connections.wait_closed()


def _begin(connection: Connection) -> None:
    # The driver begins nothing by itself, as the connection is in its autocommit mode.
    options = connection.get_execution_options()
    if options.get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_WRITE) else "BEGIN")


class _Connections:
    """Opens and closes connections, each of which has a thread of its own."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self) -> aiosqlite.Connection:
        """Open a connection, once fewer than the most are open."""
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                await self._free.acquire()
        except TimeoutError as error:
            raise DatabaseBusyError(
                f"All {_CONNECTIONS} connections for sessions were in use for {_OPEN_SECONDS:.0f} "
                "seconds. Keep sessions short, and do not open one inside another."
            ) from error
        connection = _Aiosqlite(self._connect, _ROWS_A_READ)
        # A session that is never closed must not keep the interpreter from ending.
        connection._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy does; there is no option
        opening = asyncio.ensure_future(_opened(connection))
        try:
            # aiosqlite forgets a connection whose opening is cancelled: let it come, then close it.
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._close_soon(self._close_opened(opening))
            raise
        except BaseException:
            self._free.release()
            raise

    async def close(self, connection: aiosqlite.Connection) -> None:
        """Close a connection; an open transaction is rolled back."""
        try:
            # Closing alone would leave it open as long as somebody has a cursor, such as an error.
            with contextlib.suppress(Exception):  # It is closed all the same.
                await connection.rollback()
            await connection.close()
        finally:
            self._free.release()

    async def abandon(self, connection: aiosqlite.Connection) -> None:
        """Stop what a connection is doing and close it, not waiting long for that."""
        closing = self._close_soon(self.close(connection))
        await connection.interrupt()
        await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)

    async def wait_closed(self) -> None:
        """Wait until no connection is closing any more."""
        while self._closing:
            await asyncio.wait(self._closing)

    async def _close_opened(self, opening: asyncio.Future[aiosqlite.Connection]) -> None:
        await asyncio.wait({opening})
        if opening.cancelled() or opening.exception() is not None:
            self._free.release()
        else:
            await self.close(opening.result())

    def _close_soon(self, closing: Awaitable[None]) -> asyncio.Task[None]:
        # The end of the event loop cancels its tasks; a connection is closed all the same.
        task = asyncio.create_task(finish(closing))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task


class _Aiosqlite(aiosqlite.Connection):
    """A connection whose log does not quote the parameters of statements."""

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # As aiosqlite does it but for the kind of partial, which is logged as it is written.
        if not self._running or not self._connection:
            raise ValueError("Connection closed")
        future = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, _Quiet(fn, *args, **kwargs)))
        return await future


class _Quiet(partial[Any]):
    """A call that is written without its arguments.

    It has no frame of Python's, which the traceback of an error would keep, and with it a cursor:
    a connection that is closed lives, and holds its locks, as long as one of its cursors.
    """

    def __repr__(self) -> str:
        return f"<a call of {getattr(self.func, '__name__', 'the connection')}>"


async def _opened(connection: aiosqlite.Connection) -> aiosqlite.Connection:
    try:
        return await connection
    except BaseException:
        # The thread has been told to end, but it still reports to the event loop, which may close.
        await asyncio.to_thread(connection._thread.join)  # noqa: SLF001 - there is no method
        raise


class _Driver(AsyncAdapt_aiosqlite_dbapi):
    """The driver as SQLAlchemy sees it: the backend opens, the errors are the module's."""

    def __init__(self, connections: _Connections, driver: ModuleType) -> None:
        self._connections = connections
        super().__init__(aiosqlite, driver)

    def _init_dbapi_attributes(self) -> None:
        super()._init_dbapi_attributes()
        # SQLAlchemy takes these from aiosqlite, whose are always those of the standard module.
        for name in (
            "DatabaseError",
            "Error",
            "IntegrityError",
            "NotSupportedError",
            "OperationalError",
            "ProgrammingError",
            "sqlite_version",
            "sqlite_version_info",
        ):
            setattr(self, name, getattr(self.sqlite, name))

    def connect(self, *_arguments: Any, **_options: Any) -> AsyncAdapt_aiosqlite_connection:
        """Open a connection; where it leads is the backend's to say."""
        return _Connection(self, await_(self._connections.open()), self._connections)


class _Connection(AsyncAdapt_aiosqlite_connection):
    """A connection as SQLAlchemy sees it."""

    __slots__ = ("_connections",)

    _connection: Any

    def __init__(
        self, driver: _Driver, connection: aiosqlite.Connection, connections: _Connections
    ) -> None:
        super().__init__(driver, cast("Any", connection))
        self._connections = connections

    @property
    def isolation_level(self) -> str | None:
        """None, whatever SQLAlchemy sets: `_begin` begins the transactions, never the driver."""
        return None

    @isolation_level.setter
    def isolation_level(self, value: str | None) -> None:
        pass

    def close(self) -> None:
        """Close it, whole."""
        await_(finish(self._connections.close(self._connection)))

    def terminate(self) -> None:
        """Close it after a cancelled or broken call."""
        if in_greenlet():
            await_(self._connections.abandon(self._connection))
        else:
            # The garbage collector found it: there is no loop to wait in.
            self._connection.stop()
