"""The rules of records and of what is asked for, checked before anything is sent.

Every function returns what it was given in the one form that is stored or raises
`InvalidValueError`, which names the column and the rule and never the text itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any, Final, NoReturn, TypeVar

from paracle_meta.exceptions import InvalidValueError
from paracle_meta.schema import (
    MAX_COUNT,
    MAX_LABEL_BYTES,
    UNCOMPARED,
    Column,
    Kind,
    Table,
)
from paracle_meta.values import (
    canonical_json,
    check_date,
    check_float,
    check_integer,
    check_json,
    check_moment,
    check_object,
    check_tags,
    check_text,
    check_vector,
)

R = TypeVar("R")

MAX_PAGE: Final = 10_000
"""Most records one call returns: a page that still fits memory with contents of usual size."""

_FIXED: Final = frozenset({"id", "created_at", "updated_at", "usage_count", "embedding_model"})
"""What identifies a record, and what the store itself keeps up."""

_LIMITS: Final = 64
"""Content limits whose checks are kept, one a table and configuration in use."""

Check = Callable[[Any], Any]
"""Returns a value that is not missing in its stored form."""

Absent = Callable[[], Any]
"""Returns what is stored for a missing value, or refuses it."""


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
    values_of, checks = _checks(table, content_limit)
    return {
        name: absent() if value is None else check(value)
        for value, (name, (check, absent)) in zip(values_of(record), checks.items(), strict=True)
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
    _, checks = _checks(table, content_limit)
    check, absent = checks[column.name]
    return absent() if value is None else check(value)


@lru_cache(maxsize=_LIMITS)
def _checks(
    table: Table[Any], content_limit: int
) -> tuple[Callable[[Any], tuple[Any, ...]], dict[str, tuple[Check, Absent]]]:
    """Return what reads the columns of a record, and `_checks_of` each by its name."""
    checks = {column.name: _checks_of(table, column, content_limit) for column in table.columns}
    return attrgetter(*checks), checks


def _checks_of(table: Table[Any], column: Column, content_limit: int) -> tuple[Check, Absent]:
    where = f"{table.name}.{column.name}"
    check = _check_of_kind(where, column, content_limit)
    if column.minimum is not None or column.maximum is not None or column.choices:
        check = partial(_within_bounds, where, column, check)
    if column.kind is Kind.TAGS:
        return check, list
    if column.nullable or column.kind is Kind.JSON_TEXT:
        return check, _none
    return check, partial(_refuse_none, where)


def _check_of_kind(where: str, column: Column, content_limit: int) -> Check:
    match column.kind:
        case Kind.LABEL:
            return partial(check_text, where, max_bytes=MAX_LABEL_BYTES, required=True)
        case Kind.TEXT | Kind.STRING:
            return partial(
                check_text, where, max_bytes=content_limit, required=column.required_text
            )
        case Kind.INTEGER:
            return partial(check_integer, where, minimum=-MAX_COUNT, maximum=MAX_COUNT)
        case Kind.FLOAT:
            return partial(check_float, where)
        case Kind.TIMESTAMP:
            return partial(check_moment, where)
        case Kind.DATE:
            return partial(check_date, where)
        case Kind.JSON:
            return partial(check_object, where, content_limit=content_limit)
        case Kind.JSON_TEXT:
            return partial(check_json, where, content_limit=content_limit)
        case Kind.TAGS:
            return partial(check_tags, where)
        case Kind.VECTOR:
            return partial(check_vector, where)


def _within_bounds(where: str, column: Column, check: Check, value: Any) -> Any:
    checked = check(value)
    if column.minimum is not None and checked < column.minimum:
        raise InvalidValueError(f"{where} must be at least {column.minimum:g}.")
    if column.maximum is not None and checked > column.maximum:
        raise InvalidValueError(f"{where} must be at most {column.maximum:g}.")
    if column.choices and checked not in column.choices:
        raise InvalidValueError(f"{where} must be one of {', '.join(column.choices)}.")
    return checked


def _none() -> None:
    return None


def _refuse_none(where: str) -> NoReturn:
    raise InvalidValueError(f"{where} must have a value.")


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
