"""Reads back what `script` wrote: its own form only, of which SQL is no part.

A line ends where no text is open, which the number of quotes so far tells: so a text may have any
lines in it, such as those that look like statements.
"""

from __future__ import annotations

import math
import re
import sys
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.postgresql import script_sql as sql
from paracle_meta.exceptions import TransferError
from paracle_meta.schema import BY_NAME, Column, Kind, Table
from paracle_meta.values import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from paracle_meta.backends.portable import Row

LINE_CHARACTERS: Final = 2**27
"""Most characters of one row with several lines; with a quote lost, it would go on to the end.

Four columns of a generation may have 8 MiB each by the usual limit, twice that if all is quotes.
"""

# Possessive, since a text of megabytes would otherwise be kept piece by piece for going back.
_LITERAL: Final = r"NULL|-?[0-9][0-9.e+-]*+|'(?:[^']++|'')*+'"
_LITERALS: Final = re.compile(_LITERAL)
_ROW: Final = re.compile(rf"\((?:{_LITERAL})(?:,(?:{_LITERAL}))*+\),?\n?")
_INSERT: Final = re.compile(r"INSERT INTO ([a-z_]+) \(([a-z_]+(?:, [a-z_]+)*)\) VALUES\n")
_LIKE_A_BEGINNING: Final = re.compile(rf"{_INSERT.pattern}|\('(?:[^'\n]++|'')++',")

