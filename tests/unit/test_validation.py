from __future__ import annotations

import json
import math
from array import array
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_meta import schema
from paracle_meta.exceptions import InvalidValueError
from paracle_meta.records import (
    BestPractice,
    CostRecord,
    Feedback,
    GenerationResult,
    MemoryItem,
    Template,
)
from paracle_meta.validation import (
    MAX_PAGE,
    check_changes,
    check_id,
    check_page,
    check_record,
    same_record,
)
from paracle_meta.values import (
    MAX_DIMENSIONS,
    check_date,
    check_dimensions,
    check_float,
    check_integer,
    check_json,
    check_tags,
    check_text,
    check_time,
    check_vector,
    encode_json,
    vector_to_list,
)

LIMIT = 1_000
SECRET = "what-no-message-may-repeat"
GENERATION = GenerationResult(artifact_type="agent", name="n", content="c")

RECORDS: list[tuple[schema.Table[Any], Any]] = [
    (schema.GENERATIONS, GENERATION),
    (schema.TEMPLATES, Template(artifact_type="agent", name="n", content="c", embedding=[1, 2])),
    (schema.FEEDBACK, Feedback(generation_id="gen-1", rating=3)),
    (schema.COSTS, CostRecord(provider="p", model="m", period_start=date(2026, 1, 31))),
    (schema.MEMORY, MemoryItem(key="k", value=[1, None])),
    (schema.BEST_PRACTICES, BestPractice(category="c", title="t", content="c", tags=["a"])),
]

# One broken rule each: the table, the field, a value, and what the message says.
BROKEN: list[tuple[schema.Table[Any], str, Any, str]] = [
    (schema.GENERATIONS, "id", "", "must not be blank"),
    (schema.GENERATIONS, "id", "x" * 513, "513 bytes in UTF-8; at most 512"),
    (schema.GENERATIONS, "id", "ü" * 257, "514 bytes"),
    (schema.GENERATIONS, "id", None, "must have a value"),
    (schema.GENERATIONS, "id", 7, "must be text, not int"),
    (schema.GENERATIONS, "artifact_type", " ", "blank"),
    (schema.GENERATIONS, "name", "\t\n", "blank"),
    (schema.GENERATIONS, "content", "", "blank"),
    (schema.GENERATIONS, "content", SECRET * LIMIT, f"at most {LIMIT:,}"),
    (schema.GENERATIONS, "content", f"{SECRET}\x00", "NUL"),
    (schema.GENERATIONS, "content", f"{SECRET}\ud800", "lone surrogate"),
    (schema.GENERATIONS, "content", SECRET.encode(), "not bytes"),
    (schema.GENERATIONS, "description", f"{SECRET}\x00", "NUL"),
    (schema.GENERATIONS, "quality_score", math.nan, "finite"),
    (schema.GENERATIONS, "quality_score", math.inf, "finite"),
    (schema.GENERATIONS, "quality_score", -0.1, "at least 0"),
    (schema.GENERATIONS, "quality_score", 10.1, "at most 10"),
    (schema.GENERATIONS, "quality_score", "9", "must be a number, not str"),
    (schema.GENERATIONS, "quality_score", True, "must be a number, not bool"),
    (schema.GENERATIONS, "quality_score", 10**400, "finite"),
    (schema.GENERATIONS, "tokens_used", -1, "at least 0"),
    (schema.GENERATIONS, "tokens_used", 2**31, "from"),
    (schema.GENERATIONS, "tokens_used", 1.0, "whole number, not float"),
    (schema.GENERATIONS, "tokens_used", False, "whole number, not bool"),
    (schema.GENERATIONS, "cost", -0.01, "at least 0"),
    (schema.GENERATIONS, "cost", Decimal("NaN"), "finite"),
    (schema.GENERATIONS, "created_at", datetime(2026, 1, 1), "time zone"),  # noqa: DTZ001
    (schema.GENERATIONS, "created_at", date(2026, 1, 1), "must be a datetime, not date"),
    (schema.GENERATIONS, "created_at", None, "must have a value"),
    (schema.GENERATIONS, "metadata", [1], "JSON object"),
    (schema.GENERATIONS, "metadata", {1: SECRET}, "key that is no text"),
    (schema.GENERATIONS, "metadata", {"a": {SECRET}}, "set, which is no JSON"),
    (schema.GENERATIONS, "metadata", {"a": math.inf}, "finite"),
    (schema.GENERATIONS, "metadata", {"a": f"{SECRET}\x00"}, "NUL"),
    (schema.GENERATIONS, "metadata", {f"{SECRET}\udfff": 1}, "lone surrogate"),
    (schema.GENERATIONS, "metadata", {"a": "x" * LIMIT}, "as JSON"),
    (schema.FEEDBACK, "rating", 0, "at least 1"),
    (schema.FEEDBACK, "rating", 6, "at most 5"),
    (schema.FEEDBACK, "rating", 4.5, "whole number"),
    (schema.FEEDBACK, "rating", None, "must have a value"),
    (schema.FEEDBACK, "generation_id", "", "blank"),
    (schema.COSTS, "period_type", "weekly", "one of daily, monthly"),
    (schema.COSTS, "period_start", datetime(2026, 1, 1, tzinfo=UTC), "must be a date"),
    (schema.COSTS, "period_start", "2026-01-01", "must be a date, not str"),
    (schema.MEMORY, "key", None, "must have a value"),
    (schema.MEMORY, "value", object(), "no JSON value"),
    (schema.MEMORY, "value", 10**5_000, "too long to write"),
    (schema.BEST_PRACTICES, "tags", "a, b", "list of texts, not str"),
    (schema.BEST_PRACTICES, "tags", ["a", ""], "blank"),
    (schema.BEST_PRACTICES, "tags", ["a", 1], "must be text, not int"),
    (schema.BEST_PRACTICES, "usage_count", None, "must have a value"),
    (schema.TEMPLATES, "embedding", [], "0 dimensions"),
    (schema.TEMPLATES, "embedding", [0.0, 0.0], "zero"),
    (schema.TEMPLATES, "embedding", [1.0, math.nan], "not finite"),
    (schema.TEMPLATES, "embedding", SECRET, "sequence of numbers"),
]


