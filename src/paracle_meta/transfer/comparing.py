"""The proof that two databases hold the same rows, whatever databases they are."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.exceptions import TransferError
from paracle_meta.schema import TABLES, Column, Kind
from paracle_meta.transfer.merging import merge
from paracle_meta.values import canonical_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from paracle_meta.backends.bulk import Snapshot
    from paracle_meta.backends.portable import Row
    from paracle_meta.database import MetaDatabase
    from paracle_meta.reembedding import Progress
    from paracle_meta.schema import Table

MOST_NAMED: Final = 100
"""Ids that a report names of each list: more than a person looks at, whatever the number is."""

DIGEST_BYTES: Final = 16
"""Two rows that differ have the same digest once in 2^128."""


@dataclass(frozen=True, slots=True)
class Named:
    """Rows that a report names.

    Attributes:
        total: How many they are.
        ids: The first of them, at most MOST_NAMED.
    """

    total: int = 0
    ids: tuple[str, ...] = ()


class Naming:
    """Counts rows and keeps the first ids."""

    def __init__(self) -> None:
        self.total = 0
        self._ids: list[str] = []

    def add(self, record_id: str) -> None:
        """Take a row in."""
        self.total += 1
        if len(self._ids) < MOST_NAMED:
            self._ids.append(record_id)

    def discard(self, record_id: str) -> None:
        """Take out a row that was taken in."""
        if record_id in self._ids:
            self._ids.remove(record_id)
        self.total -= 1

    def named(self) -> Named:
        """Return what was taken in."""
        return Named(self.total, tuple(self._ids))


@dataclass(frozen=True, slots=True)
class Side:
    """A table of one of the two databases.

    Attributes:
        rows: How many it has.
        checksum: Of all columns of all rows in the order of their ids, as hexadecimal digits. The
            same rows have the same checksum on every database.
    """

    rows: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A table of two databases, compared row by row.

    Attributes:
        table: Its name.
        source: One side.
        target: The other side.
        different: Rows that both have and that differ.
        missing: Rows that only the source has.
        extra: Rows that only the target has.
    """

    table: str
    source: Side
    target: Side
    different: Named
    missing: Named
    extra: Named

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same rows."""
        return self.source == self.target


async def compare_databases(
    source: MetaDatabase, target: MetaDatabase, *, progress: Progress | None = None
) -> list[Comparison]:
    """Compare two databases row by row, all columns, vectors bit for bit.

    JSON is compared as the value that it states, whatever the order of its keys; 1 and 1.0 differ.

    Args:
        source: One database.
        target: The other one.
        progress: Called with what is done, how many rows of it are done, and of how many.

    Returns:
        One item a table, each as it is at one moment.

    Raises:
        TransferError: There is no database at one of the two places, or it holds a value that is
            not what its column says.
    """
    await refuse_missing(source)
    await refuse_missing(target)
    one, other = await source.backend(), await target.backend()
    async with one.bulk.snapshot() as here, other.bulk.snapshot() as there:
        return await compare(here, there, progress)


async def refuse_missing(database: MetaDatabase) -> None:
    """Refuse a place where no database is; opening it would make an empty one.

    Raises:
        TransferError: There is none.
    """
    status = await database.status()
    if status.revision is None:
        raise TransferError(
            f"There is no database at {status.location}, or not all of it; check the URL."
        )


async def compare(
    source: Snapshot, target: Snapshot, progress: Progress | None
) -> list[Comparison]:
    """Return how two snapshots compare; see `compare_databases`."""
    return [await _compare_table(table, source, target, progress) for table in TABLES]


async def _compare_table(
    table: Table[Any], source: Snapshot, target: Snapshot, progress: Progress | None
) -> Comparison:
    here, there = _Reading(table, source), _Reading(table, target)
    different, missing, extra = Naming(), Naming(), Naming()
    total = await source.count(table)
    async with aclosing(merge(here.digests(), there.digests())) as batches:
        async for batch in batches:
            for record_id, one, other in batch:
                if other is None:
                    missing.add(record_id)
                elif one is None:
                    extra.add(record_id)
                elif one != other:
                    different.add(record_id)
            if progress is not None:
                progress(f"comparing {table.name}", min(here.rows, total), total)
    return Comparison(
        table=table.name,
        source=here.side(),
        target=there.side(),
        different=different.named(),
        missing=missing.named(),
        extra=extra.named(),
    )


class _Reading:
    """Reads one side of a table and adds it up."""

    def __init__(self, table: Table[Any], snapshot: Snapshot) -> None:
        self.rows = 0
        self._table = table
        self._snapshot = snapshot
        self._checksum = blake2b(digest_size=DIGEST_BYTES)

    async def digests(self) -> AsyncIterator[list[tuple[str, bytes]]]:
        """Yield the id and digest of each row."""
        digest = digester(self._table)

        def digested(rows: list[Row]) -> list[tuple[str, bytes]]:
            return [(row[0], digest(row)) for row in rows]

        async for rows in self._snapshot.rows(self._table):
            # In a thread, as a batch takes 20 ms, and one of long texts more.
            found = await asyncio.to_thread(digested, rows)
            self.rows += len(found)
            self._checksum.update(b"".join([one for _, one in found]))
            yield found

    def side(self) -> Side:
        """Return what was read; all of it, once `digests` has ended."""
        return Side(self.rows, self._checksum.hexdigest())


def digester(table: Table[Any]) -> Callable[[Row], bytes]:
    """Return what makes a digest of a row: the same for the same values on every database.

    It is BLAKE2b of the row as a JSON array without regard to the order of keys, with the length in
    the place of a vector, whose bytes follow.
    """
    changes = [
        (place, change)
        for place, change in enumerate(map(_canonical, table.columns))
        if change is not None
    ]
    vectors = [place for place, column in enumerate(table.columns) if column.kind is Kind.VECTOR]

    def digest(row: Row) -> bytes:
        values = list(row)
        try:
            for place, change in changes:
                if values[place] is not None:
                    values[place] = change(values[place])
            text = canonical_json(values)
        except (TypeError, ValueError) as exc:
            raise TransferError(
                f"The {table.noun} {row[0]!r:.90} holds a value that does not fit its column, so "
                "it cannot be compared; mend it by SQL."
            ) from exc
        blobs = [row[place] or b"" for place in vectors]
        return blake2b(b"".join([text.encode(), *blobs]), digest_size=DIGEST_BYTES).digest()

    return digest


def _canonical(column: Column) -> Callable[[Any], Any] | None:
    """Return what makes the one form of a value that is not missing; None where it has one only."""
    match column.kind:
        case Kind.FLOAT:
            return _plain_zero
        case Kind.JSON | Kind.JSON_TEXT | Kind.TAGS:
            return _json
        case Kind.VECTOR:
            return len
        case _:
            return None


def _json(text: str) -> list[Any]:
    # In a list, as a missing value is something else than the JSON value null.
    if "-0" in text:
        return [json.loads(text, parse_float=_plain_zero)]
    return [json.loads(text)]


def _plain_zero(number: Any) -> float:
    # Databases that keep numbers as decimals know no negative zero.
    return float(number) + 0.0
