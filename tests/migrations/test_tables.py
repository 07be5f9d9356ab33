from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, MetaData, insert, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from paracle_meta.exceptions import InvalidValueError
from paracle_meta.migrations import runner
from paracle_meta.tables import build_metadata
from tests.migrations.databases import FILES, on_postgres, sqlite_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Run = Callable[[Callable[[Connection, MetaData], Any]], Awaitable[Any]]


@pytest.fixture(params=["sqlite", "postgres16", "postgres18"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run work on a connection to migrated tables, on each database."""
    if request.param == "sqlite":

        async def on_sqlite(work: Callable[[Connection, MetaData], Any]) -> Any:
            with sqlite_engine(tmp_path).connect() as connection:
                runner.upgrade(connection, FILES)
                return work(connection, build_metadata(FILES))

        return on_sqlite

    server = request.getfixturevalue(request.param)
    database = server.create_database()
    server.sql("CREATE EXTENSION vector", database)

    def with_vectors(
        work: Callable[[Connection, MetaData], Any],
    ) -> Callable[[Connection], Any]:
        def migrated(connection: Connection) -> Any:
            runner.upgrade(connection, {})
            with connection.begin():
                for name in ("templates", "best_practices"):
                    connection.execute(
                        text(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS embedding vector(3)")
                    )
            return work(connection, build_metadata())

        return migrated

    async def on_server(work: Callable[[Connection, MetaData], Any]) -> Any:
        return await on_postgres(server, database, with_vectors(work))

    return on_server


async def stored(run: Run, table: str, **values: Any) -> Any:
    """Store a row and return it as it is read back, and as the database alone sees it."""

    def work(connection: Connection, metadata: MetaData) -> Any:
        target = next(found for found in metadata.tables.values() if found.name == table)
        connection.execute(insert(target).values(**values))
        return connection.execute(select(target)).one()

    return await run(work)


GENERATION = {"id": "gen-1", "artifact_type": "agent", "name": "a", "content": "text"}
PRACTICE = {"id": "bpr-1", "category": "security", "title": "t", "content": "text"}


async def test_times_come_back_in_utc_to_the_microsecond(run: Run) -> None:
    east = timezone(timedelta(hours=9))
    moment = datetime(2025, 3, 1, 8, 30, 0, 123456, tzinfo=east)
    row = await stored(run, "generations", **GENERATION, created_at=moment)
    assert row.created_at == moment
    assert row.created_at.utcoffset() == timedelta(0)


async def test_times_and_days_have_defaults_in_utc(run: Run) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    row = await stored(run, "costs", id="cst-1", provider="p", model="m")
    after = datetime.now(UTC) + timedelta(seconds=1)
    assert before <= row.created_at <= after
    assert before <= row.updated_at <= after
    assert before.date() <= row.period_start <= after.date()
    assert row.period_type == "daily"


async def test_a_time_without_a_zone_is_refused(run: Run) -> None:
    naive = datetime(2025, 3, 1)  # noqa: DTZ001 - naive on purpose
    with pytest.raises(StatementError) as caught:
        await stored(run, "generations", **GENERATION, created_at=naive)
    assert isinstance(caught.value.orig, InvalidValueError)


async def test_times_are_compared_in_time_whatever_their_zone(run: Run) -> None:
    def work(connection: Connection, metadata: MetaData) -> list[str]:
        table = next(t for t in metadata.tables.values() if t.name == "generations")
        for hour in range(3):
            moment = datetime(2025, 3, 1, hour, tzinfo=UTC)
            values = {**GENERATION, "id": f"gen-{hour}", "created_at": moment}
            connection.execute(insert(table).values(values))
        west = timezone(timedelta(hours=-8))
        since = datetime(2025, 2, 28, 17, tzinfo=west)  # 01:00 in UTC
        query = select(table.c.id).where(table.c.created_at >= since).order_by(table.c.created_at)
        return [*connection.scalars(query)]

    assert await run(work) == ["gen-1", "gen-2"]


@pytest.mark.parametrize("value", [None, {}, {"a": [1, None, "ü", {"b": 2.5}]}])
async def test_json_objects_come_back(run: Run, value: Any) -> None:
    assert (await stored(run, "generations", **GENERATION, metadata=value)).metadata == value


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "", "null", "ü\x00", [], {"a": [None]}])
async def test_any_json_value_comes_back_with_its_type(run: Run, value: Any) -> None:
    row = await stored(run, "memory", id="mem-1", key="k", value=value)
    assert row.value == value
    assert type(row.value) is type(value)


@pytest.mark.parametrize("value", [None, [], ["b", "a", 'with "quotes", commas']])
async def test_tags_come_back_in_order(run: Run, value: Any) -> None:
    assert (await stored(run, "best_practices", **PRACTICE, tags=value)).tags == value


@pytest.mark.parametrize("value", [None, [0.5, -1.25, 3.0]])
async def test_vectors_come_back_as_floats(run: Run, value: Any) -> None:
    row = await stored(run, "best_practices", **PRACTICE, embedding=value)
    assert row.embedding == value


async def test_days_come_back(run: Run) -> None:
    day = date(2024, 2, 29)
    row = await stored(run, "costs", id="cst-1", provider="p", model="m", period_start=day)
    assert row.period_start == day


async def test_text_is_sorted_bytewise(run: Run) -> None:
    def work(connection: Connection, metadata: MetaData) -> list[str]:
        table = next(t for t in metadata.tables.values() if t.name == "generations")
        for name in ("b", "B", "ä", "a", "_"):
            connection.execute(insert(table).values({**GENERATION, "id": name, "name": name}))
        return [*connection.scalars(select(table.c.name).order_by(table.c.name))]

    assert await run(work) == ["B", "_", "a", "b", "ä"]


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("generations", {**GENERATION, "quality_score": 10.5}),
        ("generations", {**GENERATION, "tokens_used": -1}),
        ("costs", {"id": "c", "provider": "p", "model": "m", "cost": -0.01}),
        ("costs", {"id": "c", "provider": "p", "model": "m", "period_type": "weekly"}),
        ("best_practices", {**PRACTICE, "usage_count": -1}),
        ("generations", {"id": "gen-1", "artifact_type": "agent", "name": "a"}),
    ],
)
async def test_the_database_itself_refuses_what_the_rules_forbid(
    run: Run, table: str, values: dict[str, Any]
) -> None:
    with pytest.raises(IntegrityError):
        await stored(run, table, **values)


@pytest.mark.parametrize("rating", [0, 6])
async def test_the_database_itself_refuses_a_rating_outside_1_to_5(run: Run, rating: int) -> None:
    with pytest.raises(IntegrityError, match="feedback_rating_check"):
        await stored(run, "feedback", id="f", generation_id="gen-1", rating=rating)


async def test_a_key_is_unique_also_without_a_session(run: Run) -> None:
    def work(connection: Connection, metadata: MetaData) -> None:
        table = next(t for t in metadata.tables.values() if t.name == "memory")
        for number in range(2):
            connection.execute(insert(table).values(id=f"mem-{number}", key="k", value=number))

    with pytest.raises(IntegrityError):
        await run(work)
