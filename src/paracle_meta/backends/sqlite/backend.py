"""The SQLite backend: a folder with one file a table.

Every call that writes does so to one file, because with a write-ahead log a transaction over
several files is atomic a file only (sqlite.org/lang_attach.html). A transaction begins with a write
to that file, never with a read that a write would follow, so it waits for its turn and is never
told that it came too late. Calls that need two files to agree (feedback and generations) lock them
in the order of `schema.TABLES`, which a session that locks all of them keeps too, and look only
afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from paracle_meta import schema
from paracle_meta.backends import rows as row_rules
from paracle_meta.backends.base import CostGroup, RatedGeneration, Stored
from paracle_meta.backends.portable import encode_time
from paracle_meta.backends.sqlite import deleting as sqlite_deleting
from paracle_meta.backends.sqlite import inserting
from paracle_meta.backends.sqlite import status as sqlite_status
from paracle_meta.backends.sqlite import text as sqlite_text
from paracle_meta.backends.sqlite.backup import SqliteBackups
from paracle_meta.backends.sqlite.bulk import SqliteBulk
from paracle_meta.backends.sqlite.dialect import SqliteDialect
from paracle_meta.backends.sqlite.driver import busy
from paracle_meta.backends.sqlite.files import SCHEMAS, SqliteFiles, lock, transaction
from paracle_meta.backends.sqlite.new_vectors import check_stored
from paracle_meta.backends.sqlite.pool import LoopConnection, WorkerPool
from paracle_meta.backends.sqlite.retention import SqliteRetention
from paracle_meta.backends.sqlite.search import SqliteCollections
from paracle_meta.backends.statements import Query, Statements
from paracle_meta.exceptions import DatabaseBusyError, MigrationError, StorageError
from paracle_meta.migrations import HEAD, refuse_newer
from paracle_meta.records import utc_now
from paracle_meta.values import vector_to_list

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from paracle_meta.backends.base import DatabaseStatus, Values
    from paracle_meta.backends.session import MetaSession
    from paracle_meta.backends.sqlite.session import SqliteSessions
    from paracle_meta.config import DatabaseSettings
    from paracle_meta.filters import Condition
    from paracle_meta.records import MemoryItem
    from paracle_meta.schema import Table

R = TypeVar("R")
T = TypeVar("T")

MIGRATION_WAIT = 120.0
"""Seconds to wait for another process that migrates; a whole history takes a few on a slow disk."""


class SqliteBackend:
    """See `base.Backend`, which is the contract of every method."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._files = SqliteFiles(
            settings.sqlite_folder,
            journal_mode=settings.journal_mode,
            busy_timeout=settings.busy_timeout,
        )
        self._statements = Statements(SqliteDialect())
        self._pool = WorkerPool(self._files.connect_to_sound, self._files.is_current)
        self._here = LoopConnection(self._files.connect_if_sound, self._files.is_current)
        # Writers of one process queue here, file by file, in the order in which they came; SQLite's
        # own waiting is for other processes and polls.
        self._turns = {table.name: asyncio.Lock() for table in schema.TABLES}
        self._wrote_at = float("-inf")
        self._sessions: SqliteSessions | None = None
        self._collections = SqliteCollections(
            self._files,
            self._statements,
            self._read,
            self._write,
            self._here,
            in_background=settings.index_in_background,
        )

    @property
    def collections(self) -> SqliteCollections:
        """See `base.Backend`."""
        return self._collections

    @property
    def bulk(self) -> SqliteBulk:
        """See `base.Backend`."""
        return SqliteBulk(self._files, self._statements, self._read, self._write)

    @property
    def backups(self) -> SqliteBackups:
        """See `base.Backend`."""
        return SqliteBackups(self._files, self._settings.busy_timeout)

    @property
    def retention(self) -> SqliteRetention:
        """See `base.Backend`."""
        return SqliteRetention(self._statements, self._collections, self._read, self._write)

    async def open(self) -> None:
        """See `base.Backend`."""
        await self._bring_up_to_date()
        # With a connection, which keeps out what another process might leave behind afterwards.
        await self._read(lambda _: self._files.sync_logs())

    async def _bring_up_to_date(self) -> None:
        await self.backups.finish()
        self._files.refuse_lost()
        if not self._files.missing:
            try:
                stamps = await self._read(sqlite_status.revisions)
            except StorageError:
                # Perhaps the page of a stamp, which nobody reads who connects.
                await asyncio.to_thread(self._files.leave_out_damaged)
                stamps = await self._read(sqlite_status.revisions)
            refuse_newer(stamps)
            if stamps == {HEAD}:
                return
            await self._read(partial(sqlite_status.refuse_emptied, self._files))
        if not self._settings.auto_migrate:
            raise MigrationError(
                f"The database in {self._files.folder} is missing or not migrated and auto_migrate "
                "is off; run `paracle meta db migrate`."
            )
        await self.migrate()

    async def close(self) -> None:
        """See `base.Backend`."""
        self._here.close()
        sessions, self._sessions = self._sessions, None
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._pool.close)
            if sessions is not None:
                closing.push_async_callback(sessions.close)
            closing.push_async_callback(self._collections.close)

    async def migrate(self) -> list[str]:
        """See `base.Backend`."""
        await self.backups.finish()
        await asyncio.to_thread(self._files.refuse_damaged)
        # Opening an up-to-date database needs none of this.
        from filelock import AsyncFileLock, Timeout

        from paracle_meta.migrations.runner import upgrade

        await asyncio.to_thread(self._files.create_folder)
        lock = AsyncFileLock(
            self._files.folder / ".migrate.lock", timeout=MIGRATION_WAIT, mode=0o600
        )
        try:
            async with lock:
                await asyncio.to_thread(self._files.create)
                return await self._session_factory().run(partial(upgrade, schemas=SCHEMAS))
        except Timeout as error:
            raise MigrationError(
                f"Another process has been migrating {self._files.folder} for over "
                f"{MIGRATION_WAIT:g} seconds; see what it does, then try again."
            ) from error

    def migration_sql(self) -> str:
        """See `base.Backend`."""
        from paracle_meta.migrations.runner import upgrade_sql

        attach = [
            f"ATTACH DATABASE '{table.name}.db' AS {SCHEMAS[table.name]};\n"
            for table in schema.TABLES[1:]
        ]
        return "".join([*attach, upgrade_sql("sqlite", SCHEMAS)])

    async def status(self) -> DatabaseStatus:
        """See `base.Backend`."""
        if self._files.missing:
            return sqlite_status.not_created(self._files)
        with_vectors = self._settings.enable_vectors
        return await self._read(partial(sqlite_status.read, self._files, with_vectors))

    def session(self, *, write: bool = False) -> AbstractAsyncContextManager[MetaSession]:
        """See `base.Backend`."""
        return self._session_factory().session(write=write)

    def _session_factory(self) -> SqliteSessions:
        if self._sessions is None:
            from paracle_meta.backends.sqlite.session import SqliteSessions

            self._sessions = SqliteSessions(
                self._files.connect_to_sound,
                driver=self._files.driver,
                translate=self._files.translate,
            )
        return self._sessions

    async def insert(self, table: Table[R], rows: Sequence[Values]) -> Stored[R]:
        """See `base.Backend`."""
        return await self._write([table], partial(inserting.insert, self._statements, table, rows))

    async def get(self, table: Table[R], record_id: str, *, with_vector: bool = False) -> R | None:
        """See `base.Backend`."""
        statements = self._statements.of(table)
        sql = statements.get_with_vector if with_vector else statements.get
        rows = await self._look_up((sql, [record_id]))
        if not rows:
            return None
        (row,) = rows
        if not with_vector or row[-1] is None:
            return statements.record(row)
        return statements.record(row, embedding=vector_to_list(row[-1]))

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

        def work(connection: Any) -> list[R]:
            position = None
            if after is not None:
                row = connection.execute(statements.position, (after,)).fetchone()
                if row is None:
                    raise row_rules.not_on_page(table, after)
                position = (row[0], after)
            rows = connection.execute(*statements.select(conditions, limit, position))
            return [statements.record(row) for row in rows]

        return await self._read(work)

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
        conditions = row_rules.unchanged(table, unchanged_since)

        def work(connection: Any) -> R | None:
            with transaction(connection):
                if model := changes.get("embedding_model"):
                    lock(connection, table)
                    check_stored(statements, model, connection)
                query = statements.update(record_id, changes, conditions)
                row = connection.execute(*query).fetchone()
                if not changes.keys().isdisjoint(table.searched):
                    sqlite_text.take_over(connection, table, [record_id])
                return None if row is None else statements.record(row)

        return await self._write([table], work)

    async def increment(self, table: Table[R], record_id: str, column: str) -> R | None:
        """See `base.Backend`."""
        statements = self._statements.of(table)
        parameters = (encode_time(utc_now()), record_id)

        def work(connection: Any) -> R | None:
            row = connection.execute(statements.increment(column), parameters).fetchone()
            return None if row is None else statements.record(row)

        return await self._write([table], work)

    async def delete(self, table: Table[Any], record_id: str, *, cascade: bool = False) -> bool:
        """See `base.Backend`."""
        work = partial(sqlite_deleting.delete, self._statements, table, record_id, cascade)
        return await self._write(sqlite_deleting.tables_with(table), work)

    async def delete_where(self, table: Table[Any], conditions: Sequence[Condition]) -> int:
        """See `base.Backend`."""
        query = self._statements.of(table).delete_where(conditions)
        return await self._write(
            [table], lambda connection: int(connection.execute(*query).rowcount)
        )

    async def put_memory(self, values: Values, now: datetime) -> MemoryItem:
        """See `base.Backend`."""
        statements = self._statements.of(schema.MEMORY)
        parameters = [*statements.encode(values, statements.columns), encode_time(now)]
        sql = self._statements.put_memory
        row = await self._write(
            [schema.MEMORY], lambda connection: connection.execute(sql, parameters).fetchone()
        )
        return statements.record(row)

    async def get_memory(
        self, scope: str, session_id: str | None, key: str, now: datetime
    ) -> MemoryItem | None:
        """See `base.Backend`."""
        rows = await self._look_up(
            (self._statements.get_memory, [scope, session_id or "", key, encode_time(now)])
        )
        return self._statements.of(schema.MEMORY).record(rows[0]) if rows else None

    async def delete_memory(
        self, scope: str, session_id: str | None, key: str, now: datetime
    ) -> bool:
        """See `base.Backend`."""
        sql, parameters = (
            self._statements.delete_memory,
            [scope, session_id or "", key, encode_time(now)],
        )
        return await self._write(
            [schema.MEMORY],
            lambda connection: connection.execute(sql, parameters).fetchone() is not None,
        )

    async def cost_groups(self, conditions: Sequence[Condition]) -> list[CostGroup]:
        """See `base.Backend`."""
        rows = await self._fetch(self._statements.cost_groups(conditions))
        return [
            CostGroup(provider, model, date.fromisoformat(day), *numbers)
            for provider, model, day, *numbers in rows
        ]

    async def qualified_generations(
        self, *, min_ratings: int, min_average: float, min_quality: float
    ) -> list[RatedGeneration]:
        """See `base.Backend`."""
        parameters = [min_ratings, min_average, min_quality]
        rows = await self._fetch((self._statements.qualified_generations, parameters))
        return [RatedGeneration(*row) for row in rows]

    async def _read(self, work: Callable[[Any], T]) -> T:
        with self._files.translated():
            return await self._pool.run(work)

    async def _look_up(self, query: Query) -> list[Any]:
        """Fetch what a key leads to, which takes less time than going to another thread."""
        if self._here.is_open:
            # Whoever reads again and again leaves the others their turn.
            await asyncio.sleep(0)
            # A locked file is waited for in another thread.
            with contextlib.suppress(DatabaseBusyError), self._files.translated():
                found: list[Any] | None = self._here.run(
                    lambda connection: connection.execute(*query).fetchall()
                )
                if found is not None:
                    return found
            return await self._fetch(query)
        rows = await self._fetch(query)
        await self._here.open()
        return rows

    async def _fetch(self, query: Query) -> list[Any]:
        rows: list[Any] = await self._read(lambda connection: connection.execute(*query).fetchall())
        return rows

    async def _write(self, tables: Sequence[Table[Any]], work: Callable[[Any], T]) -> T:
        # The turns are kept until the work has ended, which may be after the caller was cancelled:
        # what a cancelled call still writes must not undo what a later one has acknowledged.
        with contextlib.ExitStack() as turns:
            for table in sorted(tables, key=schema.TABLES.index):
                turn = self._turns[table.name]
                await self._take(turn)
                turns.callback(turn.release)
            kept = turns.pop_all()
        with self._files.translated():
            done = await self._pool.run(work, afterwards=kept.close)
        self._wrote_at = time.monotonic()
        return done

    async def _take(self, turn: asyncio.Lock) -> None:
        """Wait for a turn as long as others write: behind a lock each would wait for it anew."""
        if not turn.locked():
            await turn.acquire()  # Waits for nobody.
            return
        patience = self._settings.busy_timeout
        while True:
            try:
                async with asyncio.timeout(patience):
                    await turn.acquire()
                    return
            except TimeoutError as error:
                if time.monotonic() - self._wrote_at >= patience:
                    raise busy(str(self._files.folder)) from error
