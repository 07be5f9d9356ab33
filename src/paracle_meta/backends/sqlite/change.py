"""A change of embedding model in SQLite: new vectors in columns of their own, then a swap.

The columns ``new_embedding`` and ``new_embedding_model`` are made by the first change and stay,
empty, as taking them away would write each row anew. While a change goes on, ``<name>_new_model``
(migration 0005) tells to which model, and a trigger empties the columns where a record's text is
written. A record whose vector is of the new model already needs no other one.

At the end the columns exchange their names, which touches no row. What is in the new columns from
then on are the old vectors; they are removed a batch at a time. What is left of them by a process
that was killed meanwhile is removed by whoever makes the index next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from paracle_meta.backends.folders import make_private, written
from paracle_meta.backends.sqlite.files import SCHEMAS, lock, transaction
from paracle_meta.backends.sqlite.new_vectors import has_texts
from paracle_meta.exceptions import DatabaseBusyError
from paracle_meta.values import encode_json

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Collection, Iterator, Sequence
    from pathlib import Path

    from paracle_meta.backends.collections import NewVector, VectorSpace
    from paracle_meta.backends.sqlite.search import Read, Write
    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.schema import Table

R = TypeVar("R")

logger = logging.getLogger("paracle_meta")

INDEX_WAIT: Final = 600.0
"""Seconds to wait for a process that makes the index: a million rows take minutes."""

BATCH: Final = 1_000
"""Vectors that are moved or removed at once: others wait for some 30 ms at 384 numbers and
100 ms at 1,536."""

_OTHER: Final = "(t.embedding_model IS NOT ?1 OR length(t.embedding) IS NOT ?2)"
"""Whether the vector of a row is not of the new model; ?1 is its id and ?2 the bytes of a vector.
"""

FILLED: Final = "(new_embedding IS NOT NULL OR new_embedding_model IS NOT NULL)"
"""Whether a row has a new vector or, where no change goes on, an old one that was left."""


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

    own = AsyncFileLock(folder / ".change.lock", timeout=0, mode=0o600)
    with written(folder):
        await asyncio.to_thread(make_private, folder)
        try:
            await own.acquire()
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
        await own.release()


async def remove_old_vectors(
    table: Table[Any], read: Read, write: Write, stop: threading.Event | None = None
) -> None:
    """Empty the columns, a batch at a time, unless a change goes on.

    Args:
        table: A collection.
        read: Runs a function with a connection.
        write: The same, when it is the turn of a writer.
        stop: Set to end early; the rest is for the next time.

    Raises:
        DatabaseBusyError: Others use the file for long.
    """
    last = ""
    while ids := await read(partial(filled, table, last)):
        if stop is not None and stop.is_set():
            return
        last = ids[-1]
        await write([table], partial(empty, table, ids[0], last))


def filled(table: Table[Any], after: str, connection: Any) -> list[str]:
    """Return the next ids of records with an old vector; none while a change goes on."""
    if not _has_columns(table, connection):
        return []
    rows = connection.execute(
        f"SELECT id FROM {table.name} WHERE id > ?1 AND {FILLED}"
        f" AND NOT EXISTS (SELECT 1 FROM {table.name}_new_model) ORDER BY id LIMIT ?2",
        (after, BATCH),
    )
    return [row[0] for row in rows]


def empty(table: Table[Any], first: str, last: str, connection: Any) -> None:
    """Remove the old vectors of these records, unless a change goes on."""
    connection.execute(
        f"UPDATE {table.name} SET new_embedding = NULL, new_embedding_model = NULL"
        f" WHERE id BETWEEN ?1 AND ?2 AND {FILLED}"
        # One may have begun meanwhile.
        f" AND NOT EXISTS (SELECT 1 FROM {table.name}_new_model)",
        (first, last),
    )


def _has_columns(table: Table[Any], connection: Any) -> bool:
    columns = connection.execute("SELECT name FROM pragma_table_info(?1)", (table.name,))
    return ("new_embedding",) in columns.fetchall()


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
        self._place = SCHEMAS[self._table.name]
        self._target = (space.model, 4 * space.dimensions)
        self._folder = folder
        self._read = read
        self._write = write
        self._lacking = f"{self._table.name} t WHERE t.new_embedding_model IS NULL AND {_OTHER}"

    async def begin(self) -> None:
        """Make the columns, and throw away what a change to another model has left."""
        name = self._table.name
        going_on = await self._read(
            lambda connection: connection.execute(
                f"SELECT model, bytes FROM {name}_new_model"
            ).fetchone()
        )
        if going_on != self._target:
            await self._write([self._table], self._give_up)
            await remove_old_vectors(self._table, self._read, self._write)
            await self._write([self._table], self._set_up)

    def _give_up(self, connection: Any) -> None:
        name = self._table.name
        with self._locked(connection):
            self._end(connection)
            if not _has_columns(self._table, connection):
                connection.execute(f"ALTER TABLE {name} ADD COLUMN new_embedding BLOB")
                connection.execute(f"ALTER TABLE {name} ADD COLUMN new_embedding_model VARCHAR")

    def _set_up(self, connection: Any) -> None:
        name, place = self._table.name, self._place
        texts = self._table.embedded
        old = ", ".join(f"old.{text}" for text in texts)
        new = ", ".join(f"new.{text}" for text in texts)
        with self._locked(connection):
            # The columns' indexes go with them in the swap, and SQLite has no other name for one.
            present = self._model_index(connection, "embedding_model")
            index = next(index for index in self._model_indexes if index != present)
            connection.execute(f"DROP INDEX IF EXISTS {place}.{index}")
            connection.execute(f"CREATE INDEX {place}.{index} ON {name} (new_embedding_model)")
            connection.execute(
                f"CREATE TRIGGER {place}.{name}_new_embedding"
                f" AFTER UPDATE OF embedding, embedding_model, {', '.join(texts)} ON {name}"
                " WHEN new.new_embedding_model IS NOT NULL"
                f" AND (({old}) IS NOT ({new}) OR new.embedding_model IS new.new_embedding_model)"
                f" BEGIN UPDATE {name} SET new_embedding = NULL, new_embedding_model = NULL"
                " WHERE id = new.id; END"
            )
            connection.execute(
                f"INSERT INTO {name}_new_model (only, model, bytes) VALUES (1, ?1, ?2)",
                self._target,
            )

    async def remaining(self) -> int:
        """See `collections.ChangeOfModel`."""
        sql = f"SELECT count(*) FROM {self._lacking}"
        (count,) = await self._read(
            lambda connection: connection.execute(sql, self._target).fetchone()
        )
        return int(count)

    async def pending(self, *, limit: int, after: str | None) -> list[R]:
        """See `collections.ChangeOfModel`."""
        # Not by the index of models, which would have to be read and sorted for every page.
        sql = (
            f"SELECT {self._statements.output} FROM {self._table.name} t"
            f" WHERE +t.new_embedding_model IS NULL AND {_OTHER} AND t.id > ?3"
            " ORDER BY t.id LIMIT ?4"
        )
        parameters = (*self._target, after or "", limit)
        rows = await self._read(lambda connection: connection.execute(sql, parameters).fetchall())
        return [self._statements.record(row) for row in rows]

    async def store(self, vectors: Sequence[NewVector]) -> None:
        """See `collections.ChangeOfModel`."""
        sql = (
            f"UPDATE {self._table.name} AS t SET new_embedding = ?3, new_embedding_model = ?1"
            f" WHERE id = ?4 AND new_embedding_model IS NULL AND {_OTHER}"
            f" AND {has_texts(self._table, 5)}"
        )
        parameters = [
            (*self._target, vector.blob, vector.record_id, *vector.texts) for vector in vectors
        ]

        def work(connection: Any) -> None:
            with transaction(connection):
                connection.executemany(sql, parameters)

        await self._write([self._table], work)

    async def prepare(self) -> None:
        """See `collections.ChangeOfModel`; the index is made anew after the switch."""
        while await self._write([self._table], self._copy_some):
            """Copy more."""

    def _copy_some(self, connection: Any) -> bool:
        return self._is_begun(connection) and self._copy(connection, BATCH) == BATCH

    async def switch(self, without: Collection[str]) -> bool:
        """See `collections.ChangeOfModel`."""
        from filelock import AsyncFileLock, Timeout

        # An index that is just being made is of the old vectors, and would be named afterwards.
        making = AsyncFileLock(self._folder / ".lock", timeout=INDEX_WAIT, mode=0o600)
        try:
            await making.acquire()
        except Timeout as error:
            raise DatabaseBusyError(
                f"Another process has been making the index of {self._table.name} for over "
                f"{INDEX_WAIT:g} seconds; see what it does, then try again."
            ) from error
        try:
            work = partial(self._switch, encode_json(sorted(without)))
            switched = await self._write([self._table], work)
        finally:
            await making.release()
        if switched:
            await self._remove_old_ones()
        return switched

    async def _remove_old_ones(self) -> None:
        try:
            await remove_old_vectors(self._table, self._read, self._write)
        except DatabaseBusyError:
            # The change is made all the same.
            logger.warning(
                "Old vectors are left in %s, which others use for long; they take room until its "
                "index is made anew: `paracle meta index`.",
                self._table.name,
            )

    def _switch(self, without: str, connection: Any) -> bool:
        with self._locked(connection):
            (lacking,) = connection.execute(
                f"SELECT EXISTS (SELECT 1 FROM {self._lacking}"
                " AND t.id NOT IN (SELECT value FROM json_each(?3)))",
                (*self._target, without),
            ).fetchone()
            if lacking:
                return False
            if self._is_begun(connection):
                self._copy(connection)
                self._swap(connection)
            else:
                # Everything is where it belongs already, as where a change is given up.
                connection.execute(
                    f"UPDATE {self._table.name} AS t SET embedding = NULL, embedding_model = NULL"
                    f" WHERE id IN (SELECT value FROM json_each(?3)) AND {_OTHER}",
                    (*self._target, without),
                )
            self._end(connection)
            self._begin_log(connection)
        return True

    def _is_begun(self, connection: Any) -> bool:
        """Return whether there is a new vector."""
        (begun,) = connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM {self._table.name} WHERE new_embedding_model = ?1)",
            self._target[:1],
        ).fetchone()
        return bool(begun)

    def _copy(self, connection: Any, limit: int = -1) -> int:
        """Let vectors that are of the new model already take part in the swap; count them."""
        name = self._table.name
        cursor = connection.execute(
            f"UPDATE {name} SET new_embedding = embedding, new_embedding_model = embedding_model"
            f" WHERE id IN (SELECT t.id FROM {name} t"
            f" WHERE t.new_embedding_model IS NULL AND NOT {_OTHER} LIMIT ?3)",
            (*self._target, limit),
        )
        return int(cursor.rowcount)

    def _swap(self, connection: Any) -> None:
        """Exchange the names of the columns.

        Whoever names a column in a trigger or a view means that name, while SQLite would let them
        follow the column. So all of the file, also those of other people, are made again as they
        were.
        """
        name, place = self._table.name, self._place
        followers = connection.execute(
            f"SELECT type, name, sql FROM {place}.sqlite_master WHERE type IN ('trigger', 'view')"
            " ORDER BY type, rowid"  # Triggers first: a view takes its own with it.
        ).fetchall()
        for kind, follower, _ in followers:
            quoted = follower.replace('"', '""')
            connection.execute(f'DROP {kind} {place}."{quoted}"')
        for column in ("embedding", "embedding_model"):
            for old, new in (
                (column, f"old_{column}"),
                (f"new_{column}", column),
                (f"old_{column}", f"new_{column}"),
            ):
                connection.execute(f"ALTER TABLE {name} RENAME COLUMN {old} TO {new}")
        for kind, _, sql in sorted(followers, key=lambda row: row[0] == "trigger"):
            # SQLite keeps the words from the name on, and puts these before them.
            create = f"CREATE {kind.upper()} "
            connection.execute(f"{create}{place}.{sql.removeprefix(create)}")

    def _end(self, connection: Any) -> None:
        """Take away what exists only during a change, except for the columns."""
        name, place = self._table.name, self._place
        connection.execute(f"DROP TRIGGER IF EXISTS {place}.{name}_new_embedding")
        if (index := self._model_index(connection, "new_embedding_model")) is not None:
            connection.execute(f"DROP INDEX {place}.{index}")
        connection.execute(f"DELETE FROM {name}_new_model")

    @property
    def _model_indexes(self) -> tuple[str, str]:
        name = self._table.name
        return f"{name}_embedding_model_idx", f"{name}_new_embedding_model_idx"

    def _model_index(self, connection: Any, column: str) -> str | None:
        """Return which of these indexes is of a column, as each change exchanges them."""
        row = connection.execute(
            "SELECT l.name FROM pragma_index_list(?1) l, pragma_index_info(l.name) i"
            " WHERE l.name IN (?2, ?3) AND i.name = ?4",
            (self._table.name, *self._model_indexes, column),
        ).fetchone()
        return None if row is None else str(row[0])

    @contextlib.contextmanager
    def _locked(self, connection: Any) -> Iterator[None]:
        """A transaction in which nobody else writes to the file from the beginning."""
        with transaction(connection):
            lock(connection, self._table)
            yield

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
