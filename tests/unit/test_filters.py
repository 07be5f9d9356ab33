from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_meta.exceptions import InvalidValueError
from paracle_meta.filters import MAX_CHOICES, Operator, parse_filters, where
from paracle_meta.schema import BEST_PRACTICES, COSTS, GENERATIONS, MEMORY, TEMPLATES

if TYPE_CHECKING:
    from paracle_meta import schema

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def stated(table: schema.Table[Any], filters: Any) -> list[tuple[str, str, Any]]:
    return [
        (condition.column.name, condition.operator.value, condition.value)
        for condition in parse_filters(table, filters)
    ]


def test_a_value_alone_means_equal_and_several_operators_hold_together() -> None:
    assert stated(
        GENERATIONS,
        {"artifact_type": "agent", "quality_score": {"$gte": 8, "$lt": 9}, "created_at": NOON},
    ) == [
        ("artifact_type", "$eq", "agent"),
        ("quality_score", "$gte", 8.0),
        ("quality_score", "$lt", 9.0),
        ("created_at", "$eq", NOON),
    ]


@pytest.mark.parametrize("filters", [None, {}])
def test_nothing_is_no_condition(filters: Any) -> None:
    assert parse_filters(GENERATIONS, filters) == ()


@pytest.mark.parametrize("operator", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
def test_each_operator_takes_values_of_each_kind_of_column(operator: str) -> None:
    filters = {"provider": "p", "input_tokens": 5, "cost": 0.5, "created_at": NOON}
    filters["period_start"] = date(2026, 1, 31)
    for name, value in filters.items():
        assert stated(COSTS, {name: {operator: value}}) == [(name, operator, value)]


def test_a_missing_value_can_be_equal_or_not_and_be_among_others() -> None:
    assert stated(GENERATIONS, {"cost": None}) == [("cost", "$eq", None)]
    assert stated(GENERATIONS, {"cost": {"$ne": None}}) == [("cost", "$ne", None)]
    assert stated(GENERATIONS, {"cost": {"$in": [1, None]}}) == [("cost", "$in", [1.0, None])]
    for operator in ("$gt", "$gte", "$lt", "$lte"):
        with pytest.raises(InvalidValueError, match="cannot order by None; use"):
            parse_filters(GENERATIONS, {"cost": {operator: None}})


@pytest.mark.parametrize("values", [["a"], ("a",), {"a"}, frozenset({"a"})])
def test_a_list_of_values_is_any_collection(values: Any) -> None:
    assert stated(GENERATIONS, {"provider": {"$in": values}}) == [("provider", "$in", ["a"])]
    assert stated(GENERATIONS, {"provider": {"$in": []}}) == [("provider", "$in", [])]


BROKEN: list[tuple[Any, str]] = [
    ([("artifact_type", "agent")], "must be a mapping"),
    ("artifact_type", "must be a mapping"),
    ({"unknown": 1}, "cannot be filtered by 'unknown'; it can by id, artifact_type"),
    ({"embedding": [1.0]}, "cannot be filtered by 'embedding'"),
    ({"name = '' OR 1=1 --": "x"}, "cannot be filtered by"),
    ({None: 1}, "cannot be filtered by None"),
    ({("a", "b"): 1}, "cannot be filtered by"),
    ({"name": {}}, "has no operator"),
    ({"name": {"$regex": "x"}}, r"'\$regex' is no operator; there are \$eq"),
    ({"name": {"contains all": ["x"]}}, "is no operator"),
    ({"name": {"not past": "x"}}, "is no operator"),
    ({"name": {1: "x"}}, "is no operator"),
    ({"name": {"$in": "abc"}}, "needs a list of values"),
    ({"name": {"$in": {"a": 1}}}, "needs a list of values"),
    ({"name": {"$in": 7}}, "needs a list of values"),
    ({"name": {"$in": ["a"] * (MAX_CHOICES + 1)}}, r"lists 10,001 values; \$in takes at most"),
    ({"name": 7}, "must be text, not int"),
    ({"name": ["a"]}, "must be text, not list"),
    ({"name": "a\x00"}, "NUL"),
    ({"name": "\ud800"}, "lone surrogate"),
    ({"name": {"$gt": "x" * (1024 * 1024 + 1)}}, "at most 1,048,576"),
    ({"quality_score": "8"}, "must be a number, not str"),
    ({"quality_score": math.nan}, "finite"),
    ({"usage_count": 1.5}, "whole number"),
    ({"usage_count": 2**63}, "from"),
    ({"created_at": "2026-01-31"}, "must be a datetime, not str"),
    ({"created_at": datetime(2026, 1, 31)}, "time zone"),  # noqa: DTZ001
]


@pytest.mark.parametrize(("filters", "words"), BROKEN, ids=range(len(BROKEN)))
def test_what_cannot_be_asked_is_refused_with_what_can(filters: Any, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        parse_filters(TEMPLATES, filters)


def test_a_number_beyond_a_column_may_be_compared_with() -> None:
    assert stated(TEMPLATES, {"usage_count": {"$lt": 2**40}}) == [("usage_count", "$lt", 2**40)]
    assert stated(TEMPLATES, {"quality_score": {"$lt": 99}}) == [("quality_score", "$lt", 99.0)]


def test_a_hostile_name_is_cut_short_in_the_message() -> None:
    with pytest.raises(InvalidValueError) as raised:
        parse_filters(TEMPLATES, {"x" * 10_000: 1})
    assert len(str(raised.value)) < 400


@given(
    st.dictionaries(
        st.text() | st.sampled_from([column.name for column in TEMPLATES.columns]),
        st.none() | st.text() | st.integers() | st.floats() | st.dictionaries(st.text(), st.text()),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_is_asked_is_understood_or_refused_as_invalid(filters: Any) -> None:
    try:
        conditions = parse_filters(TEMPLATES, filters)
    except InvalidValueError:
        return
    # What got through names columns of the schema only; no text of the caller can become SQL.
    assert {condition.column for condition in conditions} <= set(TEMPLATES.columns)


def test_a_repository_can_state_more() -> None:
    tagged = where(BEST_PRACTICES, "tags", Operator.CONTAINS_ALL, ("a", "b"))
    assert (tagged.operator, tagged.value) == (Operator.CONTAINS_ALL, ["a", "b"])
    living = where(MEMORY, "expires_at", Operator.NOT_PAST, NOON)
    assert living.value == NOON
    with pytest.raises(InvalidValueError, match="has no column unknown"):
        where(MEMORY, "unknown", Operator.EQ, 1)
    with pytest.raises(InvalidValueError, match="must be a list of texts"):
        where(BEST_PRACTICES, "tags", Operator.CONTAINS_ALL, "a")
