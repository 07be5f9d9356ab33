"""What SQLite may have stored and no other database can hold: what is wrong, and what to put there.

SQLite's columns have no types to speak of, so raw SQL may have put anything into any of them. A
value is looked at as it is stored: by its storage class and, where that is text, its bytes.
"""

from __future__ import annotations

import json
import math
import re
import sys
from datetime import date
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from paracle_meta.backends.portable import decode_time, encode
from paracle_meta.exceptions import InvalidValueError
from paracle_meta.schema import MAX_JSON_DEPTH, MAX_LABEL_BYTES, Column, Kind, Table
from paracle_meta.validation import check_value
from paracle_meta.values import check_json, check_text, check_vector, encode_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from paracle_meta.backends.portable import Row

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

NO_LIMIT: Final = sys.maxsize
"""Longest text: how long the application lets one be is no question of what can be held."""

_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_ENCODED_SURROGATE: Final = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")

_MOST_DIGITS: Final = 4_300
"""Python's own limit for reading a whole number."""


class Mended(NamedTuple):
    """A value that can be held everywhere.

    Attributes:
        value: In its portable form.
        reason: What was wrong with the stored one; None where nothing was.
    """

    value: Any
    reason: str | None = None


class MendedRow(NamedTuple):
    """A row that can be held everywhere.

    Attributes:
        row: A portable one.
        reasons: What was wrong, by column.
    """

    row: Row
    reasons: dict[str, str]


def mend_row(
    table: Table[Any], columns: Sequence[Column], stored: Sequence[Any], moment: datetime
) -> MendedRow:
    """Return a row as it can be held everywhere.

    Args:
        table: Whose.
        columns: Which ones the row has.
        stored: Storage class and value of each of them in turn.
        moment: What to put where a time that must be there is none.
    """
    values = {}
    reasons = {}
    for column, storage, raw in zip(columns, stored[::2], stored[1::2], strict=True):
        value, reason = mend(table, column, storage, raw, moment)
        values[column.name] = value
        if reason is not None:
            reasons[column.name] = reason
    if "embedding" in reasons:
        values["embedding_model"] = None
    return MendedRow(tuple(values.values()), reasons)


def mend(table: Table[Any], column: Column, storage: str, raw: Any, moment: datetime) -> Mended:
    """Return a value as it can be held everywhere: what is well is left as it is.

    - Text: U+FFFD for each NUL, each surrogate and each other byte that is no UTF-8; a label is cut
      after 512 bytes.
    - JSON: the same within its texts, null for a number that is none, null for what is nested too
      deeply; what is no JSON is missing.
    - Tags: those that are texts.
    - Everything else is missing. Where it must not be: the column's default, with the moment of the
      snapshot for now; the JSON value null; of a number without a default the nearest that may be.
    """
    if raw is None:
        return Mended(None)
    match column.kind:
        case Kind.LABEL:
            return _label(column, storage, raw)
        case Kind.STRING | Kind.TEXT:
            return _text(storage, raw)
        case Kind.INTEGER | Kind.FLOAT:
            return _number(table, column, storage, raw)
        case Kind.TIMESTAMP | Kind.DATE:
            return _time(table, column, storage, raw, moment)
        case Kind.JSON | Kind.JSON_TEXT | Kind.TAGS:
            return _json(table, column, storage, raw)
        case Kind.VECTOR:
            return _vector(table, column, storage, raw)


def _text(storage: str, raw: Any) -> Mended:
    if storage not in ("text", "blob"):
        return Mended(str(raw), "is a number and no text")
    text, reason = _decoded(raw)
    if storage == "blob":
        reason = "is a BLOB and no text"
    return Mended(text, reason)


def _decoded(data: bytes) -> Mended:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        whole = _ENCODED_SURROGATE.sub(REPLACEMENT.encode(), data)
        text = whole.decode(errors="replace").replace("\0", REPLACEMENT)
        return Mended(text, "has bytes that are no Unicode text in UTF-8")
    if "\0" in text:
        mended = text.replace("\0", REPLACEMENT)
        return Mended(mended, "has a NUL character, which PostgreSQL cannot store")
    return Mended(text)


def _label(column: Column, storage: str, raw: Any) -> Mended:
    text, reason = _text(storage, raw)
    size = len(text.encode())
    if reason is None and size > MAX_LABEL_BYTES:
        reason = f"has {size:,} bytes in UTF-8; at most {MAX_LABEL_BYTES:,} are allowed"
    if size > MAX_LABEL_BYTES:
        text = cut(text, MAX_LABEL_BYTES)
    if column.choices and text not in column.choices:
        return Mended(column.default, f"must be one of {', '.join(column.choices)}")
    return Mended(text, reason)


