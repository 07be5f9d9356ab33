"""Records from a file or stream: JSON Lines, or the SQL that an export wrote."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final

from paracle_meta.backends.collections import VectorSpace
from paracle_meta.backends.portable_rows import memory_key, position
from paracle_meta.exceptions import RejectedLinesError
from paracle_meta.kinds import tables_of
from paracle_meta.schema import BY_NAME, MEMORY, TABLES
from paracle_meta.transfer.checks import MOST_NAMED
from paracle_meta.transfer.files import sources
from paracle_meta.transfer.reading import Bad, Batch, Good, Place, Reader, batches
from paracle_meta.transfer.rows import same_row
from paracle_meta.transfer.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from paracle_meta.backends.bulk import Loading
    from paracle_meta.database import MetaDatabase
    from paracle_meta.reembedding import Progress
    from paracle_meta.schema import Table
    from paracle_meta.transfer.files import Source

ENOUGH: Final = 1_000
"""Bad lines after which a strict import reads no further: the file is another than was meant."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of the lines of a file.

    Attributes:
        added: How many records of each kind were stored.
        unchanged: How many were stored already, as the same record.
        rejected: Why a line was not stored, by its number; of a folder by file and number, such as
            ``feedback.jsonl:3``. At most 10,000.
        more_rejected: How many other lines were not stored.
        without_vector: How many of the added have no vector, of each kind that can have one.
    """

    added: Mapping[str, int]
    unchanged: Mapping[str, int]
    rejected: Mapping[int | str, str]
    more_rejected: int = 0
    without_vector: Mapping[str, int] = field(default_factory=dict)


async def import_file(
    db: MetaDatabase,
    source: IO[bytes] | Path | str,
    *,
    kinds: Sequence[str] | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Store what a file says, whether an export wrote it or somebody else did.

    Nothing that is stored is overwritten, so a file may be imported again. Each line is taken or
    rejected for itself: one that is no record, breaks a rule of its column, has the id or key of a
    different record, or is about a generation that neither the database nor the file has.

    Args:
        db: Where to store it.
        source: A stream, a file or a folder of files ``<kind>.jsonl``, compressed or not: JSON
            Lines as `export_jsonl` writes them, or a script of `export_sql`.
        kinds: Names of tables whose records are taken; None for all six.
        strict: Store nothing unless every line can be stored. The first 1,000 bad lines end it.
        progress: Called with the name of what is read, how many of its bytes are done, and of how
            many; 0 where nobody knows.

    Returns:
        How many records were added, and which lines were rejected.

    Raises:
        InvalidValueError: There is no such kind.
        TransferError: The file cannot be read.
        RejectedLinesError: Some lines cannot be stored, and `strict` is on.
        EmbeddingModelMismatchError: The file has vectors of another model than those of a
            collection. No vector of the file was stored there.
    """
    tables = tables_of(kinds)
    reader = Reader(tables, db.settings.content_limit, db.settings.zone)
    names = [table.name for table in tables]
    async with Worker() as worker, worker.entered(sources(source, names)) as files:
        backend = await db.backend()
        reading = batches(reader.items(files))
        with tempfile.TemporaryFile() as waiting:
            async with backend.bulk.loading(whole=strict) as loading:
                importing = _Importing(loading, worker, waiting, strict=strict)
                while batch := await worker.run(partial(next, reading, None)):
                    await importing.store(batch)
                    if progress is not None:
                        progress(*_how_far(files))
                await importing.finish()
                report = importing.report([file.name for file in files])
                if strict and report.rejected:
                    # Within the block, so that nothing is stored.
                    raise RejectedLinesError(report.rejected)
    return report


def _how_far(files: Sequence[Source]) -> tuple[str, int, int]:
    return "read", sum(file.read for file in files), sum(file.size for file in files)


