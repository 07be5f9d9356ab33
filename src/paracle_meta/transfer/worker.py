"""A thread for what would hold up the event loop: files, compression, and the making of text."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

T = TypeVar("T")

PATIENCE: Final = 1.0
"""Seconds a cancelled caller waits for the thread: a file is closed long before, and a write to a
pipe that nobody reads may never end."""


class Worker:
    """One thread that does one call after another.

    What a cancelled caller had begun is finished before anything else is done, so a file is never
    closed while it is written. It is not asyncio's own pool, for whose threads the end of the
    event loop waits: one may be stuck in a pipe that nobody reads.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="paracle_meta-transfer")

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Return what a function returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    @contextlib.asynccontextmanager
    async def entered(self, context: AbstractContextManager[T]) -> AsyncIterator[T]:
        """Enter and leave a context in the thread."""
        try:
            entered = await self.run(context.__enter__)
        except asyncio.CancelledError as error:
            # The thread may have entered it all the same.
            await self._leave(context, error)
            raise
        try:
            yield entered
        except asyncio.CancelledError as error:
            await self._leave(context, error)
            raise
        except BaseException as error:
            if not await self.run(context.__exit__, type(error), error, error.__traceback__):
                raise
        else:
            await self.run(context.__exit__, None, None, None)

    async def _leave(self, context: AbstractContextManager[Any], error: BaseException) -> None:
        left = self.run(context.__exit__, type(error), error, error.__traceback__)
        await asyncio.wait([asyncio.gather(left, return_exceptions=True)], timeout=PATIENCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=False)
