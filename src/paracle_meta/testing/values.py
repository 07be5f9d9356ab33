"""The contract of values: what goes in comes back, and what cannot is refused before it is sent."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from paracle_meta import (
    BestPracticeRepository,
    GenerationRepository,
    InvalidValueError,
    MemoryRepository,
)
from paracle_meta.testing.base import Contract, OpenDatabase, at, generation, practice

TEXTS = (
    "plain",
    " spaces around ",
    "line\r\nbreaks\n\ttabs\x0b\x1f\x7f",
    "quotes ' \" ` \\ $1 ?1 :name %s {} -- ; /* */",
    "e\u0301 is not \u00e9",
    "שלום עולם \u202eמימין",  # noqa: RUF001 - right to left
    "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 𝔘𝔫𝔦",  # noqa: RUF001
    "\ufeff\u200b\u2028\ufffe\uffff\U0010ffff",
    "0",
    "null",
    "true",
    "ß" * 256,
)

JSON_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    -(2**64),
    10**100,
    1.0,
    -0.5,
    0.1,
    1e-7,
    5e-324,
    1.7976931348623157e308,
    1e15,
    1e16,
    -1e16,
    1e22,
    1e300,
    123456789012345680.0,
    "",
    "text",
    "1e+16",
    'a "quoted" 1e+16 \\',
    "\u2028 \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    [],
    {},
    [[], {}, [None]],
    [1, 1.0, True, "1", None],
    {"": 1, " ": 2, "ключ": {"a\nb": [1e16, {"1e+20": 1e20}]}},
)

TIMES = (
    datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=1))),
    datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=-12, minutes=-34, seconds=-56))),
    datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC),
)


def types_and_values(value: Any) -> str:
    """Return a text that is the same only for the same JSON value with the same types."""
    return json.dumps(value, sort_keys=True)


class ValueContract(Contract):
    """Texts, numbers, times and JSON, at their limits and beyond."""

    async def test_texts_come_back_byte_for_byte(self, generations: GenerationRepository) -> None:
        records = [
            generation(
                f"gen-{n}-{text}"[:128],
                artifact_type=text,
                name=text,
                description=text,
                content=text,
                provider=text,
                model=text,
                metadata={text: text},
            )
            for n, text in enumerate(TEXTS)
        ]
        assert await generations.add_many(records) == records
        for record in records:
            assert await generations.get(record.id) == record
            assert await generations.count(filters={"name": record.name}) == 1
            assert await generations.count(filters={"artifact_type": {"$in": [record.name]}}) == 1

    async def test_empty_text_is_not_missing_text(self, generations: GenerationRepository) -> None:
        await generations.add_many(
            [generation("empty", description=""), generation("missing", description=None)]
        )
        assert [r.description for r in await generations.list()] == [None, ""]
        assert await generations.count(filters={"description": ""}) == 1
        assert await generations.count(filters={"description": None}) == 1

    async def test_labels_up_to_512_bytes(self, generations: GenerationRepository) -> None:
        for longest in ("x" * 512, "ö" * 256, "😀" * 128):
            record = generation(longest, artifact_type=longest, provider=longest, model=longest)
            await generations.add(record)
            assert await generations.get(longest) == record
            for column in ("artifact_type", "provider", "model"):
                too_long: dict[str, Any] = {column: longest + "x"}
                with pytest.raises(InvalidValueError, match=column):
                    await generations.add(generation("gen-1", **too_long))
        assert await generations.count() == 3

    async def test_content_up_to_its_limit(
        self, generations: GenerationRepository, open_database: OpenDatabase
    ) -> None:
        await generations.add(generation("gen-8-mib", content="é" * (4 * 1024 * 1024)))
        stored = await generations.get("gen-8-mib")
        assert stored is not None
        assert stored.content == "é" * (4 * 1024 * 1024)
        with pytest.raises(InvalidValueError, match="content has 8,388,609 bytes"):
            await generations.add(generation("gen-2", content="x" * (8 * 1024 * 1024 + 1)))
        small = GenerationRepository(open_database(content_limit=100))
        exact = generation("gen-3", content="x" * 98 + "ö", description="d" * 100, name="n" * 100)
        assert await small.add(exact) == exact
        for column in ("content", "description", "name"):
            too_long: dict[str, Any] = {column: "x" * 99 + "ö"}
            with pytest.raises(InvalidValueError, match=column):
                await small.add(generation("gen-4", **too_long))
            with pytest.raises(InvalidValueError, match=column):
                await small.update("gen-3", **too_long)
        with pytest.raises(InvalidValueError, match="metadata"):
            await small.add(generation("gen-4", metadata={"k": "x" * 99}))
        assert await small.get("gen-3") == exact
        assert await small.get("gen-4") is None

    async def test_times_come_back_to_the_microsecond_in_utc(
        self, generations: GenerationRepository
    ) -> None:
        records = [generation(f"gen-{n}", created_at=time) for n, time in enumerate(TIMES)]
        await generations.add_many(records)
        for n, time in enumerate(TIMES):
            stored = await generations.get(f"gen-{n}")
            assert stored is not None
            assert stored.created_at == time
            assert stored.created_at.tzinfo is UTC
            assert await generations.count(since=time, filters={"created_at": time}) == 1
        # As bounds of a list, the ends of time are as good as any.
        first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
        assert await generations.count(since=first, until=last) == len(TIMES)
        by_time = sorted(records, key=lambda r: (r.created_at, r.id), reverse=True)
        assert [r.id for r in await generations.list()] == [r.id for r in by_time]

    async def test_numbers_come_back_exactly(self, generations: GenerationRepository) -> None:
        scores: tuple[Any, ...] = (
            0,
            10,
            1,
            0.1,
            1 / 3,
            5e-324,
            9.999999999999998,
            Decimal("2.5"),
            -0.0,
        )
        for n, score in enumerate(scores):
            added = await generations.add(generation(f"gen-{n}", quality_score=score))
            assert added.quality_score == float(score)
            assert type(added.quality_score) is float
            stored = await generations.get(f"gen-{n}")
            assert stored is not None
            assert repr(stored.quality_score) == repr(float(score) + 0.0)
        for n, count in enumerate((0, 1, 2**31 - 1)):
            added = await generations.add(generation(f"tok-{n}", tokens_used=count, cost=0))
            assert type(added.tokens_used) is int
            stored = await generations.get(f"tok-{n}")
            assert stored is not None
            assert (stored.tokens_used, repr(stored.cost)) == (count, "0.0")

    async def test_json_comes_back_with_its_types(
        self, generations: GenerationRepository, memory: MemoryRepository
    ) -> None:
        records = [
            generation(f"gen-{n}", metadata={"value": value, "list": [value, {"deep": value}]})
            for n, value in enumerate(JSON_VALUES)
        ]
        await generations.add_many(records)
        for record in records:
            stored = await generations.get(record.id)
            assert stored is not None
            assert types_and_values(stored.metadata) == types_and_values(record.metadata)
            assert await generations.add(record) == stored
        for n, value in enumerate(JSON_VALUES):
            await memory.set(f"key-{n}", value)
            item = await memory.get(f"key-{n}")
            assert item is not None
            assert types_and_values(item.value) == types_and_values(value)

    async def test_json_that_python_writes_otherwise(self, memory: MemoryRepository) -> None:
        assert (await memory.set("tuple", (1, (2,)))).value == [1, [2]]
        assert repr((await memory.set("zero", [-0.0, {"a": -0.0}])).value) == "[0.0, {'a': 0.0}]"
        deep: Any = 1
        for _ in range(99):
            deep = [deep]
        assert (await memory.set("deep", deep)).value == deep
        with pytest.raises(InvalidValueError, match="nested deeper"):
            await memory.set("deep", [[deep]])

    async def test_a_metadata_of_nothing_is_not_missing(
        self, generations: GenerationRepository
    ) -> None:
        await generations.add_many([generation("a", metadata={}), generation("b", metadata=None)])
        assert [r.metadata for r in await generations.list()] == [None, {}]

    async def test_bad_values_are_refused_and_nothing_is_written(
        self, generations: GenerationRepository
    ) -> None:
        cyclic: list[Any] = []
        cyclic.append(cyclic)
        bad: dict[str, tuple[Any, ...]] = {
            "artifact_type": (None, "", " ", 5, b"x", "a\0", "\udfff", "x" * 513),
            "name": (None, "", "\t", 1.0, "a\0b", "\ud800"),
            "description": (5, "a\0", "\udc00", ["x"]),
            "content": (None, "", " \n", 0, "\0", "x\ud83d", b"bytes"),
            "quality_score": (
                math.nan, math.inf, -math.inf, -0.1, 10.000001, 11, True, "9", Decimal("NaN"),
                10**400, 1j,
            ),
            "provider": ("", "  ", 1, "\0", "ö" * 257),
            "model": ("", False, "x" * 513),
            "tokens_used": (-1, 2**31, 10**30, True, 1.0, "1", math.nan),
            "cost": (-0.01, math.nan, math.inf, True, "0.1", Decimal("Infinity")),
            "created_at": (
                None,
                at(0).replace(tzinfo=None),
                at(0).date(),
                "2026-03-01",
                0,
                # The two ends of time, which drivers keep for "infinity".
                datetime.min.replace(tzinfo=UTC),
                datetime.max.replace(tzinfo=UTC),
                datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
            ),
            "updated_at": (None, at(0).replace(tzinfo=None)),
            "metadata": (
                [],
                "{}",
                1,
                {1: 2},
                {"a": math.nan},
                {"a": [math.inf]},
                {"a": {1}},
                {"a": b"x"},
                {"a\0": 1},
                {"a": "\ud800"},
                {"a": object()},
                {"a": Decimal(1)},
                {"a": at(0)},
                {"a": cyclic},
                {"a": 10**5000},
            ),
        }  # fmt: skip
        for column, values in bad.items():
            for value in values:
                wrong: dict[str, Any] = {column: value}
                with pytest.raises(InvalidValueError, match=column) as refused:
                    await generations.add(generation("gen-bad", **wrong))
                assert "Security reviewer" not in str(refused.value)
                with pytest.raises(InvalidValueError):
                    await generations.add_many(
                        [generation("gen-1"), generation("gen-bad", **wrong)]
                    )
        assert await generations.count() == 0

    async def test_tags_come_back_in_their_order(self, practices: BestPracticeRepository) -> None:
        tags = ["b", "a", "b", "{}", 'a"b', "a,b", "NULL", "ä", "\\", "[1]", "x" * 512, " a "]
        await practices.add(practice(tags=tags))
        stored = await practices.get("bpr-1")
        assert stored is not None
        assert stored.tags == tags
        bad: tuple[Any, ...] = ("security", 5, [""], [None], [1], ["a\0"], ["\ud800"], ["x" * 513])
        for wrong in bad:
            with pytest.raises(InvalidValueError, match="tags"):
                await practices.add(practice("bpr-2", tags=wrong))
        assert await practices.count() == 1