_MOMENT: Final = re.compile(r"'[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}(?::[0-9]{2}){2}\.[0-9]{6}\+00'")
_DAY: Final = re.compile(r"'[0-9]{4}-[0-9]{2}-[0-9]{2}'")
_LABEL: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ARRAY: Final = re.compile(rf"\{{(?:{_LABEL.pattern}(?:,{_LABEL.pattern})*+)?\}}", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_VECTOR: Final = re.compile(r"'\[-?[0-9.e+-]++(?:,-?[0-9.e+-]++)*+\]'")


@dataclass(frozen=True, slots=True)
class ScriptRow:
    """A row that was read.

    Attributes:
        line: Where it begins in the file; the first line is 1.
        table: Where it belongs.
        row: Its values; those that the statement does not name are missing.
    """

    line: int
    table: Table[Any]
    row: Row = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScriptProblem:
    """Lines that could not be read.

    Attributes:
        line: Where they begin in the file.
        reason: What is wrong with them, never their text.
    """

    line: int
    reason: str


def read_script(lines: Iterable[str]) -> Iterator[ScriptRow | ScriptProblem]:
    r"""Return the rows of a file, read as they are asked for.

    Only the form of a row is looked at, not whether its values can be stored. What cannot be read
    is named, and reading goes on with the next row. No more than a row is held in memory, unless a
    quote is missing.

    Args:
        lines: A file opened with ``newline="\n"``: other ends of lines are part of texts.

    Raises:
        TransferError: The first line is not that of an export, or of one in a later format.
    """
    source = iter(lines)
    first = next(source, "").removeprefix("\ufeff").rstrip("\n")
    version = first.removeprefix(sql.TITLE)
    if version == first or not version.isdecimal():
        raise TransferError(
            f'The first line is not "{sql.TITLE}{sql.FORMAT}": this is no SQL file that '
            "paracle_meta exported, or its beginning is missing. Other SQL is for psql."
        )
    if int(version) > sql.FORMAT:
        raise TransferError(
            f"The file is in format {int(version)}, and this version reads up to {sql.FORMAT}: a "
            "newer paracle_meta wrote it. Upgrade the package."
        )
    return _read(_Lines(source))


def _read(lines: _Lines) -> Iterator[ScriptRow | ScriptProblem]:
    # What stands before the rows is for psql; a model may be called like the line that ends it.
    while (text := lines.next()) and text != sql.ROWS:
        pass
    statement: _Statement | None = None
    while (text := lines.next()) and text != sql.END_OF_ROWS:
        line = lines.line
        try:
            if text.startswith("INSERT "):
                statement = None
                statement = _statement(text)
            elif _ROW.fullmatch(text):
                yield _row(line, statement, text)
            elif text == sql.CONFLICT:
                statement = None
            elif not text.isspace():
                lines.recover()
                yield ScriptProblem(line, "it is neither a row nor a statement of an export")
        except ValueError as error:
            yield ScriptProblem(line, str(error))
    if not text:
        yield ScriptProblem(lines.line, "the file ends here, before its end: rows are missing")


def _row(line: int, statement: _Statement | None, text: str) -> ScriptRow:
    if statement is None:
        raise ValueError("it is a row of a statement that was not understood")
    return ScriptRow(line, statement.table, statement.row(text))


class _Lines:
    """Lines of a file; those of a text that goes over several come as one."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._ahead: deque[str] = deque()
        self._parts: list[str] = []
        self._next = 2
        self.line = 1
        """Where what was returned last begins."""

    def next(self) -> str:
        """Return what is next up to an end of line outside of a text, or nothing at the end.

        Where a text does not end, that is its first line alone.
        """
        self.line = self._next
        self._parts = []
        size = quotes = 0
        while size <= LINE_CHARACTERS and (part := self._take()):
            self._parts.append(part)
            size += len(part)
            quotes += part.count("'")
            if quotes % 2 == 0:
                return "".join(self._parts)
        self._return_all_but_first()
        return "".join(self._parts)

    def recover(self) -> None:
        """Go on after the first line of what was returned last, where something can be read."""
        self._return_all_but_first()
        while part := self._take():
            if part in {sql.CONFLICT, sql.END_OF_ROWS} or _LIKE_A_BEGINNING.match(part):
                self._give_back([part])
                return

    def _return_all_but_first(self) -> None:
        self._give_back(self._parts[1:])
        del self._parts[1:]

    def _take(self) -> str:
        part = self._ahead.popleft() if self._ahead else next(self._source, "")
        self._next += part.count("\n")
        return part

    def _give_back(self, parts: list[str]) -> None:
        self._ahead.extendleft(reversed(parts))
        self._next -= sum(part.count("\n") for part in parts)


def _statement(text: str) -> _Statement:
    """Return what a line says that begins a statement.

    Raises:
        ValueError: It is not in the form of an export, or names what is not known.
    """
    found = _INSERT.fullmatch(text)
    if found is None:
        raise ValueError("it is no statement of an export")
    table = BY_NAME.get(found[1])
    if table is None:
        raise ValueError("it names a table that is not known")
    columns = [table.column(name) for name in found[2].split(", ")]
    if None in columns or len(set(columns)) < len(columns):
        raise ValueError(f"it does not name columns of {table.name}, each once")
    return _Statement(table, [column for column in columns if column is not None])


class _Statement:
    """Whose rows follow."""

    def __init__(self, table: Table[Any], columns: list[Column]) -> None:
        self.table = table
        self._columns = [
            (column, table.columns.index(column), _PARSERS.get(column.kind, _text))
            for column in columns
        ]

    def row(self, text: str) -> Row:
        """Return the row that a line holds.

        Raises:
            ValueError: A value is missing or not in the form of its column.
        """
        literals = _LITERALS.findall(text)
        if len(literals) != len(self._columns):
            raise ValueError(f"it has {len(literals)} values instead of {len(self._columns)}")
        values: list[Any] = [None] * len(self.table.columns)
        for literal, (column, place, parse) in zip(literals, self._columns, strict=True):
            if literal == "NULL":
                continue
            try:
                values[place] = parse(literal)
            except (ValueError, OverflowError):
                # No chaining: the message quotes the value.
                raise ValueError(
                    f"its {column.name} is not written as {column.kind.value} is"
                ) from None
        return tuple(values)


def _text(literal: str) -> str:
    if literal[0] != "'":
        raise ValueError
    return literal[1:-1].replace("''", "'")


def _moment(literal: str) -> str:
    if not _MOMENT.fullmatch(literal):
        raise ValueError
    return literal[1:27]


def _day(literal: str) -> str:
    if not _DAY.fullmatch(literal):
        raise ValueError
    return literal[1:11]


def _tags(literal: str) -> str:
    text = _text(literal)
    if not _ARRAY.fullmatch(text):
        raise ValueError
    return encode_json([_ESCAPED.sub(r"\1", label) for label in _LABEL.findall(text)])


def _vector(literal: str) -> bytes:
    if not _VECTOR.fullmatch(literal):
        raise ValueError
    numbers = array("f", map(float, literal[2:-2].split(",")))
    if not all(map(math.isfinite, numbers)):
        raise ValueError
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


_PARSERS: Final[dict[Kind, Callable[[str], Any]]] = {
    Kind.INTEGER: int,
    Kind.FLOAT: float,
    Kind.TIMESTAMP: _moment,
    Kind.DATE: _day,
    Kind.TAGS: _tags,
    Kind.VECTOR: _vector,
}
"""Of a literal that is not NULL; what is not named is text."""
