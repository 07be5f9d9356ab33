"""A connection to SQLite that keeps its transaction between one piece of work and the next.

Those of the pool do not: what is left open there is rolled back.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from paracle_meta.exceptions import DatabaseConnectionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from paracle_meta.backends.sqlite.files import SqliteFiles

T = TypeVar("T")


class HeldConnection:
    """Runs one piece of work at a time, each in a thread of the event loop's own pool."""

    def __init__(self, files: SqliteFiles, connect: Callable[[], Any], *, reads_only: bool) -> None:
        self._files = files
        self._connect = connect
        # Stopping a statement that writes would roll back the whole transaction.
        self._may_interrupt = reads_only
        self._connection: Any = None
        self._closed = False
        self._lock = threading.Lock()

    async def open(self) -> None:
        """Connect."""
        with self._files.translated():
            await asyncio.to_thread(self._open)

    def _open(self) -> None:
        with self._lock:
            if not self._closed:
                self._connection = self._connect()

    async def run(self, work: Callable[[Any], T]) -> T:
        """Run the work and return what it returns.

        When the caller is cancelled, a connection that only reads stops; one that writes ends the
        piece of work, and only then does the next begin.

        Raises:
            DatabaseConnectionError: The block that it belongs to has ended.
        """
        with self._files.translated():
            try:
                return await asyncio.to_thread(self._run, work)
            except asyncio.CancelledError:
                if self._may_interrupt and self._connection is not None:
                    self._connection.interrupt()
                raise

    def _run(self, work: Callable[[Any], T]) -> T:
        with self._lock:
            if self._connection is None:
                raise DatabaseConnectionError("This block has ended, and its connection with it.")
            return work(self._connection)

    def close(self) -> None:
        """Roll back what is open and close, after the work that runs. Safe to repeat."""
        self._closed = True
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


@contextlib.asynccontextmanager
async def held(
    files: SqliteFiles, connect: Callable[[], Any], *, reads_only: bool
) -> AsyncIterator[HeldConnection]:
    """Hold a connection for a block.

    Args:
        files: Whose errors are translated.
        connect: Called in a thread; returns the connection.
        reads_only: Whether a statement may be stopped.
    """
    holder = HeldConnection(files, connect, reads_only=reads_only)
    try:
        await holder.open()
        yield holder
    finally:
        # In a thread, as the work of a caller that was cancelled may still run there.
        await asyncio.to_thread(holder.close)