def valid(table: schema.Table[Any]) -> Any:
    return next(record for other, record in RECORDS if other is table)


@pytest.mark.parametrize(("table", "record"), RECORDS, ids=[table.name for table, _ in RECORDS])
def test_a_record_becomes_a_value_for_each_column(table: schema.Table[Any], record: Any) -> None:
    values = check_record(table, record, LIMIT)
    assert list(values) == [column.name for column in table.columns]
    assert values["created_at"].tzinfo is UTC
    assert same_record(table, record, values)


@pytest.mark.parametrize(
    ("table", "name", "value", "words"),
    BROKEN,
    ids=[f"{table.name}.{name}-{index}" for index, (table, name, *_) in enumerate(BROKEN)],
)
def test_a_broken_rule_is_named_and_the_text_is_not(
    table: schema.Table[Any], name: str, value: Any, words: str
) -> None:
    with pytest.raises(InvalidValueError) as raised:
        check_record(table, replace(valid(table), **{name: value}), LIMIT)
    assert f"{table.name}.{name}" in str(raised.value)
    assert words in str(raised.value)
    assert SECRET not in f"{raised.value} {raised.value.__cause__!r}"


def test_another_kind_of_record_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="stores Feedback records, not GenerationResult"):
        check_record(schema.FEEDBACK, GENERATION, LIMIT)  # type: ignore[misc]
    with pytest.raises(InvalidValueError, match="not dict"):
        check_record(schema.FEEDBACK, {"rating": 1}, LIMIT)  # type: ignore[misc]


def test_changes_are_checked_like_records() -> None:
    assert check_changes(schema.GENERATIONS, {"quality_score": 8}, LIMIT) == {"quality_score": 8.0}
    with pytest.raises(InvalidValueError, match="No change to the generation"):
        check_changes(schema.GENERATIONS, {}, LIMIT)
    for name in ("id", "created_at", "updated_at", "unknown", "name; DROP TABLE generations"):
        with pytest.raises(InvalidValueError, match="no column of generations that can change"):
            check_changes(schema.GENERATIONS, {name: "x"}, LIMIT)
    with pytest.raises(InvalidValueError, match="that can change"):
        check_changes(schema.FEEDBACK, {"generation_id": "gen-2"}, LIMIT)
    with pytest.raises(InvalidValueError, match="at most 10"):
        check_changes(schema.GENERATIONS, {"quality_score": 11}, LIMIT)


class Word(str):
    __slots__ = ()


def test_a_text_is_measured_in_bytes_and_comes_back_plain() -> None:
    assert check_text("t", "é" * 5, 10) == "é" * 5
    with pytest.raises(InvalidValueError, match="12 bytes"):
        check_text("t", "é" * 6, 10)
    assert type(check_text("t", Word("w"), 10)) is str
    assert check_text("t", "", 10) == ""
    assert check_text("t", "\U0001f600", 4) == "\U0001f600"


@given(st.text())
def test_a_text_is_either_kept_whole_or_refused(text: str) -> None:
    if "\x00" in text:
        with pytest.raises(InvalidValueError):
            check_text("t", text, 10**6)
    else:
        assert check_text("t", text, 10**6) == text


