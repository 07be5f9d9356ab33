"""The rules of a value, the same for both databases, checked before anything is sent.

Every function returns the value in the one form that is stored (UTC times, plain lists, float for
a FLOAT column) or raises `InvalidValueError`, which names the column and the rule and never the
text itself.
"""

from __future__ import annotations

import json
import math
import sys
from array import array
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Final, TypeVar

from paracle_meta.exceptions import InvalidValueError
from paracle_meta.schema import (
    MAX_COUNT,
    MAX_JSON_DEPTH,
    MAX_LABEL_BYTES,
    UNCOMPARED,
    Column,
    Kind,
    Table,
)

R = TypeVar("R")

MAX_PAGE: Final = 10_000
"""Most records one call returns: a page that still fits memory with contents of usual size."""

_FIXED: Final = frozenset({"id", "created_at", "updated_at", "usage_count", "embedding_model"})
"""What identifies a record, and what the store itself keeps up."""

_ENDS_OF_TIME: Final = (
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
)
"""What asyncpg takes for PostgreSQL's "infinity", and gives back without a time zone."""

MAX_DIMENSIONS: Final = 16_000
"""Widest vector that pgvector stores."""

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
"""One for all, as `json.dumps` makes a new one at each call."""


def check_record(table: Table[R], record: R, content_limit: int) -> dict[str, Any]:
    """Return the columns of a record in their stored form.

    Args:
        table: Where it will be stored.
        record: The record to check.
        content_limit: Longest text in UTF-8 bytes.

    Returns:
        One entry a column; the vector as little-endian float32 bytes or None.

    Raises:
        InvalidValueError: A value breaks a rule of its column.
    """
    if not isinstance(record, table.record):
        raise InvalidValueError(
            f"{table.name} stores {table.record.__name__} records, not {type(record).__name__}."
        )
    return {
        column.name: check_value(table, column, getattr(record, column.name), content_limit)
        for column in table.columns
    }


def check_changes(
    table: Table[Any], changes: Mapping[str, Any], content_limit: int
) -> dict[str, Any]:
    """Return the changes to a record in their stored form.

    Raises:
        InvalidValueError: A name is no column, or one that cannot change, or a value breaks a rule.
    """
    if not changes:
        raise InvalidValueError(f"No change to the {table.noun} was given.")
    checked = {}
    for name, value in changes.items():
        column = table.column(name)
        if column is None or column.references or name in _FIXED:
            raise InvalidValueError(f"{name!r:.60} is no column of {table.name} that can change.")
        checked[name] = check_value(table, column, value, content_limit)
    return checked


def check_value(table: Table[Any], column: Column, value: Any, content_limit: int) -> Any:
    """Return one value in its stored form.

    Raises:
        InvalidValueError: The value breaks a rule of its column.
    """
    where = f"{table.name}.{column.name}"
    if value is None:
        if column.kind is Kind.TAGS:
            return []
        if not column.nullable and column.kind is not Kind.JSON_TEXT:
            raise InvalidValueError(f"{where} must have a value.")
        return None
    checked = _check_kind(where, column, value, content_limit)
    if column.minimum is not None and checked < column.minimum:
        raise InvalidValueError(f"{where} must be at least {column.minimum:g}.")
    if column.maximum is not None and checked > column.maximum:
        raise InvalidValueError(f"{where} must be at most {column.maximum:g}.")
    if column.choices and checked not in column.choices:
        raise InvalidValueError(f"{where} must be one of {', '.join(column.choices)}.")
    return checked


def _check_kind(where: str, column: Column, value: Any, content_limit: int) -> Any:
    match column.kind:
        case Kind.LABEL:
            return check_text(where, value, MAX_LABEL_BYTES, required=True)
        case Kind.TEXT | Kind.STRING:
            return check_text(where, value, content_limit, required=column.required_text)
        case Kind.INTEGER:
            return check_integer(where, value, -MAX_COUNT, MAX_COUNT)
        case Kind.FLOAT:
            return check_float(where, value)
        case Kind.TIMESTAMP:
            moment = check_time(where, value)
            if moment in _ENDS_OF_TIME:
                raise InvalidValueError(f"{where} is the first or last moment that Python knows.")
            return moment
        case Kind.DATE:
            return check_date(where, value)
        case Kind.JSON:
            if not isinstance(value, Mapping):
                raise InvalidValueError(f"{where} must be a JSON object.")
            return check_json(where, value, content_limit)
        case Kind.JSON_TEXT:
            return check_json(where, value, content_limit)
        case Kind.TAGS:
            return check_tags(where, value)
        case Kind.VECTOR:
            return check_vector(where, value)


