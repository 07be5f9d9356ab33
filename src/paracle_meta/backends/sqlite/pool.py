"""Connections to SQLite, each in a thread of its own, lent to one piece of work at a time.

A piece of work is a function that runs from start to end in the connection's thread. A whole
transaction is one piece, so cancelling the caller never leaves one half done, and a call crosses
between the event loop and the thread once and not once a statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import weakref
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from paracle_meta.exceptions import DatabaseConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_CONNECTIONS: Final = 8
"""One writer for each of the six files, which can all write at once, and two readers besides."""


class Worker:
    """A thread with a connection, opened when it is first needed.

    Not an executor: what goes to the thread and back with every call takes half the time here.
    """

    def __init__(self, connect: Callable[[], Any], is_current: Callable[[Any], bool]) -> None:
        self._connect = connect
        self._is_current = is_current
        self._connection: Any = None
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A program that ends without closing is not held up: what it has not been told is done is
        # undone by SQLite. And a worker that nobody has any more ends its thread.
        threading.Thread(
            target=_serve, args=(self._tasks,), name="paracle-meta-sqlite", daemon=True
        ).start()
        weakref.finalize(self, self._tasks.put, None)
        _workers.add(self)

    def submit(
        self, work: Callable[[Any], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """Run the work in the thread, and there call `done` with what it returned or raised."""
        self._tasks.put(partial(self._run, work, done))

    def _run(
        self, work: Callable[[Any], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        try:
            result = self._work(work)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the work raises it
            done(None, error)
        else:
            done(result, None)

    def _work(self, work: Callable[[Any], T]) -> T:
        if self._connection is not None and not self._is_current(self._connection):
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = self._connect()
        try:
            return work(self._connection)
        finally:
            if self._connection.in_transaction:
                self._connection.rollback()

    def interrupt(self) -> None:
        """Stop the statement that runs now, if any."""
        if self._connection is not None:
            self._connection.interrupt()

    def close(self) -> Future[None]:
        """Let the work that runs be the last one, and say when the connection is closed."""
        _workers.discard(self)
        closed = self.rest_soon()
        self._tasks.put(None)
        return closed

    def rest(self) -> None:
        """Close the connection until it is needed again; waits for the work that runs."""
        self.rest_soon().result()

    def rest_soon(self) -> Future[None]:
        """Close the connection after the work that runs, and say when it is."""
        closed: Future[None] = Future()
        self._tasks.put(partial(self._close, closed))
        return closed

    def _close(self, closed: Future[None]) -> None:
        try:
            if self._connection is not None:
                self._connection.close()
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            closed.set_exception(error)
        else:
            closed.set_result(None)
        self._connection = None


class LoopConnection:
    """A connection for the event loop's own thread, for what takes less than going to another.

    It waits for nobody: where a file is locked, a statement fails at once.
    """

    def __init__(
        self, connect: Callable[[], Any], is_current: Callable[[Any], bool] | None = None
    ) -> None:
        self._connect = connect
        self._is_current = is_current or _always
        self._connection: Any = None
        self._wanted = False
        self._closed = False
        # Whoever forks closes it, in whatever thread that is.
        self._lock = threading.Lock()
        _workers.add(self)

    @property
    def is_open(self) -> bool:
        """Whether `run` can be called."""
        return self._connection is not None

    async def open(self) -> None:
        """Open it, in a thread, as opening may wait for a lock; it is wanted from the second on.

        Who asks once and ends, as a command does, has no use for another connection.
        """
        self._wanted, was_wanted = True, self._wanted
        if not was_wanted:
            return
        connection = await asyncio.to_thread(self._connect)
        if connection is None:  # There is none to be kept now.
            return
        connection.execute("PRAGMA busy_timeout = 0")
        with self._lock:
            if self._closed or self._connection is not None:
                connection.close()
            else:
                self._connection = connection

    def run(self, work: Callable[[Any], T]) -> T | None:
        """Do the work now and return what it returns; None where it was closed meanwhile."""
        with self._lock:
            if self._connection is not None and not self._is_current(self._connection):
                self._connection.close()
                self._connection = None
            return None if self._connection is None else work(self._connection)

    def rest(self) -> None:
        """Close the connection until it is opened again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def close(self) -> None:
        """Close the connection for good."""
        self._closed = True
        self.rest()


