"""Columns of a collection held in memory, so that a filter needs no visit to the database."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from paracle_meta.filters import Condition, Operator
from paracle_meta.schema import Column, Kind, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

MAX_DISTINCT: Final = 10_000
"""Most different labels that are compared one by one; of more only equality is known here."""

_NUMBERS: Final = frozenset({Kind.INTEGER, Kind.FLOAT, Kind.TIMESTAMP})
_COMPARE: Final[Mapping[Operator, Callable[[Any, Any], Any]]] = {
    Operator.EQ: lambda one, other: one == other,
    Operator.NE: lambda one, other: one != other,
    Operator.GT: lambda one, other: one > other,
    Operator.GTE: lambda one, other: one >= other,
    Operator.LT: lambda one, other: one < other,
    Operator.LTE: lambda one, other: one <= other,
}


def held_columns(table: Table[Any]) -> tuple[Column, ...]:
    """Return the columns that are held: short labels and numbers, not texts."""
    return tuple(
        column
        for column in table.columns
        if column.name != "id" and (column.kind in _NUMBERS or column.kind is Kind.LABEL)
    )


class HeldColumn:
    """One column of some rows. It never changes."""

    def __init__(self, values: NDArray[Any], labels: tuple[str, ...] = ()) -> None:
        """Hold values.

        Args:
            values: Numbers as float64 with NaN for a missing one; times as microseconds since 1970
                in int64; labels as int32 positions in `labels`, -1 for a missing one. Shape (n,).
            labels: The different labels, in no order; empty for numbers.
        """
        self.values = values
        self.labels = labels

    @cached_property
    def _order(self) -> NDArray[np.int32]:
        return np.argsort(self.values, kind="stable").astype(np.int32)

    @cached_property
    def _sorted(self) -> NDArray[Any]:
        # Missing numbers are NaN, which sorts last and meets no comparison.
        ordered: NDArray[Any] = self.values[self._order]
        return ordered[: len(ordered) - int(np.isnan(ordered).sum())]

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {label: code for code, label in enumerate(self.labels)}

    def rows(self, condition: Condition) -> NDArray[np.int32] | None:
        """Return the rows that meet a condition, or None where only `where` tells.

        Found by bisection in the sorted values, so in time that hardly grows with the rows.
        """
        value = condition.value
        if value is None or condition.operator not in _BOUNDS:
            return None
        if condition.column.kind is Kind.LABEL:
            if not _is_equality(condition):
                return None
            value = self._codes.get(value, len(self.labels))
        else:
            value = _number(value)
        # Of the same type, or all values would be converted for the comparison.
        value = self.values.dtype.type(value)
        lower, upper = _BOUNDS[condition.operator]
        first = 0 if lower is None else self._sorted.searchsorted(value, lower)
        last = len(self._sorted) if upper is None else self._sorted.searchsorted(value, upper)
        return self._order[first:last]

    def knows(self, condition: Condition) -> bool:
        """Whether a condition of this column can be told here."""
        return len(self.labels) <= MAX_DISTINCT or _is_equality(condition)

    def where(self, condition: Condition, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Return which of these rows, shape (m,), meet a condition that is known here."""
        values = self.values[rows]
        if condition.column.kind is Kind.LABEL:
            return self._where_label(condition, values)
        return _where_number(condition, values)

    def _where_label(self, condition: Condition, values: NDArray[Any]) -> NDArray[np.bool_]:
        if _is_equality(condition):
            found: NDArray[np.bool_] = values == self._codes.get(condition.value, len(self.labels))
            return found
        # The last entry answers for missing values, which are at position -1.
        answers = np.array(
            [_meets(label, condition) for label in (*self.labels, None)], dtype=np.bool_
        )
        met: NDArray[np.bool_] = answers[values]
        return met


_BOUNDS: Final[Mapping[Operator, tuple[Literal["left", "right"] | None, ...]]] = {
    Operator.EQ: ("left", "right"),
    Operator.GT: ("right", None),
    Operator.GTE: ("left", None),
    Operator.LT: (None, "left"),
    Operator.LTE: (None, "right"),
}
"""On which side of a value the rows begin and end that meet a comparison with it."""


def _is_equality(condition: Condition) -> bool:
    return condition.operator is Operator.EQ and condition.value is not None


def _where_number(condition: Condition, values: NDArray[Any]) -> NDArray[np.bool_]:
    if condition.operator is Operator.IN:
        wanted = [_number(item) for item in condition.value if item is not None]
        found = np.isin(values, np.array(wanted, dtype=values.dtype))
        return found | _missing(values) if None in condition.value else found
    if condition.value is None:
        missing = _missing(values)
        return ~missing if condition.operator is Operator.NE else missing
    result: NDArray[np.bool_] = _COMPARE[condition.operator](values, _number(condition.value))
    return result


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "f":
        missing: NDArray[np.bool_] = np.isnan(values)
        return missing
    return np.zeros(len(values), dtype=np.bool_)


def _meets(label: str | None, condition: Condition) -> bool:
    """Whether a label meets a condition, as `filters.Condition` defines it."""
    if condition.operator is Operator.IN:
        return label in condition.value
    if condition.value is None or label is None:
        return (label == condition.value) is (condition.operator is Operator.EQ) and (
            condition.operator in (Operator.EQ, Operator.NE)
        )
    # Bytewise order of UTF-8 is the order of code points, which is Python's.
    return bool(_COMPARE[condition.operator](label, condition.value))


def _number(value: Any) -> Any:
    return microseconds(value) if isinstance(value, datetime) else value


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Return microseconds since 1970 in UTC."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def hold(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> dict[str, HeldColumn]:
    """Return the columns of rows.

    Args:
        columns: As from `held_columns`.
        rows: One value a column: text, numbers, and times as text in UTC.
    """
    held = {}
    for position, column in enumerate(columns):
        values = [row[position] for row in rows]
        if column.kind is Kind.LABEL:
            labels = tuple({value for value in values if value is not None})
            codes = {label: code for code, label in enumerate(labels)}
            held[column.name] = HeldColumn(
                np.array([codes.get(value, -1) for value in values], dtype=np.int32), labels
            )
        elif column.kind is Kind.TIMESTAMP:
            held[column.name] = HeldColumn(
                np.array(values, dtype="datetime64[us]").astype(np.int64)
            )
        else:
            held[column.name] = HeldColumn(np.array(values, dtype=np.float64))
    return held


def join(parts: Sequence[Mapping[str, HeldColumn]]) -> dict[str, HeldColumn]:
    """Return the columns of several groups of rows, one after another."""
    joined = {}
    for name in parts[0]:
        columns = [part[name] for part in parts]
        labels = tuple(dict.fromkeys(label for column in columns for label in column.labels))
        if labels:
            codes = {label: code for code, label in enumerate(labels)}
            # The last entry keeps missing values missing.
            values = [
                np.array([*(codes[label] for label in column.labels), -1], dtype=np.int32)[
                    column.values
                ]
                for column in columns
            ]
        else:
            values = [column.values for column in columns]
        joined[name] = HeldColumn(np.concatenate(values), labels)
    return joined


def take(columns: Mapping[str, HeldColumn], rows: NDArray[Any]) -> dict[str, HeldColumn]:
    """Return the columns of some of the rows."""
    return {name: HeldColumn(held.values[rows], held.labels) for name, held in columns.items()}
