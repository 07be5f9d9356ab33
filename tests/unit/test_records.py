from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from paracle_meta.records import (
    BestPractice,
    BestPracticeMatch,
    CostBreakdown,
    CostRecord,
    CostReport,
    Feedback,
    GenerationResult,
    MemoryItem,
    Promotion,
    Template,
    TemplateMatch,
)

SECRET = "what nobody but its owner may read"
DAY = date(2026, 1, 31)

RECORDS: list[Any] = [
    GenerationResult(
        artifact_type="agent",
        name="n",
        content=SECRET,
        description=SECRET,
        metadata={"note": SECRET},
    ),
    Template(artifact_type="agent", name="n", content=SECRET, pattern=SECRET, embedding=[0.5]),
    TemplateMatch(
        artifact_type="agent", name="n", content=SECRET, pattern=SECRET, similarity=0.5, score=0.5
    ),
    Feedback(generation_id="gen-1", rating=5, comment=SECRET),
    CostRecord(provider="p", model="m", period_start=DAY),
    MemoryItem(key="key", value={"note": SECRET}),
    BestPractice(category="c", title="t", content=SECRET),
    BestPracticeMatch(category="c", title="t", content=SECRET, similarity=0.5, score=0.5),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_named_and_dated_when_it_is_made_and_fixed_from_then_on(record: Any) -> None:
    assert record.id[3] == "-"
    now = datetime.now(UTC)
    assert timedelta(0) <= now - record.created_at < timedelta(hours=1)
    assert record.created_at.tzinfo is UTC
    assert record.updated_at.tzinfo is UTC
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.id = "other"
    assert dataclasses.replace(record) == record
    assert dataclasses.replace(record, id="other") != record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_no_text_of_a_record_is_in_its_repr(record: Any) -> None:
    assert SECRET not in repr(record)
    assert "0.5]" not in repr(record)
    assert record.id in repr(record)


def test_prefixes_tell_the_kinds_apart() -> None:
    assert [record.id[:4] for record in RECORDS] == [
        "gen-",
        "tpl-",
        "tpl-",
        "fbk-",
        "cst-",
        "mem-",
        "bpr-",
        "bpr-",
    ]


def test_what_is_needed_is_asked_for_by_name() -> None:
    with pytest.raises(TypeError, match="content"):
        GenerationResult(artifact_type="agent", name="n")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        GenerationResult("agent", "n", "c")  # type: ignore[call-arg]


def test_two_records_share_no_list() -> None:
    one, other = (BestPractice(category="c", title="t", content="x") for _ in range(2))
    one.tags.append("mine")
    assert other.tags == []


def test_a_report_adds_tokens_up() -> None:
    line = CostBreakdown(total=1.5, input_tokens=2, output_tokens=3, calls=4, unpriced_calls=1)
    assert line.tokens == 5
    report = CostReport(
        period="daily", start=DAY, end=DAY, by_provider={}, by_model={}, by_day={DAY: line}
    )
    assert (report.tokens, report.total, report.calls, report.unpriced_calls) == (0, 0.0, 0, 0)


def test_a_promotion_names_what_was_made_of_what() -> None:
    template = Template(artifact_type="agent", name="n", content=SECRET)
    promotion = Promotion(generation_id="gen-1", template=template, reason="r", created=True)
    assert SECRET not in repr(promotion)
