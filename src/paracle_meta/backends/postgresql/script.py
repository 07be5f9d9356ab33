"""Rows as a file of SQL that psql loads into PostgreSQL; `script_sql` says what it does.

What was written by users stands in the file as values only, each a text in single quotes, in which
a quote is doubled and nothing else has a meaning: to PostgreSQL and to psql, and so to
`script_reader`.
"""

from __future__ import annotations

import json
import sys
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.postgresql import script_sql as sql
from paracle_meta.backends.postgresql.dialect import jsonb_texts
from paracle_meta.exceptions import TransferError
from paracle_meta.schema import Column, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.portable import Row
    from paracle_meta.schema import Table

    Literals = Callable[[Sequence[Any]], Sequence[str]]
    """Turns the values of one column into literals: a call a column costs less than one a value."""

ROWS_A_STATEMENT: Final = 500
"""Sending a statement for each row, psql would wait for each answer."""

STATEMENT_CHARACTERS: Final = 4 * 2**20
"""Longest statement, unless a single row is longer: psql and the server hold it as a whole."""


def script(
    tables: Sequence[Table[Any]],
    spaces: Mapping[str, VectorSpace],
    *,
    searched_by_meaning: bool = True,
) -> ScriptWriter:
    """Return a writer of one file.

    Args:
        tables: Those whose rows will be written.
        spaces: Of which model and width the vectors of a table are, by its name; a table without
            vectors is not named.
        searched_by_meaning: Refuse a server without pgvector, also where there are no vectors yet.
    """
    return ScriptWriter(tables, spaces, searched_by_meaning=searched_by_meaning)


class ScriptWriter:
    """Formats one file, from `begin` over any number of `rows` to `end`; it writes nothing itself.

    The file is UTF-8, and a line ends with a line feed, whatever the platform.
    """

    all_or_nothing = True
    """It is one transaction."""

    def __init__(
        self,
        tables: Sequence[Table[Any]],
        spaces: Mapping[str, VectorSpace],
        *,
        searched_by_meaning: bool,
    ) -> None:
        self._spaces = spaces
        self._needs_pgvector = searched_by_meaning or bool(spaces)
        self._formats = {
            table.name: _TableFormat(table, spaces.get(table.name)) for table in tables
        }

    def begin(self) -> str:
        """Return what makes the tables ready for the rows."""
        from paracle_meta.migrations.runner import upgrade_sql

        vectors = ""
        if self._spaces:
            spaces = self._spaces.values()
            values = zip(
                _texts([*self._spaces]),
                _texts([space.model for space in spaces]),
                _integers([space.dimensions for space in spaces]),
                strict=True,
            )
            rows = ",\n".join(f"({','.join(row)})" for row in values)
            vectors = f"{sql.VECTORS}{rows};\n"
        needs = sql.WITH_PGVECTOR if self._needs_pgvector else sql.WITHOUT_PGVECTOR
        history = upgrade_sql("postgresql", {}, in_transactions=False)
        return "".join(
            [sql.PREAMBLE, sql.BEGIN, needs, vectors, sql.CHECKS, history, sql.COLUMNS, sql.ROWS]
        )

    def rows(self, table: Table[Any], rows: Sequence[Row]) -> str:
        """Return the statements that store rows, unless their id or, in ``memory``, key is taken.

        Raises:
            TransferError: A vector is not of the width that `script` was told.
        """
        if not rows:
            return ""
        form = self._formats[table.name]
        return "".join(
            f"{form.head}{text}\n{sql.CONFLICT}" for text in _statements(form.lines(rows))
        )

    def end(self) -> str:
        """Return what makes the indexes and commits."""
        return f"{sql.END_OF_ROWS}{sql.INDEXES}{sql.COMMIT}"


