"""Copies from one database to another: all of it arrives, and what does not is named."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_meta import (
    EmbeddingModelMismatchError,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.exceptions import TransferError, UnportableError
from paracle_meta.testing import FakeEmbeddings
from paracle_meta.transfer import compare_databases, copy_database
from paracle_meta.transfer.merging import merge
from tests.faults.places import attached
from tests.transfer.stock import DIMENSIONS, ROWS, answers, contents, counts, fill, folder, on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.postgres import PostgresServer

WAYS = ["sqlite-postgresql18", "sqlite-postgresql16", "postgresql18-sqlite", "sqlite-sqlite"]


@pytest.fixture
async def both(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[MetaDatabase, MetaDatabase]]:
    """A stocked database and an empty one."""

    def make(kind: str, name: str) -> MetaDatabase:
        if kind == "sqlite":
            return folder(tmp_path / name)
        return on(request.getfixturevalue(f"postgres{kind.removeprefix('postgresql')}"))

    one, other = request.param.split("-")
    async with make(one, "source") as source, make(other, "target") as target:
        await fill(source)
        yield source, target


@pytest.fixture
async def two_folders(tmp_path: Path) -> AsyncIterator[tuple[MetaDatabase, MetaDatabase]]:
    async with folder(tmp_path / "source") as source, folder(tmp_path / "target") as target:
        await fill(source)
        yield source, target


@asynccontextmanager
async def copied_to(server: PostgresServer, source: MetaDatabase) -> AsyncIterator[MetaDatabase]:
    async with on(server) as target:
        await fill(source)
        assert (await copy_database(source, target)).equal
        yield target


async def value(db: MetaDatabase, key: str) -> Any:
    item = await MemoryRepository(db).get(key)
    assert item is not None
    return item.value


@pytest.mark.parametrize("both", WAYS, indirect=True)
async def test_everything_arrives_and_a_second_copy_changes_nothing(
    both: tuple[MetaDatabase, MetaDatabase],
) -> None:
    source, target = both
    told: dict[str, tuple[int, int]] = {}
    report = await copy_database(
        source, target, progress=lambda name, done, total: told.update({name: (done, total)})
    )
    assert report.equal
    assert {table.table: table.copied for table in report.tables} == ROWS
    assert all(table.complete and not table.updated for table in report.tables)
    assert report.comparison is not None
    for compared in report.comparison:
        assert compared.source == compared.target
        assert compared.source.rows == ROWS[compared.table]
        assert told[compared.table] == (ROWS[compared.table],) * 2
        assert told[f"comparing {compared.table}"] == (ROWS[compared.table],) * 2
    assert await contents(target) == await contents(source)
    assert await answers(target) == await answers(source)

    again = await copy_database(source, target)
    assert {table.table: table.unchanged for table in again.tables} == ROWS
    assert counts(again) == {}
    assert again.comparison == report.comparison
    assert await answers(target) == await answers(source)
    # The application goes on there.
    assert await target.migrate() == []
    await TemplateRepository(target).add(Template(artifact_type="agent", name="new", content="c"))


async def test_a_copy_moves_what_was_added_and_changed_since(
    tmp_path: Path, postgres18: PostgresServer
) -> None:
    async with folder(tmp_path) as source, copied_to(postgres18, source) as target:
        await GenerationRepository(source).update("gen-2", content="better", metadata={"a": 1})
        await TemplateRepository(source).update("tpl-3", content="a text with another vector")
        await TemplateRepository(source).record_use("tpl-4")
        await FeedbackRepository(source).add(Feedback(generation_id="gen-4", rating=1))
        await MemoryRepository(source).set("key 1", "other")
        added = [
            GenerationResult(artifact_type="agent", name=f"new {n}", content="c") for n in range(9)
        ]
        await GenerationRepository(source).add_many(added)

        report = await copy_database(source, target)
        assert report.equal
        assert counts(report) == {
            "generations": (9, 1, 4),
            "templates": (0, 2, 28),
            "feedback": (1, 0, 6),
            "memory": (0, 1, 11),
        }
        assert await contents(target) == await contents(source)
        assert await answers(target) == await answers(source)


async def test_nothing_is_deleted_and_nothing_newer_replaced(
    tmp_path: Path, postgres18: PostgresServer
) -> None:
    async with folder(tmp_path) as source, copied_to(postgres18, source) as target:
        await GenerationRepository(source).delete("gen-1", cascade=True)
        await GenerationRepository(target).update("gen-2", content="changed at the target")

        report = await copy_database(source, target)
        assert not report.equal
        generations, _, feedback, *others = report.tables
        assert generations.only_at_target.ids == ("gen-1",)
        assert generations.changed_at_target.ids == ("gen-2",)
        assert (feedback.only_at_target.total, feedback.only_at_target.ids) == (
            2,
            ("fbk-1", "fbk-4"),
        )
        assert all(table.complete for table in others)
        assert await GenerationRepository(target).get("gen-1") is not None
        kept = await GenerationRepository(target).get("gen-2")
        assert kept is not None
        assert kept.content == "changed at the target"
        assert report.comparison is not None
        compared = report.comparison[0]
        assert compared.different.ids == ("gen-2",)
        assert compared.extra.ids == ("gen-1",)
        assert compared.missing.total == 0
        assert not (await copy_database(source, target, verify=False)).equal


async def test_a_session_value_that_was_set_anew_replaces_the_former_one(
    two_folders: tuple[MetaDatabase, MetaDatabase],
) -> None:
    source, target = two_folders
    await copy_database(source, target)
    memory = MemoryRepository(source)
    await memory.delete("key 1")
    await memory.set("key 1", "anew")  # under another id

    report = await copy_database(source, target)
    assert report.equal
    assert counts(report) == {"memory": (0, 1, 11)}
    assert await value(target, "key 1") == "anew"


async def test_a_session_value_of_the_target_s_own_is_a_conflict(
    two_folders: tuple[MetaDatabase, MetaDatabase],
) -> None:
    source, target = two_folders
    await copy_database(source, target)
    await MemoryRepository(source).set("mine", 1)
    await MemoryRepository(target).set("mine", 2)

    report = await copy_database(source, target)
    assert not report.equal
    memory = report.tables[4]
    (item,) = [one for one in await MemoryRepository(source).list() if one.key == "mine"]
    assert memory.conflicts.ids == (item.id,)
    assert memory.only_at_target.total == 1
    assert await value(target, "mine") == 2


async def test_a_copy_from_one_schema_to_another_does_not_wait_for_itself(
    postgres18: PostgresServer,
) -> None:
    # Building an index waits for who else reads in the database, whatever the schema.
    async with on(postgres18, postgres_schema="one", pool_size=1) as source:
        await fill(source)
        other = source.settings.model_copy(update={"postgres_schema": "other"})
        async with MetaDatabase(other, embeddings=FakeEmbeddings(DIMENSIONS)) as target:
            async with asyncio.timeout(30):
                assert (await copy_database(source, target)).equal
            assert (await target.status()).vectors["templates"].index is not None
            assert await answers(target) == await answers(source)


async def test_a_folder_with_rollback_journals_takes_changes_too(tmp_path: Path) -> None:
    async with (
        folder(tmp_path / "source") as source,
        # A reader that held up the writer would be seen after this time.
        folder(tmp_path / "target", journal_mode="truncate", busy_timeout=2) as target,
    ):
        await fill(source)
        await copy_database(source, target)
        await GenerationRepository(source).update("gen-2", content="better")
        assert counts(await copy_database(source, target)) == {"generations": (0, 1, 4)}


async def test_what_differs_without_a_newer_time_is_found_by_comparing(
    two_folders: tuple[MetaDatabase, MetaDatabase],
) -> None:
    source, target = two_folders
    assert (await copy_database(source, target)).equal
    async with source.session() as session:
        await session.execute("UPDATE generations SET content = 'by SQL' WHERE id = 'gen-3'")
        await session.execute("UPDATE generations SET cost = 1.5 WHERE id = 'gen-4'")
    report = await copy_database(source, target)
    assert counts(report) == {}
    assert not report.equal
    compared = (await compare_databases(source, target))[0]
    assert report.comparison is not None
    assert report.comparison[0] == compared
    assert compared.different.ids == ("gen-3", "gen-4")
    assert compared.source.rows == compared.target.rows
    assert compared.source.checksum != compared.target.checksum


async def test_what_no_other_database_can_hold_is_named_before_anything_is_written(
    tmp_path: Path, postgres18: PostgresServer
) -> None:
    async with folder(tmp_path) as source, on(postgres18) as target:
        await fill(source)
        async with source.session() as session:
            await session.execute(
                "UPDATE generations SET content = 'a' || char(0) || 'b' WHERE id = 'gen-3'"
            )
        with pytest.raises(UnportableError) as caught:
            await copy_database(source, target)
        (value,) = caught.value.values
        assert value.startswith("generations gen-3, content: ")
        assert set((await target.status()).counts.values()) == {0}

        report = await copy_database(source, target, replace=True)
        assert report.replaced == (value,)
        assert report.equal
        replaced = await GenerationRepository(target).get("gen-3")
        assert replaced is not None
        assert replaced.content == "a\ufffdb"


async def test_vectors_of_another_model_are_refused_by_name_and_nothing_is_copied(
    tmp_path: Path, postgres18: PostgresServer
) -> None:
    async with folder(tmp_path) as source, on(postgres18) as target:
        await fill(source)
        other = MetaDatabase(target.settings, embeddings=FakeEmbeddings(8, name="other"))
        async with other:
            await TemplateRepository(other).add(
                Template(artifact_type="agent", name="n", content="c")
            )
            with pytest.raises(
                EmbeddingModelMismatchError,
                match=r"fake/other@8.*fake/trigrams@16|"
                r"fake/trigrams@16.*fake/other@8",
            ):
                await copy_database(source, other)
            assert await GenerationRepository(other).count() == 0


async def test_vectors_of_several_models_are_refused(
    two_folders: tuple[MetaDatabase, MetaDatabase],
) -> None:
    source, target = two_folders
    async with source.session() as session:
        await session.execute("UPDATE templates SET embedding_model = 'x' WHERE id = 'tpl-3'")
    with pytest.raises(TransferError, match="paracle meta reembed templates"):
        await copy_database(source, target)


async def test_vectors_are_refused_where_they_are_switched_off(tmp_path: Path) -> None:
    async with (
        folder(tmp_path / "source") as source,
        folder(tmp_path / "target", enable_vectors=False) as target,
    ):
        await fill(source)
        with pytest.raises(TransferError, match="enable_vectors"):
            await copy_database(source, target)


async def test_a_source_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    missing, target = folder(tmp_path / "mistyped"), folder(tmp_path / "target")
    with pytest.raises(TransferError, match=r"no database at .*mistyped"):
        await copy_database(missing, target)
    with pytest.raises(TransferError, match=r"no database at .*mistyped"):
        await compare_databases(missing, target)
    assert not missing.settings.sqlite_folder.exists()
    assert not target.settings.sqlite_folder.exists()


async def test_a_database_is_not_copied_onto_itself(tmp_path: Path) -> None:
    async with folder(tmp_path / "files") as source:
        same = folder(tmp_path / "x" / ".." / "files")
        with pytest.raises(TransferError, match="the same database"):
            await copy_database(source, same)


@pytest.mark.parametrize("both", ["sqlite-postgresql18", "postgresql18-sqlite"], indirect=True)
async def test_a_copy_is_of_one_moment_while_writers_go_on(
    both: tuple[MetaDatabase, MetaDatabase],
) -> None:
    source, target = both
    begun, stop = asyncio.Event(), asyncio.Event()

    async def write() -> int:
        number = 0
        while not stop.is_set():
            made = await GenerationRepository(source).add(
                GenerationResult(artifact_type="agent", name="n", content="c")
            )
            await FeedbackRepository(source).add(Feedback(generation_id=made.id, rating=3))
            number += 1
            if number == 20:
                begun.set()
        return number

    writer = asyncio.create_task(write())
    await begun.wait()
    for _ in range(3):
        report = await copy_database(source, target)
        # Compared with the same moment, so what was written meanwhile is no difference.
        assert report.equal
        assert all(table.orphans.total == 0 for table in report.tables)
    stop.set()
    assert await writer >= 20
    rated = {one.generation_id for one in await FeedbackRepository(target).list(limit=10_000)}
    stored = {one.id for one in await GenerationRepository(target).list(limit=10_000)}
    assert rated <= stored
    assert (await copy_database(source, target)).equal
    assert await contents(target) == await contents(source)


async def test_what_refers_to_nothing_is_named(tmp_path: Path) -> None:
    async with folder(tmp_path / "source") as source, folder(tmp_path / "target") as target:
        await fill(source)
        connection = attached(tmp_path / "source")
        connection.execute("DELETE FROM generations WHERE id = 'gen-1'")
        connection.close()
        report = await copy_database(source, target)
        assert report.tables[2].orphans.ids == ("fbk-1", "fbk-4")
        assert report.tables[2].copied == ROWS["feedback"] - 2
        assert not report.equal


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)


@given(
    st.dictionaries(texts, st.integers(0, 3)),
    st.dictionaries(texts, st.integers(0, 3)),
    st.integers(1, 4),
)
def test_two_sides_are_merged_as_if_they_were_in_memory(
    one: dict[str, int], other: dict[str, int], batch: int
) -> None:
    async def stream(side: dict[str, int]) -> AsyncIterator[list[tuple[str, int]]]:
        rows = sorted(side.items(), key=lambda item: item[0].encode())
        for start in range(0, len(rows), batch):
            yield rows[start : start + batch]

    async def merged() -> list[tuple[str, Any, Any]]:
        return [row async for rows in merge(stream(one), stream(other)) for row in rows]

    ids = sorted({*one, *other}, key=str.encode)
    assert asyncio.run(merged()) == [(name, one.get(name), other.get(name)) for name in ids]


async def test_rows_in_another_order_are_refused() -> None:
    async def stream(*ids: str) -> AsyncIterator[list[tuple[str, int]]]:
        for one in ids:
            yield [(one, 1)]

    with pytest.raises(TransferError, match="order"):
        async for _ in merge(stream("a", "b"), stream("b", "a")):
            pass
