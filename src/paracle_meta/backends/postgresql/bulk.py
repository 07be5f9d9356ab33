"""A PostgreSQL database as a whole."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from paracle_meta.backends.postgresql.bulk_vectors import VectorsApart, VectorsWithin
from paracle_meta.backends.postgresql.loading import PostgresLoading, Run
from paracle_meta.backends.postgresql.snapshot import PostgresSnapshot, snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.postgresql.pool import PostgresPool
    from paracle_meta.backends.postgresql.setup import PostgresSetup
    from paracle_meta.backends.statements import Statements

T = TypeVar("T")


class PostgresBulk:
    """See `bulk.Bulk`, which is the contract of every method."""

    def __init__(
        self,
        setup: PostgresSetup,
        space: VectorSpace | None,
        statements: Statements,
        pool: PostgresPool,
        run: Run,
    ) -> None:
        """Prepare.

        Args:
            setup: Provisions, and translates errors.
            space: The vectors of the settings, or None where they are switched off.
            statements: Of all tables.
            pool: Lends connections for as long as a block lasts.
            run: Lends them for one piece of work.
        """
        self._setup = setup
        self._space = space
        self._statements = statements
        self._pool = pool
        self._run = run

    @contextlib.asynccontextmanager
    async def snapshot(self, *, repair: bool = False) -> AsyncIterator[PostgresSnapshot]:
        """See `bulk.Bulk`."""
        del repair  # There is nothing to.
        async with self._connection() as connection, snapshot(connection, self._setup) as taken:
            yield taken

    @contextlib.asynccontextmanager
    async def loading(self, *, whole: bool = False) -> AsyncIterator[PostgresLoading]:
        """See `bulk.Bulk`."""
        if not whole:
            yield PostgresLoading(self._statements, self._run, self._vectors_apart())
            return
        async with self._connection() as connection:
            with self._setup.translated():
                transaction = connection.transaction()
                await transaction.start()
            try:
                yield self._within(connection)
            except BaseException:
                with self._setup.translated():
                    if not connection.is_closed():
                        await transaction.rollback()
                raise
            with self._setup.translated():
                await transaction.commit()
        # Columns may have been made anew.
        self._pool.expire()

    def _vectors_apart(self) -> VectorsApart | None:
        if self._space is None:
            return None
        return VectorsApart(self._setup, self._space, self._pool.expire)

    def _within(self, connection: Any) -> PostgresLoading:
        turn = asyncio.Lock()

        async def run(work: Callable[[Any], Awaitable[T]], *, repeatable: bool = True) -> T:
            del repeatable  # What came before would be lost.
            with self._setup.translated():
                async with turn:
                    return await work(connection)

        within = VectorsWithin(self._setup.settings)
        return PostgresLoading(self._statements, run, within if self._space else None)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        with self._setup.translated():
            connection = await self._pool.acquire_for_session()
        try:
            yield connection
        finally:
            with self._setup.translated():
                await self._pool.release(connection)
