"""The contract of letting go: pruning what is old, and erasing a session or a generation."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    BestPracticeRepository,
    CostRepository,
    FeedbackRepository,
    GenerationRepository,
    InvalidValueError,
    MemoryRepository,
    MetaDatabase,
    TemplateRepository,
)
from paracle_meta.retention import BATCH, erase_generation, erase_session, prune
from paracle_meta.schema import COLLECTIONS, TABLES
from paracle_meta.testing.base import (
    START,
    Contract,
    at,
    generation,
    ids,
    practice,
    rating,
    template,
)

if TYPE_CHECKING:
    from paracle_meta.testing.embeddings import FakeEmbeddings

KINDS = [table.name for table in TABLES]


async def everything(database: MetaDatabase) -> dict[str, Any]:
    """Return all records, and how many vectors each cache has."""
    backend = await database.backend()
    records = {table.name: await backend.select(table, (), limit=10_000) for table in TABLES}
    caches = {
        name: await backend.retention.count_cache(table) for name, table in COLLECTIONS.items()
    }
    return {**records, "caches": caches}


class RetentionContract(Contract):
    """What is old goes when asked to, and what is erased leaves no trace."""

    # Pruning

    async def test_what_is_older_goes(
        self, database: MetaDatabase, generations: GenerationRepository, costs: CostRepository
    ) -> None:
        await generations.add_many(
            generation(f"gen-{number}", created_at=at(number)) for number in range(5)
        )
        await costs.record("p", "m", created_at=START)
        report = await prune(database, ["generations"], before=at(3))
        assert report.rows == {"generations": 3, "feedback": 0}
        assert (report.before, report.dry_run) == (at(3), False)
        assert ids(await generations.list()) == ["gen-4", "gen-3"]
        assert len(await costs.list()) == 1
        again = await prune(database, ["generations", "costs"], older_than=timedelta(days=1))
        assert again.rows == {"generations": 2, "feedback": 0, "costs": 1}
        assert await generations.count() == len(await costs.list()) == 0

    async def test_more_than_one_batch(
        self,
        database: MetaDatabase,
        generations: GenerationRepository,
        feedback: FeedbackRepository,
    ) -> None:
        number = 2 * BATCH + 1
        await generations.add_many(generation(f"gen-{n}") for n in range(number))
        await feedback.add_many(
            rating(f"fbk-{n}", generation_id=f"gen-{n}") for n in range(0, number, 2)
        )
        await generations.add(generation("gen-new", created_at=at(9)))
        await feedback.add(rating("fbk-new", generation_id="gen-new"))
        report = await prune(database, ["generations"], before=at(9))
        assert report.rows == {"generations": number, "feedback": BATCH + 1}
        assert ids(await generations.list()) == ["gen-new"]
        assert ids(await feedback.list()) == ["fbk-new"]

    async def test_feedback_is_counted_once(
        self,
        database: MetaDatabase,
        generations: GenerationRepository,
        feedback: FeedbackRepository,
    ) -> None:
        await generations.add_many([generation("gen-1"), generation("gen-2", created_at=at(9))])
        await feedback.add_many(
            [
                rating("old-of-old"),
                rating("new-of-old", created_at=at(9)),
                rating("old-of-new", generation_id="gen-2"),
                rating("new-of-new", generation_id="gen-2", created_at=at(9)),
            ]
        )
        kinds = ["feedback", "generations"]
        planned = await prune(database, kinds, before=at(5), dry_run=True)
        done = await prune(database, kinds, before=at(5))
        assert planned.rows == done.rows == {"generations": 1, "feedback": 3}
        assert ids(await feedback.list()) == ["new-of-new"]

    async def test_what_is_in_use_is_not_old(
        self,
        database: MetaDatabase,
        templates: TemplateRepository,
        practices: BestPracticeRepository,
    ) -> None:
        await templates.add_many(
            template(f"tpl-{name}", updated_at=START, name=f"{name} zebra")
            for name in ("used", "changed", "old")
        )
        await practices.add_many([practice("bpr-1", updated_at=START), practice("bpr-2")])
        await templates.record_use("tpl-used")
        await templates.update("tpl-changed", pattern="...")
        report = await prune(database, ["templates", "best_practices"], before=at(1))
        assert report.rows == {"templates": 1, "best_practices": 1}
        assert ids(await templates.list()) == ["tpl-used", "tpl-changed"]
        assert ids(await practices.list()) == ["bpr-2"]
        assert {match.id for match in await templates.find_similar("zebra", mode="text")} == {
            "tpl-used",
            "tpl-changed",
        }

    async def test_memory_is_as_old_as_its_last_value(
        self, database: MetaDatabase, memory: MemoryRepository
    ) -> None:
        for key in ("a", "b"):
            await memory.set(key, 1)
        between = datetime.now(UTC)
        await memory.set("a", 2)
        report = await prune(database, ["memory"], before=between)
        assert report.rows == {"memory": 1}
        assert [item.key for item in await memory.list()] == ["a"]

    async def test_a_template_outlives_its_generation(
        self,
        database: MetaDatabase,
        generations: GenerationRepository,
        templates: TemplateRepository,
    ) -> None:
        await generations.add(generation())
        made = await templates.promote_from_generation("gen-1")
        await prune(database, ["generations"], before=at(1))
        assert await templates.get(made.id) == made

    async def test_planning_to_prune_changes_nothing(self, database: MetaDatabase) -> None:
        await self._fill(database)
        before = await everything(database)
        now = datetime.now(UTC)
        planned = await prune(database, KINDS, before=now, dry_run=True)
        assert planned.dry_run
        assert await everything(database) == before
        done = await prune(database, KINDS, before=now)
        assert planned.rows == done.rows
        assert sum(done.rows.values()) == sum(len(before[kind]) for kind in KINDS)
        after = await everything(database)
        assert [after[kind] for kind in KINDS] == [[]] * len(KINDS)

    async def test_how_old_must_be_said(self, database: MetaDatabase) -> None:
        for wrong in (
            {},
            {"before": START, "older_than": timedelta(1)},
            {"before": datetime.now(UTC) + timedelta(hours=1)},
            {"before": datetime(2026, 1, 1)},  # noqa: DTZ001 - this is what is refused
            {"older_than": timedelta(-1)},
            {"older_than": timedelta.max},
            {"older_than": 90},
        ):
            with pytest.raises(InvalidValueError):
                await prune(database, ["costs"], **wrong)
        for kinds in ([], ["sessions"]):
            with pytest.raises(InvalidValueError):
                await prune(database, kinds, before=START)

    async def test_planning_to_purge_changes_nothing(
        self, database: MetaDatabase, memory: MemoryRepository
    ) -> None:
        await memory.set("lives", 1)
        for key in ("a", "b"):
            await memory.set(key, 1, ttl_seconds=1e-6)
        before = await everything(database)
        assert await memory.purge(dry_run=True) == 2
        assert await everything(database) == before
        assert await memory.purge() == 2
        assert await memory.purge(dry_run=True) == 0

    # Erasing

    async def test_a_session_is_erased_in_all_scopes(
        self, database: MetaDatabase, memory: MemoryRepository
    ) -> None:
        for session in ("build-7", "build-8", None):
            await memory.set("step", 1, session_id=session)
            await memory.set("step", 1, session_id=session, scope="project")
        await memory.set("over", 1, session_id="build-7", ttl_seconds=1e-6)
        before = await everything(database)
        planned = await erase_session(database, "build-7", dry_run=True)
        assert await everything(database) == before
        done = await erase_session(database, "build-7")
        assert planned.rows == done.rows == {"memory": 3}
        assert (planned.dry_run, done.dry_run) == (True, False)
        assert done.out_of_reach
        assert [item.session_id for item in await memory.list(session_id="build-7")] == []
        assert await memory.count() == 4
        again = await erase_session(database, "build-7")
        assert again.rows == {"memory": 0}

    async def test_a_generation_is_erased_with_what_tells_of_it(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        await self._fill(database)
        before = await everything(database)
        (made,) = [each for each in before["templates"] if each.source == "generation:gen-1"]
        planned = await erase_generation(database, "gen-1", dry_run=True)
        assert await everything(database) == before
        done = await erase_generation(database, "gen-1")
        assert planned.rows == done.rows == {"generations": 1, "feedback": 2, "templates": 0}
        assert planned.kept == done.kept == (made.id,)
        assert planned.cached_vectors == done.cached_vectors == before["caches"]["templates"] > 0
        after = await everything(database)
        assert ids(after["generations"]) == ["gen-2"]
        assert ids(after["feedback"]) == ["fbk-3"]
        assert after["caches"] == {**before["caches"], "templates": 0}
        kept = await templates.get(made.id)
        assert kept is not None
        assert (kept.content, kept.source) == (made.content, None)
        assert kept.updated_at > made.updated_at
        (other,) = [each for each in after["templates"] if each.source is not None]
        assert other in before["templates"]
        for kind in ("costs", "memory", "best_practices"):
            assert after[kind] == before[kind]

    async def test_its_templates_are_erased_when_told_to(
        self, database: MetaDatabase, templates: TemplateRepository, embeddings: FakeEmbeddings
    ) -> None:
        await self._fill(database)
        before = await everything(database)
        (made,) = [each for each in before["templates"] if each.source == "generation:gen-1"]
        # One that somebody made of it, and one that was promoted but says something else by now.
        await templates.add(template("tpl-mine", source="generation:gen-1", name="zebra"))
        await templates.update(made.id, source="mine")
        planned = await erase_generation(database, "gen-1", templates=True, dry_run=True)
        done = await erase_generation(database, "gen-1", templates=True)
        assert planned.rows == done.rows == {"generations": 1, "feedback": 2, "templates": 2}
        assert done.kept == ()
        left = await templates.list()
        assert [each.source for each in left] == ["generation:gen-2"]
        assert await templates.find_similar("zebra", mode="text") == []
        assert ids(await templates.find_similar("reviewer")) == ids(left)
        # No vector of its text is known any more.
        embeddings.embedded.clear()
        await templates.add(template("tpl-again", name=made.name, content=made.content))
        assert len(embeddings.embedded) == 1

    async def test_a_source_that_says_something_else_is_kept(
        self,
        database: MetaDatabase,
        generations: GenerationRepository,
        templates: TemplateRepository,
    ) -> None:
        await generations.add(generation())
        made = await templates.promote_from_generation("gen-1")
        mine = await templates.update(made.id, source="mine")
        report = await erase_generation(database, "gen-1")
        assert report.kept == (made.id,)
        assert await templates.get(made.id) == mine

    async def test_erasing_may_be_repeated(
        self,
        database: MetaDatabase,
        generations: GenerationRepository,
        templates: TemplateRepository,
    ) -> None:
        await generations.add(generation())
        made = await templates.promote_from_generation("gen-1")
        # As where the first run was stopped right after the generation itself.
        await generations.delete("gen-1")
        report = await erase_generation(database, "gen-1", templates=True)
        assert report.rows == {"generations": 0, "feedback": 0, "templates": 1}
        assert await templates.get(made.id) is None
        again = await erase_generation(database, "gen-1", templates=True)
        assert set(again.rows.values()) == {0}

    async def test_an_id_that_cannot_be_is_refused(self, database: MetaDatabase) -> None:
        for wrong in ("", "a\0b", 7):
            with pytest.raises(InvalidValueError):
                await erase_session(database, wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidValueError):
                await erase_generation(database, wrong)  # type: ignore[arg-type]

    async def _fill(self, database: MetaDatabase) -> None:
        """Store something of each kind: two generations, each with feedback and a template."""
        generations = GenerationRepository(database)
        await generations.add_many(
            generation(f"gen-{number}", name=f"Reviewer {number}") for number in (1, 2)
        )
        await FeedbackRepository(database).add_many(
            rating(f"fbk-{number}", generation_id=f"gen-{number // 3 + 1}") for number in (1, 2, 3)
        )
        for number in (1, 2):
            await TemplateRepository(database).promote_from_generation(f"gen-{number}")
        await CostRepository(database).record("p", "m", cost=1.0, created_at=START)
        await MemoryRepository(database).set("step", 1, session_id="build-7")
        await BestPracticeRepository(database).add(practice())
