"""The contract of feedback, which belongs to a generation."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from paracle_meta import (
    DuplicateError,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    InUseError,
    InvalidValueError,
    NotFoundError,
)
from paracle_meta.testing.base import Contract, at, generation, ids, rating


class FeedbackContract(Contract):
    """Ratings, comments, and the bond between feedback and its generation."""

    async def test_feedback_comes_back_as_it_went_in(
        self, feedback: FeedbackRepository, generations: GenerationRepository
    ) -> None:
        await generations.add(generation("gen-123"))
        given = Feedback(generation_id="gen-123", rating=5, comment="Excellent!")
        assert await feedback.add(given) == given
        assert await feedback.get(given.id) == given
        assert await feedback.get_for_generation("gen-123") == [given]
        assert await generations.get_with_feedback("gen-123") == (
            await generations.get("gen-123"),
            [given],
        )

    async def test_newest_first_for_its_generation_only(
        self, feedback: FeedbackRepository, generations: GenerationRepository
    ) -> None:
        await generations.add_many([generation("gen-1"), generation("gen-2")])
        await feedback.add_many(
            rating(f"fbk-{n}", 1 + n % 5, generation_id=f"gen-{1 + n % 2}", created_at=at(n // 4))
            for n in range(8)
        )
        first = ["fbk-6", "fbk-4", "fbk-2", "fbk-0"]
        assert ids(await feedback.get_for_generation("gen-1")) == first
        assert ids(await feedback.get_for_generation("gen-1", limit=2)) == first[:2]
        assert ids(await feedback.list(generation_id="gen-1", after="fbk-4")) == first[2:]
        assert ids((await generations.get_with_feedback("gen-1"))[1]) == first
        assert await feedback.count(generation_id="gen-1") == 4
        assert await feedback.count(since=at(1)) == 4
        assert ids(await feedback.list(filters={"rating": {"$gte": 4}})) == ["fbk-4", "fbk-3"]
        assert await feedback.count(filters={"rating": {"$in": [1, 99]}}) == 2

    async def test_a_missing_generation(
        self, feedback: FeedbackRepository, generations: GenerationRepository
    ) -> None:
        await generations.add(generation())
        with pytest.raises(NotFoundError, match="gen-missing"):
            await feedback.add(rating(generation_id="gen-missing"))
        with pytest.raises(NotFoundError, match="gen-missing"):
            await feedback.add_many([rating("fbk-2"), rating("fbk-3", generation_id="gen-missing")])
        assert await feedback.count() == 0
        with pytest.raises(NotFoundError, match="gen-missing"):
            await generations.get_with_feedback("gen-missing")
        assert await feedback.get_for_generation("gen-missing") == []

    async def test_ratings_are_whole_numbers_from_1_to_5(
        self, feedback: FeedbackRepository, generations: GenerationRepository
    ) -> None:
        await generations.add(generation())
        bad: tuple[Any, ...] = (6, 0, -1, True, 4.0, "5", None, 2**31, 10**30, float("nan"))
        for stars in bad:
            with pytest.raises(InvalidValueError, match="rating"):
                await feedback.add(rating(stars=stars))
        assert await feedback.count() == 0
        for stars in range(1, 6):
            added = await feedback.add(rating(f"fbk-{stars}", stars))
            assert type(added.rating) is int
        with pytest.raises(InvalidValueError, match="rating"):
            await feedback.update("fbk-1", rating=6)
        assert [f.rating for f in await feedback.list()] == [5, 4, 3, 2, 1]

    async def test_other_bad_values(
        self, feedback: FeedbackRepository, generations: GenerationRepository
    ) -> None:
        await generations.add(generation())
        bad: tuple[dict[str, Any], ...] = (
            {"generation_id": None},
            {"generation_id": ""},
            {"generation_id": 1},
            {"generation_id": "x" * 513},
            {"comment": "a\0b"},
            {"comment": "\ud800"},
            {"comment": 5},
            {"created_at": at(0).replace(tzinfo=None)},
        )
        for values in bad:
            with pytest.raises(InvalidValueError):
                await feedback.add(rating(**values))
        assert await feedback.count() == 0

    async def test_adding_twice(
        self, feedback: FeedbackRepository, generations: GenerationRepository
    ) -> None:
        await generations.add_many([generation("gen-1"), generation("gen-2")])
        first = await feedback.add(rating(comment="good"))
        assert await feedback.add(rating(comment="good", created_at=at(9))) == first
        for other in (
            rating(comment="good", stars=4),
            rating(comment=None),
            rating(comment="good", generation_id="gen-2"),
        ):
            with pytest.raises(DuplicateError, match="fbk-1"):
                await feedback.add(other)
        assert await feedback.list() == [first]

    async def test_update_and_delete(
        self, feedback: FeedbackRepository, generations: GenerationRepository
    ) -> None:
        await generations.add_many([generation("gen-1"), generation("gen-2")])
        await feedback.add(rating())
        updated = await feedback.update("fbk-1", rating=2, comment="On second thought")
        assert (updated.rating, updated.comment) == (2, "On second thought")
        assert await feedback.get("fbk-1") == updated
        with pytest.raises(InvalidValueError, match="generation_id"):
            await feedback.update("fbk-1", generation_id="gen-2")
        await feedback.delete("fbk-1")
        assert await feedback.get("fbk-1") is None
        with pytest.raises(NotFoundError, match="fbk-1"):
            await feedback.delete("fbk-1")
        with pytest.raises(NotFoundError, match="fbk-1"):
            await feedback.update("fbk-1", rating=3)

    async def test_a_generation_with_feedback_stays_unless_both_go(
        self, feedback: FeedbackRepository, generations: GenerationRepository
    ) -> None:
        await generations.add_many([generation("gen-1"), generation("gen-2")])
        await feedback.add_many(
            [rating("fbk-1"), rating("fbk-2"), rating("fbk-3", generation_id="gen-2")]
        )
        with pytest.raises(InUseError, match="cascade"):
            await generations.delete("gen-1")
        assert await feedback.count() == 3
        await generations.delete("gen-1", cascade=True)
        assert ids(await generations.list()) == ["gen-2"]
        assert ids(await feedback.list()) == ["fbk-3"]
        await feedback.delete("fbk-3")
        await generations.delete("gen-2")
        with pytest.raises(NotFoundError, match="gen-2"):
            await generations.delete("gen-2", cascade=True)

    async def test_feedback_racing_the_deletion_is_never_an_orphan(
        self, feedback: FeedbackRepository, generations: GenerationRepository
    ) -> None:
        for n in range(15):
            await generations.add(generation(f"gen-{n}"))
            added, deleted = await asyncio.gather(
                feedback.add(rating(f"fbk-{n}", generation_id=f"gen-{n}")),
                generations.delete(f"gen-{n}", cascade=n % 2 == 0),
                return_exceptions=True,
            )
            assert isinstance(added, Feedback | NotFoundError)
            assert deleted is None or isinstance(deleted, InUseError)
        known = set(ids(await generations.list()))
        assert {item.generation_id for item in await feedback.list()} <= known
