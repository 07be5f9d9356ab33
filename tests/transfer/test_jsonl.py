"""The form of a line: what an export writes, and what an import makes of it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paracle_meta import InvalidValueError, schema
from paracle_meta.backends.portable import encode, encode_time
from paracle_meta.cli import output
from paracle_meta.schema import TABLES, Column, Kind, Table
from paracle_meta.transfer.jsonl import JsonLines, parse_line
from paracle_meta.transfer.rows import checked_row, same_row
from tests.contract.hypothesis_profile import load_profile

load_profile()

LIMIT = 1_000_000
UTC_ZONE = ZoneInfo("UTC")


def read(line: str, kind: str | None = None, zone: ZoneInfo = UTC_ZONE) -> tuple[Any, ...]:
    table, values = parse_line(line.encode(), kind, zone)
    return checked_row(table, values, LIMIT)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
labels = texts.filter(lambda text: bool(text.strip()))
numbers = st.integers(0, 2**31 - 1)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
vectors = st.lists(
    st.floats(-1e6, 1e6, width=32).filter(lambda number: abs(number) > 1e-6), min_size=1, max_size=5
).map(lambda numbers: np.asarray(numbers, "<f4").tobytes())


def values_of(column: Column) -> st.SearchStrategy[Any]:
    """Return values of a column in the portable form."""
    values: st.SearchStrategy[Any]
    match column.kind:
        case Kind.INTEGER:
            values = st.integers(int(column.minimum or 0), int(column.maximum or 2**31 - 1))
        case Kind.FLOAT:
            values = st.floats(0, column.maximum).map(lambda number: number + 0.0)
        case Kind.TIMESTAMP:
            # The first and the last moment are refused.
            early, late = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001
            values = st.datetimes(early, late).map(encode_time)
        case Kind.DATE:
            values = st.dates().map(date.isoformat)
        case Kind.JSON:
            values = st.dictionaries(texts, json_values).map(lambda one: encode(column, one))
        case Kind.JSON_TEXT:
            values = json_values.map(lambda one: encode(column, one))
        case Kind.TAGS:
            values = st.lists(labels).map(lambda one: encode(column, one))
        case Kind.VECTOR:
            return vectors
        case Kind.LABEL if column.choices:
            values = st.sampled_from(column.choices)
        case _:
            values = labels
    return st.none() | values if column.nullable and column.kind is not Kind.TAGS else values


def rows_of(table: Table[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    columns = [column for column in table.columns if column.name != "embedding_model"]
    row = st.fixed_dictionaries({column.name: values_of(column) for column in columns})
    return row.map(
        lambda values: tuple(
            "some/model" if column.name == "embedding_model" else values[column.name]
            for column in table.columns
        )
    )


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@settings(max_examples=40)
@given(data=st.data())
def test_a_row_of_any_values_comes_back_as_it_was(table: Table[Any], data: st.DataObject) -> None:
    rows = data.draw(st.lists(rows_of(table), min_size=1, max_size=3))
    text = JsonLines().rows(table, rows)
    lines = text.split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert json.loads(line)["kind"] == table.name
        assert same_row(table, read(line), row, but=frozenset())


def test_a_line_is_as_the_page_says() -> None:
    row = (
        *("bpr-1", "security", 'Say "no"', "one\ntwo\u2028🦄", '["a", "b"]', 8.0, 0),
        "2026-03-01 09:30:00.000123",
        np.asarray([0.5, -1], "<f4").tobytes(),
        "2026-03-01 09:30:00.000000",
        "ollama/nomic-embed-text",
    )
    assert JsonLines().rows(schema.BEST_PRACTICES, [row]) == (
        '{"kind":"best_practices","id":"bpr-1","category":"security","title":"Say \\"no\\"",'
        '"content":"one\\ntwo\u2028🦄","tags":["a", "b"],"quality_score":8.0,"usage_count":0,'
        '"created_at":"2026-03-01T09:30:00.000123Z","embedding":"AAAAPwAAgL8=",'
        '"updated_at":"2026-03-01T09:30:00Z","embedding_model":"ollama/nomic-embed-text"}\n'
    )
    assert JsonLines().rows(schema.BEST_PRACTICES, []) == ""


def test_times_are_those_that_lists_print() -> None:
    for moment in (datetime(2026, 3, 1, tzinfo=UTC), datetime(1, 2, 3, 4, 5, 6, 7, tzinfo=UTC)):
        cost = ("c", "p", "m", None, None, None, "daily", "2026-03-01", *[encode_time(moment)] * 2)
        line = json.loads(JsonLines().rows(schema.COSTS, [cost]))
        assert line["created_at"] == output.plain(moment)


def test_json_that_was_written_over_several_lines_is_one_line() -> None:
    memory = ("m", None, "k", '{\r\n "a": "b\\nc"\n}', "session", *["2026-03-01 00:00:00"] * 3)
    line = JsonLines().rows(schema.MEMORY, [memory])
    assert line.splitlines(keepends=True) == [line]
    assert json.loads(line)["value"] == {"a": "b\nc"}
    assert json.loads(line)["expires_at"] == "2026-03-01T00:00:00Z"


def test_what_has_a_default_may_be_left_out() -> None:
    before = encode_time(datetime.now(UTC))
    row = read('{"kind": "memory", "key": "k", "value": null}')
    assert row[0].startswith("mem-")
    assert row[1:5] == (None, "k", "null", "session")
    assert before <= row[5] <= encode_time(datetime.now(UTC))
    assert row[6:] == (None, row[5])

    template = read('{"artifact_type": "agent", "name": "n", "content": "c"}', "templates")
    assert template[0].startswith("tpl-")
    assert template[6] == 0

    # The day of a cost is that of its time, in the time zone whose days count.
    cost = '{"kind": "costs", "provider": "p", "model": "m", "created_at": "2026-03-01T23:30:00"}'
    assert read(cost)[6:9] == ("daily", "2026-03-01", "2026-03-01 23:30:00.000000")
    assert read(cost, zone=ZoneInfo("Europe/Berlin"))[7] == "2026-03-02"


@pytest.mark.parametrize("spelled", ["[0.5, -1]", '"AAAAPwAAgL8="', "[0.5, -1.0]"])
def test_a_vector_is_base64_or_a_list(spelled: str) -> None:
    row = read(
        '{"kind": "templates", "artifact_type": "a", "name": "n", "content": "c",'
        f' "embedding_model": "x/y", "embedding": {spelled}}}'
    )
    assert row[9] == np.asarray([0.5, -1], "<f4").tobytes()
    assert row[11] == "x/y"


def test_the_model_of_no_vector_is_left_out() -> None:
    # As in what `templates list --json` prints.
    line = '{"artifact_type": "a", "name": "n", "content": "c", "embedding_model": "x/y"}'
    assert read(line, "templates")[9] is None
    assert read(line, "templates")[11] is None


MEMORY = '{"kind": "memory", "key": "k", "value": 1'
TEMPLATE = '{"kind": "templates", "artifact_type": "a", "name": "n", "content": "c"'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("secret", "it is not JSON"),
        ('{"kind": "memory", "value": secret', "it is not JSON"),
        ("[1]", "it is no JSON object"),
        ('"secret"', "it is no JSON object"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"kind": "memory", "key": "k", "value": NaN}', "it is not JSON"),
        ('{"kind": "memory", "key": "k", "value": -Infinity}', "it is not JSON"),
        ("{}", "it has no kind, which is one of generations,"),
        ('{"kind": "secret"}', "its kind is none of generations,"),
        ('{"kind": ["memory"]}', "its kind is none of generations,"),
        (f'{MEMORY}, "score": 1}}', "memory has no column 'score'"),
        ('{"kind": "memory", "key": "k"}', "memory.value must have a value"),
        ('{"kind": "memory", "value": 1}', "memory.key must have a value"),
        (f'{MEMORY}, "id": null}}', "memory.id must have a value"),
        (f'{MEMORY}, "id": 7}}', "memory.id must be text, not int"),
        (f'{MEMORY}, "created_at": null}}', "memory.created_at must have a value"),
        (f'{MEMORY}, "created_at": "secret"}}', "memory.created_at must be ISO 8601"),
        (f'{MEMORY}, "created_at": 1767225600}}', "memory.created_at must be ISO 8601"),
        (f'{MEMORY}, "scope": "a\\u0000"}}', "memory.scope has a NUL"),
        (f'{MEMORY}, "scope": "\\ud800"}}', "memory.scope has a lone surrogate"),
        (f'{TEMPLATE}, "quality_score": 11}}', "templates.quality_score must be at most 10"),
        (f'{TEMPLATE}, "usage_count": 1.5}}', "templates.usage_count must be a whole number"),
        (f'{TEMPLATE}, "embedding": [1]}}', "templates.embedding needs its embedding_model"),
        *(
            (f'{TEMPLATE}, "embedding": {vector}, "embedding_model": "m"}}', f"embedding {why}")
            for vector, why in {
                '"secret"': "must be a list of numbers, or the base64",
                '"AAAA"': "must be a list of numbers, or the base64",
                '""': "has 0 dimensions",
                '"AADAfw=="': "has no direction",  # NaN
                "[0, 0]": "has no direction",
                "[]": "has 0 dimensions|must be a sequence",
                '["secret"]': "must be a sequence of numbers",
                "{}": "must be a sequence of numbers",
            }.items()
        ),
    ],
)
def test_a_line_that_cannot_be_stored_says_why_and_not_what(line: str, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason) as raised:
        read(line)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(InvalidValueError, match="it is not UTF-8 text"):
        parse_line(b'{"kind": "memory", "key": "\xff", "value": 1}', None, UTC_ZONE)