_workers: Final[weakref.WeakSet[Worker | LoopConnection]] = weakref.WeakSet()


def _rest_before_fork() -> None:
    """Close all connections, as none may be carried across a fork.

    A child's SQLite would believe to hold the locks that only its parent holds, and a parent that
    closes would delete the write-ahead log from under it, with what the child has written
    (sqlite.org/howtocorrupt.html, section 2.6). What is not open costs a millisecond to open anew.
    """
    for worker in list(_workers):
        # When the interpreter ends, its threads take no more work.
        with contextlib.suppress(RuntimeError):
            worker.rest()


if sys.platform != "win32":
    os.register_at_fork(before=_rest_before_fork)


class WorkerPool:
    """Up to MAX_CONNECTIONS workers; the one used last is used next, as its cache is warm."""

    def __init__(
        self, connect: Callable[[], Any], is_current: Callable[[Any], bool] | None = None
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            connect: Opens a connection.
            is_current: Whether a connection may be lent again; None for all.
        """
        self._connect = connect
        self._is_current = is_current or _always
        self._idle: list[Worker] = []
        self._all: list[Worker] = []
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._closed = False
        self._closing: list[Future[None]] = []

    async def run(
        self, work: Callable[[Any], T], *, afterwards: Callable[[], None] | None = None
    ) -> T:
        """Run the work with a connection and return what it returns.

        When the caller is cancelled, a statement that only reads is stopped and one that writes is
        either finished or rolled back; the connection is lent again only afterwards.

        Args:
            work: What to do with the connection, in its thread.
            afterwards: Called once, in the event loop, when the work has ended or will not begin:
                after a cancellation that is later than the caller's own end.

        Raises:
            DatabaseConnectionError: The pool is closed.
        """
        afterwards = afterwards or _nothing
        try:
            await self._places.acquire()
        except BaseException:
            afterwards()
            raise
        if self._closed:
            self._places.release()
            afterwards()
            raise DatabaseConnectionError("This MetaDatabase is closed.")
        loop = asyncio.get_running_loop()
        worker = self._take()
        answer: asyncio.Future[T] = loop.create_future()
        deliver = partial(self._deliver, worker, afterwards, answer)
        worker.submit(work, partial(_call_in, loop, deliver))
        try:
            return await answer
        except asyncio.CancelledError:
            # Not where the answer has come, as the worker may have other work by now.
            if answer.cancelled():
                worker.interrupt()
            raise

    def _take(self) -> Worker:
        if self._idle:
            return self._idle.pop()
        worker = Worker(self._connect, self._is_current)
        self._all.append(worker)
        return worker

    def _deliver(
        self,
        worker: Worker,
        afterwards: Callable[[], None],
        answer: asyncio.Future[T],
        result: T,
        error: BaseException | None,
    ) -> None:
        self._idle.append(worker)
        self._places.release()
        afterwards()
        # The error of work that nobody waits for any more is nobody's.
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    async def close(self) -> None:
        """Close every connection, after the work that runs. Safe to repeat."""
        self._closed = True
        workers, self._all, self._idle = self._all, [], []
        # Begun for all before anything is waited for: whoever is cancelled leaves none open.
        self._closing += [worker.close() for worker in workers]
        if self._closing:
            await asyncio.wait([asyncio.wrap_future(closed) for closed in self._closing])


def _serve(tasks: SimpleQueue[Callable[[], None] | None]) -> None:
    while (task := tasks.get()) is not None:
        task()
        # It holds the worker, which may be waiting to go.
        del task


def _always(_connection: Any) -> bool:
    return True


def _nothing() -> None:
    """Do nothing."""


def _call_in(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *values: Any) -> None:
    # A loop that was closed meanwhile took those who wait with it.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *values)
