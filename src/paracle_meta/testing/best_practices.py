"""The contract of best practices: categories, tags, and finding them."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    BestPracticeMatch,
    BestPracticeRepository,
    DuplicateError,
    InvalidValueError,
    NotFoundError,
)
from paracle_meta.testing.base import Contract, at, ids, practice

if TYPE_CHECKING:
    from paracle_meta.testing.embeddings import FakeEmbeddings

FULL = practice(tags=["agents", "tools"], quality_score=9, usage_count=2)


class BestPracticeContract(Contract):
    """Storing best practices and listing them by category and tags."""

    async def test_a_best_practice_comes_back_as_it_went_in(
        self, practices: BestPracticeRepository, embeddings: FakeEmbeddings
    ) -> None:
        expected = replace(FULL, embedding_model=embeddings.model_id)
        assert await practices.add(FULL) == expected
        assert await practices.get("bpr-1") == expected
        assert await practices.add(replace(FULL, created_at=at(5))) == expected
        changes: tuple[dict[str, Any], ...] = (
            {"tags": ["tools", "agents"]},
            {"tags": []},
            {"title": "Other"},
        )
        for change in changes:
            with pytest.raises(DuplicateError, match="bpr-1"):
                await practices.add(replace(FULL, **change))
        assert await practices.count() == 1

    async def test_no_tags(self, practices: BestPracticeRepository) -> None:
        missing: Any = None
        await practices.add_many([practice("bpr-1"), practice("bpr-2", tags=missing)])
        assert [record.tags for record in await practices.list()] == [[], []]
        updated = await practices.update("bpr-1", tags=["new"])
        assert updated.tags == ["new"]
        assert (await practices.update("bpr-1", tags=[])).tags == []

    async def test_by_category_and_by_all_of_some_tags(
        self, practices: BestPracticeRepository
    ) -> None:
        tags: tuple[list[str], ...] = (
            ["a"],
            ["a", "b"],
            ["b", "a", "c"],
            [],
            ["A"],
            ["a,b"],
            ['"a"', "{}"],
        )
        await practices.add_many(
            practice(f"bpr-{n}", created_at=at(n), tags=tags[n], category=("x", "y")[n % 2])
            for n in range(7)
        )
        for arguments, expected in (
            ({"tags": ["a"]}, [2, 1, 0]),
            ({"tags": ["a", "b"]}, [2, 1]),
            ({"tags": ("b", "a", "b")}, [2, 1]),
            ({"tags": ["c"], "category": "x"}, [2]),
            ({"tags": ["c"], "category": "y"}, []),
            ({"tags": ["A"]}, [4]),
            ({"tags": ["a,b"]}, [5]),
            ({"tags": ["{}", '"a"']}, [6]),
            ({"tags": ["missing"]}, []),
            ({"tags": []}, [6, 5, 4, 3, 2, 1, 0]),
            ({"category": "y"}, [5, 3, 1]),
            ({"category": "Y"}, []),
            ({"tags": ["a"], "since": at(1), "until": at(2)}, [1]),
            ({"tags": ["a"], "filters": {"id": {"$ne": "bpr-1"}}}, [2, 0]),
        ):
            chosen: dict[str, Any] = arguments
            assert ids(await practices.list(**chosen)) == [f"bpr-{n}" for n in expected], chosen
            assert await practices.count(**chosen) == len(expected)
        assert ids(await practices.list(tags=["a"], after="bpr-1")) == ["bpr-0"]

    async def test_bad_tags_to_list_by(self, practices: BestPracticeRepository) -> None:
        bad: tuple[Any, ...] = ("security", 5, ["a\0"], [""], [None], ["\ud800"], {"a": 1}.items())
        for tags in bad:
            with pytest.raises(InvalidValueError, match="tags"):
                await practices.list(tags=tags)
            with pytest.raises(InvalidValueError, match="tags"):
                await practices.count(tags=tags)
        with pytest.raises(InvalidValueError):
            await practices.list(filters={"tags": ["a"]})

    async def test_find_similar_within_a_category(self, practices: BestPracticeRepository) -> None:
        await practices.add_many(
            [
                practice("bpr-1", title="Validate every input", content="Check what users send."),
                practice(
                    "bpr-2", title="Write short prompts", category="prompts", content="Short."
                ),
                practice(
                    "bpr-3", title="Validate all inputs", category="prompts", content="Check."
                ),
            ]
        )
        found = await practices.find_similar("validate input", top_k=2)
        assert {match.id for match in found} == {"bpr-1", "bpr-3"}
        assert all(type(match) is BestPracticeMatch for match in found)
        (match, other) = await practices.find_similar("validate input", category="prompts")
        assert (match.id, other.id) == ("bpr-3", "bpr-2")
        assert match.similarity == match.score > other.score
        chosen = {"quality_score": {"$gte": 1}}
        assert await practices.find_similar("validate input", filters=chosen) == []

    async def test_use_update_and_delete(self, practices: BestPracticeRepository) -> None:
        await practices.add(practice())
        assert (await practices.record_use("bpr-1")).usage_count == 1
        updated = await practices.update("bpr-1", category="other", content="New advice.")
        assert (updated.category, updated.content, updated.usage_count) == (
            "other",
            "New advice.",
            1,
        )
        await practices.delete("bpr-1")
        for call in (
            practices.record_use("bpr-1"),
            practices.update("bpr-1", title="x"),
            practices.delete("bpr-1"),
        ):
            with pytest.raises(NotFoundError, match="bpr-1"):
                await call

    async def test_bad_values(self, practices: BestPracticeRepository) -> None:
        bad: tuple[dict[str, Any], ...] = (
            {"category": ""},
            {"category": "x" * 513},
            {"title": " "},
            {"content": None},
            {"quality_score": -1},
            {"usage_count": -1},
            {"tags": "a"},
        )
        for values in bad:
            with pytest.raises(InvalidValueError):
                await practices.add(practice(**values))
        assert await practices.count() == 0
