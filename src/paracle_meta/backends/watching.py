"""Long work in a thread, which hears that it shall stop and tells how far it is."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from paracle_meta.backends.backups import Progress

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - it is no error
    """The caller was cancelled. Never reaches a user: asyncio's own error does."""


async def in_thread(work: Callable[[Watcher], T], progress: Progress | None) -> T:
    """Do the work in a thread; where the caller is cancelled, it ends first.

    What the work returned then, or raised, nobody hears.
    """
    watcher = Watcher(progress, asyncio.get_running_loop())
    running = asyncio.ensure_future(asyncio.to_thread(work, watcher))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        watcher.stop.set()
        await asyncio.wait({running})
        # Else it is reported as an error that nobody has asked for.
        if not running.cancelled():
            running.exception()
        raise


class Watcher:
    """Hears from the event loop that work shall stop, and tells there how far it is."""

    def __init__(self, progress: Progress | None, loop: asyncio.AbstractEventLoop) -> None:
        self.stop = threading.Event()
        self._progress = progress
        self._loop = loop

    def check(self) -> None:
        """Raise `Stopped` where the caller was cancelled."""
        if self.stop.is_set():
            raise Stopped

    def tell(self, what: str, done: int, total: int) -> None:
        """Tell how far the work is."""
        if self._progress is not None:
            self._loop.call_soon_threadsafe(self._progress, what, done, total)
