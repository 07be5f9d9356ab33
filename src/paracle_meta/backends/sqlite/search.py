"""Search by meaning in a folder of SQLite files, and the making of its indexes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from paracle_meta.backends.folders import make_private, written
from paracle_meta.backends.sqlite import hybrid as sqlite_hybrid
from paracle_meta.backends.sqlite import new_vectors as sqlite_new_vectors
from paracle_meta.backends.sqlite import text as sqlite_text
from paracle_meta.backends.sqlite.change import change_of_model, remove_old_vectors
from paracle_meta.exceptions import DatabaseBusyError, ParacleMetaError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from paracle_meta.backends.collections import (
        ChangeOfModel,
        NewVector,
        QueryVector,
        VectorSpace,
    )
    from paracle_meta.backends.sqlite.files import SqliteFiles
    from paracle_meta.backends.sqlite.pool import LoopConnection
    from paracle_meta.backends.sqlite.vectors import VectorCollection
    from paracle_meta.backends.statements import Statements
    from paracle_meta.filters import Condition
    from paracle_meta.schema import Table

logger = logging.getLogger("paracle_meta")


R = TypeVar("R")

EVERY_CORE: Final = 0
"""Threads of an index that somebody waits for; one that is made in the background has one."""

NEW_TRIES: Final = 3
"""How often a search begins anew before it doubts what the process holds."""


class Read(Protocol):
    """Runs a function with a connection, in the thread of that."""

    async def __call__(self, work: Callable[[Any], R]) -> R:
        """Return what the function returns."""


class Write(Protocol):
    """Does the same when it is the turn of a writer of these tables."""

    async def __call__(self, tables: Sequence[Table[Any]], work: Callable[[Any], R]) -> R:
        """Return what the function returns."""


class SqliteCollections:
    """The collections of a folder.

    Indexes are built in a thread with a connection of its own, so that nobody waits for it, and by
    one process at a time.
    """

    def __init__(
        self,
        files: SqliteFiles,
        statements: Statements,
        read: Read,
        write: Write,
        here: LoopConnection,
        *,
        in_background: bool,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            files: Where the collections and their indexes lie.
            statements: Those of all tables.
            read: Runs a function with a connection, in its thread.
            write: The same, when it is the turn of a writer of these tables.
            here: For searches that take less than going to a thread; it is closed by whoever made
                it.
            in_background: Whether a search may set off the making of an index.
        """
        self._files = files
        self._statements = statements
        self._read = read
        self._write = write
        self._in_background = in_background
        self._collections: dict[str, VectorCollection[Any]] = {}
        self._here = here
        self._stops: set[threading.Event] = set()
        self._closing = False
        self._running: dict[str, asyncio.Task[None]] = {}

    async def search(
        self,
        table: Table[R],
        conditions: Sequence[Condition],
        *,
        vector: QueryVector | None,
        text: str | None,
        limit: int,
        min_similarity: float | None,
    ) -> list[R]:
        """See `collections.Collections`."""
        if text is not None:
            return await self._search_words(table, conditions, vector, text, limit, min_similarity)
        if vector is None:
            raise ValueError("a search needs a vector, a text or both")
        return await self._nearest(table, vector, conditions, limit, min_similarity)

    async def _nearest(
        self,
        table: Table[R],
        vector: QueryVector,
        conditions: Sequence[Condition],
        limit: int,
        min_similarity: float | None,
    ) -> list[R]:
        collection = self._collection(table)
        is_open = self._here.is_open
        if is_open:
            asked = collection.ask(vector, conditions, limit)
            # Whoever searches again and again leaves the others their turn, and those who want to
            # search too have asked afterwards.
            await asyncio.sleep(0)
            collection.look_together()
            # A locked file is waited for in another thread.
            with contextlib.suppress(DatabaseBusyError), self._files.translated():
                matches = self._here.run(
                    lambda connection: collection.search_at_once(connection, asked, min_similarity)
                )
                if matches is not None:
                    return matches
        matches = await self._searched(
            table,
            lambda connection: collection.search(
                connection, vector, conditions, limit, min_similarity
            ),
        )
        if not is_open:
            await self._here.open()
        return matches

    async def _search_words(
        self,
        table: Table[R],
        conditions: Sequence[Condition],
        vector: QueryVector | None,
        text: str,
        limit: int,
        min_similarity: float | None,
    ) -> list[R]:
        """Search by words, and by a vector if there is one.

        Raises:
            StorageError: Plain SQL has written records whose terms were not taken over yet, and
                the files cannot be written.
        """
        if await self._read(partial(sqlite_text.is_behind, table=table)):
            # A batch a turn: writers wait for one at most.
            while await self._write([table], partial(sqlite_text.catch_up, table=table)):
                pass
        statements = self._statements.of(table)
        if vector is None:
            return await self._read(
                lambda connection: sqlite_hybrid.search_text(
                    connection, statements, conditions, text, limit
                )
            )
        collection = self._collection(table)
        return await self._searched(
            table,
            lambda connection: sqlite_hybrid.search_both(
                connection, collection, statements, conditions, vector, text, limit, min_similarity
            ),
        )

    async def _searched(self, table: Table[R], work: Callable[[Any], list[R] | None]) -> list[R]:
        """Run a search, which returns None where it has to begin anew."""
        for attempt in itertools.count(1):
            matches = await self._read(work)
            if matches is not None:
                break
            # Another thread was a transaction ahead of this one, or the index proved damaged. Where
            # that goes on, an older file was put under the open database, and what is held is of a
            # future that it lacks.
            if attempt > NEW_TRIES:
                self._collection(table).forget()
        if self._in_background and self._collection(table).wants_index:
            self._build_soon(table)
        return matches or []

    def _collection(self, table: Table[R]) -> VectorCollection[R]:
        collection = self._collections.get(table.name)
        if collection is None:
            # NumPy is loaded by those who search only.
            from paracle_meta.backends.sqlite.vectors import VectorCollection

            collection = self._collections[table.name] = VectorCollection(
                self._statements.of(table), self._folder(table)
            )
        return collection

    def _folder(self, table: Table[Any]) -> Path:
        return self._files.folder / ".index" / table.name

    async def build_index(self, table: Table[Any]) -> int:
        """See `collections.Collections`."""
        with self._files.translated():
            return await self._build_alone(table, threads=EVERY_CORE)

    async def without_vector(self, table: Table[R], *, limit: int, after: str | None) -> list[R]:
        """See `collections.Collections`."""
        statements = self._statements.of(table)
        return await self._read(
            partial(sqlite_new_vectors.without_vector, statements, limit, after)
        )

    async def store_vectors(
        self, table: Table[Any], vectors: Sequence[NewVector], *, model: str
    ) -> int:
        """See `collections.Collections`."""
        statements = self._statements.of(table)
        return await self._write(
            [table], partial(sqlite_new_vectors.store_vectors, statements, vectors, model)
        )

    async def cached_vectors(
        self, table: Table[Any], model: str, hashes: Collection[bytes]
    ) -> dict[bytes, bytes]:
        """See `collections.Collections`."""
        return await self._read(
            partial(sqlite_new_vectors.cached_vectors, table.name, model, hashes)
        )

    async def cache_vectors(
        self, table: Table[Any], model: str, vectors: Mapping[bytes, bytes], *, keep: int
    ) -> None:
        """See `collections.Collections`."""
        await self._write(
            [table],
            partial(sqlite_new_vectors.cache_vectors, table.name, model, vectors, keep),
        )

    def change_of_model(
        self, table: Table[R], space: VectorSpace
    ) -> AbstractAsyncContextManager[ChangeOfModel[R]]:
        """See `collections.Collections`."""
        statements = self._statements.of(table)
        return change_of_model(statements, space, self._folder(table), self._read, self._write)

    async def _build_alone(self, table: Table[Any], *, threads: int) -> int:
        if (running := self._running.get(table.name)) not in (None, asyncio.current_task()):
            await asyncio.wait({running})
        stop = threading.Event()
        self._stops.add(stop)
        if self._closing:
            stop.set()
        try:
            rows = await asyncio.to_thread(
                self._build, table, self._collection(table), stop, threads
            )
            await self._remove_old_vectors(table, stop)
        except asyncio.CancelledError:
            # The thread goes on by itself; without this the end of the program would wait for it.
            stop.set()
            raise
        else:
            return rows
        finally:
            self._stops.remove(stop)

    def _build_soon(self, table: Table[Any]) -> None:
        """Make the index anew in the background, unless somebody does already."""
        if table.name not in self._running:
            task = asyncio.create_task(self._build_quietly(table))
            self._running[table.name] = task
            task.add_done_callback(lambda _: self._running.pop(table.name, None))

    async def _remove_old_vectors(self, table: Table[Any], stop: threading.Event) -> None:
        try:
            await remove_old_vectors(table, self._read, self._write, stop)
        except DatabaseBusyError as error:
            # The index is made all the same, and these are in nobody's way.
            logger.debug("Old vectors of %s are left for later: %s", table.name, error)

    async def _build_quietly(self, table: Table[Any]) -> None:
        try:
            with self._files.translated():
                await self._build_alone(table, threads=1)
        except DatabaseBusyError:
            logger.debug("Another process makes the index of %s.", table.name)
        except (ParacleMetaError, OSError) as error:
            logger.warning("The index of %s could not be made: %s", table.name, error)

    def _build(
        self,
        table: Table[Any],
        collection: VectorCollection[Any],
        stop: threading.Event,
        threads: int,
    ) -> int:
        from filelock import FileLock, Timeout

        folder = self._folder(table)
        lock = FileLock(folder / ".lock", timeout=0, mode=0o600)
        with written(folder):
            make_private(folder)
            try:
                with lock, contextlib.closing(self._files.connect_to_sound()) as connection:
                    return collection.build(connection, stop, threads=threads)
            except Timeout as error:
                raise DatabaseBusyError(
                    f"Another process makes the index of {table.name} just now; wait for it."
                ) from error

    async def close(self) -> None:
        """Stop what runs and wait for its end. Safe to repeat."""
        self._closing = True
        for stop in self._stops:
            stop.set()
        if self._running:
            await asyncio.wait(self._running.values())
        self._closing = False
