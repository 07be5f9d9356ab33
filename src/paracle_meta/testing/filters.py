"""The contract of filters: every operator on every kind of column, against plain Python."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import operator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    CostRecord,
    CostRepository,
    GenerationRepository,
    InvalidValueError,
    MemoryRepository,
)
from paracle_meta.testing.base import Contract, at, generation, ids

if TYPE_CHECKING:
    from collections.abc import Callable

ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}

NAMES = (
    "Zebra",
    "apple",
    "Äpfel",
    "äpfel",
    "a\u0308pfel",
    "Apple",
    "z",
    "_",
    "😀",
    "\uffee",
    "a b",
)
SCORES = (None, 0.0, 5e-324, 0.1, 0.30000000000000004, 3.0, 7.5, 8.0, 9.999999999999998, 10.0)
TOKENS = (None, 0, 1, 9, 10, 2**31 - 1)
DESCRIPTIONS = (None, "", " ", "a", "A", "ab", "ä")


def meets(stored: Any, symbol: str, wanted: Any) -> bool:
    """Say what a filter should find; a missing value is different from every other."""
    if symbol == "$eq":
        return bool(comparable(stored) == comparable(wanted))
    if symbol == "$ne":
        return bool(comparable(stored) != comparable(wanted))
    if symbol == "$in":
        return any(comparable(stored) == comparable(item) for item in wanted)
    return stored is not None and ORDERED[symbol](comparable(stored), comparable(wanted))


def comparable(value: Any) -> Any:
    """Return text as its bytes, which is how it is compared."""
    return value.encode() if isinstance(value, str) else value


class FilterContract(Contract):
    """What `filters` finds, on every kind of column, and what it refuses."""

    async def test_every_operator_on_every_kind_of_column(
        self, generations: GenerationRepository
    ) -> None:
        records = [
            generation(
                f"gen-{n:02}",
                name=NAMES[n % len(NAMES)],
                artifact_type=NAMES[-1 - n % len(NAMES)],
                description=DESCRIPTIONS[n % len(DESCRIPTIONS)],
                provider=(None, "b", "B", "ä")[n % 4],
                quality_score=SCORES[n % len(SCORES)],
                tokens_used=TOKENS[n % len(TOKENS)],
                cost=(None, 0.1 + n)[n % 2],
                created_at=at(n // 2 / 1_000_000),
            )
            for n in range(24)
        ]
        await generations.add_many(records)
        values: dict[str, tuple[Any, ...]] = {
            "id": ("gen-03", "gen-", "x"),
            "name": NAMES,
            "artifact_type": (*NAMES, "b"),
            "description": DESCRIPTIONS,
            "provider": (None, "b", "B", "ä", "c"),
            "quality_score": (*SCORES, 8, -1, 1e300),
            "tokens_used": (*TOKENS, -1, 5, 2**31, 2**63 - 1, -(2**63) + 1),
            "cost": (None, 1.1, 3, -5.0),
            "created_at": (at(0), at(0.000003), at(-1), at(1).astimezone(None)),
        }
        for column, wanted in values.items():
            choices = [wanted, wanted[:2], (), (None,)]
            cases = [
                (symbol, value)
                for symbol in ("$eq", "$ne", *ORDERED)
                for value in wanted
                if value is not None or symbol not in ORDERED
            ] + [("$in", list(choice)) for choice in choices]
            for symbol, value in cases:
                expected = [
                    record.id for record in records if meets(getattr(record, column), symbol, value)
                ]
                filters = {column: {symbol: value}}
                found = await generations.list(limit=100, filters=filters)
                assert sorted(ids(found)) == expected, filters
                assert await generations.count(filters=filters) == len(expected)

    async def test_days_are_compared_as_days(self, costs: CostRepository) -> None:
        days = [date(2026, 2, 27) + timedelta(days=n) for n in range(5)]
        await costs.add_many(
            CostRecord(id=f"cst-{n}", provider="p", model="m", period_start=day)
            for n, day in enumerate(days)
        )
        for symbol in ("$eq", "$ne", *ORDERED):
            for day in (*days, date(1999, 1, 1), date.min, date.max):
                expected = [f"cst-{n}" for n in range(5) if meets(days[n], symbol, day)]
                found = await costs.list(filters={"period_start": {symbol: day}})
                assert sorted(ids(found)) == expected
        assert await costs.count(filters={"period_start": {"$in": days[1:3]}}) == 2
        assert await costs.count(filters={"period_start": days[0]}) == 1
        for bad in (at(0), "2026-02-27", 20260227):
            with pytest.raises(InvalidValueError, match="period_start"):
                await costs.list(filters={"period_start": bad})

    async def test_a_plain_value_is_equality_and_all_conditions_must_hold(
        self, generations: GenerationRepository
    ) -> None:
        await generations.add_many(
            generation(f"gen-{n}", quality_score=n, provider=("a", None)[n % 2]) for n in range(10)
        )
        for filters, expected in (
            ({"quality_score": 8}, [8]),
            ({"provider": None, "quality_score": {"$gte": 6}}, [9, 7]),
            ({"quality_score": {"$gte": 3, "$lt": 6, "$ne": 4}}, [5, 3]),
            ({"provider": {"$ne": "a"}, "quality_score": {"$in": [1, 2, 3]}}, [3, 1]),
            ({"provider": {"$ne": None}, "quality_score": {"$lte": 2}}, [2, 0]),
            ({"provider": {"$in": ["a", None]}, "quality_score": {"$gt": 8}}, [9]),
            ({"quality_score": {"$in": []}}, []),
            ({"quality_score": {"$in": {1, 2}}}, [2, 1]),
            ({}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
            (None, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ):
            chosen: Any = filters
            assert ids(await generations.list(filters=chosen)) == [f"gen-{n}" for n in expected]
            assert await generations.count(filters=chosen) == len(expected)

    async def test_floats_are_found_to_the_last_bit(
        self, generations: GenerationRepository
    ) -> None:
        # Seventeen digits each: reading one digit wrong finds another number.
        scores = [(n * 0.7071067811865476) % 10 for n in range(1, 200)]
        await generations.add_many(
            generation(f"gen-{n}", quality_score=score) for n, score in enumerate(scores)
        )
        assert await generations.count(filters={"quality_score": {"$in": scores}}) == len(scores)
        for score in scores[::20]:
            assert await generations.count(filters={"quality_score": score}) == 1
            assert await generations.count(filters={"quality_score": {"$in": [score]}}) == 1

    async def test_ten_thousand_choices_and_no_more(
        self, generations: GenerationRepository
    ) -> None:
        await generations.add_many(generation(f"gen-{n}") for n in range(3))
        choices = [f"gen-{n}" for n in range(2, 10_002)]
        assert ids(await generations.list(filters={"id": {"$in": choices}})) == ["gen-2"]
        with pytest.raises(InvalidValueError, match="10,001 values"):
            await generations.list(filters={"id": {"$in": [*choices, "gen-1"]}})

    async def test_filters_that_make_no_sense(
        self, generations: GenerationRepository, memory: MemoryRepository
    ) -> None:
        await generations.add(generation())
        hostile = "1=1; DROP TABLE generations; --"
        bad: tuple[Any, ...] = (
            {"colour": "red"},
            {"metadata": None},
            {"": 1},
            {"NAME": "x"},
            {"name ": "x"},
            {hostile: 1},
            {f"name = 'a' OR {hostile}": "x"},
            {None: 1},
            {1: 1},
            {("name",): 1},
            {"name": {}},
            {"name": {"$regex": "."}},
            {"name": {"eq": "x"}},
            {"name": {hostile: "x"}},
            {"name": {None: "x"}},
            {"name": {"contains all": ["x"]}},
            {"created_at": {"not past": at(0)}},
            {"name": {"$eq": {"$eq": "x"}}},
            {"name": ["x"]},
            {"name": 5},
            {"name": b"x"},
            {"name": "a\0"},
            {"name": "\ud800"},
            {"name": "x" * (1024 * 1024 + 1)},
            {"name": {"$gt": None}},
            {"name": {"$in": "abc"}},
            {"name": {"$in": None}},
            {"name": {"$in": {"a": 1}}},
            {"name": {"$in": [["a"]]}},
            {"tokens_used": "1"},
            {"tokens_used": 1.0},
            {"tokens_used": True},
            {"tokens_used": 2**63},
            {"tokens_used": {"$in": [1, 2**64]}},
            {"quality_score": float("nan")},
            {"quality_score": {"$lt": float("inf")}},
            {"quality_score": "8"},
            {"quality_score": True},
            {"created_at": "2026-01-01"},
            {"created_at": at(0).replace(tzinfo=None)},
            {"created_at": at(0).date()},
            ["name"],
            "name = 'x'",
            5,
        )
        for filters in bad:
            with pytest.raises(InvalidValueError):
                await generations.list(filters=filters)
            with pytest.raises(InvalidValueError):
                await generations.count(filters=filters)
        with pytest.raises(InvalidValueError):
            await memory.list(filters={"value": "x"})
        assert ids(await generations.list()) == ["gen-1"]

    async def test_hostile_values_are_only_values(self, generations: GenerationRepository) -> None:
        hostile = (
            "' OR 1=1 --",
            "'; DELETE FROM generations; --",
            '"; DROP TABLE generations; --',
            "%",
            "_",
            "$1",
            "?1",
            ":name",
            "{x}",
            "\\",
            "NULL",
        )
        await generations.add(generation())
        for value in hostile:
            assert await generations.count(filters={"name": value}) == 0
            assert await generations.count(filters={"name": {"$in": [value]}}) == 0
            assert await generations.count(filters={"name": {"$ne": value}}) == 1
        assert await generations.count() == 1
