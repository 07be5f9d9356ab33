"""LangGraph's stores, which remember values under a key of a namespace."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from benchmarks import stock
from benchmarks.bare_sqlite import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


class Remembering(Protocol):
    """A store of values. Ways take the number of the item."""

    async def fill(self, span: range) -> None:
        """Store items that are not there yet."""

    async def put(self, n: int) -> Any:
        """Store an item; acknowledged."""

    async def read(self, n: int) -> Any:
        """Read an item."""


def _rows(span: range) -> Iterator[tuple[str, str, str]]:
    for n in span:
        session, key = stock.address(n)
        yield session, key, json.dumps(stock.value(n))


class _LangGraph:
    """What both stores have in common."""

    def __init__(self, store: Any, connection: Any) -> None:
        self._store = store
        self._connection = connection

    async def put(self, n: int) -> Any:
        """See `Remembering`."""
        session, key = stock.address(n)
        await self._store.aput((session,), key, stock.value(n))

    async def read(self, n: int) -> Any:
        """See `Remembering`."""
        session, key = stock.address(n)
        return await self._store.aget((session,), key)

    async def check(self, n: int) -> None:
        """See that what `fill` has stored is what the store reads."""
        item = await self.read(n)
        if item is None or item.value != stock.value(n):
            raise RuntimeError("LangGraph does not find what was stored for it.")


class LangGraphSqlite(_LangGraph):
    """AsyncSqliteStore; in WAL, which it does not choose by itself and is slower without."""

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, file: Path) -> AsyncIterator[LangGraphSqlite]:
        """Make a file."""
        from langgraph.store.sqlite import AsyncSqliteStore

        async with connected(file) as connection, AsyncSqliteStore(connection) as store:
            await store.setup()
            yield cls(store, connection)

    async def fill(self, span: range) -> None:
        """See `Remembering`; into its table, as its own way would take half an hour."""
        for start in range(span.start, span.stop, stock.BATCH):
            batch = range(start, min(start + stock.BATCH, span.stop))
            await self._connection.execute("BEGIN")
            await self._connection.executemany(
                "INSERT INTO store (prefix, key, value) VALUES (?, ?, ?)", list(_rows(batch))
            )
            await self._connection.execute("COMMIT")
        await self._connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        await self.check(span.start)


class LangGraphPostgres(_LangGraph):
    """AsyncPostgresStore on one connection, which is faster for one task than a pool."""

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator[LangGraphPostgres]:
        """Make its tables in an empty database."""
        from langgraph.store.postgres import AsyncPostgresStore

        connection = await asyncpg.connect(url)
        try:
            async with AsyncPostgresStore.from_conn_string(url) as store:
                await store.setup()
                yield cls(store, connection)
        finally:
            await connection.close()

    async def fill(self, span: range) -> None:
        """See `Remembering`; by COPY into its table."""
        await self._connection.copy_records_to_table(
            "store", columns=["prefix", "key", "value"], records=_rows(span)
        )
        await self._connection.execute("VACUUM ANALYZE store")
        await self.check(span.start)
