"""Open a database in a fresh process: ``python -m benchmarks.opening WHAT PLACE``.

Prints JSON: the milliseconds from before the first import of the library to the first answer, the
median of opening again, and which of the heavy libraries were imported by it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AGAIN = 15
"""How often it is opened again."""

HEAVY = ("alembic", "sqlalchemy")


async def ours(place: str, stack: AsyncExitStack) -> None:
    """Open an up-to-date database; its revision is read."""
    from paracle_meta import MetaDatabase

    await stack.enter_async_context(MetaDatabase(place))


async def aiosqlite(place: str, stack: AsyncExitStack) -> None:
    """Open a file, and read what ours reads."""
    import aiosqlite as driver

    connection = await stack.enter_async_context(driver.connect(place, isolation_level=None))
    await connection.execute_fetchall("PRAGMA journal_mode = WAL")
    await connection.execute_fetchall("PRAGMA synchronous = FULL")
    await connection.execute_fetchall("SELECT count(*) FROM sqlite_master")


async def asyncpg(place: str, stack: AsyncExitStack) -> None:
    """Connect and ask something."""
    import asyncpg as driver

    connection = await driver.connect(place)
    stack.push_async_callback(connection.close)
    await connection.fetchval("SELECT 1")


WAYS: dict[str, Callable[[str, AsyncExitStack], Awaitable[None]]] = {
    "ours": ours,
    "aiosqlite": aiosqlite,
    "asyncpg": asyncpg,
}


async def opened(what: str, place: str) -> float:
    """Return the milliseconds of opening; closing is not counted."""
    async with AsyncExitStack() as stack:
        began = time.perf_counter()
        await WAYS[what](place, stack)
        return 1000 * (time.perf_counter() - began)


async def main(what: str, place: str) -> dict[str, Any]:
    first = await opened(what, place)
    imported = [name for name in HEAVY if name in sys.modules]
    again = sorted([await opened(what, place) for _ in range(AGAIN)])
    return {"first_ms": first, "again_ms": again[AGAIN // 2], "imported": imported}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