def test_numbers_of_other_types_become_plain() -> None:
    assert check_float("f", Decimal("1.5")) == 1.5
    assert check_float("f", Fraction(1, 4)) == 0.25
    assert check_float("f", np.float32(0.5)) == 0.5
    assert type(check_float("f", np.float64(0.5))) is float
    assert math.copysign(1, check_float("f", -0.0)) == 1
    assert type(check_integer("i", np.int64(7), 0, 10)) is int
    for bound in (0, 10):
        assert check_integer("i", bound, 0, 10) == bound
    for beyond in (-1, 11):
        with pytest.raises(InvalidValueError, match="from 0 to 10"):
            check_integer("i", beyond, 0, 10)


def test_a_time_is_taken_to_utc() -> None:
    east = timezone(timedelta(hours=2))
    assert check_time("t", datetime(2026, 1, 1, 1, 30, tzinfo=east)) == datetime(
        2025, 12, 31, 23, 30, tzinfo=UTC
    )
    assert check_time("t", datetime(2026, 1, 1, tzinfo=east)).tzinfo is UTC
    with pytest.raises(InvalidValueError, match="years 1 to 9999"):
        check_time("t", datetime(1, 1, 1, tzinfo=east))
    assert check_date("d", date(2026, 1, 1)) == date(2026, 1, 1)


def test_tags_are_any_iterable_of_labels() -> None:
    assert check_tags("t", ("a", "b")) == ["a", "b"]
    assert check_tags("t", iter(["a"])) == ["a"]
    with pytest.raises(InvalidValueError, match="not NoneType"):
        check_tags("t", None)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_comes_back_with_its_types(value: Any) -> None:
    checked = check_json("j", value, 10**6)
    assert checked == value
    again = json.loads(encode_json(checked))
    assert again == value
    assert repr(again) == repr(checked)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels - 1):
        value = [value]
    return value


def test_json_may_be_nested_so_deep_and_no_deeper() -> None:
    assert check_json("j", nested(schema.MAX_JSON_DEPTH), LIMIT)
    with pytest.raises(InvalidValueError, match="nested deeper than 100"):
        check_json("j", nested(schema.MAX_JSON_DEPTH + 1), LIMIT)
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(InvalidValueError, match="nested deeper"):
        check_json("j", itself, LIMIT)


def test_json_is_copied() -> None:
    given_value = {"a": [1, (2, 3)]}
    checked = check_json("j", given_value, LIMIT)
    given_value["a"].append(4)
    assert checked == {"a": [1, [2, 3]]}


VECTORS: list[Any] = [
    [0.5, -1.25, 3],
    (0.5, -1.25, 3),
    array("f", [0.5, -1.25, 3]),
    array("d", [0.5, -1.25, 3]),
    np.array([0.5, -1.25, 3]),
    np.array([0.5, -1.25, 3], dtype=np.float32),
]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: type(vector).__name__)
def test_a_vector_becomes_little_endian_float32(vector: Any) -> None:
    blob = check_vector("v", vector)
    assert blob == np.array([0.5, -1.25, 3], dtype="<f4").tobytes()
    assert vector_to_list(blob) == [0.5, -1.25, 3.0]
    check_dimensions("v", blob, "m", 3)
    with pytest.raises(InvalidValueError, match=r"3 dimensions, but vectors of m have 4"):
        check_dimensions("v", blob, "m", 4)


BAD_VECTORS: list[Any] = [
    None,
    7,
    b"\x00\x00\x80\x3f",
    ["1.0"],
    [[1.0]],
    [None],
    [1e39],
    [math.inf],
    [0.0],
    [1.0] * (MAX_DIMENSIONS + 1),
]


@pytest.mark.parametrize("vector", BAD_VECTORS, ids=range(len(BAD_VECTORS)))
def test_what_is_no_vector_is_refused(vector: Any) -> None:
    with pytest.raises(InvalidValueError, match="v "):
        check_vector("v", vector)


def test_pages_and_ids() -> None:
    assert check_page(1) == 1
    assert check_page(MAX_PAGE, "top_k") == MAX_PAGE
    for limit in (0, -1, MAX_PAGE + 1, 1.0, None, "1", True):
        with pytest.raises(InvalidValueError, match="top_k"):
            check_page(limit, "top_k")
    assert check_id(schema.MEMORY, "mem-1") == "mem-1"
    with pytest.raises(InvalidValueError, match=r"memory\.id"):
        check_id(schema.MEMORY, "")


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"created_at": datetime(2020, 1, 1, tzinfo=UTC)}, True),
        ({"name": "other"}, False),
        ({"quality_score": 1}, False),
        ({"metadata": {"b": 2, "a": 1}}, True),
        ({"metadata": {"a": 1.0, "b": 2}}, False),
        ({"metadata": {"a": True, "b": 2}}, False),
        ({"metadata": None}, False),
    ],
)
def test_what_makes_two_records_with_one_id_the_same(changes: dict[str, Any], same: bool) -> None:
    stored = replace(GENERATION, metadata={"a": 1, "b": 2})
    values = check_record(schema.GENERATIONS, replace(stored, **changes), LIMIT)
    assert same_record(schema.GENERATIONS, stored, values) is same
