"""Reading portable rows from SQLite, which keeps them in this form."""

from __future__ import annotations

import contextlib
import json
import marshal
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Protocol

from paracle_meta.backends.bulk import BATCH_ROWS, EVER, Period
from paracle_meta.backends.portable import decode_time, encode_time
from paracle_meta.backends.statements import EMBEDDED
from paracle_meta.exceptions import UnportableError
from paracle_meta.schema import Column, Kind, Table, referencing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paracle_meta.backends.portable import Row
    from paracle_meta.backends.statements import Query

BATCH_BYTES: Final = 2 * 1024 * 1024
"""So much text and vectors, give or take STEP rows, end a batch: memory stays flat."""

STEP: Final = 8
"""Rows fetched between two looks at how large they were; each may have several megabytes."""

_DAY: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_MOMENT: Final = f"{_DAY} [0-9][0-9]:[0-9][0-9]:[0-9][0-9].{'[0-9]' * 6}"


def create_functions(connection: Any) -> None:
    """Give a connection what `portable_columns` calls."""
    connection.create_function("portable_time", 1, _portable_time, deterministic=True)
    connection.create_function("portable_day", 1, _portable_day, deterministic=True)


def _portable_time(value: Any) -> Any:
    """Return a moment that was written in another form than this package's; others as they are."""
    _refuse_unreadable(value)
    try:
        return encode_time(decode_time(value))
    except (ValueError, TypeError, OverflowError):
        return value


def _portable_day(value: Any) -> Any:
    """The same of a day."""
    _refuse_unreadable(value)
    try:
        return date.fromisoformat(value).isoformat()
    except (ValueError, TypeError):
        return value


def _refuse_unreadable(value: Any) -> None:
    # A missing value is not passed on, so it is a text that the driver could not decode.
    if value is None:
        raise ValueError


def portable_columns(table: Table[Any]) -> str:
    """Return the output of a query for portable rows."""
    return ", ".join(portable_value(table, column) for column in table.columns)


def portable_value(table: Table[Any], column: Column) -> str:
    """Return the output of a query for one value of them."""
    match column.kind:
        case Kind.TIMESTAMP:
            return _otherwise(column.name, _MOMENT, "portable_time")
        case Kind.DATE:
            return _otherwise(column.name, _DAY, "portable_day")
        case _:
            return counted_value(table, column)


def counted_value(table: Table[Any], column: Column) -> str:
    """Return the output of a query for a value as it is stored: a vector only with its model."""
    name = column.name
    if column.kind is Kind.VECTOR:
        return f"CASE WHEN {EMBEDDED} THEN {name} END"
    if table.has_vector and name == "embedding_model":
        return f"CASE WHEN embedding IS NOT NULL THEN {name} END"
    return name


def _otherwise(name: str, pattern: str, function: str) -> str:
    test = f"{name} IS NULL OR {name} GLOB '{pattern}'"
    return f"CASE WHEN {test} THEN {name} ELSE {function}({name}) END"


def within(table: Table[Any], period: Period) -> Query:
    """Return the condition that rows are of a period, and its parameters.

    A row that one from the period refers to is among them.
    """
    if period == EVER:
        return "true", []
    bounds = {">=": period.since, "<": period.until}
    moments = [(sign, encode_time(moment)) for sign, moment in bounds.items() if moment is not None]

    def made(name: str) -> str:
        # Not by the index: rows are wanted in the order of their ids.
        return " AND ".join(f"+{name}.created_at {sign} ?" for sign, _ in moments)

    tests = [made(table.name)]
    for child, column in referencing(table):
        tests.append(
            f"EXISTS (SELECT 1 FROM {child.name} WHERE {child.name}.{column.name} ="
            f" {table.name}.id AND {made(child.name)})"
        )
    return " OR ".join(tests), [text for _, text in moments] * len(tests)


def fetch(cursor: Any, most: int = BATCH_ROWS) -> list[Row]:
    """Return the next rows of a query, fewer where they are large."""
    rows: list[Row] = []
    size = 0
    while len(rows) < most and size < BATCH_BYTES:
        step = cursor.fetchmany(STEP)
        if not step:
            break
        rows += step
        # Copying the values takes a third of the time of asking each how large it is.
        size += len(marshal.dumps(step))
    return rows


@contextlib.contextmanager
def readable(table: Table[Any]) -> Iterator[None]:
    """Raise UnportableError where a text is none, without the driver's message, which quotes it."""
    try:
        yield
    except Exception as error:
        if not is_no_text(error):
            raise
        raise UnportableError([f"{table.name}: a text has bytes that are no UTF-8"]) from None


def is_no_text(error: Exception) -> bool:
    """Whether the driver could not read a text, or not pass it to a function of ours."""
    return str(error).startswith(("Could not decode to UTF-8", "user-defined function raised"))


class Form(Protocol):
    """In which form a snapshot reads values."""

    def outputs(self, table: Table[Any], columns: Sequence[Column]) -> str:
        """Return the outputs of a query for columns of a table."""

    def rows(
        self, table: Table[Any], columns: Sequence[Column], found: list[Row], connection: Any
    ) -> list[Row]:
        """Return the portable values of what such a query has found."""

    def with_ids(self, table: Table[Any], ids: Sequence[str], connection: Any) -> Query:
        """Return the condition that a row has one of these ids, and its parameters."""


class AsStored:
    """Values as they are stored, which is their portable form. See `Form`."""

    def outputs(self, table: Table[Any], columns: Sequence[Column]) -> str:
        """See `Form`."""
        return ", ".join(portable_value(table, column) for column in columns)

    def rows(
        self,
        table: Table[Any],  # noqa: ARG002
        columns: Sequence[Column],  # noqa: ARG002
        found: list[Row],
        connection: Any,  # noqa: ARG002
    ) -> list[Row]:
        """See `Form`."""
        return found

    def with_ids(
        self,
        table: Table[Any],  # noqa: ARG002
        ids: Sequence[str],
        connection: Any,  # noqa: ARG002
    ) -> Query:
        """See `Form`."""
        return "id IN (SELECT value FROM json_each(?))", [json.dumps(list(ids))]
