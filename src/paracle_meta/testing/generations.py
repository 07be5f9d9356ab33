"""The contract of generations, which is also that of storing, listing and paging in general."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

import pytest

from paracle_meta import (
    DuplicateError,
    GenerationRepository,
    GenerationResult,
    InvalidValueError,
    NotFoundError,
)
from paracle_meta.testing.base import Contract, at, generation, ids

BAD_IDS: tuple[Any, ...] = ("", "  ", "x" * 513, "ö" * 257, "a\0b", "\ud800", None, 7, b"gen-1")
BAD_LIMITS: tuple[Any, ...] = (0, -1, 10_001, 2**31, 10**30, True, 2.0, "5", None)

FULL = generation(
    description="Reviews code",
    quality_score=7.25,
    provider="anthropic",
    model="claude-sonnet-4-20250514",
    tokens_used=1500,
    cost=0.015,
    metadata={"tags": ["a", 1], "nested": {"ok": True}},
)


class GenerationContract(Contract):
    """Storing, changing, deleting, listing, counting and paging."""

    async def test_a_record_comes_back_as_it_went_in(
        self, generations: GenerationRepository
    ) -> None:
        assert await generations.add(FULL) == FULL
        assert await generations.get("gen-1") == FULL

    async def test_what_is_not_given_is_none(self, generations: GenerationRepository) -> None:
        added = await generations.add(generation())
        assert await generations.get("gen-1") == added
        assert (added.description, added.quality_score, added.provider) == (None, None, None)
        assert (added.model, added.tokens_used, added.cost) == (None, None, None)
        assert added.metadata is None

    async def test_a_missing_record_is_none(self, generations: GenerationRepository) -> None:
        assert await generations.get("gen-missing") is None

    async def test_ids_that_no_record_can_have(self, generations: GenerationRepository) -> None:
        for bad in BAD_IDS:
            with pytest.raises(InvalidValueError, match="id"):
                await generations.get(bad)
            with pytest.raises(InvalidValueError, match="id"):
                await generations.delete(bad)
            with pytest.raises(InvalidValueError, match="id"):
                await generations.update(bad, name="x")
            with pytest.raises(InvalidValueError, match="id"):
                await generations.add(generation(bad))
        assert await generations.count() == 0

    # Adding again

    async def test_adding_twice_changes_nothing(self, generations: GenerationRepository) -> None:
        first = await generations.add(FULL)
        again = replace(FULL, created_at=at(99), updated_at=at(99))
        assert await generations.add(again) == first
        assert await generations.get("gen-1") == first
        assert await generations.count() == 1

    async def test_another_record_under_a_stored_id_is_a_duplicate(
        self, generations: GenerationRepository
    ) -> None:
        await generations.add(FULL)
        changes: tuple[dict[str, Any], ...] = (
            {"artifact_type": "skill"},
            {"name": "security reviewer"},
            {"description": None},
            {"description": ""},
            {"content": "Other."},
            {"quality_score": 7.0},
            {"provider": "openai"},
            {"model": None},
            {"tokens_used": 0},
            {"cost": None},
            {"metadata": None},
            {"metadata": {}},
            {"metadata": {"tags": ["a", True], "nested": {"ok": True}}},
            {"metadata": {"tags": ["a", 1.0], "nested": {"ok": True}}},
            {"metadata": {"tags": ["a", 1], "nested": {"ok": 1}}},
        )
        for change in changes:
            with pytest.raises(DuplicateError, match="gen-1"):
                await generations.add(replace(FULL, **change))
        assert await generations.get("gen-1") == FULL

    async def test_the_order_of_json_keys_makes_no_difference(
        self, generations: GenerationRepository
    ) -> None:
        first = await generations.add(generation(metadata={"a": 1, "b": {"c": 2, "d": 3}}))
        again = generation(metadata={"b": {"d": 3, "c": 2}, "a": 1})
        assert await generations.add(again) == first

    async def test_many_at_once_come_back_in_their_order(
        self, generations: GenerationRepository
    ) -> None:
        records = [generation(f"gen-{n}", created_at=at(n % 7)) for n in range(300)]
        assert await generations.add_many(iter(records)) == records
        assert await generations.count() == 300
        assert await generations.add_many([]) == []

    async def test_stored_ones_among_many_are_left_as_they_are(
        self, generations: GenerationRepository
    ) -> None:
        stored = await generations.add(generation("gen-2"))
        again = replace(stored, created_at=at(5))
        added = await generations.add_many([generation("gen-1"), again, generation("gen-3")])
        assert ids(added) == ["gen-1", "gen-2", "gen-3"]
        assert added[1] == stored
        assert await generations.count() == 3

    async def test_many_are_stored_all_or_none(self, generations: GenerationRepository) -> None:
        await generations.add(generation("gen-taken"))
        taken = generation("gen-taken", name="Other")
        with pytest.raises(DuplicateError, match="gen-taken"):
            await generations.add_many([generation("gen-1"), generation("gen-2"), taken])
        with pytest.raises(InvalidValueError, match="content"):
            await generations.add_many([generation("gen-1"), generation("gen-2", content=" ")])
        assert ids(await generations.list()) == ["gen-taken"]

    async def test_one_id_twice_in_a_batch(self, generations: GenerationRepository) -> None:
        twice = await generations.add_many([generation(), generation()])
        assert ids(twice) == ["gen-1", "gen-1"]
        assert await generations.count() == 1
        pair = [generation("gen-2"), generation("gen-2", name="Other")]
        with pytest.raises(DuplicateError, match="gen-2"):
            await generations.add_many([generation("gen-3"), *pair])
        assert ids(await generations.list()) == ["gen-1"]

    async def test_one_record_added_by_many_at_once_is_stored_once(
        self, generations: GenerationRepository
    ) -> None:
        record = generation()
        answers = await asyncio.gather(*(generations.add(record) for _ in range(12)))
        assert answers == [record] * 12
        assert await generations.count() == 1

    async def test_many_writers_at_once_lose_nothing(
        self, generations: GenerationRepository
    ) -> None:
        await asyncio.gather(*(generations.add(generation(f"gen-{n}")) for n in range(30)))
        assert await generations.count() == 30

    async def test_a_cancelled_call_undoes_nothing_that_a_later_one_acknowledged(
        self, generations: GenerationRepository
    ) -> None:
        for attempt in range(100):
            await generations.add(generation("gen-x"))
            deleting = asyncio.ensure_future(generations.delete("gen-x"))
            for _ in range(attempt % 8):
                await asyncio.sleep(0)
            deleting.cancel()
            await asyncio.wait({deleting})
            await generations.add(generation("gen-x"))
            # Another write: what the cancelled call may still have had to do is done before it.
            await generations.add(generation("gen-y"))
            assert await generations.get("gen-x") is not None

    async def test_a_cancelled_call_has_written_all_or_nothing(
        self, generations: GenerationRepository
    ) -> None:
        await generations.add(generation("gen-first"))
        for n in range(12):
            batch = [generation(f"gen-{n}-{m}") for m in range(5)]
            task = asyncio.ensure_future(generations.add_many(batch))
            for _ in range(n):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            # One question, as what a cancelled call began may end between two.
            chosen = {"id": {"$in": ids(batch)}}
            assert await generations.count(filters=chosen) in {0, 5}
        await generations.add(generation("gen-last"))
        assert (await generations.count() - 2) % 5 == 0

    # Changing and deleting

    async def test_an_update_changes_what_it_names_and_no_more(
        self, generations: GenerationRepository
    ) -> None:
        await generations.add(FULL)
        updated = await generations.update("gen-1", name="Reviewer", quality_score=9, cost=None)
        expected = replace(
            FULL, name="Reviewer", quality_score=9.0, cost=None, updated_at=updated.updated_at
        )
        assert updated == expected
        assert isinstance(updated.quality_score, float)
        assert updated.updated_at > FULL.updated_at
        assert await generations.get("gen-1") == updated
        emptied = await generations.update("gen-1", metadata=None, description="")
        assert (emptied.metadata, emptied.description) == (None, "")

    async def test_a_bad_update_changes_nothing(self, generations: GenerationRepository) -> None:
        await generations.add(FULL)
        changes: tuple[dict[str, Any], ...] = (
            {},
            {"id": "gen-2"},
            {"created_at": at(1)},
            {"updated_at": at(1)},
            {"colour": "red"},
            {"name = 'x' --": "y"},
            {"name": None},
            {"content": "\n"},
            {"quality_score": 10.5},
            {"name": "New", "tokens_used": -1},
            {"metadata": [1]},
        )
        for change in changes:
            with pytest.raises(InvalidValueError):
                await generations.update("gen-1", **change)
        assert await generations.get("gen-1") == FULL

    async def test_what_is_missing_is_neither_updated_nor_deleted(
        self, generations: GenerationRepository
    ) -> None:
        with pytest.raises(NotFoundError, match="gen-missing"):
            await generations.update("gen-missing", name="x")
        with pytest.raises(NotFoundError, match="gen-missing"):
            await generations.delete("gen-missing")

    async def test_a_deleted_record_is_gone(self, generations: GenerationRepository) -> None:
        await generations.add_many([generation("gen-1"), generation("gen-2")])
        await generations.delete("gen-1")
        assert await generations.get("gen-1") is None
        assert ids(await generations.list()) == ["gen-2"]
        with pytest.raises(NotFoundError):
            await generations.delete("gen-1")
        assert await generations.add(generation("gen-1", name="Another")) is not None

    async def test_other_records_are_refused(self, generations: GenerationRepository) -> None:
        for bad in (None, {"id": "gen-1"}, object(), "gen-1"):
            wrong: Any = bad
            with pytest.raises(InvalidValueError, match="GenerationResult"):
                await generations.add(wrong)

    # Listing

    async def test_newest_first_and_ties_by_id_bytewise(
        self, generations: GenerationRepository
    ) -> None:
        names = ["a", "B", "ä", "Z", "z", "é", "_", "1", "\U0001f600", "\uffee"]
        await generations.add_many([generation(name) for name in names])
        await generations.add(generation("older", created_at=at(-0.000001)))
        await generations.add(generation("newer", created_at=at(0.000001)))
        bytewise = sorted(names, key=str.encode, reverse=True)
        assert ids(await generations.list()) == ["newer", *bytewise, "older"]

    async def test_list_recent_is_the_first_page(self, generations: GenerationRepository) -> None:
        await generations.add_many([generation(f"gen-{n}", created_at=at(n)) for n in range(12)])
        assert ids(await generations.list_recent()) == [f"gen-{n}" for n in range(11, 1, -1)]
        assert ids(await generations.list_recent(limit=2)) == ["gen-11", "gen-10"]

    async def test_pages_stay_stable_while_rows_are_added(
        self, generations: GenerationRepository
    ) -> None:
        # Three share each time, so that pages end within ties.
        records = [generation(f"gen-{n:02}", created_at=at(n // 3)) for n in range(20)]
        await generations.add_many(records)
        seen: list[GenerationResult] = []
        after = None
        while page := await generations.list(limit=4, after=after):
            seen += page
            after = page[-1].id
            await generations.add(generation(f"new-{len(seen)}", created_at=at(100)))
        assert seen == sorted(records, key=lambda r: (r.created_at, r.id), reverse=True)

    async def test_a_page_after_a_record_that_the_filter_leaves_out(
        self, generations: GenerationRepository
    ) -> None:
        await generations.add_many(
            generation(f"gen-{n}", created_at=at(n), provider="a" if n % 2 else "b")
            for n in range(6)
        )
        assert ids(await generations.list(after="gen-4", provider="a")) == ["gen-3", "gen-1"]
        assert await generations.list(after="gen-0") == []

    async def test_a_page_after_an_unknown_record(self, generations: GenerationRepository) -> None:
        await generations.add_many([generation("gen-1"), generation("gen-2")])
        with pytest.raises(NotFoundError, match="gen-missing"):
            await generations.list(after="gen-missing")
        await generations.delete("gen-2")
        with pytest.raises(NotFoundError, match="gen-2"):
            await generations.list(after="gen-2")
        for bad in BAD_IDS[:-3] + BAD_IDS[-2:]:
            with pytest.raises(InvalidValueError):
                await generations.list(after=bad)

    async def test_limits_out_of_range(self, generations: GenerationRepository) -> None:
        for bad in BAD_LIMITS:
            with pytest.raises(InvalidValueError, match="limit"):
                await generations.list(limit=bad)
            with pytest.raises(InvalidValueError, match="limit"):
                await generations.list_recent(limit=bad)
        assert await generations.list(limit=10_000) == []

    async def test_by_type_provider_and_model(self, generations: GenerationRepository) -> None:
        await generations.add_many(
            generation(
                f"gen-{n}",
                created_at=at(n),
                artifact_type=("agent", "skill")[n % 2],
                provider=("a", "b", None)[n % 3],
                model=("m", None)[n % 2],
            )
            for n in range(12)
        )
        for arguments, expected in (
            ({"artifact_type": "skill"}, [11, 9, 7, 5, 3, 1]),
            ({"provider": "b"}, [10, 7, 4, 1]),
            ({"model": "m", "provider": "a"}, [6, 0]),
            ({"artifact_type": "agent", "provider": "b", "model": "m"}, [10, 4]),
            ({"artifact_type": "Agent"}, []),
            ({"model": "m", "filters": {"provider": None}}, [8, 2]),
        ):
            chosen: dict[str, Any] = arguments
            assert ids(await generations.list(**chosen)) == [f"gen-{n}" for n in expected]
            assert await generations.count(**chosen) == len(expected)

    async def test_since_is_included_and_until_is_not(
        self, generations: GenerationRepository
    ) -> None:
        await generations.add_many(
            generation(f"gen-{n}", created_at=at(n / 1_000_000)) for n in range(5)
        )
        since, until = at(0.000001), at(0.000003)
        assert ids(await generations.list(since=since, until=until)) == ["gen-2", "gen-1"]
        assert await generations.count(since=since) == 4
        assert await generations.count(until=until) == 3
        assert await generations.count(since=until, until=since) == 0
        elsewhere = timezone(timedelta(hours=-9, minutes=-30))
        assert await generations.count(since=since.astimezone(elsewhere)) == 4
        for bad in (since.replace(tzinfo=None), since.date(), "2026-03-01", 0):
            wrong: Any = bad
            with pytest.raises(InvalidValueError, match="created_at"):
                await generations.list(since=wrong)
            with pytest.raises(InvalidValueError, match="created_at"):
                await generations.count(until=wrong)
