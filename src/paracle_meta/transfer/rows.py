"""Rows that come from outside: checked by the same rules as a record, and compared with others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta.backends.portable import decoder, encode
from paracle_meta.exceptions import InvalidValueError
from paracle_meta.schema import UNCOMPARED, Column, Kind, Table
from paracle_meta.validation import check_value
from paracle_meta.values import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paracle_meta.backends.portable import Row


def checked_row(table: Table[Any], values: Mapping[str, Any], content_limit: int) -> Row:
    """Return the portable row of values.

    Raises:
        InvalidValueError: A value breaks a rule of its column.
    """
    return tuple(
        _encoded(column, check_value(table, column, values[column.name], content_limit))
        for column in table.columns
    )


def _encoded(column: Column, value: Any) -> Any:
    # JSON has a null of its own.
    if value is None and column.kind is not Kind.JSON_TEXT:
        return None
    return encode(column, value)


def rechecked_row(table: Table[Any], row: Row, content_limit: int) -> Row:
    """Return a portable row whose values were checked once more, as its file may have been edited.

    Raises:
        InvalidValueError: A value breaks a rule of its column.
    """
    values = {
        column.name: _decoded(table, column, value)
        for column, value in zip(table.columns, row, strict=True)
    }
    return checked_row(table, values, content_limit)


def _decoded(table: Table[Any], column: Column, value: Any) -> Any:
    if value is None:
        return None
    if column.kind is Kind.VECTOR:
        import numpy as np

        return np.frombuffer(value, "<f4")
    decode = decoder(column)
    if decode is None:
        return value
    try:
        return decode(value)
    except (TypeError, ValueError, RecursionError):
        pass
    # Not "from exc": that error may hold the text.
    raise InvalidValueError(f"{table.name}.{column.name} cannot be read.")


def same_row(
    table: Table[Any], stored: Row, given: Row, *, but: frozenset[str] = UNCOMPARED
) -> bool:
    """Whether two portable rows are the same record; see `validation.same_record`.

    Args:
        table: Theirs.
        stored: One.
        given: The other.
        but: Columns that make no difference.
    """
    return all(
        one == other or _canonical(column, one) == _canonical(column, other)
        for column, one, other in zip(table.columns, stored, given, strict=True)
        if column.name not in but
    )


def _canonical(column: Column, value: Any) -> Any:
    decode = decoder(column)
    if value is None or decode is None:
        return value
    decoded = decode(value)
    if column.kind in (Kind.JSON, Kind.JSON_TEXT):
        return canonical_json(decoded)
    return decoded
