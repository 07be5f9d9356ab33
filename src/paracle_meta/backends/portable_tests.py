"""Whether portable rows can be held everywhere, tested column by column with what Python does in C.

Looking at each value by itself takes ten times as long as reading it. A test may be wrong about
rows that are good, never about others.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from itertools import repeat
from math import isfinite
from operator import contains
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.schema import (
    MAX_COUNT,
    MAX_JSON_DEPTH,
    MAX_LABEL_BYTES,
    Column,
    Kind,
    Table,
)
from paracle_meta.values import MAX_DIMENSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.portable import Row

_MOST_BYTES: Final = 4
"""Of a character in UTF-8."""

_SHAPE: Final = bytes.maketrans(b"123456789E", b"000000000e")
"""Makes all digits one."""

_FIRST_MOMENT: Final = "0001-01-01 00:00:00.000000"
_LAST_MOMENT: Final = "9999-12-31 23:59:59.999999"
"""What PostgreSQL's driver takes for infinity, as `validation` has it."""


def looks_good(table: Table[Any], rows: Sequence[Row]) -> bool:
    """Return whether all values can be held everywhere; False also where that is not sure."""
    columns = zip(*rows, strict=True)
    return all(
        _looks_good(column, values) for column, values in zip(table.columns, columns, strict=True)
    )


def _looks_good(column: Column, values: Sequence[Any]) -> bool:
    kinds = set(map(type, values))
    if type(None) in kinds:
        values = [value for value in values if value is not None]
        kinds.discard(type(None))
    if not values:
        return True
    match column.kind:
        case Kind.INTEGER | Kind.FLOAT:
            whole = column.kind is Kind.INTEGER
            return kinds == {int if whole else float} and _are_within(column, values)
        case Kind.VECTOR:
            return kinds == {bytes} and _are_vectors(values)
    return kinds == {str} and _texts_look_good(column, values)


def _texts_look_good(column: Column, values: Sequence[str]) -> bool:
    match column.kind:
        case Kind.LABEL:
            good = _are_texts(values) and _are_short(values)
            return good and (not column.choices or set(values) <= set(column.choices))
        case Kind.TIMESTAMP:
            return are_moments(values)
        case Kind.DATE:
            return are_days(values)
        case Kind.JSON | Kind.JSON_TEXT:
            return all(map(_is_json, values))
        case Kind.TAGS:
            return all(map(_is_list_of_labels, values))
        case _:
            return _are_texts(values)


def _are_within(column: Column, values: Sequence[float]) -> bool:
    least = -MAX_COUNT if column.minimum is None else column.minimum
    most = MAX_COUNT if column.maximum is None else column.maximum
    return least <= min(values) and max(values) <= most


def _are_texts(values: Sequence[str]) -> bool:
    return not any(map(contains, values, repeat("\0")))


def _are_short(values: Sequence[str]) -> bool:
    longest = max(map(len, values))
    return longest <= MAX_LABEL_BYTES // _MOST_BYTES or all(
        len(value.encode()) <= MAX_LABEL_BYTES for value in values
    )


def may_have_exponents(joined: bytes) -> bool:
    """Whether a number in JSON texts may be written with an exponent.

    Translating them and looking for two bytes takes a fourth of the time of a regular expression.

    Args:
        joined: The texts in UTF-8, one after the other.
    """
    return b"0e" in joined.translate(_SHAPE)


def are_moments(values: Sequence[str]) -> bool:
    """Whether all are moments in their portable form."""
    if not values:
        return True
    if set(map(len, values)) != {len(_FIRST_MOMENT)}:
        return False
    try:
        for _ in map(datetime.fromisoformat, set(values)):
            pass
    except ValueError:
        return False
    return min(values) > _FIRST_MOMENT and max(values) < _LAST_MOMENT


def are_days(values: Sequence[str]) -> bool:
    """Whether all are days in their portable form."""
    if not values:
        return True
    if set(map(len, values)) != {len("2026-01-31")}:
        return False
    try:
        for _ in map(date.fromisoformat, values):
            pass
    except ValueError:
        return False
    return True


def _is_json(text: str) -> bool:
    try:
        _read(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_list_of_labels(text: str) -> bool:
    try:
        labels = _read(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return False
    return not labels or _are_short(labels)


def _read(text: str) -> Any:
    # An escape may be of a NUL or a surrogate.
    if "\\u" in text or (
        len(text) > MAX_JSON_DEPTH and text.count("[") + text.count("{") > MAX_JSON_DEPTH
    ):
        raise ValueError
    # Not `decode`, which takes as long to look for white space around the value.
    value, end = _STRICT_JSON.raw_decode(text)
    if end != len(text):
        raise ValueError
    return value


def _number(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError
    return number


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


_STRICT_JSON: Final = json.JSONDecoder(parse_float=_number, parse_constant=_refuse)
"""Reads what both databases can hold, and raises ValueError for anything else but escapes."""


def _are_vectors(values: Sequence[bytes]) -> bool:
    sizes = set(map(len, values))
    return len(sizes) == 1 and are_vectors(b"".join(values), sizes.pop())


def are_vectors(joined: bytes, size: int) -> bool:
    """Whether all of some vectors of one size are such that have a direction.

    Args:
        joined: One after the other.
        size: Bytes of each.
    """
    import numpy as np

    if size % 4 or not 0 < size <= 4 * MAX_DIMENSIONS:
        return False
    matrix = np.frombuffer(joined, dtype="<f4").reshape(-1, size // 4)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", matrix, matrix)
    # Added up in another order, a sum may be another one, hence far from the bounds.
    limits = np.finfo(np.float32)
    return bool(np.all((2 * limits.tiny < squares) & (squares < limits.max / 2)))
