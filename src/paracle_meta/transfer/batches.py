"""What a copy in batches needs: some of them on their way, and ids that wait for their turn."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from types import TracebackType

IN_MEMORY: Final = 8 * 1024**2
"""Bytes of ids kept in memory: some 250,000 ids."""


AT_ONCE: Final = 3
"""Batches that are stored at the same time: where a server stores them it has several processors,
and Python makes the next batch ready meanwhile. More are not faster, and each takes some MB."""


class SetAside:
    """Ids for later: in memory while they are few, else in a file that nobody else sees."""

    def __init__(self) -> None:
        self.total = 0
        self._file = SpooledTemporaryFile(  # noqa: SIM115 - closed in __exit__
            IN_MEMORY, "w+", encoding="utf-8"
        )

    def add(self, ids: Sequence[str]) -> None:
        """Take ids in."""
        if ids:
            self.total += len(ids)
            self._file.write(f"{json.dumps(ids)}\n")

    def __iter__(self) -> Iterator[list[str]]:
        """Give back what was taken in, in the same portions; nothing is taken in afterwards."""
        self._file.seek(0)
        yield from map(json.loads, self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


class Behind:
    """Runs a few pieces of work while the next one is made ready."""

    def __init__(self) -> None:
        self._tasks: deque[asyncio.Task[None]] = deque()

    async def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a piece of work once there is room; the error of an earlier one is raised here."""
        try:
            while len(self._tasks) >= AT_ONCE:
                await self._tasks.popleft()
        except BaseException:
            work.close()
            raise
        self._tasks.append(asyncio.create_task(work))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            while self._tasks and error is None:
                await self._tasks.popleft()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
