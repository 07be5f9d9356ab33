"""Letting go of what a folder of SQLite files holds.

SQLite leaves what was deleted or overwritten where it was until the room is needed. `VACUUM` writes
a file anew from the rows that are there, which is the only way that is sure: `secure_delete` would
have had to be on since the file was made.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.referring import count_referring
from paracle_meta.backends.sqlite import deleting as sqlite_deleting
from paracle_meta.backends.sqlite import text as sqlite_text
from paracle_meta.backends.sqlite.files import SCHEMAS
from paracle_meta.exceptions import DatabaseBusyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.collections import Collections
    from paracle_meta.backends.sqlite.search import Read, Write
    from paracle_meta.backends.statements import Query, Statements
    from paracle_meta.filters import Condition
    from paracle_meta.schema import Table

OUT_OF_REACH: Final = (
    "backups, exports and copies that were made before",
    "what the disk and the snapshots of its file system keep of overwritten and deleted files",
)


class SqliteRetention:
    """See `retention.Retention`, which is the contract of every method."""

    def __init__(
        self, statements: Statements, collections: Collections, read: Read, write: Write
    ) -> None:
        """Prepare.

        Args:
            statements: Of all tables.
            collections: Makes their indexes anew.
            read: Runs a piece of work with a connection.
            write: The same, when it is the turn of a writer to these tables.
        """
        self._statements = statements
        self._collections = collections
        self._read = read
        self._write = write

    async def delete_batch(
        self, table: Table[Any], conditions: Sequence[Condition], *, limit: int
    ) -> dict[str, int]:
        """See `retention.Retention`."""
        work = partial(
            sqlite_deleting.delete_batch, self._statements, table, tuple(conditions), limit
        )
        return await self._write(sqlite_deleting.tables_with(table), work)

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
        return await self._write([table], lambda connection: int(connection.execute(sql).rowcount))

    async def _count(self, query: Query) -> int:
        (count,) = await self._read(lambda connection: connection.execute(*query).fetchone())
        return int(count)

    async def scrub(self, tables: Sequence[Table[Any]]) -> None:
        """See `retention.Retention`."""
        for table in tables:
            if table.has_vector:
                while await self._write([table], partial(sqlite_text.catch_up, table=table)):
                    """Take over more, so that no word of what is gone is left."""
                await self._write([table], partial(sqlite_text.merge, table=table))
                await self._collections.build_index(table)
            await self._write([table], partial(_write_anew, table))

    @property
    def out_of_reach(self) -> tuple[str, ...]:
        """See `retention.Retention`."""
        return OUT_OF_REACH


def _write_anew(table: Table[Any], connection: Any) -> None:
    place = SCHEMAS[table.name]
    # Where somebody had SQLite sample the keys for its planner, it has to sample again.
    (sampled,) = connection.execute(
        f"SELECT EXISTS (SELECT 1 FROM {place}.sqlite_master WHERE name = 'sqlite_stat4')"
    ).fetchone()
    if sampled:
        connection.execute(f"ANALYZE {place}")
    connection.execute(f"VACUUM {place}")
    # The log has the old pages until they are all in the file, and it is cut. With the other
    # journal there is none, and nothing is done.
    busy, *_ = connection.execute(f"PRAGMA {place}.wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise DatabaseBusyError(
            f"What was deleted from {table.name} is gone, but a reader that began before keeps its "
            "bytes in the write-ahead log. Let it end, then erase again."
        )
