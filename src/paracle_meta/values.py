"""The rules of a single value, the same for both databases.

Every function returns the value in the one form that is stored (UTC times, plain lists, float for
a FLOAT column) or raises `InvalidValueError`, which names the column and the rule and never the
text itself. They run for each value of each record, so what is common is asked first.
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
from typing import Any, Final

from paracle_meta.exceptions import InvalidValueError
from paracle_meta.schema import MAX_JSON_DEPTH, MAX_LABEL_BYTES

MAX_DIMENSIONS: Final = 16_000
"""Widest vector that pgvector stores."""

_ENDS_OF_TIME: Final = (
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
)
"""What asyncpg takes for PostgreSQL's "infinity", and gives back without a time zone."""

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
"""One for all, as `json.dumps` makes a new one at each call."""

_ESCAPED_BYTES: Final = 6
"""Most bytes of a character in JSON: a control character, as \\u001f."""

_NUMBER_BYTES: Final = 25
"""Most bytes of a float in JSON with what separates it, or of an integer of `_SHORT_BITS`."""

_SHORT_BITS: Final = 64
"""Bits of an integer that every database holds; few have more."""


def check_text(where: str, value: Any, max_bytes: int, *, required: bool = False) -> str:
    """Return a text that both databases can hold, as a plain `str`.

    Raises:
        InvalidValueError: It is no text, has a NUL or a lone surrogate, is longer than `max_bytes`
            in UTF-8, or is blank although it is required.
    """
    if type(value) is str:
        text = value
    elif isinstance(value, str):
        text = str.__str__(value)
    else:
        raise InvalidValueError(f"{where} must be text, not {type(value).__name__}.")
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
    if type(value) is int:
        number = value
    elif isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidValueError(f"{where} must be a whole number, not {type(value).__name__}.")
    else:
        number = int(value)
    if not minimum <= number <= maximum:
        raise InvalidValueError(f"{where} must be from {minimum:,} to {maximum:,}.")
    return number


def check_float(where: str, value: Any) -> float:
    """Return a finite number; an int or Decimal becomes a float, -0.0 becomes 0.0.

    Raises:
        InvalidValueError: It is no number (a bool is none), or not finite.
    """
    if type(value) is float:
        number = value
    elif isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise InvalidValueError(f"{where} must be a number, not {type(value).__name__}.")
    else:
        try:
            number = float(value)
        except (OverflowError, ValueError):
            raise InvalidValueError(f"{where} must be a finite number.") from None
    if not math.isfinite(number):
        raise InvalidValueError(f"{where} must be a finite number.")
    return number + 0.0


def check_moment(where: str, value: Any) -> datetime:
    """Return a moment in UTC that can be stored.

    Raises:
        InvalidValueError: As for `check_time`; or it is the first or last one, which is no time to
            a database.
    """
    moment = check_time(where, value)
    if moment in _ENDS_OF_TIME:
        raise InvalidValueError(f"{where} is the first or last moment that Python knows.")
    return moment


def check_time(where: str, value: Any) -> datetime:
    """Return a moment in UTC.

    Raises:
        InvalidValueError: It is no datetime, has no time zone, or UTC cannot express it.
    """
    if type(value) is datetime and value.tzinfo is UTC:
        return value
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


def check_object(where: str, value: Any, content_limit: int) -> Any:
    """Return a JSON object made of plain values; see `check_json`.

    Raises:
        InvalidValueError: As for `check_json`, or it is no object.
    """
    if not isinstance(value, Mapping):
        raise InvalidValueError(f"{where} must be a JSON object.")
    return check_json(where, value, content_limit)


def check_json(where: str, value: Any, content_limit: int) -> Any:
    """Return a JSON value made of plain dicts, lists, texts, numbers, booleans and None.

    Raises:
        InvalidValueError: It holds something that JSON cannot, is nested deeper than
            MAX_JSON_DEPTH, or takes more than `content_limit` bytes.
    """
    copying = _PlainJson(where, content_limit)
    plain = copying.copy(value, 1)
    # To write it costs more than all else, so what cannot be too long is not measured.
    if copying.most_bytes > content_limit:
        try:
            size = len(encode_json(plain).encode())
        except ValueError:
            raise InvalidValueError(f"{where} holds a number that is too long to write.") from None
        if size > content_limit:
            raise InvalidValueError(
                f"{where} has {size:,} bytes as JSON; at most {content_limit:,} are allowed."
            )
    return plain


class _PlainJson:
    """Copies a JSON value, and adds up how many bytes it can have at most."""

    def __init__(self, where: str, limit: int) -> None:
        self._where = where
        self._limit = limit
        self.most_bytes = 0

    def copy(self, value: Any, depth: int) -> Any:
        if depth > MAX_JSON_DEPTH:
            raise InvalidValueError(f"{self._where} is nested deeper than {MAX_JSON_DEPTH} levels.")
        if isinstance(value, str):
            return self._text(value)
        # With the comma after it: as much as "false" or a pair of brackets has, and a number more.
        self.most_bytes += _NUMBER_BYTES
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            if value.bit_length() > _SHORT_BITS:
                # Python itself refuses to write one with thousands of digits: it is tried.
                self.most_bytes += self._limit
            return int(value)
        if isinstance(value, float):
            return check_float(self._where, value)
        if isinstance(value, list | tuple):
            return [self.copy(item, depth + 1) for item in value]
        if isinstance(value, Mapping):
            return {self._key(key): self.copy(item, depth + 1) for key, item in value.items()}
        raise InvalidValueError(
            f"{self._where} holds a {type(value).__name__}, which is no JSON value."
        )

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise InvalidValueError(
                f"{self._where} has a key that is no text, which JSON does not allow."
            )
        return self._text(key)

    def _text(self, value: str) -> str:
        text = check_text(self._where, value, self._limit)
        # With the quotes, and the colon or comma after it.
        self.most_bytes += _ESCAPED_BYTES * len(text) + 3
        return text


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
