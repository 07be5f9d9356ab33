"""From the lines of a file to rows that may be stored, in batches that fit memory."""

from __future__ import annotations

import itertools
from codecs import BOM_UTF8
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from paracle_meta.backends.portable_rows import memory_key
from paracle_meta.exceptions import InvalidValueError
from paracle_meta.schema import MEMORY, TABLES
from paracle_meta.transfer.files import Unreadable
from paracle_meta.transfer.jsonl import parse_line
from paracle_meta.transfer.rows import checked_row, rechecked_row

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from zoneinfo import ZoneInfo

    from paracle_meta.backends.portable import Row
    from paracle_meta.schema import Table
    from paracle_meta.transfer.files import Source

BATCH_LINES: Final = 1_000
"""Lines read before they are stored: a transaction for each would be most of the time."""

BATCH_BYTES: Final = 8 * 1024 * 1024
"""So many bytes of lines end a batch before: memory stays flat where records are large."""

LONGEST_LINE: Final = 25
"""Longest line in content limits: of a generation four columns may have that many bytes each, of
which JSON may spell every one by six."""


class Place(NamedTuple):
    """Where a line stands: in the file of this name, which is empty where there is only one."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Good:
    """A line that states a row.

    Attributes:
        place: Where it stands.
        table: Where the row belongs.
        row: Checked, and portable.
        size: Bytes of the line.
    """

    place: Place
    table: Table[Any]
    row: Row
    size: int


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that cannot be stored.

    Attributes:
        place: Where it stands.
        reason: Why; never its text.
    """

    place: Place
    reason: str


Item: TypeAlias = Good | Bad


@dataclass(slots=True)
class Batch:
    """What some lines say; no id stands twice in it, nor a key of ``memory``.

    Attributes:
        good: Rows by their table, in the order in which they can be stored.
        bad: The other lines.
    """

    good: dict[Table[Any], list[Good]] = field(
        default_factory=lambda: {table: [] for table in TABLES}
    )
    bad: list[Bad] = field(default_factory=list)
    _keys: set[Any] = field(default_factory=set)
    _size: int = 0
    _lines: int = 0

    @property
    def is_full(self) -> bool:
        """Whether it should be stored before more is read."""
        return self._lines >= BATCH_LINES or self._size >= BATCH_BYTES

    def takes(self, item: Item) -> bool:
        """Take in what a line says, unless its id or key is there already; return whether."""
        self._lines += 1
        if isinstance(item, Bad):
            self.bad.append(item)
            return True
        keys = _unique(item.table, item.row)
        if not self._keys.isdisjoint(keys):
            return False
        self._keys.update(keys)
        self._size += item.size
        self.good[item.table].append(item)
        return True


def _unique(table: Table[Any], row: Row) -> list[Any]:
    return [(table.name, row[0]), memory_key(row)] if table is MEMORY else [(table.name, row[0])]


def batches(items: Iterable[Item]) -> Iterator[Batch]:
    """Yield what lines say, a batch at a time."""
    batch = Batch()
    for item in items:
        if batch.is_full or not batch.takes(item):
            yield batch
            batch = Batch()
            batch.takes(item)
    yield batch


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads sources, whatever their form.

    Attributes:
        tables: Rows of others are passed over.
        content_limit: Longest text in UTF-8 bytes.
        zone: Whose day a cost counts on that states none.
    """

    tables: Collection[Table[Any]]
    content_limit: int
    zone: ZoneInfo

    def items(self, sources: Iterable[Source]) -> Iterator[Item]:
        """Yield what each line of each source says."""
        for source in sources:
            yield from self._of(source)

    def _of(self, source: Source) -> Iterator[Item]:
        lines = source.lines(LONGEST_LINE * self.content_limit)
        first = next(lines, None)
        if first is None:
            return
        read = self._script if _begins_script(first[1]) else self._json_lines
        yield from read(itertools.chain([first], lines), source.name)

    def _json_lines(
        self, lines: Iterable[tuple[int, bytes | Unreadable]], file: str
    ) -> Iterator[Item]:
        kind = file.partition(".")[0] or None
        for number, line in lines:
            place = Place(file, number)
            if isinstance(line, Unreadable):
                yield Bad(place, line.reason)
                continue
            if line.isspace():
                continue
            try:
                table, values = parse_line(line, kind, self.zone)
                if table in self.tables:
                    row = checked_row(table, values, self.content_limit)
                    yield Good(place, table, row, len(line))
            except InvalidValueError as error:
                yield Bad(place, str(error).removesuffix("."))

    def _script(self, lines: Iterable[tuple[int, bytes | Unreadable]], file: str) -> Iterator[Item]:
        from paracle_meta.backends.postgresql.script_reader import ScriptProblem, read_script

        unreadable: list[Bad] = []
        texts = _decoded(lines, file, unreadable)
        for found in read_script(texts):
            yield from unreadable
            unreadable.clear()
            place = Place(file, found.line)
            if isinstance(found, ScriptProblem):
                yield Bad(place, found.reason)
            elif found.table in self.tables:
                try:
                    row = rechecked_row(found.table, found.row, self.content_limit)
                    size = sum(len(value) for value in row if isinstance(value, str | bytes))
                    yield Good(place, found.table, row, size)
                except InvalidValueError as error:
                    yield Bad(place, str(error).removesuffix("."))
        # The reader stops after the rows; whether the file is sound shows at its end.
        for _ in texts:
            pass
        yield from unreadable


def _begins_script(line: bytes | Unreadable) -> bool:
    if isinstance(line, Unreadable) or not line.removeprefix(BOM_UTF8).startswith(b"--"):
        return False
    from paracle_meta.backends.postgresql.script_sql import TITLE

    return line.removeprefix(BOM_UTF8).startswith(TITLE.encode())


def _decoded(
    lines: Iterable[tuple[int, bytes | Unreadable]], file: str, unreadable: list[Bad]
) -> Iterator[str]:
    """Yield lines as text; what is no text is such that no record can hold it."""
    for number, line in lines:
        if isinstance(line, Unreadable):
            unreadable.append(Bad(Place(file, number), line.reason))
            yield "\x00\n"
        else:
            yield line.decode("utf-8", "surrogateescape")
