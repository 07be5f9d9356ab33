"""What is stored, written to a file or stream: as SQL for psql, or as JSON Lines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from paracle_meta.backends.bulk import Period
from paracle_meta.backends.rows import orphans_left
from paracle_meta.exceptions import TransferError, UnportableError
from paracle_meta.kinds import tables_of
from paracle_meta.transfer.checks import unportable_values, vector_spaces
from paracle_meta.transfer.files import is_device, is_folder, outputs
from paracle_meta.transfer.jsonl import JsonLines
from paracle_meta.transfer.worker import Worker
from paracle_meta.values import check_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from paracle_meta.backends.bulk import Snapshot
    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.portable import Row
    from paracle_meta.database import MetaDatabase
    from paracle_meta.reembedding import Progress
    from paracle_meta.schema import Table
    from paracle_meta.transfer.files import Output


AT_ONCE: Final = 400
"""Rows that are read, tested, formatted and written at once. They stay in the memory next to the
processor meanwhile: with 2,000 it takes a fourth more time."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported.

    Attributes:
        rows: How many of each kind.
        replaced: The values that were replaced, as no other database can hold them; one text each
            with its kind, id, column and reason, at most 10,000.
        more_replaced: How many others were.
    """

    rows: Mapping[str, int]
    replaced: tuple[str, ...] = ()
    more_replaced: int = 0


class Format(Protocol):
    """Turns rows into text; it reads and writes nothing.

    Attributes:
        all_or_nothing: Whether a single row that cannot be stored keeps all others from being.
    """

    all_or_nothing: bool

    def begin(self) -> str:
        """Return what stands before all rows."""

    def rows(self, table: Table[Any], rows: Sequence[Row]) -> str:
        """Return rows as text."""

    def end(self) -> str:
        """Return what stands after all rows."""


async def export_sql(
    db: MetaDatabase,
    output: IO[bytes] | Path | str,
    *,
    kinds: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a script that ``psql`` loads into a PostgreSQL database, empty or with the tables.

    It is one transaction, and leaves alone what is stored there under the same id. `import_file`
    reads it too.

    Args:
        db: What to export, as it is at one moment; writers go on meanwhile.
        output: A stream, or the name of a file, compressed where it ends with ``.gz``. The file has
            its name only when it is whole.
        kinds: Names of tables, such as ``generations``; None for all six.
        since: Only what was made then or later, and the generations that such feedback is about.
        until: Only what was made earlier.
        replace: Replace what no other database can hold by U+FFFD instead of refusing.
        progress: Called with a kind, how many of its rows are done, and of how many.

    Raises:
        InvalidValueError: There is no such kind, or a time has no time zone.
        UnportableError: Values are stored that no other database can hold. Nothing was written.
        TransferError: A collection holds vectors of several models, rows refer to others that are
            not stored, or the file cannot be written.
    """
    if isinstance(output, str | Path) and is_folder(output):
        raise TransferError(f"{output} is a folder; for SQL, name a file in it.")
    make_format = partial(_script, db.settings.enable_vectors)
    return await _export(db, output, make_format, kinds, since, until, replace, progress)


async def export_jsonl(
    db: MetaDatabase,
    output: IO[bytes] | Path | str,
    *,
    kinds: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write JSON Lines: an object a line with its ``kind`` and its columns; see `export_sql`.

    Args:
        db: What to export.
        output: A stream, the name of a file, or a folder: one that exists, or a name that ends with
            a slash. In a folder, each kind has a file ``<kind>.jsonl``.
        kinds: Names of tables; None for all six.
        since: Only what was made then or later, and the generations that such feedback is about.
        until: Only what was made earlier.
        replace: Replace what no other database can hold by U+FFFD instead of refusing.
        progress: Called with a kind, how many of its rows are done, and of how many.

    Raises:
        InvalidValueError: There is no such kind, or a time has no time zone.
        UnportableError: Values are stored that no other database can hold. Nothing was written.
        TransferError: A collection holds vectors of several models, or the file cannot be written.
    """
    return await _export(db, output, _lines, kinds, since, until, replace, progress)


def _script(
    with_vectors: bool, tables: Sequence[Table[Any]], spaces: Mapping[str, VectorSpace]
) -> Format:
    from paracle_meta.backends.postgresql.script import script

    return script(tables, spaces, searched_by_meaning=with_vectors)


def _lines(tables: Sequence[Table[Any]], spaces: Mapping[str, VectorSpace]) -> Format:
    del tables, spaces
    return JsonLines()


async def _export(
    db: MetaDatabase,
    output: IO[bytes] | Path | str,
    make_format: Callable[[Sequence[Table[Any]], Mapping[str, VectorSpace]], Format],
    kinds: Sequence[str] | None,
    since: datetime | None,
    until: datetime | None,
    replace: bool,
    progress: Progress | None,
) -> ExportReport:
    tables = tables_of(kinds)
    period = Period(
        None if since is None else check_time("since", since),
        None if until is None else check_time("until", until),
    )
    backend = await db.backend()
    async with backend.bulk.snapshot(repair=replace) as snapshot:
        writer = make_format(tables, await vector_spaces(snapshot, tables))
        for table in tables if writer.all_or_nothing else ():
            if orphans := await snapshot.orphans(table):
                raise orphans_left(table, orphans)
        values: list[str] = []
        more = 0
        # A file that is not whole has no name yet, so its rows are tested as they are written.
        tested = isinstance(output, str | Path) and not is_device(output) and not replace
        if not tested:
            values, more = await unportable_values(snapshot, tables, period)
            if values and not replace:
                raise UnportableError(values, more)
        names = [table.name for table in tables]
        try:
            async with Worker() as worker, worker.entered(outputs(output, names)) as files:
                await worker.run(_write, files[names[0]], writer.begin)
                exporting = _Exporting(snapshot, period, worker, writer, progress, tested=tested)
                rows = {t.name: await exporting.table(t, files[t.name]) for t in tables}
                await worker.run(_write, files[names[-1]], writer.end)
        except UnportableError:
            # The first of them; whoever mends the records wants to know all.
            raise UnportableError(*await unportable_values(snapshot, tables, period)) from None
    return ExportReport(rows, tuple(values), more)


def _write(file: Output, text_of: Callable[..., str], *arguments: Any) -> None:
    file.write(text_of(*arguments))


class _Exporting:
    """Writes one table after the other."""

    def __init__(
        self,
        snapshot: Snapshot,
        period: Period,
        worker: Worker,
        writer: Format,
        progress: Progress | None,
        *,
        tested: bool,
    ) -> None:
        self._snapshot = snapshot
        self._tested = tested
        self._period = period
        self._worker = worker
        self._writer = writer
        self._progress = progress
        self._done = 0

    async def table(self, table: Table[Any], file: Output) -> int:
        """Write a table, and return how many rows it has."""
        total = 0
        if self._progress is not None:
            total = await self._snapshot.count(table, self._period)
        self._done = 0
        # Nothing is read while a batch is written: Python would do both in turns, row by row.
        async for rows in self._snapshot.rows(
            table, self._period, tested=self._tested, most=AT_ONCE
        ):
            await self._write(table, rows, file, total)
        return self._done

    async def _write(
        self, table: Table[Any], rows: Sequence[Row], file: Output, total: int
    ) -> None:
        await self._worker.run(_write, file, self._writer.rows, table, rows)
        self._done += len(rows)
        if self._progress is not None:
            self._progress(table.name, self._done, total)