def cut(text: str, size: int) -> str:
    """Return the beginning of a text, of so many bytes in UTF-8 at most."""
    return text.encode()[:size].decode(errors="ignore")


def _number(table: Table[Any], column: Column, storage: str, raw: Any) -> Mended:
    if storage not in ("integer", "real"):
        return Mended(_instead(column, None), "is no number")
    try:
        return Mended(check_value(table, column, raw, NO_LIMIT))
    except InvalidValueError as error:
        return Mended(_instead(column, raw), _reason(table, column, error))


def _instead(column: Column, number: float | None) -> Any:
    """Return what a number becomes that is none, or not one of its column."""
    if column.nullable or column.default is not None:
        return column.default
    least, most = column.minimum or 0, column.maximum or 0
    if number is None or math.isnan(number):
        return int(least)
    return round(max(least, min(most, number)))


def _time(table: Table[Any], column: Column, storage: str, raw: Any, moment: datetime) -> Mended:
    instead = None
    if not column.nullable:
        instead = encode(column, moment if column.kind is Kind.TIMESTAMP else moment.date())
    what = "is no time" if column.kind is Kind.TIMESTAMP else "is no day"
    if storage != "text":
        return Mended(instead, what)
    try:
        text = raw.decode()
        value = decode_time(text) if column.kind is Kind.TIMESTAMP else date.fromisoformat(text)
        return Mended(encode(column, check_value(table, column, value, NO_LIMIT)))
    except InvalidValueError as error:
        return Mended(instead, _reason(table, column, error))
    except (ValueError, OverflowError):
        return Mended(instead, what)


def _json(table: Table[Any], column: Column, storage: str, raw: Any) -> Mended:
    missing = None if column.nullable else "null"
    if storage not in ("text", "blob"):
        return Mended(missing, "is a number and no JSON")
    text, reason = _decoded(raw)
    if storage == "blob":
        reason = "is a BLOB and no JSON"
    if reason is None:
        try:
            _check_json(table, column, json.loads(text, parse_constant=_refuse))
            return Mended(text)
        except InvalidValueError as error:
            reason = _reason(table, column, error)
        except (ValueError, RecursionError):
            reason = "is no JSON"
    try:
        value = _mended_json(json.loads(text, parse_constant=_nothing, parse_int=_whole), 1)
    except (ValueError, RecursionError):
        return Mended(missing, reason)
    if column.kind is Kind.TAGS:
        if not isinstance(value, list):
            return Mended(missing, reason)
        value = [cut(tag, MAX_LABEL_BYTES) for tag in value if isinstance(tag, str)]
    return Mended(encode_json(value), reason)


def _check_json(table: Table[Any], column: Column, value: Any) -> None:
    where = f"{table.name}.{column.name}"
    if column.kind is not Kind.TAGS:
        check_json(where, value, NO_LIMIT)
    elif value is not None:
        if not isinstance(value, list):
            raise InvalidValueError(f"{where} must be a list of texts.")
        for tag in value:
            check_text(where, tag, MAX_LABEL_BYTES)


def _mended_json(value: Any, depth: int) -> Any:
    match value:
        case str():
            return _SURROGATE.sub(REPLACEMENT, value).replace("\0", REPLACEMENT)
        case float():
            return value if math.isfinite(value) else None
        case list() | dict() if depth > MAX_JSON_DEPTH:
            return None
        case list():
            return [_mended_json(item, depth + 1) for item in value]
        case dict():
            return {
                _mended_json(key, depth): _mended_json(item, depth + 1)
                for key, item in value.items()
            }
        case _:
            return value


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _nothing(constant: str) -> None:
    del constant


def _whole(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def _vector(table: Table[Any], column: Column, storage: str, raw: Any) -> Mended:
    import numpy as np

    if storage != "blob" or len(raw) % 4:
        return Mended(None, "is no vector of numbers of 4 bytes")
    try:
        # The length of one that is far too long is infinite, which is no news here.
        with np.errstate(over="ignore", invalid="ignore"):
            check_vector(f"{table.name}.{column.name}", np.frombuffer(raw, dtype="<f4"))
    except InvalidValueError as error:
        return Mended(None, _reason(table, column, error))
    return Mended(raw)


def _reason(table: Table[Any], column: Column, error: InvalidValueError) -> str:
    """Return what a message says of a value, without the name of its column."""
    return str(error).removeprefix(f"{table.name}.{column.name} ").rstrip(".")
