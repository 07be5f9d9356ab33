"""The contract of templates as records; `PromotionContract` and the vector contracts say more."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import DuplicateError, InvalidValueError, NotFoundError, TemplateRepository
from paracle_meta.testing.base import Contract, at, ids, template

if TYPE_CHECKING:
    from paracle_meta.testing.embeddings import FakeEmbeddings

FULL = template(
    pattern="reviews code for vulnerabilities", quality_score=8.5, source="handbook", usage_count=3
)


class TemplateContract(Contract):
    """Storing, listing, changing and using templates."""

    async def test_a_template_comes_back_as_it_went_in(
        self, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        expected = replace(FULL, embedding_model=embeddings.model_id)
        assert await templates.add(FULL) == expected
        assert await templates.get("tpl-1") == expected
        assert await templates.get("tpl-missing") is None
        assert await templates.list() == [expected]

    async def test_adding_twice(self, templates: TemplateRepository) -> None:
        first = await templates.add(FULL)
        await templates.record_use("tpl-1")
        again = await templates.add(replace(FULL, created_at=at(9), usage_count=0))
        assert again == await templates.get("tpl-1")
        assert (again.created_at, again.usage_count) == (first.created_at, 4)
        changes: tuple[dict[str, Any], ...] = (
            {"name": "Other"},
            {"pattern": None},
            {"content": "Other."},
            {"quality_score": None},
            {"source": None},
            {"artifact_type": "skill"},
        )
        for change in changes:
            with pytest.raises(DuplicateError, match="tpl-1"):
                await templates.add(replace(FULL, **change))
        assert await templates.count() == 1

    async def test_many_are_stored_all_or_none(self, templates: TemplateRepository) -> None:
        await templates.add(template("tpl-taken"))
        with pytest.raises(DuplicateError):
            await templates.add_many([template("tpl-1"), template("tpl-taken", name="Other")])
        with pytest.raises(InvalidValueError):
            await templates.add_many([template("tpl-1"), template("tpl-2", content="")])
        assert ids(await templates.list()) == ["tpl-taken"]
        added = await templates.add_many([template("tpl-2"), template("tpl-1"), template("tpl-2")])
        assert ids(added) == ["tpl-2", "tpl-1", "tpl-2"]

    async def test_list_and_count(self, templates: TemplateRepository) -> None:
        await templates.add_many(
            template(
                f"tpl-{n}",
                created_at=at(n),
                artifact_type=("agent", "skill")[n % 2],
                source=(None, "handbook", "generation:gen-1")[n % 3],
                quality_score=n,
            )
            for n in range(9)
        )
        for arguments, expected in (
            ({"artifact_type": "skill"}, [7, 5, 3, 1]),
            ({"source": "handbook"}, [7, 4, 1]),
            ({"artifact_type": "agent", "source": "generation:gen-1"}, [8, 2]),
            ({"since": at(3), "until": at(5)}, [4, 3]),
            ({"filters": {"source": None, "quality_score": {"$gt": 2}}}, [6, 3]),
            ({"filters": {"usage_count": {"$gte": 1}}}, []),
        ):
            chosen: dict[str, Any] = arguments
            assert ids(await templates.list(**chosen)) == [f"tpl-{n}" for n in expected]
            assert await templates.count(**chosen) == len(expected)
        assert ids(await templates.list(limit=2, after="tpl-7")) == ["tpl-6", "tpl-5"]
        with pytest.raises(NotFoundError, match="tpl-missing"):
            await templates.list(after="tpl-missing")

    async def test_update_and_delete(self, templates: TemplateRepository) -> None:
        added = await templates.add(FULL)
        updated = await templates.update("tpl-1", quality_score=None, source="mine", pattern="new")
        assert (updated.quality_score, updated.source, updated.pattern) == (None, "mine", "new")
        assert updated.created_at == added.created_at
        assert updated.updated_at > added.updated_at
        assert await templates.get("tpl-1") == updated
        bad: tuple[dict[str, Any], ...] = (
            {"embedding_model": "x"},
            {"usage_count": -1},
            {"name": " "},
            {"id": "x"},
        )
        for change in bad:
            with pytest.raises(InvalidValueError):
                await templates.update("tpl-1", **change)
        assert await templates.get("tpl-1") == updated
        await templates.delete("tpl-1")
        assert await templates.get("tpl-1") is None
        with pytest.raises(NotFoundError, match="tpl-1"):
            await templates.update("tpl-1", name="x")
        with pytest.raises(NotFoundError, match="tpl-1"):
            await templates.delete("tpl-1")

    async def test_usage_grows_by_record_use_only(self, templates: TemplateRepository) -> None:
        await templates.add(template())
        await asyncio.gather(*(templates.record_use("tpl-1") for _ in range(10)))
        used = await templates.record_use("tpl-1")
        assert used.usage_count == 11
        assert used.updated_at > used.created_at
        await templates.find_similar("security")
        await templates.get("tpl-1")
        await templates.list()
        await templates.update("tpl-1", pattern="other")
        stored = await templates.get("tpl-1")
        assert stored is not None
        assert stored.usage_count == 11
        with pytest.raises(InvalidValueError, match="usage_count"):
            await templates.update("tpl-1", usage_count=0)
        with pytest.raises(NotFoundError, match="tpl-missing"):
            await templates.record_use("tpl-missing")

    async def test_bad_values(self, templates: TemplateRepository) -> None:
        bad: tuple[dict[str, Any], ...] = (
            {"content": ""},
            {"name": "\ud800"},
            {"pattern": "a\0"},
            {"quality_score": float("nan")},
            {"quality_score": 10.1},
            {"usage_count": -1},
            {"usage_count": 2**31},
            {"usage_count": True},
            {"usage_count": None},
            {"source": 5},
            {"artifact_type": "x" * 513},
            {"embedding": "abc"},
            {"embedding": [1.0, float("nan")]},
            {"embedding": []},
        )
        for values in bad:
            with pytest.raises(InvalidValueError):
                await templates.add(template(**values))
        assert await templates.count() == 0
