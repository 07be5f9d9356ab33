"""Conditions on the columns of a table, from what callers write to what a backend understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from paracle_meta.exceptions import InvalidValueError
from paracle_meta.schema import Column, Kind, Table
from paracle_meta.values import (
    check_date,
    check_float,
    check_integer,
    check_tags,
    check_text,
    check_time,
)

MAX_CHOICES: Final = 10_000
"""Most values that `$in` takes; more of them are a join, which `session()` can do."""

MAX_FILTER_TEXT_BYTES: Final = 1024 * 1024
"""Longest text to compare with: a text column is compared whole, so a longer one is a mistake."""

_INT64: Final = 2**63 - 1
"""Whole numbers are compared as 64 bits on both databases."""


class Operator(StrEnum):
    """How a column is compared. The first seven are what a filter may say."""

    EQ = "$eq"
    NE = "$ne"
    GT = "$gt"
    GTE = "$gte"
    LT = "$lt"
    LTE = "$lte"
    IN = "$in"
    CONTAINS_ALL = "contains all"
    """The tags hold each of these."""
    NOT_PAST = "not past"
    """The time is missing or later than this."""


_PUBLIC: Final = {
    operator.value: operator for operator in Operator if operator.value.startswith("$")
}
_ORDERED: Final = frozenset({Operator.GT, Operator.GTE, Operator.LT, Operator.LTE})
_FILTERABLE: Final = frozenset(
    {
        Kind.LABEL,
        Kind.STRING,
        Kind.TEXT,
        Kind.INTEGER,
        Kind.FLOAT,
        Kind.TIMESTAMP,
        Kind.DATE,
    }
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison; several together must all hold.

    `EQ` and `NE` take None for a missing value, and a missing value is different from every other:
    `NE` finds it, the ordered operators do not.
    """

    column: Column
    operator: Operator
    value: Any


def parse_filters(table: Table[Any], filters: Mapping[str, Any] | None) -> tuple[Condition, ...]:
    """Return the conditions that a filter states.

    Args:
        table: The table whose columns may be named.
        filters: Column names with a value, ``{"artifact_type": "agent"}``, or with operators,
            ``{"quality_score": {"$gte": 8, "$lt": 9}}``. All must hold. Operators: ``$eq``,
            ``$ne``, ``$gt``, ``$gte``, ``$lt``, ``$lte``, ``$in``.

    Raises:
        InvalidValueError: A column or operator is unknown, or a value does not fit its column.
    """
    if filters is None:
        return ()
    if not isinstance(filters, Mapping):
        raise InvalidValueError("filters must be a mapping of column names to values.")
    conditions: list[Condition] = []
    for name, wanted in filters.items():
        column = table.column(name) if isinstance(name, str) else None
        if column is None or column.kind not in _FILTERABLE:
            known = ", ".join(c.name for c in table.columns if c.kind in _FILTERABLE)
            raise InvalidValueError(
                f"{table.name} cannot be filtered by {name!r:.60}; it can by {known}."
            )
        if not isinstance(wanted, Mapping):
            conditions.append(_condition(table, column, Operator.EQ, wanted))
            continue
        if not wanted:
            raise InvalidValueError(f"The filter on {name} has no operator.")
        for symbol, value in wanted.items():
            operator = _PUBLIC.get(symbol) if isinstance(symbol, str) else None
            if operator is None:
                raise InvalidValueError(
                    f"{symbol!r:.60} is no operator; there are {', '.join(_PUBLIC)}."
                )
            conditions.append(_condition(table, column, operator, value))
    return tuple(conditions)


def where(table: Table[Any], name: str, operator: Operator, value: Any) -> Condition:
    """Return a condition that a repository states; its value is checked like a filter's."""
    column = table.column(name)
    if column is None:
        raise InvalidValueError(f"{table.name} has no column {name}.")
    return _condition(table, column, operator, value)


def _condition(table: Table[Any], column: Column, operator: Operator, value: Any) -> Condition:
    place = f"filter on {table.name}.{column.name}"
    if operator is Operator.CONTAINS_ALL:
        return Condition(column, operator, check_tags(place, value))
    if operator is Operator.IN:
        if isinstance(value, str | bytes | Mapping) or not isinstance(
            value, Sequence | set | frozenset
        ):
            raise InvalidValueError(f"The {place} needs a list of values for $in.")
        if len(value) > MAX_CHOICES:
            raise InvalidValueError(
                f"The {place} lists {len(value):,} values; $in takes at most {MAX_CHOICES:,}."
            )
        return Condition(
            column,
            operator,
            [None if item is None else _comparable(place, column, item) for item in value],
        )
    if value is None:
        if operator in _ORDERED:
            raise InvalidValueError(f"The {place} cannot order by None; use $eq or $ne.")
        return Condition(column, operator, None)
    return Condition(column, operator, _comparable(place, column, value))


def _comparable(place: str, column: Column, value: Any) -> Any:
    match column.kind:
        case Kind.LABEL | Kind.STRING | Kind.TEXT:
            return check_text(place, value, MAX_FILTER_TEXT_BYTES)
        case Kind.INTEGER:
            return check_integer(place, value, -_INT64, _INT64)
        case Kind.FLOAT:
            return check_float(place, value)
        case Kind.TIMESTAMP:
            return check_time(place, value)
        case _:
            return check_date(place, value)
