"""Letting go of what a PostgreSQL database holds."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from paracle_meta import schema
from paracle_meta.backends.referring import count_referring
from paracle_meta.exceptions import QueryError
from paracle_meta.filters import Condition, Operator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from paracle_meta.backends.postgresql.loading import Run
    from paracle_meta.backends.postgresql.setup import PostgresSetup
    from paracle_meta.backends.statements import Query, Statements
    from paracle_meta.schema import Table

LOCK_WAIT: Final = 600
"""Seconds to wait for others who keep a table, such as for an index that is made: minutes."""

OUT_OF_REACH: Final = (
    "backups, exports and copies that were made before",
    "the server's write-ahead log with its archive, and standbys that are behind",
    "rows that a transaction still sees which began before; vacuum again when it has ended",
    "the planner's samples (pg_stats) of a table that is empty now, until it has rows again",
    "free room within the server's files, until the server writes there again",
)


class PostgresRetention:
    """See `retention.Retention`, which is the contract of every method."""

    def __init__(self, setup: PostgresSetup, statements: Statements, run: Run) -> None:
        """Prepare.

        Args:
            setup: Connects for work that takes its time.
            statements: Of all tables.
            run: Runs a piece of work with a connection of the pool.
        """
        self._setup = setup
        self._statements = statements
        self._run = run

    async def delete_batch(
        self, table: Table[Any], conditions: Sequence[Condition], *, limit: int
    ) -> dict[str, int]:
        """See `retention.Retention`."""
        query = self._statements.of(table).oldest_ids(conditions, limit)
        return await self._run(partial(self._delete_batch, table, query), repeatable=False)

    async def _delete_batch(
        self, table: Table[Any], query: Query, connection: Any
    ) -> dict[str, int]:
        sql, parameters = query
        async with connection.transaction():
            # Holds off those who would refer to the rows until they are gone.
            rows = await connection.fetch(f"{sql} FOR UPDATE", *parameters)
            ids = [row["id"] for row in rows]
            deleted = {table.name: 0}
            for child, column in schema.referencing(table):
                deleted[child.name] = await self._delete(child, column, ids, connection)
            deleted[table.name] = await self._delete(table, table.columns[0], ids, connection)
            return deleted

    async def _delete(
        self, table: Table[Any], column: schema.Column, ids: Sequence[str], connection: Any
    ) -> int:
        these = (Condition(column, Operator.IN, ids),)
        query, parameters = self._statements.of(table).delete_where(these)
        return _rows(await connection.execute(query, *parameters))

    async def count_referring(
        self,
        table: Table[Any],
        conditions: Sequence[Condition],
        child: Table[Any],
        child_conditions: Sequence[Condition],
    ) -> int:
        """See `retention.Retention`."""
        return await self._count(
            count_referring(self._statements, table, conditions, child, child_conditions)
        )

    async def count_cache(self, table: Table[Any]) -> int:
        """See `retention.Retention`."""
        return await self._count((f"SELECT count(*) FROM {table.name}_cached_vectors", []))

    async def clear_cache(self, table: Table[Any]) -> int:
        """See `retention.Retention`."""
        sql = f"DELETE FROM {table.name}_cached_vectors"
        return _rows(await self._run(lambda connection: connection.execute(sql), repeatable=False))

    async def _count(self, query: Query) -> int:
        sql, parameters = query
        return int(await self._run(lambda connection: connection.fetchval(sql, *parameters)))

    async def scrub(self, tables: Sequence[Table[Any]]) -> None:
        """See `retention.Retention`.

        Raises:
            QueryError: The role may not vacuum the tables.
        """
        names = [name for table in tables for name in _names(table)]
        said: list[str] = []
        with self._setup.translated():
            async with self._connection() as connection:
                connection.add_log_listener(
                    lambda _, message: said.append(message.severity_en or "")
                )
                await connection.execute(f"SET lock_timeout = '{LOCK_WAIT}s'")
                # Else a few dead rows would be left in the indexes, with their words and vectors.
                # And the server keeps samples of all columns for its planner.
                await connection.execute(f"VACUUM (INDEX_CLEANUP ON, ANALYZE) {', '.join(names)}")
                # Listeners are called by the event loop, a turn later.
                await asyncio.sleep(0)
                if "WARNING" in said:
                    raise QueryError(
                        f"The rows are deleted, but the role may not vacuum {', '.join(names)} at "
                        f"{self._setup.place}. Let their owner do so, or give migration_url a role "
                        "that owns them."
                    )
                for table in (table for table in tables if table.has_vector):
                    # Samples of an empty table, as a cache is now, stay as they were. Saying again
                    # what a column holds takes them away, and writes no row anew.
                    await connection.execute(
                        f"ALTER TABLE {table.name}_cached_vectors"
                        " ALTER COLUMN hash TYPE bytea, ALTER COLUMN embedding TYPE bytea"
                    )

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        connection = await self._setup.connect()
        try:
            yield connection
        finally:
            await connection.close(timeout=self._setup.settings.connect_timeout)

    @property
    def out_of_reach(self) -> tuple[str, ...]:
        """See `retention.Retention`."""
        return OUT_OF_REACH


def _names(table: Table[Any]) -> list[str]:
    """Return a table's name, and those of what is kept beside it."""
    beside = ("terms", "unread", "cached_vectors") if table.has_vector else ()
    return [table.name, *(f"{table.name}_{name}" for name in beside)]


def _rows(tag: str) -> int:
    """Return how many rows a statement has written, of what the server said of it."""
    return int(tag.rpartition(" ")[2])
