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
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

from paracle_meta.exceptions import DatabaseConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_CONNECTIONS: Final = 8
"""One writer for each of the six files, which can all write at once, and two readers besides."""


class Worker:
    """A thread with a connection, opened when it is first needed."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._connection: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="paracle-meta-sqlite")
        _workers.add(self)

    def submit(self, work: Callable[[Any], T]) -> Future[T]:
        """Run the work in the thread."""
        return self._thread.submit(self._run, work)

    def _run(self, work: Callable[[Any], T]) -> T:
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
        closed = self._thread.submit(self._close)
        self._thread.shutdown(wait=False)
        return closed

    def rest(self) -> None:
        """Close the connection until it is needed again; waits for the work that runs."""
        self._thread.submit(self._close).result()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_workers: Final[WeakSet[Worker]] = WeakSet()


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

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
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
        future = worker.submit(work)
        answer = asyncio.wrap_future(future)
        try:
            # Unlike `shield`, it does not log the error of work that nobody waits for any more.
            await asyncio.wait({answer})
        except asyncio.CancelledError:
            worker.interrupt()
            answer.add_done_callback(_ignore)
            raise
        finally:
            if future.done():
                self._give_back(worker, afterwards)
            else:
                future.add_done_callback(partial(self._give_back_later, worker, afterwards, loop))
        return answer.result()

    def _take(self) -> Worker:
        if self._idle:
            return self._idle.pop()
        worker = Worker(self._connect)
        self._all.append(worker)
        return worker

    def _give_back_later(
        self,
        worker: Worker,
        afterwards: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        _: Future[Any],
    ) -> None:
        # A loop that was closed meanwhile took the pool's users with it.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._give_back, worker, afterwards)

    def _give_back(self, worker: Worker, afterwards: Callable[[], None]) -> None:
        self._idle.append(worker)
        self._places.release()
        afterwards()

    async def close(self) -> None:
        """Close every connection, after the work that runs. Safe to repeat."""
        self._closed = True
        workers, self._all, self._idle = self._all, [], []
        # Begun for all before anything is waited for: whoever is cancelled leaves none open.
        self._closing += [worker.close() for worker in workers]
        if self._closing:
            await asyncio.wait([asyncio.wrap_future(closed) for closed in self._closing])


def _nothing() -> None:
    """Do nothing."""


def _ignore(answer: asyncio.Future[Any]) -> None:
    """Take notice of an answer, so that its error is not reported as forgotten."""
    if not answer.cancelled():
        answer.exception()
