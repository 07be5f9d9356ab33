"""A change of embedding model in SQLite: new vectors in a table of their own, then a swap.

Triggers (migration 0004) drop the new vector of a record whose text is written or that is deleted.
A record whose vector is of the new model already needs no other one.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from paracle_meta.backends.portable import encode_time
from paracle_meta.backends.sqlite_files import transaction
from paracle_meta.exceptions import DatabaseBusyError
from paracle_meta.validation import encode_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence
    from pathlib import Path

    from paracle_meta.backends.collections import NewVector, VectorSpace
    from paracle_meta.backends.sqlite_search import Read, Write
    from paracle_meta.backends.statements import TableStatements

R = TypeVar("R")

INDEX_WAIT: Final = 600.0
"""Seconds to wait for a process that makes the index: a million rows take minutes."""

_OTHER: Final = "(t.embedding_model IS NOT ?1 OR length(t.embedding) IS NOT ?2)"
"""Whether the vector of a row is not of the new model; ?1 is its id and ?2 the bytes of a vector.
"""


@contextlib.asynccontextmanager
async def change_of_model(
    statements: TableStatements[R], space: VectorSpace, folder: Path, read: Read, write: Write
) -> AsyncIterator[SqliteChangeOfModel[R]]:
    """See `collections.Collections`.

    Args:
        statements: Those of the table.
        space: What its vectors shall be of.
        folder: Where its index lies, and the lock that keeps a second process away.
        read: Runs a function with a connection.
        write: The same, when it is the turn of a writer.
    """
    from filelock import AsyncFileLock, Timeout

    await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    lock = AsyncFileLock(folder / ".change.lock", timeout=0, mode=0o600)
    try:
        await lock.acquire()
    except Timeout as error:
        raise DatabaseBusyError(
            f"Another process makes the vectors of {statements.table.name} anew just now; "
            "wait for it."
        ) from error
    try:
        change = SqliteChangeOfModel(statements, space, folder, read, write)
        await change.begin()
        yield change
    finally:
        await lock.release()


class SqliteChangeOfModel(Generic[R]):
    """See `collections.ChangeOfModel`, which is the contract of every method."""

    def __init__(
        self,
        statements: TableStatements[R],
        space: VectorSpace,
        folder: Path,
        read: Read,
        write: Write,
    ) -> None:
        """Prepare; see `change_of_model`."""
        self._statements = statements
        self._table = statements.table
        self._target = (space.model, 4 * space.dimensions)
        self._folder = folder
        self._read = read
        self._write = write
        name = self._table.name
        self._lacking = (
            f"{name} t LEFT JOIN {name}_new_vectors n ON n.id = t.id"
            f" WHERE n.id IS NULL AND {_OTHER}"
        )

    async def begin(self) -> None:
        """Throw away what a change to another model has left."""
        sql = (
            f"DELETE FROM {self._table.name}_new_vectors"
            " WHERE model <> ?1 OR length(embedding) <> ?2"
        )
        await self._write([self._table], lambda connection: connection.execute(sql, self._target))

    async def remaining(self) -> int:
        """See `collections.ChangeOfModel`."""
        sql = f"SELECT count(*) FROM {self._lacking}"
        (count,) = await self._read(
            lambda connection: connection.execute(sql, self._target).fetchone()
        )
        return int(count)

    async def pending(self, *, limit: int, after: str | None) -> list[R]:
        """See `collections.ChangeOfModel`."""
        names = ", ".join(f"t.{column.name}" for column in self._statements.columns)
        sql = f"SELECT {names} FROM {self._lacking} AND t.id > ?3 ORDER BY t.id LIMIT ?4"
        parameters = (*self._target, after or "", limit)
        rows = await self._read(lambda connection: connection.execute(sql, parameters).fetchall())
        return [self._statements.record(row) for row in rows]

    async def store(self, vectors: Sequence[NewVector]) -> None:
        """See `collections.ChangeOfModel`."""
        name = self._table.name
        model, _ = self._target
        sql = (
            f"INSERT INTO {name}_new_vectors (id, model, embedding)"
            f" SELECT id, ?1, ?2 FROM {name} WHERE id = ?3 AND updated_at = ?4"
            " ON CONFLICT (id) DO UPDATE SET model = excluded.model, embedding = excluded.embedding"
        )
        parameters = [
            (model, vector.blob, vector.record_id, encode_time(vector.updated_at))
            for vector in vectors
        ]

        def work(connection: Any) -> None:
            with transaction(connection):
                connection.executemany(sql, parameters)

        await self._write([self._table], work)

    async def prepare(self) -> None:
        """See `collections.ChangeOfModel`; the index is made anew after the switch."""

    async def switch(self, without: Collection[str]) -> bool:
        """See `collections.ChangeOfModel`."""
        from filelock import AsyncFileLock, Timeout

        # An index that is just being made is of the old vectors, and would be named afterwards.
        lock = AsyncFileLock(self._folder / ".lock", timeout=INDEX_WAIT, mode=0o600)
        try:
            await lock.acquire()
        except Timeout as error:
            raise DatabaseBusyError(
                f"Another process has been making the index of {self._table.name} for over "
                f"{INDEX_WAIT:g} seconds; see what it does, then try again."
            ) from error
        try:
            work = partial(self._switch, encode_json(sorted(without)))
            return await self._write([self._table], work)
        finally:
            await lock.release()

    def _switch(self, without: str, connection: Any) -> bool:
        name = self._table.name
        with transaction(connection):
            # Takes the write lock of the file, after which nothing changes.
            connection.execute(f"UPDATE {name} SET id = id WHERE 0")
            (lacking,) = connection.execute(
                f"SELECT EXISTS (SELECT 1 FROM {self._lacking}"
                " AND t.id NOT IN (SELECT value FROM json_each(?3)))",
                (*self._target, without),
            ).fetchone()
            if lacking:
                return False
            connection.execute(
                f"UPDATE {name} AS t SET embedding = NULL, embedding_model = NULL WHERE id IN"
                f" (SELECT value FROM json_each(?3)) AND {_OTHER}",
                (*self._target, without),
            )
            connection.execute(
                f"UPDATE {name} AS t SET embedding = n.embedding, embedding_model = n.model"
                f" FROM {name}_new_vectors n WHERE n.id = t.id AND {_OTHER}",
                self._target,
            )
            connection.execute(f"DELETE FROM {name}_new_vectors")
            self._begin_log(connection)
        return True

    def _begin_log(self, connection: Any) -> None:
        """Let the log of changes begin after all that was, and name no index.

        So every process reads everything anew, and nobody opens an index of the old vectors. A
        number for the beginning that no process holds is got by logging something.
        """
        name = self._table.name
        connection.execute(f"INSERT INTO {name}_changes (id) VALUES ('')")
        connection.execute(
            f"INSERT INTO {name}_index (only, token, seq)"
            f" SELECT 1, NULL, max(seq) FROM {name}_changes WHERE true"
            " ON CONFLICT (only) DO UPDATE SET token = NULL, seq = excluded.seq"
        )
        connection.execute(f"DELETE FROM {name}_changes")
