"""The PostgreSQL backend: an asyncpg pool, which owns every connection.

Repository calls are single statements wherever that is possible, and each is safe to repeat by id.
A connection that is lost, or leads to a server that was demoted, is replaced and a call that is
safe to repeat is made once more; any other error is the caller's to see.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from paracle_meta import schema
from paracle_meta.backends import rows as row_rules
from paracle_meta.backends.base import CostGroup, RatedGeneration, Stored
from paracle_meta.backends.postgresql import inserting
from paracle_meta.backends.postgresql import text as postgresql_text
from paracle_meta.backends.postgresql.backup import PostgresBackups
from paracle_meta.backends.postgresql.bulk import PostgresBulk
from paracle_meta.backends.postgresql.dialect import PostgresDialect
from paracle_meta.backends.postgresql.errors import (
    DRIVER_ERRORS,
    is_lost,
    is_undone,
    is_wrong_width,
    translate,
)
from paracle_meta.backends.postgresql.pool import PostgresPool
from paracle_meta.backends.postgresql.retention import PostgresRetention
from paracle_meta.backends.postgresql.search import PostgresCollections
from paracle_meta.backends.postgresql.setup import PostgresSetup
from paracle_meta.backends.postgresql.vectors import check_stored
from paracle_meta.backends.statements import Query, Statements
from paracle_meta.exceptions import DatabaseConnectionError, MigrationError, QueryError
from paracle_meta.filters import Condition, Operator
from paracle_meta.migrations import refuse_newer
from paracle_meta.records import utc_now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from paracle_meta.backends.base import DatabaseStatus, Values
    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.postgresql.session import PostgresSessions
    from paracle_meta.backends.session import MetaSession
    from paracle_meta.config import DatabaseSettings
    from paracle_meta.exceptions import ParacleMetaError
    from paracle_meta.records import MemoryItem
    from paracle_meta.schema import Table

R = TypeVar("R")
T = TypeVar("T")


class PostgresBackend:
    """See `base.Backend`, which is the contract of every method."""

    def __init__(self, settings: DatabaseSettings, space: VectorSpace | None) -> None:
        self._settings = settings
        self._space = space
        self._setup = PostgresSetup(settings, space)
        self._place = self._setup.place
        self._statements = Statements(PostgresDialect())
        self._pool: PostgresPool | None = None
        self._sessions: PostgresSessions | None = None
        self._collections = PostgresCollections(
            self._setup, self._statements, self._run_with_vectors
        )

    @property
    def collections(self) -> PostgresCollections:
        """See `base.Backend`."""
        return self._collections

    @property
    def bulk(self) -> PostgresBulk:
        """See `base.Backend`."""
        return PostgresBulk(self._setup, self._space, self._statements, self._open(), self._run)

    @property
    def backups(self) -> PostgresBackups:
        """See `base.Backend`."""
        return PostgresBackups(self._setup)

    @property
    def retention(self) -> PostgresRetention:
        """See `base.Backend`."""
        return PostgresRetention(self._setup, self._statements, self._run)

    # Life

    async def open(self) -> None:
        """See `base.Backend`."""
        state = await self._setup.look()
        refuse_newer([state.revision])
        if not state.is_current:
            if not self._settings.auto_migrate:
                raise MigrationError(
                    f"The schema at {self._place} is missing or not migrated and auto_migrate is "
                    "off; run `paracle meta db migrate`, or print its SQL with --sql."
                )
            await self.migrate()
            state = await self._setup.look()
        arguments = self._setup.arguments(state)
        pool = PostgresPool(self._settings, self._setup.hosts, arguments, self._place)
        with self._setup.translated():
            await pool.open()
        self._pool = pool

    async def close(self) -> None:
        """See `base.Backend`."""
        pool, self._pool = self._pool, None
        sessions, self._sessions = self._sessions, None
        if sessions is not None:
            await sessions.close()
        if pool is not None:
            await pool.close()

    async def migrate(self) -> list[str]:
        """See `base.Backend`."""
        return await self._setup.migrate()

    def migration_sql(self) -> str:
        """See `base.Backend`."""
        return self._setup.migration_sql()

    async def status(self) -> DatabaseStatus:
        """See `base.Backend`."""
        return await self._setup.status()

    def session(self, *, write: bool = False) -> AbstractAsyncContextManager[MetaSession]:
        """See `base.Backend`."""
        if self._sessions is None:
            from paracle_meta.backends.postgresql.session import PostgresSessions

            pool = self._open()

            async def lend() -> Any:
                with self._setup.translated():
                    return await pool.acquire_for_session()

            def typed(error: BaseException) -> ParacleMetaError | None:
                pool.notice(error)
                return translate(error, self._place)

            prepares = not self._settings.transaction_pooling
            self._sessions = PostgresSessions(lend, pool.release, typed, prepares=prepares)
        return self._sessions.session(write=write)

    # Records

    async def insert(self, table: Table[R], rows: Sequence[Values]) -> Stored[R]:
        """See `base.Backend`."""
        words = await postgresql_text.words_of(table, rows) if table.searched else []
        return await self._run_with_vectors(
            partial(inserting.insert, self._statements, table, rows, words)
        )

    async def get(self, table: Table[R], record_id: str, *, with_vector: bool = False) -> R | None:
        """See `base.Backend`."""
        statements = self._statements.of(table)
        sql = statements.get_with_vector if with_vector else statements.get
        row = await self._run(lambda connection: connection.fetchrow(sql, record_id))
        if row is None:
            return None
        if not with_vector or row[-1] is None:
            return statements.record(row)
        return statements.record(row, embedding=row[-1])

    async def select(
        self,
        table: Table[R],
        conditions: Sequence[Condition],
        *,
        limit: int,
        after: str | None = None,
    ) -> list[R]:
        """See `base.Backend`."""
        statements = self._statements.of(table)

        async def work(connection: Any) -> list[R]:
            position = None
            if after is not None:
                created_at = await connection.fetchval(statements.position, after)
                if created_at is None:
                    raise row_rules.not_on_page(table, after)
                position = (created_at, after)
            query, parameters = statements.select(conditions, limit, position)
            return [statements.record(row) for row in await connection.fetch(query, *parameters)]

        return await self._run(work)

    async def count(self, table: Table[Any], conditions: Sequence[Condition]) -> int:
        """See `base.Backend`."""
        ((number,),) = await self._fetch(self._statements.of(table).count(conditions))
        return int(number)

    async def update(
        self,
        table: Table[R],
        record_id: str,
        changes: Values,
        *,
        unchanged_since: datetime | None = None,
    ) -> R | None:
        """See `base.Backend`."""
        statements = self._statements.of(table)
        query, parameters = statements.update(
            record_id, changes, row_rules.unchanged(table, unchanged_since)
        )

        async def work(connection: Any) -> R | None:
            if not table.searched:
                row = await connection.fetchrow(query, *parameters)
                return None if row is None else statements.record(row)
            async with connection.transaction():
                if model := changes.get("embedding_model"):
                    await check_stored(statements, model, connection)
                row = await connection.fetchrow(query, *parameters)
                if row is not None and not changes.keys().isdisjoint(table.searched):
                    words = await postgresql_text.words_of(table, [row])
                    await postgresql_text.store(table, words, connection)
                return None if row is None else statements.record(row)

        return await self._run_with_vectors(work)

    async def increment(self, table: Table[R], record_id: str, column: str) -> R | None:
        """See `base.Backend`."""
        statements = self._statements.of(table)
        sql = statements.increment(column)
        row = await self._run(
            lambda connection: connection.fetchrow(sql, utc_now(), record_id), repeatable=False
        )
        return None if row is None else statements.record(row)

    async def delete(self, table: Table[Any], record_id: str, *, cascade: bool = False) -> bool:
        """See `base.Backend`."""
        return await self._run(partial(self._delete, table, record_id, cascade), repeatable=False)

    async def _delete(
        self, table: Table[Any], record_id: str, cascade: bool, connection: Any
    ) -> bool:
        sql = self._statements.of(table).delete
        children = schema.referencing(table)
        try:
            async with connection.transaction():
                if cascade and children:
                    # Holds off those who would refer to it until it is gone.
                    await connection.execute(
                        f"SELECT 1 FROM {table.name} WHERE id = $1 FOR UPDATE", record_id
                    )
                    for child, column in children:
                        mine = (Condition(column, Operator.EQ, record_id),)
                        query, parameters = self._statements.of(child).delete_where(mine)
                        await connection.execute(query, *parameters)
                return await connection.fetchval(sql, record_id) is not None
        except asyncpg.ForeignKeyViolationError as error:
            raise row_rules.in_use(table, children[0][0]) from error

    async def delete_where(self, table: Table[Any], conditions: Sequence[Condition]) -> int:
        """See `base.Backend`."""
        query, parameters = self._statements.of(table).delete_where(conditions)
        tag = await self._run(
            lambda connection: connection.execute(query, *parameters), repeatable=False
        )
        return int(tag.rpartition(" ")[2])

    # Single kinds

    async def put_memory(self, values: Values, now: datetime) -> MemoryItem:
        """See `base.Backend`."""
        statements = self._statements.of(schema.MEMORY)
        parameters = [*statements.encode(values, statements.columns), now]
        sql = self._statements.put_memory
        return statements.record(
            await self._run(lambda connection: connection.fetchrow(sql, *parameters))
        )

    async def get_memory(
        self, scope: str, session_id: str | None, key: str, now: datetime
    ) -> MemoryItem | None:
        """See `base.Backend`."""
        rows = await self._fetch((self._statements.get_memory, [scope, session_id or "", key, now]))
        return self._statements.of(schema.MEMORY).record(rows[0]) if rows else None

    async def delete_memory(
        self, scope: str, session_id: str | None, key: str, now: datetime
    ) -> bool:
        """See `base.Backend`."""
        sql = self._statements.delete_memory
        deleted = await self._run(
            lambda connection: connection.fetchval(sql, scope, session_id or "", key, now),
            repeatable=False,
        )
        return deleted is not None

    async def cost_groups(self, conditions: Sequence[Condition]) -> list[CostGroup]:
        """See `base.Backend`."""
        rows = await self._fetch(self._statements.cost_groups(conditions))
        return [CostGroup(*row) for row in rows]

    async def qualified_generations(
        self, *, min_ratings: int, min_average: float, min_quality: float
    ) -> list[RatedGeneration]:
        """See `base.Backend`."""
        parameters = [min_ratings, min_average, min_quality]
        rows = await self._fetch((self._statements.qualified_generations, parameters))
        return [RatedGeneration(*row) for row in rows]

    # Connections

    def _open(self) -> PostgresPool:
        if self._pool is None:
            raise DatabaseConnectionError("This MetaDatabase is closed.")
        return self._pool

    async def _run(self, work: Callable[[Any], Awaitable[T]], *, repeatable: bool = True) -> T:
        pool = self._open()
        with self._setup.translated():
            try:
                async with pool.connection() as connection:
                    return await work(connection)
            except DRIVER_ERRORS as error:
                if not (is_undone(error) or (repeatable and is_lost(error))):
                    raise
            async with pool.connection() as connection:
                return await work(connection)

    async def _run_with_vectors(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await self._run(work)
        except QueryError as error:
            if not is_wrong_width(error.__cause__):
                raise
        # The last vector of another model is gone, so its column can become this model's.
        if not self._settings.auto_migrate:
            raise MigrationError(
                f"The vector column at {self._place} is as wide as another model's vectors and "
                "auto_migrate is off; run `paracle meta db migrate`."
            )
        await self.migrate()
        self._open().expire()
        return await self._run(work)

    async def _fetch(self, query: Query) -> list[Any]:
        sql, parameters = query
        rows: list[Any] = await self._run(lambda connection: connection.fetch(sql, *parameters))
        return rows