class _Importing:
    """Stores one batch after the other."""

    def __init__(
        self, loading: Loading, worker: Worker, waiting: IO[bytes], *, strict: bool
    ) -> None:
        self._loading = loading
        self._worker = worker
        self._waiting = waiting
        """Rows that refer to one that may still come."""
        self._strict = strict
        self._spaces: dict[Table[Any], VectorSpace] = {}
        self._added: Counter[str] = Counter()
        self._unchanged: Counter[str] = Counter()
        self._without_vector: Counter[str] = Counter()
        self._rejected: dict[Place, str] = {}
        self._more_rejected = 0

    async def store(self, batch: Batch) -> None:
        """Store what can be stored now.

        Raises:
            RejectedLinesError: There are so many bad lines that a strict import ends.
        """
        for bad in batch.bad:
            self._reject(bad.place, bad.reason)
        for table, items in batch.good.items():
            if items:
                await self._insert(table, await self._comparable(table, items), last=False)
        if self._strict and len(self._rejected) >= ENOUGH:
            raise RejectedLinesError(self.report(()).rejected)

    async def finish(self) -> None:
        """Store what had to wait, and make what is made at the end."""
        reading = _rows_back(self._waiting)
        while items := await self._worker.run(partial(next, reading, None)):
            await self._insert(items[0].table, items, last=True)
        for name in self._added:
            await self._loading.finish(BY_NAME[name])

    def report(self, files: Iterable[str]) -> ImportReport:
        """Return what was done.

        Args:
            files: In the order in which they were read.
        """
        order = {name: number for number, name in enumerate(files)}
        places = sorted(self._rejected, key=lambda place: (order.get(place.file, 0), place.line))
        return ImportReport(
            added=_in_order(self._added),
            unchanged=_in_order(self._unchanged),
            rejected={
                f"{place.file}:{place.line}" if place.file else place.line: self._rejected[place]
                for place in places
            },
            more_rejected=self._more_rejected,
            without_vector=_in_order(self._without_vector),
        )

    def _reject(self, place: Place, reason: str) -> None:
        if len(self._rejected) < MOST_NAMED:
            # The first reason is the cause of what else is wrong there.
            self._rejected.setdefault(place, reason)
        else:
            self._more_rejected += 1

    async def _comparable(self, table: Table[Any], items: list[Good]) -> list[Good]:
        """Return the items whose vectors can be compared with one another, and reject the others.

        Raises:
            EmbeddingModelMismatchError: Those that are stored are of another model.
        """
        if not table.has_vector:
            return items
        vector, model = position(table, "embedding"), position(table, "embedding_model")
        kept = []
        for item in items:
            if item.row[vector] is not None:
                space = VectorSpace(item.row[model], len(item.row[vector]) // 4)
                if table not in self._spaces:
                    await self._loading.prepare(table, space)
                    self._spaces[table] = space
                if space != self._spaces[table]:
                    first = self._spaces[table]
                    self._reject(
                        item.place,
                        f"its vector is of {space.model} ({space.dimensions:,} numbers), those "
                        f"before it of {first.model} ({first.dimensions:,})",
                    )
                    continue
            kept.append(item)
        return kept

    async def _insert(self, table: Table[Any], items: Sequence[Good], *, last: bool) -> None:
        if not items:
            return
        inserted = await self._loading.insert(table, [item.row for item in items])
        taken, orphans = set(inserted.taken), set(inserted.orphans)
        new = [item for item in items if item.row[0] not in taken and item.row[0] not in orphans]
        self._added[table.name] += len(new)
        if table.has_vector:
            vector = position(table, "embedding")
            self._without_vector[table.name] += sum(item.row[vector] is None for item in new)
        if taken:
            await self._compare(table, [item for item in items if item.row[0] in taken])
        waiting = [item for item in items if item.row[0] in orphans]
        if waiting and not last:
            await self._worker.run(_put_aside, self._waiting, waiting)
        elif waiting:
            self._reject_orphans(table, waiting)

    async def _compare(self, table: Table[Any], items: Sequence[Good]) -> None:
        """Find out which rows are stored as they are, and reject the others."""
        stored = await self._loading.stored(table, [item.row for item in items])
        by_id = {row[0]: row for row in stored}
        by_key = {memory_key(row): row for row in stored} if table is MEMORY else {}
        for item in items:
            reason = f"another {table.noun} is stored under this id"
            row = by_id.get(item.row[0])
            if row is None and table is MEMORY:
                reason = "another value is stored under this scope, session and key"
                row = by_key.get(memory_key(item.row))
            if row is not None and same_row(table, row, (row[0], *item.row[1:])):
                self._unchanged[table.name] += 1
            else:
                self._reject(item.place, reason)

    def _reject_orphans(self, table: Table[Any], items: Sequence[Good]) -> None:
        for item in items:
            for column, value in zip(table.columns, item.row, strict=True):
                if column.references is not None:
                    noun = BY_NAME[column.references].noun
                    self._reject(
                        item.place, f"it is about the {noun} {value!r:.90}, which is not stored"
                    )


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return {table.name: counts[table.name] for table in TABLES if counts[table.name]}


def _put_aside(file: IO[bytes], items: Sequence[Good]) -> None:
    """Write rows to a file; what refers to another row has no vector, so JSON can spell it."""
    for item in items:
        line = json.dumps([*item.place, item.table.name, item.row])
        file.write(line.encode() + b"\n")


def _rows_back(file: IO[bytes]) -> Iterator[list[Good]]:
    """Yield the rows that were put aside, those of a table together."""
    file.seek(0)
    for batch in batches(_put_back(file)):
        for items in batch.good.values():
            if items:
                yield items


def _put_back(file: IO[bytes]) -> Iterator[Good | Bad]:
    for line in file:
        name, number, table, row = json.loads(line)
        yield Good(Place(name, number), BY_NAME[table], tuple(row), len(line))
