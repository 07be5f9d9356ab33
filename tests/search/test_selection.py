"""Conditions on columns held in memory, beside a plain reading of what they mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paracle_meta import schema
from paracle_meta.backends.vectors.columns import HeldColumn, held_columns, hold
from paracle_meta.backends.vectors.selection import select, select_these
from paracle_meta.filters import parse_filters

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = {
    "artifact_type": st.sampled_from(["agent", "crew", "tool", "é", "z" * 40]),
    "quality_score": st.none() | st.sampled_from([0.0, 0.5, 1.0, 7.25, 10.0]),
    "usage_count": st.integers(0, 5),
    "embedding_model": st.none() | st.sampled_from(["a/b", "b/c"]),
    "created_at": st.integers(0, 5).map(lambda minutes: EPOCH + timedelta(minutes=minutes)),
}
OPERATORS = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]
PLAIN: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda one, other: one == other,
    "$ne": lambda one, other: one != other,
    "$gt": lambda one, other: one is not None and one > other,
    "$gte": lambda one, other: one is not None and one >= other,
    "$lt": lambda one, other: one is not None and one < other,
    "$lte": lambda one, other: one is not None and one <= other,
    "$in": lambda one, others: one in others,
}


def held(rows: list[dict[str, Any]]) -> dict[str, HeldColumn]:
    columns = [column for column in held_columns(schema.TEMPLATES) if column.name in COLUMNS]

    def stored(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.replace(tzinfo=None).isoformat(" ", "microseconds")
        return value

    return hold(columns, [[stored(row[column.name]) for column in columns] for row in rows])


@st.composite
def conditions(draw: st.DrawFn) -> tuple[str, str, Any]:
    name = draw(st.sampled_from(sorted(COLUMNS)))
    operator = draw(st.sampled_from([*OPERATORS, "$in"]))
    if operator == "$in":
        return name, operator, draw(st.lists(COLUMNS[name], min_size=1, max_size=3))
    value = draw(COLUMNS[name])
    ordered = operator in ("$gt", "$gte", "$lt", "$lte")
    return name, operator if value is not None or not ordered else "$eq", value


@given(
    rows=st.lists(st.fixed_dictionaries(COLUMNS), max_size=30),
    asked=st.lists(conditions(), min_size=1, max_size=3, unique_by=lambda one: one[0]),
)
def test_rows_that_meet_all_conditions_are_selected(
    rows: list[dict[str, Any]], asked: list[tuple[str, str, Any]]
) -> None:
    columns = held(rows)
    filters = {name: {operator: value} for name, operator, value in asked}
    tests = [(columns[c.column.name], c) for c in parse_filters(schema.TEMPLATES, filters)]
    expected = [
        n
        for n, row in enumerate(rows)
        if all(PLAIN[operator](row[name], value) for name, operator, value in asked)
    ]
    selection = select(len(rows), tests)
    assert sorted(selection.rows.tolist()) == expected
    everything = np.arange(len(rows))
    assert np.flatnonzero(selection.among(everything)).tolist() == expected


def test_rows_found_elsewhere_are_a_selection_too() -> None:
    selection = select_these(5, np.array([3, 1]))
    assert selection.rows.tolist() == [3, 1]
    assert selection.among(np.array([0, 1, 3, 4])).tolist() == [False, True, True, False]
