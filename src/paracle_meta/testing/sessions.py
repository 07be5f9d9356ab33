"""The contract of sessions: plain SQL beside the repositories, in one transaction."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from paracle_meta import (
    CostRepository,
    FeedbackRepository,
    GenerationRepository,
    IntegrityError,
    MetaDatabase,
    ParacleMetaError,
    QueryError,
    TemplateRepository,
)
from paracle_meta.testing.base import Contract, at, generation, ids, rating, template

INSERT = (
    "INSERT INTO generations (id, artifact_type, name, content)"
    " VALUES (:id, 'agent', :name, 'content')"
)


class SessionContract(Contract):
    """`MetaDatabase.session`: commit, rollback, parameters, errors."""

    async def test_the_guides_query(
        self, database: MetaDatabase, generations: GenerationRepository
    ) -> None:
        await generations.add(generation("gen-123", name="Scanner"))
        async with database.session() as session:
            result = await session.execute(
                "SELECT * FROM generations WHERE id = :id", {"id": "gen-123"}
            )
            row: Any = result.fetchone()
            nothing = await session.execute(
                "SELECT * FROM generations WHERE id = :id", {"id": "gen-124"}
            )
            assert nothing.fetchone() is None
        assert (row.id, row.name, row.artifact_type) == ("gen-123", "Scanner", "agent")

    async def test_a_session_at_once_opens_and_migrates(self, database: MetaDatabase) -> None:
        async with database.session() as session:
            assert await session.scalar("SELECT count(*) FROM best_practices") == 0

    async def test_what_a_block_wrote_is_committed_at_its_end(
        self, database: MetaDatabase, generations: GenerationRepository
    ) -> None:
        async with database.session() as session:
            await session.execute(INSERT, {"id": "gen-1", "name": "one"})
            await session.execute(INSERT, {"id": "gen-2", "name": "two"})
            assert await session.scalar("SELECT count(*) FROM generations") == 2
        assert ids(await generations.list(filters={"name": "two"})) == ["gen-2"]
        assert await generations.count() == 2

    async def test_an_error_rolls_everything_back(
        self, database: MetaDatabase, generations: GenerationRepository
    ) -> None:
        class OurOwnError(Exception):
            pass

        async def fail_ourselves() -> None:
            async with database.session() as session:
                await session.execute(INSERT, {"id": "gen-1", "name": "one"})
                raise OurOwnError

        async def fail_in_sql() -> None:
            async with database.session(write=True) as session:
                await session.execute(INSERT, {"id": "gen-1", "name": "one"})
                await session.execute("SELECT * FROM no_such_table")

        with pytest.raises(OurOwnError):
            await fail_ourselves()
        with pytest.raises(QueryError):
            await fail_in_sql()
        assert await generations.count() == 0
        assert await generations.add(generation()) is not None

    async def test_a_cancelled_block_is_rolled_back(
        self, database: MetaDatabase, generations: GenerationRepository
    ) -> None:
        inside = asyncio.Event()

        async def write() -> None:
            async with database.session() as session:
                await session.execute(INSERT, {"id": "gen-1", "name": "one"})
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(write())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await generations.count() == 0
        assert await generations.add(generation()) is not None

    async def test_rollback_and_commit_in_the_middle(
        self, database: MetaDatabase, generations: GenerationRepository
    ) -> None:
        async with database.session() as session:
            await session.execute(INSERT, {"id": "gen-1", "name": "one"})
            await session.rollback()
            await session.execute(INSERT, {"id": "gen-2", "name": "two"})
            await session.commit()
            await session.execute(INSERT, {"id": "gen-3", "name": "three"})
        assert sorted(ids(await generations.list())) == ["gen-2", "gen-3"]

    async def test_parameters_are_values_and_never_sql(
        self, database: MetaDatabase, generations: GenerationRepository
    ) -> None:
        hostile = "x'); DELETE FROM generations; --"
        async with database.session() as session:
            await session.execute(INSERT, {"id": "gen-1", "name": hostile})
            await session.execute(INSERT, [{"id": f"m-{n}", "name": "many"} for n in range(3)])
            found = await session.scalars(
                "SELECT id FROM generations WHERE name = :name", {"name": hostile}
            )
            assert found.all() == ["gen-1"]
        stored = await generations.get("gen-1")
        assert stored is not None
        assert stored.name == hostile
        assert await generations.count() == 4

    async def test_all_tables_are_in_reach_of_one_query(
        self,
        database: MetaDatabase,
        generations: GenerationRepository,
        feedback: FeedbackRepository,
        templates: TemplateRepository,
    ) -> None:
        await generations.add_many([generation("gen-1"), generation("gen-2")])
        await feedback.add_many([rating("fbk-1", 5), rating("fbk-2", 4)])
        await templates.promote_from_generation("gen-1")
        async with database.session() as session:
            result = await session.execute(
                "SELECT g.id, count(f.id) AS ratings, max(t.name) AS name FROM generations g"
                " LEFT JOIN feedback f ON f.generation_id = g.id"
                " LEFT JOIN templates t ON t.source = 'generation:' || g.id"
                " GROUP BY g.id ORDER BY g.id"
            )
            rows = [tuple(row) for row in result.fetchall()]
            assert rows == [("gen-1", 2, "Security reviewer"), ("gen-2", 0, None)]
            for table in ("costs", "memory", "best_practices"):
                assert await session.scalar(f"SELECT count(*) FROM {table}") == 0  # noqa: S608

    async def test_bad_sql_is_a_typed_error(
        self, database: MetaDatabase, generations: GenerationRepository
    ) -> None:
        await generations.add(generation())
        for statement in (
            "SELEKT 1",
            "SELECT * FROM no_such_table",
            "SELECT no_such_column FROM generations",
            "SELECT no_such_function(1)",
            "SELECT * FROM generations WHERE",
        ):
            with pytest.raises(QueryError):
                async with database.session() as session:
                    await session.execute(statement)
        with pytest.raises(QueryError):
            async with database.session() as session:
                await session.execute("SELECT * FROM generations WHERE id = :id")
        assert await generations.count() == 1

    async def test_what_breaks_a_rule_of_the_schema_is_refused(
        self, database: MetaDatabase, generations: GenerationRepository
    ) -> None:
        await generations.add(generation())
        for statement in (
            "INSERT INTO generations (id, artifact_type, name, content)"
            " VALUES ('gen-1', 'agent', 'n', 'topsecret')",
            "INSERT INTO generations (id, artifact_type, name) VALUES ('gen-2', 'topsecret', 'n')",
            "INSERT INTO feedback (id, generation_id, rating, comment)"
            " VALUES ('fbk-1', 'gen-1', 6, 'topsecret')",
            "INSERT INTO costs (id, provider, model, cost) VALUES ('c', 'topsecret', 'm', -1)",
            "INSERT INTO costs (id, provider, model, period_type)"
            " VALUES ('c', 'topsecret', 'm', 'weekly')",
            "UPDATE generations SET quality_score = 11",
            "UPDATE generations SET name = NULL",
        ):
            with pytest.raises(IntegrityError) as refused:
                async with database.session() as session:
                    await session.execute(statement)
            assert "topsecret" not in str(refused.value)
        assert await generations.get("gen-1") is not None
        assert await generations.count() == 1

    async def test_an_orphan_is_refused(
        self, database: MetaDatabase, feedback: FeedbackRepository
    ) -> None:
        try:
            async with database.session() as session:
                await session.execute(
                    "INSERT INTO feedback (id, generation_id, rating) VALUES ('f', 'missing', 5)"
                )
        except ParacleMetaError as error:
            assert isinstance(error, IntegrityError)  # noqa: PT017
            assert await feedback.count() == 0

    async def test_plain_sql_gets_the_defaults(
        self,
        database: MetaDatabase,
        generations: GenerationRepository,
        templates: TemplateRepository,
        costs: CostRepository,
    ) -> None:
        before = datetime.now(UTC) - timedelta(seconds=1)
        async with database.session() as session:
            await session.execute(INSERT, {"id": "gen-1", "name": "one"})
            await session.execute(
                "INSERT INTO templates (id, artifact_type, name, content)"
                " VALUES ('tpl-1', 'agent', 'n', 'c')"
            )
            await session.execute(
                "INSERT INTO costs (id, provider, model) VALUES ('cst-1', 'p', 'm')"
            )
        after = datetime.now(UTC) + timedelta(seconds=1)
        made = await generations.get("gen-1")
        used = await templates.get("tpl-1")
        paid = await costs.get("cst-1")
        assert made is not None
        assert used is not None
        assert paid is not None
        for record in (made, used, paid):
            assert before <= record.created_at <= after
            assert before <= record.updated_at <= after
        assert used.usage_count == 0
        assert paid.period_type == "daily"
        assert before.date() <= paid.period_start <= after.date()
        assert (paid.cost, made.metadata, made.quality_score) == (None, None, None)

    async def test_repositories_read_what_sql_changed(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        await templates.add(template(quality_score=1, source="old"))
        async with database.session(write=True) as session:
            result = await session.execute(
                "UPDATE templates SET quality_score = quality_score + :more, source = :source",
                {"more": 2.5, "source": None},
            )
            changed: Any = result
            assert changed.rowcount == 1
        stored = await templates.get("tpl-1")
        assert stored is not None
        assert (stored.quality_score, stored.source) == (3.5, None)

    async def test_json_reads_the_same_before_and_after_a_session(
        self, database: MetaDatabase, generations: GenerationRepository
    ) -> None:
        record = generation(metadata={"a": [1, 1.5, True, None, {"b": "ö"}]})
        await generations.add(record)
        async with database.session() as session:
            await session.execute("SELECT metadata FROM generations")
        for _ in range(3):
            assert await generations.get("gen-1") == record

    async def test_sessions_and_repositories_at_once(
        self, database: MetaDatabase, generations: GenerationRepository
    ) -> None:
        async def by_session(n: int) -> None:
            async with database.session(write=True) as session:
                await session.execute(INSERT, {"id": f"s-{n}", "name": "s"})

        async def by_repository(n: int) -> None:
            await generations.add(generation(f"r-{n}", created_at=at(n)))

        calls = [call(n) for n in range(10) for call in (by_session, by_repository)]
        await asyncio.gather(*calls)
        assert await generations.count() == 20
