"""The contract of promotion: from good generations to templates."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from paracle_meta import (
    FeedbackRepository,
    GenerationRepository,
    InvalidValueError,
    NotFoundError,
    TemplateRepository,
)
from paracle_meta.testing.base import Contract, OpenDatabase, at, generation, ids, rating

if TYPE_CHECKING:
    from collections.abc import Iterable


class PromotionContract(Contract):
    """`promote_from_generation` and `promote_qualified`."""

    async def test_a_promoted_template_keeps_where_it_came_from(
        self, templates: TemplateRepository, generations: GenerationRepository
    ) -> None:
        made = await generations.add(
            generation("gen-123", description="Python security scanner", quality_score=9)
        )
        template = await templates.promote_from_generation("gen-123")
        assert template.source == "generation:gen-123"
        assert template.pattern == made.description
        assert (template.name, template.content) == (made.name, made.content)
        assert (template.artifact_type, template.quality_score) == (made.artifact_type, 9.0)
        assert template.usage_count == 0
        assert await templates.get(template.id) == template
        (found,) = await templates.find_similar("Python security scanner")
        assert found.id == template.id

    async def test_promoting_twice_gives_the_same_template(
        self, templates: TemplateRepository, generations: GenerationRepository
    ) -> None:
        await generations.add_many([generation("gen-1"), generation("gen-2")])
        first = await templates.promote_from_generation("gen-1")
        assert await templates.promote_from_generation("gen-1") == first
        other = await templates.promote_from_generation("gen-2")
        assert other.id != first.id
        changed = await templates.update(first.id, content="Better.")
        assert await templates.promote_from_generation("gen-1") == changed
        await templates.delete(first.id)
        again = await templates.promote_from_generation("gen-1")
        assert (again.id, again.content) == (first.id, first.content)

    async def test_promoted_by_many_at_once(
        self, templates: TemplateRepository, generations: GenerationRepository
    ) -> None:
        await generations.add(generation())
        made = await asyncio.gather(*(templates.promote_from_generation("gen-1") for _ in range(8)))
        assert len({template.id for template in made}) == 1
        assert await templates.count() == 1

    async def test_a_missing_generation(self, templates: TemplateRepository) -> None:
        with pytest.raises(NotFoundError, match="gen-missing"):
            await templates.promote_from_generation("gen-missing")
        with pytest.raises(InvalidValueError):
            await templates.promote_from_generation("")
        assert await templates.count() == 0
        assert await templates.promote_qualified() == []

    async def test_who_qualifies_and_why(
        self,
        templates: TemplateRepository,
        generations: GenerationRepository,
        feedback: FeedbackRepository,
    ) -> None:
        await self._rate(
            generations,
            feedback,
            {
                "exactly": (None, (4, 4, 4)),
                "too-few": (None, (5, 5)),
                "too-low": (None, (5, 5, 1)),
                "just-below": (7.999999, (4, 4, 3)),
                "scored": (8.0, ()),
                "both": (9.5, (5, 5, 4, 4)),
                "nothing": (None, ()),
                "disliked-but-scored": (10, (1, 1, 1)),
            },
        )
        promotions = await templates.promote_qualified()
        assert {p.generation_id: p.reason for p in promotions} == {
            "exactly": "3 ratings averaging 4.0",
            "scored": "quality score 8",
            "both": "4 ratings averaging 4.5 and quality score 9.5",
            "disliked-but-scored": "quality score 10",
        }
        assert [p.generation_id for p in promotions] == [
            "exactly",
            "scored",
            "both",
            "disliked-but-scored",
        ]
        assert all(promotion.created for promotion in promotions)
        for promotion in promotions:
            assert promotion.template == await templates.get(promotion.template.id)
            assert promotion.template.source == f"generation:{promotion.generation_id}"
        again = await templates.promote_qualified()
        assert not any(promotion.created for promotion in again)
        assert ids(p.template for p in again) == ids(p.template for p in promotions)
        assert await templates.count() == 4

    async def test_one_more_rating_makes_the_difference(
        self,
        templates: TemplateRepository,
        generations: GenerationRepository,
        feedback: FeedbackRepository,
    ) -> None:
        await self._rate(generations, feedback, {"gen-1": (None, (5, 5))})
        assert await templates.promote_qualified() == []
        await feedback.add(rating("fbk-last", 2))
        (promotion,) = await templates.promote_qualified()
        assert promotion.generation_id == "gen-1"
        await feedback.update("fbk-last", rating=1)
        assert await templates.promote_qualified() == []

    async def test_the_settings_say_how_good(
        self,
        open_database: OpenDatabase,
        generations: GenerationRepository,
        feedback: FeedbackRepository,
    ) -> None:
        await self._rate(
            generations,
            feedback,
            {"one": (None, (3,)), "two": (None, (5, 4)), "scored": (5.5, ())},
        )
        for changes, expected in (
            ({"promotion_min_ratings": 2}, ["two"]),
            ({"promotion_min_ratings": 1, "promotion_min_average": 3.0}, ["one", "two"]),
            ({"promotion_min_ratings": 1, "promotion_min_average": 4.6}, []),
            ({"promotion_min_quality": 5.5}, ["scored"]),
            ({"promotion_min_quality": 5.6}, []),
        ):
            templates = TemplateRepository(open_database(**changes))
            promotions = await templates.promote_qualified()
            assert [p.generation_id for p in promotions] == expected

    async def _rate(
        self,
        generations: GenerationRepository,
        feedback: FeedbackRepository,
        given: dict[str, tuple[float | None, Iterable[int]]],
    ) -> None:
        """Store generations in this order, each with a quality score and ratings."""
        for n, (generation_id, (score, stars)) in enumerate(given.items()):
            await generations.add(generation(generation_id, quality_score=score, created_at=at(n)))
            await feedback.add_many(
                rating(f"fbk-{generation_id}-{m}", star, generation_id=generation_id)
                for m, star in enumerate(stars)
            )
