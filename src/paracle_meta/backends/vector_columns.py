"""Columns of a collection held in memory, so that a filter needs no visit to the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from paracle_meta.filters import Condition, Operator
from paracle_meta.schema import Column, Kind, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

MAX_DISTINCT: Final = 10_000
"""Most different labels that are held: a filter asks each of them, which more would make slow."""

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


@dataclass(frozen=True, slots=True)
class HeldColumn:
    """One column of some rows.

    Attributes:
        values: Numbers as float64 with NaN for a missing one; times as microseconds since 1970 in
            int64; labels as int32 positions in `labels`, -1 for a missing one. Shape (n,).
        labels: The different labels, in no order; empty for numbers.
    """

    values: NDArray[Any]
    labels: tuple[str, ...] = ()

    def where(self, condition: Condition) -> NDArray[np.bool_] | None:
        """Return which rows meet a condition, shape (n,), or None where that is not known here."""
        if condition.column.kind is Kind.LABEL:
            return self._where_label(condition)
        return self._where_number(condition)

    def _where_label(self, condition: Condition) -> NDArray[np.bool_] | None:
        if len(self.labels) > MAX_DISTINCT:
            return None
        # The last entry answers for missing values, which are at position -1.
        answers = np.array(
            [_meets(label, condition) for label in (*self.labels, None)], dtype=np.bool_
        )
        found: NDArray[np.bool_] = answers[self.values]
        return found

    def _where_number(self, condition: Condition) -> NDArray[np.bool_]:
        if condition.operator is Operator.IN:
            wanted = [_number(item) for item in condition.value if item is not None]
            found = np.isin(self.values, np.array(wanted, dtype=self.values.dtype))
            return found | self._missing() if None in condition.value else found
        if condition.value is None:
            missing = self._missing()
            return ~missing if condition.operator is Operator.NE else missing
        result: NDArray[np.bool_] = _COMPARE[condition.operator](
            self.values, _number(condition.value)
        )
        return result

    def _missing(self) -> NDArray[np.bool_]:
        if self.values.dtype.kind == "f":
            missing: NDArray[np.bool_] = np.isnan(self.values)
            return missing
        return np.zeros(len(self.values), dtype=np.bool_)


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
