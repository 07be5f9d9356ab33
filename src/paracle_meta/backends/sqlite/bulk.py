"""A folder of SQLite files as a whole.

Each process that opens a database imports this module, and few move data: what only that takes is
imported in the functions.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from paracle_meta.backends.sqlite.files import SqliteFiles
    from paracle_meta.backends.sqlite.loading import SqliteLoading
    from paracle_meta.backends.sqlite.search import Read, Write
    from paracle_meta.backends.sqlite.snapshot import SqliteSnapshot
    from paracle_meta.backends.statements import Statements
    from paracle_meta.schema import Table

T = TypeVar("T")


class SqliteBulk:
    """See `bulk.Bulk`, which is the contract of every method."""

    def __init__(
        self, files: SqliteFiles, statements: Statements, read: Read, write: Write
    ) -> None:
        """Prepare.

        Args:
            files: The folder.
            statements: Of all tables.
            read: Runs a piece of work with a connection.
            write: The same, when it is the turn of a writer to these tables.
        """
        self._files = files
        self._statements = statements
        self._read = read
        self._write = write

    @contextlib.asynccontextmanager
    async def snapshot(self, *, repair: bool = False) -> AsyncIterator[SqliteSnapshot]:
        """See `bulk.Bulk`."""
        from paracle_meta.backends.sqlite.held import held
        from paracle_meta.backends.sqlite.snapshot import SqliteSnapshot, open_reader

        connect = partial(open_reader, self._files)
        async with held(self._files, connect, reads_only=True) as connection:
            yield SqliteSnapshot(connection, repair=repair)

    @contextlib.asynccontextmanager
    async def loading(self, *, whole: bool = False) -> AsyncIterator[SqliteLoading]:
        """See `bulk.Bulk`."""
        from paracle_meta.backends.sqlite.held import held
        from paracle_meta.backends.sqlite.loading import SqliteLoading

        if not whole:
            yield SqliteLoading(self._statements, self._read, self._write)
            return
        async with held(self._files, self._begin, reads_only=False) as connection:

            async def write(tables: Sequence[Table[Any]], work: Callable[[Any], T]) -> T:
                del tables  # All are locked.
                return await connection.run(work)

            yield SqliteLoading(self._statements, connection.run, write)
            await connection.run(lambda c: c.execute("COMMIT"))

    def _begin(self) -> Any:
        connection = self._files.connect()
        try:
            with self._files.translated():
                connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            connection.close()
            raise
        return connection