def check_text(where: str, value: Any, max_bytes: int, *, required: bool = False) -> str:
    """Return a text that both databases can hold, as a plain `str`.

    Raises:
        InvalidValueError: It is no text, has a NUL or a lone surrogate, is longer than `max_bytes`
            in UTF-8, or is blank although it is required.
    """
    if not isinstance(value, str):
        raise InvalidValueError(f"{where} must be text, not {type(value).__name__}.")
    text = str.__str__(value)
    size = len(text) if text.isascii() else _utf8_length(where, text)
    if size > max_bytes:
        raise InvalidValueError(
            f"{where} has {size:,} bytes in UTF-8; at most {max_bytes:,} are allowed."
        )
    if "\x00" in text:
        raise InvalidValueError(f"{where} has a NUL character, which PostgreSQL cannot store.")
    if required and (not text or text.isspace()):
        raise InvalidValueError(f"{where} must not be blank.")
    return text


def _utf8_length(where: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        # No chaining: the codec's message quotes the text.
        raise InvalidValueError(
            f"{where} has a lone surrogate, which is no valid Unicode text."
        ) from None


def check_integer(where: str, value: Any, minimum: int, maximum: int) -> int:
    """Return a whole number within bounds.

    Raises:
        InvalidValueError: It is no whole number (a bool is none) or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidValueError(f"{where} must be a whole number, not {type(value).__name__}.")
    number = int(value)
    if not minimum <= number <= maximum:
        raise InvalidValueError(f"{where} must be from {minimum:,} to {maximum:,}.")
    return number


def check_float(where: str, value: Any) -> float:
    """Return a finite number; an int or Decimal becomes a float, -0.0 becomes 0.0.

    Raises:
        InvalidValueError: It is no number (a bool is none), or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise InvalidValueError(f"{where} must be a number, not {type(value).__name__}.")
    try:
        number = float(value)
    except (OverflowError, ValueError):
        raise InvalidValueError(f"{where} must be a finite number.") from None
    if not math.isfinite(number):
        raise InvalidValueError(f"{where} must be a finite number.")
    return number + 0.0


def check_time(where: str, value: Any) -> datetime:
    """Return a moment in UTC.

    Raises:
        InvalidValueError: It is no datetime, has no time zone, or UTC cannot express it.
    """
    if not isinstance(value, datetime):
        raise InvalidValueError(f"{where} must be a datetime, not {type(value).__name__}.")
    if value.utcoffset() is None:
        raise InvalidValueError(
            f"{where} must have a time zone: datetime.now(UTC), not datetime.now()."
        )
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise InvalidValueError(f"{where} lies outside the years 1 to 9999 in UTC.") from None


def check_date(where: str, value: Any) -> date:
    """Return a day.

    Raises:
        InvalidValueError: It is no date; a datetime is refused, as its day depends on a zone.
    """
    if isinstance(value, datetime) or not isinstance(value, date):
        raise InvalidValueError(f"{where} must be a date, not {type(value).__name__}.")
    return value


def check_tags(where: str, value: Any) -> list[str]:
    """Return a list of labels.

    Raises:
        InvalidValueError: It is no list of labels.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidValueError(f"{where} must be a list of texts, not {type(value).__name__}.")
    return [check_text(where, tag, MAX_LABEL_BYTES, required=True) for tag in value]


def check_json(where: str, value: Any, content_limit: int) -> Any:
    """Return a JSON value made of plain dicts, lists, texts, numbers, booleans and None.

    Raises:
        InvalidValueError: It holds something that JSON cannot, is nested deeper than
            MAX_JSON_DEPTH, or takes more than `content_limit` bytes.
    """
    plain = _plain_json(where, value, content_limit, 1)
    try:
        size = len(encode_json(plain).encode())
    except ValueError:
        raise InvalidValueError(f"{where} holds a number that is too long to write.") from None
    if size > content_limit:
        raise InvalidValueError(
            f"{where} has {size:,} bytes as JSON; at most {content_limit:,} are allowed."
        )
    return plain


def _plain_json(where: str, value: Any, limit: int, depth: int) -> Any:
    if depth > MAX_JSON_DEPTH:
        raise InvalidValueError(f"{where} is nested deeper than {MAX_JSON_DEPTH} levels.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(where, value, limit)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return check_float(where, value)
    if isinstance(value, Mapping):
        return {
            _json_key(where, key, limit): _plain_json(where, item, limit, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain_json(where, item, limit, depth + 1) for item in value]
    raise InvalidValueError(f"{where} holds a {type(value).__name__}, which is no JSON value.")


def _json_key(where: str, key: Any, limit: int) -> str:
    if not isinstance(key, str):
        raise InvalidValueError(f"{where} has a key that is no text, which JSON does not allow.")
    return check_text(where, key, limit)


def encode_json(value: Any) -> str:
    """Return JSON text, as it is stored."""
    return _ENCODER.encode(value)


def canonical_json(value: Any) -> str:
    """Return JSON text that is the same for the same value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True)


