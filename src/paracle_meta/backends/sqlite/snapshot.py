"""All six SQLite files as they are at one moment, read while writers go on.

In a write-ahead log the writers go on undisturbed; with a rollback journal they wait for the end.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.bulk import BATCH_ROWS, EVER, Period, Unportable
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.backends.health import ORPHANED
from paracle_meta.backends.portable_rows import position
from paracle_meta.backends.portable_tests import looks_good
from paracle_meta.backends.sqlite.mended import AsMended
from paracle_meta.backends.sqlite.reading import (
    AsStored,
    Form,
    create_functions,
    fetch,
    readable,
    within,
)
from paracle_meta.backends.sqlite.unportable import Place, Search
from paracle_meta.backends.statements import EMBEDDED
from paracle_meta.exceptions import UnportableError
from paracle_meta.records import utc_now
from paracle_meta.schema import TABLES, Table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from paracle_meta.backends.portable import Row
    from paracle_meta.backends.sqlite.files import SqliteFiles
    from paracle_meta.backends.sqlite.held import HeldConnection

BATCH_VERSIONS: Final = 10_000
"""Ids and times at once, some 2 MB."""


def open_at_one_moment(files: SqliteFiles) -> Any:
    """Return a connection with a transaction that sees all six files as they are at one moment.

    Closing it is the caller's. While it is open, no statement may end the transaction.

    Raises:
        DatabaseBusyError: Another writer held a lock for longer than the busy timeout.
        StorageError: A file is missing or damaged.
    """
    reader = files.connect()
    try:
        with contextlib.closing(files.connect()) as holder, files.translated():
            # Nobody writes to any of the files while the reader begins to see each of them.
            holder.execute("BEGIN IMMEDIATE")
            looks = [f"SELECT 1 FROM {table.name} LIMIT 1;" for table in TABLES]
            reader.executescript(f"BEGIN; {' '.join(looks)}")
            holder.execute("ROLLBACK")
    except BaseException:
        reader.close()
        raise
    return reader


@contextlib.contextmanager
def at_one_moment(files: SqliteFiles) -> Iterator[Any]:
    """Lend a connection as `open_at_one_moment` returns it, and close it at the end."""
    with contextlib.closing(open_at_one_moment(files)) as reader:
        yield reader


def open_reader(files: SqliteFiles) -> Any:
    """Return the connection that a snapshot reads with."""
    reader = open_at_one_moment(files)
    create_functions(reader)
    return reader


class SqliteSnapshot:
    """See `bulk.Snapshot`, which is the contract of every method."""

    def __init__(self, connection: HeldConnection, *, repair: bool) -> None:
        """Prepare.

        Args:
            connection: As `open_reader` returns it.
            repair: Whether values are mended.
        """
        self._run = connection.run
        self._moment = utc_now()
        self._form: Form = AsMended(self._moment) if repair else AsStored()

    async def count(self, table: Table[Any], period: Period = EVER) -> int:
        """See `bulk.Snapshot`."""
        where, parameters = within(table, period)
        sql = f"SELECT count(*) FROM {table.name} WHERE {where}"
        (number,) = await self._run(lambda c: c.execute(sql, parameters).fetchone())
        return int(number)

    async def vector_spaces(self, table: Table[Any]) -> list[VectorSpace]:
        """See `bulk.Snapshot`."""
        if not table.has_vector:
            return []
        return await self._run(partial(_vector_spaces, table))

    async def orphans(self, table: Table[Any]) -> int:
        """See `bulk.Snapshot`."""
        if table.name not in ORPHANED:
            return 0
        sql = ORPHANED[table.name].count
        (number,) = await self._run(lambda c: c.execute(sql).fetchone())
        return int(number)

    async def rows(
        self,
        table: Table[Any],
        period: Period = EVER,
        *,
        tested: bool = False,
        most: int = BATCH_ROWS,
    ) -> AsyncIterator[list[Row]]:
        """See `bulk.Snapshot`."""
        where, parameters = within(table, period)
        outputs = self._form.outputs(table, table.columns)
        sql = f"SELECT {outputs} FROM {table.name} WHERE {where} ORDER BY id"
        cursor = await self._run(partial(_open, table, sql, parameters))
        read = self._tested if tested else self._fetch
        while rows := await self._run(partial(read, table, cursor, most)):
            yield rows

    def _fetch(self, table: Table[Any], cursor: Any, most: int, connection: Any) -> list[Row]:
        with readable(table):
            found = fetch(cursor, most)
        return self._form.rows(table, table.columns, found, connection)

    def _tested(self, table: Table[Any], cursor: Any, most: int, connection: Any) -> list[Row]:
        rows = self._fetch(table, cursor, most, connection)
        if rows and not looks_good(table, rows):
            # Rows from outside the period in between are looked at too: all will be, if need be.
            between = "id BETWEEN ? AND ?", [rows[0][0], rows[-1][0]]
            search = Search(table, between, self._moment)
            place: Place | None = Place()
            while place is not None:
                found, place = search.look(place, connection)
                if found:
                    raise UnportableError([f"{table.name} {found[0].record_id}"])
        return rows

    async def rows_of(self, table: Table[Any], ids: Sequence[str]) -> list[Row]:
        """See `bulk.Snapshot`."""
        outputs = self._form.outputs(table, table.columns)

        def work(connection: Any) -> list[Row]:
            where, parameters = self._form.with_ids(table, ids, connection)
            sql = f"SELECT {outputs} FROM {table.name} WHERE {where} ORDER BY id"
            found = _all(table, sql, parameters, connection)
            return self._form.rows(table, table.columns, found, connection)

        return await self._run(work)

    async def versions(self, table: Table[Any]) -> AsyncIterator[list[tuple[str, str]]]:
        """See `bulk.Snapshot`."""
        columns = [table.columns[position(table, name)] for name in ("id", "updated_at")]
        sql = f"SELECT {self._form.outputs(table, columns)} FROM {table.name} ORDER BY id"
        cursor = await self._run(partial(_open, table, sql, ()))

        def work(connection: Any) -> list[Any]:
            with readable(table):
                found = cursor.fetchmany(BATCH_VERSIONS)
            return self._form.rows(table, columns, found, connection)

        while versions := await self._run(work):
            yield versions

    async def unportable(
        self, table: Table[Any], period: Period = EVER
    ) -> AsyncIterator[Unportable]:
        """See `bulk.Snapshot`."""
        search = Search(table, within(table, period), self._moment)
        place: Place | None = Place()
        while place is not None:
            found, place = await self._run(partial(search.look, place))
            for value in found:
                yield value


def _vector_spaces(table: Table[Any], connection: Any) -> list[VectorSpace]:
    models = f"SELECT DISTINCT embedding_model FROM {table.name} WHERE {EMBEDDED} ORDER BY 1"
    # In a query of its own: to sort by it, SQLite would keep all vectors in memory.
    widths = (
        f"SELECT DISTINCT length(embedding) / 4 FROM {table.name}"
        " WHERE embedding_model = ? AND typeof(embedding) = 'blob'"
    )
    return [
        VectorSpace(model, dimensions)
        for (model,) in _all(table, models, (), connection)
        for (dimensions,) in sorted(_all(table, widths, (model,), connection))
    ]


def _open(table: Table[Any], sql: str, parameters: Sequence[Any], connection: Any) -> Any:
    with readable(table):
        return connection.execute(sql, parameters)


def _all(table: Table[Any], sql: str, parameters: Sequence[Any], connection: Any) -> list[Any]:
    with readable(table):
        found: list[Any] = connection.execute(sql, parameters).fetchall()
    return found