class _TableFormat:
    """How the rows of one table are written."""

    def __init__(self, table: Table[Any], space: VectorSpace | None) -> None:
        # Where there is no vector, there may be no column.
        columns = table.columns if space is not None else table.stored_columns
        names = ", ".join(column.name for column in columns)
        self.head = f"INSERT INTO {table.name} ({names}) VALUES\n"
        self._literals = [_literals(table, column, space) for column in table.columns]

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """Return the values of each row, with commas between them."""
        columns = [
            literals(values)
            for literals, values in zip(self._literals, zip(*rows, strict=True), strict=True)
        ]
        return list(map(",".join, zip(*filter(None, columns), strict=True)))


def _statements(lines: list[str]) -> Iterator[str]:
    """Yield the rows of one statement after the other, each in parentheses."""
    for start in range(0, len(lines), ROWS_A_STATEMENT):
        left = lines[start : start + ROWS_A_STATEMENT]
        while left:
            sizes = accumulate(map(len, left))
            number = max(1, sum(size <= STATEMENT_CHARACTERS for size in sizes))
            yield "(" + "),\n(".join(left[:number]) + ")"
            left = left[number:]


def _literals(table: Table[Any], column: Column, space: VectorSpace | None) -> Literals:
    match column.kind:
        case Kind.INTEGER:
            return _integers
        case Kind.FLOAT:
            return _floats
        case Kind.TIMESTAMP:
            return _moments
        case Kind.JSON:
            return _json
        case Kind.TAGS:
            return _tags
        case Kind.VECTOR:
            return _Vectors(table, space)
        case _:
            return _texts


# Numbers stand without quotes: what is none must raise an error here rather than be written.


def _texts(values: Sequence[Any]) -> list[str]:
    quote, doubled = "'", "''"
    return ["NULL" if text is None else f"'{text.replace(quote, doubled)}'" for text in values]


def _integers(values: Sequence[Any]) -> list[str]:
    return ["NULL" if number is None else f"{number:d}" for number in values]


def _floats(values: Sequence[Any]) -> list[str]:
    return ["NULL" if number is None else f"{number + 0.0!r}" for number in values]


def _moments(values: Sequence[Any]) -> list[str]:
    quote, doubled = "'", "''"
    return ["NULL" if text is None else f"'{text.replace(quote, doubled)}+00'" for text in values]


def _json(values: Sequence[Any]) -> list[str]:
    return _texts(jsonb_texts(values))


def _tags(values: Sequence[Any]) -> list[str]:
    return _texts([None if text is None else _array(json.loads(text)) for text in values])


def _array(labels: list[str]) -> str:
    """Return an array as PostgreSQL reads it: ``{"one","two"}``."""
    escaped = [label.replace("\\", "\\\\").replace('"', '\\"') for label in labels]
    return "{" + ",".join([f'"{label}"' for label in escaped]) + "}"


class _Vectors:
    """The literals of vectors, or nothing where the table has none."""

    def __init__(self, table: Table[Any], space: VectorSpace | None) -> None:
        self._table = table
        self._dimensions = 0 if space is None else space.dimensions
        # Nine digits tell every float32 from every other. One format for all numbers takes two
        # thirds of the time that one a number takes.
        self._format = f"'[{','.join(['%.9g'] * self._dimensions)}]'"

    def __call__(self, values: Sequence[Any]) -> list[str]:
        if self._dimensions:
            return ["NULL" if blob is None else self._literal(blob) for blob in values]
        if any(blob is not None for blob in values):
            raise self._unexpected()
        return []

    def _literal(self, blob: bytes) -> str:
        numbers = array("f")
        numbers.frombytes(blob)
        if len(numbers) != self._dimensions:
            raise self._unexpected()
        if sys.byteorder == "big":
            numbers.byteswap()
        return self._format % tuple(numbers)

    def _unexpected(self) -> TransferError:
        return TransferError(
            f"A vector in {self._table.name} is not one of those with {self._dimensions} numbers "
            'that the export began with. Make the vectors anew with "paracle meta reembed", then '
            "export again."
        )
