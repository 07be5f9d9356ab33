"""Cancelling a task at exactly one of its awaits, and seeing what it has left behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from tests.faults.places import NAMES, attached

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sequence

    from tests.faults.places import Place

DESCRIPTORS: Final = Path("/proc/self/fd")
"""The open files of this process, on Linux."""

END_SECONDS: Final = 5.0
"""How long a server may take to notice that a client has left, or a thread to end."""


class CancelledAt:
    """Awaits a coroutine, and cancels the task just as it comes to wait for the so-manieth time.

    Attributes:
        reached: Whether it came to wait that often.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], wait: int) -> None:
        self._work = work
        self._wait = wait
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        for wait in itertools.count():
            try:
                future = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as stop:
                return stop.value
            error = None
            if wait == self._wait:
                self.reached = True
                task.cancel()  # It arrives at the future that is yielded next.
            try:
                yield future
            except BaseException as thrown:  # noqa: BLE001 - passed on to the coroutine
                error = thrown

    async def run(self) -> bool:
        """Run it in a task of its own and return whether it was cancelled."""

        async def awaiting() -> None:
            await self

        task = asyncio.create_task(awaiting())
        await asyncio.wait({task})
        if task.cancelled():
            return True
        task.result()  # Raises what the work has raised.
        return False


def our_threads() -> list[str]:
    """Return the names of threads that hold a connection to SQLite."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("paracle-meta") or "aiosqlite" in repr(thread)
    ]


def open_files(place: Place) -> list[str]:
    """Return the files of the database that this process has open."""
    if not DESCRIPTORS.exists():
        return []
    found = []
    for descriptor in DESCRIPTORS.iterdir():
        try:
            found.append(str(descriptor.readlink()))
        except FileNotFoundError:  # The one with which the folder itself was read.
            continue
    return [path for path in found if path.startswith(str(place.folder))]


def assert_no_locks(place: Place) -> None:
    """See that nobody holds a transaction or a lock, while connections may be open."""
    if place.server is None:
        with closing(attached(place.folder, timeout=1.0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for name in NAMES:
                connection.execute(f"UPDATE {name} SET id = id WHERE 0")
            connection.execute("ROLLBACK")
        with FileLock(place.folder / ".migrate.lock", timeout=1.0):
            return
    quiet(
        place,
        "SELECT state, query FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND state <> 'idle'"
        " UNION ALL SELECT 'lock', locktype FROM pg_locks WHERE database = (SELECT oid FROM"
        " pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()",
    )


def assert_nothing_open(place: Place) -> None:
    """See that no connection, thread or file is left."""
    if place.server is None:
        none_left(our_threads)  # One that has said its last word may not have ended yet.
        assert open_files(place) == []
        return
    quiet(
        place,
        "SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()",
    )


def quiet(place: Place, query: str) -> None:
    """See that a query about the server's activity comes to return nothing."""
    none_left(lambda: place.rows(query))


def none_left(what: Callable[[], Sequence[Any]]) -> None:
    """See that nothing is left of something soon: who ends it does not wait for it."""
    end = time.monotonic() + END_SECONDS
    while left := what():
        assert time.monotonic() < end, left
        time.sleep(0.01)  # There is no event to wait for.


def descriptors() -> int:
    """Return how many files this process has open."""
    return len(os.listdir(DESCRIPTORS)) if DESCRIPTORS.exists() else 0  # noqa: PTH208 - counted
