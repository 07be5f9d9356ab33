"""A database moved to another one, of the same kind or not.

There is no file that remembers how far a copy is: the target itself is asked by id and
`updated_at`. So a copy that was killed goes on where it was, and a second one moves what changed.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.portable_rows import memory_key, position
from paracle_meta.exceptions import TransferError, UnportableError
from paracle_meta.schema import COLLECTIONS, MEMORY, TABLES
from paracle_meta.transfer.batches import Behind, SetAside
from paracle_meta.transfer.checks import unportable_values, vector_spaces
from paracle_meta.transfer.comparing import (
    Comparison,
    Named,
    Naming,
    compare,
    refuse_missing,
)
from paracle_meta.transfer.merging import merge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from paracle_meta.backends.base import Backend
    from paracle_meta.backends.bulk import Loading, Snapshot
    from paracle_meta.backends.portable import Row
    from paracle_meta.database import MetaDatabase
    from paracle_meta.reembedding import Progress
    from paracle_meta.schema import Table

FIRST_ROWS: Final = 100
"""Rows that are asked for by id while nobody knows how large they are."""
MOST_ROWS: Final = 1_000
"""Rows in one batch: more of them are not faster."""
BATCH_BYTES: Final = 4 * 1024**2
"""How much a batch should hold: a record may have several MB, and two batches are in memory."""


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """What a copy did with one table.

    Attributes:
        table: Its name.
        copied: Rows that the target did not have.
        updated: Rows that were newer at the source, or whose key had another row at the target.
        unchanged: Rows that both had already.
        changed_at_target: Rows that are newer at the target; they were left as they are there.
        conflicts: Rows that were left out, as the target has another row under their key.
        orphans: Rows that were left out, as what they refer to is not stored.
        only_at_target: Rows that the source does not have, or no longer; they were left.
    """

    table: str
    copied: int
    updated: int
    unchanged: int
    changed_at_target: Named
    conflicts: Named
    orphans: Named
    only_at_target: Named

    @property
    def complete(self) -> bool:
        """Whether the target has the rows of the source, and no others."""
        left = (self.changed_at_target, self.conflicts, self.orphans, self.only_at_target)
        return not any(named.total for named in left)


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did.

    Attributes:
        tables: One item a table.
        comparison: One item a table, made afterwards; None where nothing was compared.
        replaced: The values that were replaced, as no other database can hold them; one text each
            with its kind, id, column and reason, at most 10,000.
        more_replaced: How many others were.
    """

    tables: tuple[CopiedTable, ...]
    comparison: tuple[Comparison, ...] | None
    replaced: tuple[str, ...] = ()
    more_replaced: int = 0

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same rows: compared, or as far as is known without that."""
        if self.comparison is not None:
            return all(one.equal for one in self.comparison)
        return all(one.complete for one in self.tables)


async def copy_database(
    source: MetaDatabase,
    target: MetaDatabase,
    *,
    verify: bool = True,
    replace: bool = False,
    progress: Progress | None = None,
) -> CopyReport:
    """Copy all rows to another database, as they are at one moment, while writers go on.

    Rows that the target has already are kept where they are as new as at the source, and replaced
    where they are older. Nothing is deleted. A copy that was stopped, by whatever, is finished by
    the next one.

    Args:
        source: What to copy; it is not changed.
        target: Where to; it may be empty, or hold an earlier copy.
        verify: Compare both sides row by row afterwards.
        replace: Copy values that the target cannot hold with replacement characters, rather than
            refuse them.
        progress: Called with what is done, how many rows of it are done, and of how many.

    Raises:
        TransferError: There is no database at the source, or it is the target too, or its vectors
            cannot be kept at the target.
        UnportableError: The source holds values that the target cannot; nothing was written.
        EmbeddingModelMismatchError: The target holds vectors of another model.
    """
    if source is target or source.settings == target.settings:
        raise TransferError("Source and target are the same database; give another --to.")
    await refuse_missing(source)
    async with AsyncExitStack() as reading:
        backend = await source.backend()
        snapshot = await reading.enter_async_context(backend.bulk.snapshot(repair=replace))
        values, more = await unportable_values(snapshot, TABLES)
        if values and not replace:
            raise UnportableError(values, more)
        spaces = await vector_spaces(snapshot, TABLES)
        if spaces and not target.settings.enable_vectors:
            raise TransferError(
                f"{' and '.join(spaces)} have vectors at the source, but vectors are switched off "
                "for the target; set enable_vectors: true."
            )
        backend = await target.backend()
        async with backend.bulk.loading() as loading:
            # All before the first row, so that a target with another model is refused as it was.
            for name, space in spaces.items():
                await loading.prepare(COLLECTIONS[name], space)
            copying = _Copying(snapshot, backend, loading, progress)
            tables = [await copying.copy(table) for table in TABLES]
            comparison = None
            if verify:
                async with backend.bulk.snapshot() as copied:
                    comparison = tuple(await compare(snapshot, copied, progress))
            # Building an index may wait for every older snapshot on its server.
            await reading.aclose()
            for name in spaces:
                await loading.finish(COLLECTIONS[name])
    return CopyReport(tuple(tables), comparison, tuple(values), more)


class _Tally:
    """What was done with a table so far."""

    def __init__(
        self, table: Table[Any], missing: SetAside, outdated: SetAside, taken: SetAside
    ) -> None:
        """Begin with nothing.

        Args:
            table: What is copied.
            missing: Takes the ids of what the target has not.
            outdated: Takes the ids of what is older there.
            taken: Takes the ids of what could not be inserted, as their id or key was taken.
        """
        self.table = table
        self.missing, self.outdated, self.taken = missing, outdated, taken
        self.copied = self.updated = self.unchanged = 0
        self.changed_at_target, self.conflicts = Naming(), Naming()
        self.orphans, self.only_at_target = Naming(), Naming()

    @property
    def done(self) -> int:
        """How many rows of the source were seen to."""
        left = self.changed_at_target.total + self.orphans.total + self.taken.total
        return self.copied + self.updated + self.unchanged + left

    def result(self) -> CopiedTable:
        return CopiedTable(
            table=self.table.name,
            copied=self.copied,
            updated=self.updated,
            unchanged=self.unchanged,
            changed_at_target=self.changed_at_target.named(),
            conflicts=self.conflicts.named(),
            orphans=self.orphans.named(),
            only_at_target=self.only_at_target.named(),
        )


class _Copying:
    """Copies one table after the other."""

    def __init__(
        self, source: Snapshot, target: Backend, loading: Loading, progress: Progress | None
    ) -> None:
        self._source = source
        self._target = target
        self._loading = loading
        self._progress = progress

    async def copy(self, table: Table[Any]) -> CopiedTable:
        """Copy a table and return what was done."""
        with SetAside() as missing, SetAside() as outdated, SetAside() as taken:
            tally = _Tally(table, missing, outdated, taken)
            total = await self._source.count(table)
            # Closed before the first row is stored: where the journal is a rollback journal,
            # whoever stores one waits for those who read.
            async with self._target.bulk.snapshot() as before:
                is_empty = not await before.count(table)
                if not is_empty:
                    await self._sort_out(tally, before)
            async with Behind() as behind:
                if is_empty:
                    async for rows in self._source.rows(table):
                        await behind.begin(self._insert(tally, rows))
                        self._tell(tally, total)
                async for rows in self._rows(table, missing):
                    await behind.begin(self._insert(tally, rows))
                    self._tell(tally, total)
                async for rows in self._rows(table, outdated):
                    await behind.begin(self._overwrite(tally, rows))
                    self._tell(tally, total)
            await self._settle(tally)
            self._tell(tally, total)
            return tally.result()

    async def _sort_out(self, tally: _Tally, before: Snapshot) -> None:
        """Find what the target has not, or has in an older state."""
        sides = merge(self._source.versions(tally.table), before.versions(tally.table))
        async with aclosing(sides) as batches:
            async for batch in batches:
                missing, outdated = [], []
                for record_id, here, there in batch:
                    if there is None:
                        missing.append(record_id)
                    elif here is None:
                        tally.only_at_target.add(record_id)
                    elif here == there:
                        tally.unchanged += 1
                    elif here > there:  # Times in this form are in the order of the texts.
                        outdated.append(record_id)
                    else:
                        tally.changed_at_target.add(record_id)
                tally.missing.add(missing)
                tally.outdated.add(outdated)

    async def _rows(self, table: Table[Any], ids: SetAside) -> AsyncIterator[list[Row]]:
        """Yield rows of the source by id, as many at a time as the last ones were small."""
        number = FIRST_ROWS
        for batch in ids:
            start = 0
            while start < len(batch):
                rows = await self._source.rows_of(table, batch[start : start + number])
                yield rows
                start += number
                number = min(MOST_ROWS, 1 + BATCH_BYTES // _mean_size(rows))

    async def _insert(self, tally: _Tally, rows: Sequence[Row]) -> None:
        inserted = await self._loading.insert(tally.table, rows)
        tally.copied += len(rows) - len(inserted.taken) - len(inserted.orphans)
        tally.taken.add(inserted.taken)
        for record_id in inserted.orphans:
            tally.orphans.add(record_id)

    async def _overwrite(self, tally: _Tally, rows: Sequence[Row]) -> None:
        await self._loading.overwrite(tally.table, rows)
        tally.updated += len(rows)

    async def _settle(self, tally: _Tally) -> None:
        """See to the rows whose place is taken: by a writer just now, or by another row's key.

        A session value that was deleted and set again has another id under the same key. Where the
        target has the former one, it is replaced.
        """
        if tally.table is not MEMORY:
            for batch in tally.taken:
                for record_id in batch:
                    tally.conflicts.add(record_id)
            return
        async for rows in self._rows(MEMORY, tally.taken):
            stored = {memory_key(row): row for row in await self._loading.stored(MEMORY, rows)}
            ids = sorted(row[0] for row in stored.values())
            at_source = {row[0] for row in await self._source.rows_of(MEMORY, ids)}
            outdated = []
            for row in rows:
                other = stored.get(memory_key(row))
                if other is None or other[0] in at_source or other[_UPDATED] >= row[_UPDATED]:
                    tally.conflicts.add(row[0])
                else:
                    tally.only_at_target.discard(other[0])
                    outdated.append(row)
            if outdated:
                await self._overwrite(tally, outdated)

    def _tell(self, tally: _Tally, total: int) -> None:
        if self._progress is not None:
            self._progress(tally.table.name, tally.done, total)


def _mean_size(rows: Sequence[Row]) -> int:
    values = (value for row in rows for value in row if isinstance(value, str | bytes))
    return 1 + sum(map(len, values)) // max(1, len(rows))


_UPDATED: Final = position(MEMORY, "updated_at")
