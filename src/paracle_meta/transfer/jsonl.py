"""Records as JSON Lines: one object a line, its ``kind`` first, then the columns in their order.

Times are ISO 8601 in UTC (``2026-03-01T09:30:00.000123Z``), JSON values and tags are JSON, and a
vector is the base64 text of its little-endian float32 numbers: a third of the size of a list of
numbers, and exact. A line that somebody else wrote may have the list, and may leave out what has a
default.
"""

from __future__ import annotations

import binascii
import dataclasses
import json
from datetime import UTC, date, datetime
from functools import cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final, cast

from paracle_meta.backends.portable import decode_time
from paracle_meta.exceptions import InvalidValueError
from paracle_meta.schema import BY_NAME, NOW, TODAY, Column, Kind, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from zoneinfo import ZoneInfo

    from paracle_meta.backends.portable import Row

_TIME_LENGTH: Final = len("2026-01-31 09:00:00.000000")


class JsonLines:
    """Formats rows; like a `ScriptWriter` in what it offers."""

    all_or_nothing = False
    """An import names the lines that it cannot store, and stores the others."""

    def begin(self) -> str:
        """Return what stands before all rows: nothing."""
        return ""

    def rows(self, table: Table[Any], rows: Sequence[Row]) -> str:
        """Return one line a row."""
        if not rows:
            return ""
        template, spellings = _line(table)
        # Column by column, which is half the work of row by row.
        columns = [
            ["null" if value is None else spell(value) for value in values]
            for spell, values in zip(spellings, zip(*rows, strict=True), strict=True)
        ]
        return "".join([template % values for values in zip(*columns, strict=True)])

    def end(self) -> str:
        """Return what stands after all rows: nothing."""
        return ""


@cache
def _line(table: Table[Any]) -> tuple[str, list[Callable[[Any], str]]]:
    names = ",".join(f'"{column.name}":%s' for column in table.columns)
    template = f'{{"kind":"{table.name}",{names}}}\n'
    return template, [_spelling(column) for column in table.columns]


def _spelling(column: Column) -> Callable[[Any], str]:
    match column.kind:
        case Kind.INTEGER:
            return int.__repr__
        case Kind.FLOAT:
            return _spell_float
        case Kind.TIMESTAMP:
            return _spell_time
        case Kind.JSON | Kind.JSON_TEXT | Kind.TAGS:
            return _on_one_line
        case Kind.VECTOR:
            return _spell_vector
        case _:
            return encode_basestring


def _spell_float(value: float) -> str:
    return repr(float(value))


def _spell_time(text: str) -> str:
    if len(text) != _TIME_LENGTH:  # Written by somebody else, in another form.
        return f'"{decode_time(text).isoformat().replace("+00:00", "Z")}"'
    return f'"{text[:10]}T{text[11:].removesuffix(".000000")}Z"'


def _on_one_line(text: str) -> str:
    # Between the tokens of JSON a line feed means nothing, and in its texts there is none.
    return text.replace("\n", " ").replace("\r", " ") if "\n" in text or "\r" in text else text


def _spell_vector(blob: bytes) -> str:
    return f'"{binascii.b2a_base64(blob, newline=False).decode("ascii")}"'


def parse_line(line: bytes, kind: str | None, zone: ZoneInfo) -> tuple[Table[Any], dict[str, Any]]:
    """Return the table and the columns that a line states, not checked yet.

    Args:
        line: UTF-8.
        kind: What it is where it does not say so.
        zone: Whose day a cost counts on that states none.

    Raises:
        InvalidValueError: It is no such object, or a time, a day or a vector cannot be read.
    """
    fields = _parse(line)
    name = fields.pop("kind", kind)
    if name is None:
        raise InvalidValueError(f"it has no kind, which is one of {', '.join(BY_NAME)}")
    table = BY_NAME.get(name) if isinstance(name, str) else None
    if table is None:
        raise InvalidValueError(f"its kind is none of {', '.join(BY_NAME)}")
    columns = _columns(table)
    unknown = fields.keys() - columns.keys()
    if unknown:
        raise InvalidValueError(f"{table.name} has no column {min(unknown)!r:.60}")
    values = {name: _value(table, columns[name], value) for name, value in fields.items()}
    _complete(table, values, zone)
    return table, values


def _parse(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError:
        reason = "it is not JSON"
    else:
        if isinstance(fields, dict):
            return fields
        reason = "it is no JSON object"
    # Not "from exc": those errors hold the text.
    raise InvalidValueError(reason)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


@cache
def _columns(table: Table[Any]) -> dict[str, Column]:
    return {column.name: column for column in table.columns}


def _value(table: Table[Any], column: Column, value: Any) -> Any:
    """Return a value in the form that `validation.check_value` takes."""
    if value is None:
        return None
    where = f"{table.name}.{column.name}"
    match column.kind:
        case Kind.TIMESTAMP:
            moment: datetime = _from_iso(where, datetime.fromisoformat, value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        case Kind.DATE:
            return _from_iso(where, date.fromisoformat, value)
        case Kind.VECTOR if isinstance(value, str):
            return _vector(where, value)
        case _:
            return value


def _from_iso(where: str, read: Callable[[str], Any], value: Any) -> Any:
    try:
        return read(value)
    except (TypeError, ValueError):
        pass
    raise InvalidValueError(f"{where} must be ISO 8601 text, like 2026-03-01T09:30:00Z or a day.")


def _vector(where: str, text: str) -> Any:
    import numpy as np

    try:
        blob = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        blob = b"?"
    if len(blob) % 4:
        raise InvalidValueError(
            f"{where} must be a list of numbers, or the base64 text of float32 numbers."
        )
    return np.frombuffer(blob, "<f4")


def _complete(table: Table[Any], values: dict[str, Any], zone: ZoneInfo) -> None:
    """Fill in what a line may leave out, and take out a model that made no vector."""
    if "id" not in values:
        values["id"] = _new_id(table)()
    if "created_at" not in values:
        values["created_at"] = datetime.now(UTC)
    if values.get("embedding") is None:
        values.pop("embedding_model", None)
    elif values.get("embedding_model") is None:
        raise InvalidValueError(f"{table.name}.embedding needs its embedding_model.")
    for column in table.columns:
        if column.name in values:
            continue
        if column.name == "updated_at":
            values["updated_at"] = values["created_at"]
        elif column.default == TODAY:
            moment = values["created_at"] or datetime.now(UTC)
            values[column.name] = moment.astimezone(zone).date()
        elif column.kind is Kind.JSON_TEXT:
            raise InvalidValueError(f"{table.name}.{column.name} must have a value.")
        else:
            values[column.name] = None if column.default == NOW else column.default


@cache
def _new_id(table: Table[Any]) -> Callable[[], str]:
    """Return what makes the id of a record that is constructed without one."""
    factories = {field.name: field.default_factory for field in dataclasses.fields(table.record)}
    return cast("Callable[[], str]", factories["id"])