def check_vector(where: str, value: Any) -> bytes:
    """Return a vector as little-endian float32 bytes, 4 a dimension.

    Args:
        where: What a message calls it.
        value: A sequence of numbers, or an array of float32 or float64 (NumPy's too).

    Raises:
        InvalidValueError: It is no sequence of numbers, is empty, too wide, zero, or not finite
            as float32.
    """
    import numpy as np

    try:
        numbers = np.asarray(value)
    except (TypeError, ValueError):
        raise InvalidValueError(f"{where} must be a sequence of numbers.") from None
    if numbers.ndim != 1 or numbers.dtype.kind not in "fiu":
        raise InvalidValueError(f"{where} must be a sequence of numbers.")
    if not 0 < len(numbers) <= MAX_DIMENSIONS:
        raise InvalidValueError(
            f"{where} has {len(numbers):,} dimensions; 1 to {MAX_DIMENSIONS:,} are allowed."
        )
    # What is too large for float32 becomes infinite, what is too small zero; both are found below.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        single = np.ascontiguousarray(numbers, dtype="<f4")
        squares = single @ single
    # Both databases divide by the root of this sum.
    if not np.finfo(np.float32).tiny <= squares < np.inf:
        raise InvalidValueError(
            f"{where} has no direction: it is zero, or holds a number that is not finite."
        )
    return single.tobytes()


def check_dimensions(where: str, vector: bytes, model: str, dimensions: int) -> None:
    """Refuse a vector that cannot be one of a model.

    Raises:
        InvalidValueError: It does not have the model's dimensions.
    """
    if len(vector) != 4 * dimensions:
        raise InvalidValueError(
            f"{where} has {len(vector) // 4:,} dimensions, but vectors of {model} have "
            f"{dimensions:,}."
        )


def vector_to_list(blob: bytes) -> list[float]:
    """Return the numbers of a stored vector."""
    numbers = array("f")
    numbers.frombytes(blob)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def check_page(limit: Any, name: str = "limit") -> int:
    """Return how many records are asked for.

    Raises:
        InvalidValueError: It is not a whole number from 1 to MAX_PAGE.
    """
    return check_integer(name, limit, 1, MAX_PAGE)


def check_id(table: Table[Any], record_id: Any) -> str:
    """Return an id that a record of `table` can have.

    Raises:
        InvalidValueError: No record can have it.
    """
    return check_text(f"{table.name}.id", record_id, MAX_LABEL_BYTES, required=True)


def same_record(table: Table[Any], one: Any, values: Mapping[str, Any]) -> bool:
    """Whether a stored record is what `values` (as from `check_record`) would store again.

    What the store itself keeps up (times, usage, vectors) makes no difference; see
    `schema.UNCOMPARED`.
    """
    for column in table.columns:
        if column.name in UNCOMPARED:
            continue
        stored, given = getattr(one, column.name), values[column.name]
        if column.kind in (Kind.JSON, Kind.JSON_TEXT):
            # 1, 1.0 and True are equal in Python and different in JSON.
            stored, given = canonical_json(stored), canonical_json(given)
        if stored != given:
            return False
    return True
