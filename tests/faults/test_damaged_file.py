"""One of the six SQLite files is damaged: the other five are read and written as ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    CostRepository,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    MemoryRepository,
    MetaDatabase,
    QueryError,
    StorageError,
    TemplateRepository,
)
from paracle_meta.backends.sqlite.driver import load_driver
from paracle_meta.health import examine
from paracle_meta.transfer import back_up, copy_database, export_jsonl, restore
from tests.contract.test_hostile_filters import repositories
from tests.faults.cancelling import assert_nothing_open
from tests.faults.files_damage import add_one, contents, copy, fill
from tests.faults.places import NAMES, Place, unsound_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.figures import Faults

SETTINGS = {"index_in_background": False, "busy_timeout": 5}


def header_overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"This is no database. " * 5)


def encoding_flipped(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(59)
        file.write(b"\x02")  # UTF-16, in which no other file is.


def cut_to_ten_bytes(path: Path) -> None:
    os.truncate(path, 10)


def cut_to_a_page(path: Path) -> None:
    os.truncate(path, 4_096)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def schema_overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)  # After the header: the file is still taken for a database.
        file.write(random.Random(7).randbytes(3_996))


def stamp_overwritten(path: Path) -> None:
    """Of which connecting shows nothing."""
    with contextlib.closing(load_driver().connect(str(path))) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'paracle_meta_version'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4_096)
        file.write(random.Random(7).randbytes(4_096))


WAYS = [
    header_overwritten,
    encoding_flipped,
    cut_to_ten_bytes,
    cut_to_a_page,
    zeros,
    schema_overwritten,
    stamp_overwritten,
]


class Filled:
    """A folder with records of each kind, closed, and what it answers."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(settings={"sqlite_dir": str(folder)})
        self.truth: dict[str, str] = {}

    async def fill(self) -> None:
        async with self.place.open(**SETTINGS) as db:
            await fill(db)
        async with self.place.open(**SETTINGS) as db:
            self.truth = {name: await contents(db, name) for name in NAMES}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    filled = Filled(tmp_path_factory.mktemp("filled") / "files")
    asyncio.run(filled.fill())
    return filled


@pytest.fixture
def place(filled: Filled, tmp_path: Path) -> Iterator[Place]:
    place = copy(filled.place.folder, tmp_path / "files")
    yield place
    shutil.rmtree(place.folder)  # A hundred of them are much for a disk in memory.


def refused(name: str) -> Any:
    return pytest.raises(StorageError, match=rf"{name}\.db.* is damaged.*restore it from a backup")


def put_back(filled: Filled, place: Place, name: str) -> None:
    shutil.copyfile(filled.place.folder / f"{name}.db", place.folder / f"{name}.db")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def count(db: MetaDatabase, name: str) -> int:
    return int(await repositories(db)[name].count())


@pytest.mark.parametrize("damage", WAYS)
async def test_the_other_five_are_read_and_written(
    filled: Filled, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for name in NAMES:
        place = copy(filled.place.folder, tmp_path / name)
        await assert_the_others_go_on(filled, place, damage, name)
        shutil.rmtree(place.folder)


async def assert_the_others_go_on(
    filled: Filled, place: Place, damage: Callable[[Path], None], name: str
) -> None:
    damage(place.folder / f"{name}.db")
    others = [other for other in NAMES if other != name]
    # Feedback is about a generation, which has to be there.
    written = [other for other in others if (name, other) != ("generations", "feedback")]
    before = (place.folder / f"{name}.db").read_bytes()
    async with place.open(**SETTINGS) as db:
        for other in others:
            assert await contents(db, other) == filled.truth[other]
        for other in written:
            await add_one(db, other)
        counts = {other: await count(db, other) for other in others}
        for use in (contents(db, name), add_one(db, name), count(db, name)):
            with refused(name):
                await use
        async with db.session(write=True) as session:
            for other in others:
                await session.execute(f"UPDATE {other} SET id = id")
            with refused(name):
                await session.scalar(f"SELECT count(*) FROM {name}")
        assert (place.folder / f"{name}.db").read_bytes() == before

        put_back(filled, place, name)
        assert await contents(db, name) == filled.truth[name]
        await add_one(db, name)
        assert {other: await count(db, other) for other in others} == counts
        async with db.session() as session:
            assert await session.scalar(f"SELECT count(*) FROM {name}") == await count(db, name)
    assert_nothing_open(place)
    assert unsound_files(place.folder) == {}
    async with place.open(**SETTINGS) as db:
        assert {other: await count(db, other) for other in others} == counts


async def test_two_damaged_files(place: Place) -> None:
    zeros(place.folder / "generations.db")
    cut_to_ten_bytes(place.folder / "costs.db")
    async with place.open(**SETTINGS) as db:
        for name in ("generations", "costs"):
            with refused(name):
                await count(db, name)
        await MemoryRepository(db).set("key", "value")
        assert await TemplateRepository(db).count() > 0


async def test_six_damaged_files(place: Place) -> None:
    for name in NAMES:
        zeros(place.folder / f"{name}.db")
    db = place.open(**SETTINGS)
    for use in (db.open, db.migrate, db.status):
        with refused("generations"):
            await use()
    await db.close()


@pytest.mark.parametrize("name", ["generations", "costs"])
async def test_a_file_cut_to_nothing_is_not_filled_with_empty_tables(
    place: Place, name: str
) -> None:
    os.truncate(place.folder / f"{name}.db", 0)
    db = place.open(**SETTINGS)
    for _ in range(2):
        with pytest.raises(StorageError, match=rf"{name}\.db is empty.*restore it from a backup"):
            await db.open()
    findings = (await examine(db)).findings
    assert {(f.name, f.where, f.remedy) for f in findings} == {("missing-file", f"{name}.db", None)}
    await db.migrate()  # Where that is asked for.
    assert await count(db, name) == 0
    assert await count(db, "memory") > 0
    await db.close()


@pytest.mark.parametrize("name", ["generations", "costs"])
async def test_damage_while_it_is_open(filled: Filled, place: Place, name: str) -> None:
    async with place.open(**SETTINGS) as db:
        assert await contents(db, name) == filled.truth[name]
        header_overwritten(place.folder / f"{name}.db")
        async with db.session(write=True) as session:  # With a new connection.
            await session.execute("UPDATE memory SET id = id")
            with refused(name):
                await session.execute(f"UPDATE {name} SET id = id")
        await MemoryRepository(db).set("key", "value")
        # Connections that were made before the damage still have the file that is moved away.
        for path in [*place.folder.glob(f"{name}.db*")]:
            path.rename(place.folder / f"damaged-{path.name}")
        put_back(filled, place, name)
        assert await contents(db, name) == filled.truth[name]
        await add_one(db, name)
        async with db.session() as session:
            assert await session.scalar(f"SELECT count(*) FROM {name}") == await count(db, name)
        item = await MemoryRepository(db).get("key")
        assert item is not None
        assert item.value == "value"


async def test_a_log_is_left_beside_a_damaged_file(place: Place, tmp_path: Path) -> None:
    async with place.open(**SETTINGS) as db:
        costs = CostRepository(db)
        await costs.update((await costs.list(limit=1))[0].id, model="changed")
        killed = copy(place.folder, tmp_path / "killed")  # As a process that is killed leaves it.
    parts = [killed.folder / f"costs.db{ending}" for ending in ("", "-wal")]
    cut_to_ten_bytes(parts[0])
    before = [part.read_bytes() for part in parts]
    assert all(before)

    async def assert_untouched() -> None:
        assert [part.read_bytes() for part in parts] == before

    for _ in range(2):
        async with killed.open(**SETTINGS) as db:
            for _ in range(2):
                with refused("costs"):
                    await CostRepository(db).count()
            await MemoryRepository(db).set("key", "value")
            await db.status()
            async with db.session() as session:
                await session.scalar("SELECT count(*) FROM memory")
            with refused("costs"):
                await back_up(db, tmp_path / "backup")
        await assert_untouched()
    db = killed.open(**SETTINGS)
    with refused("costs"):
        await db.migrate()
    await examine(db, fix=True)
    await db.close()
    await assert_untouched()


async def test_one_warning_each_time_that_a_file_is_left_out(
    filled: Filled, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "paracle_meta")
    async with place.open(**SETTINGS) as db:
        for times in (1, 2):
            header_overwritten(place.folder / "memory.db")
            async with db.session() as session:
                await session.scalar("SELECT count(*) FROM costs")
            async with db.session() as session:
                await session.scalar("SELECT count(*) FROM costs")
            assert len(caplog.records) == times
            assert "memory.db is damaged" in caplog.records[-1].getMessage()
            put_back(filled, place, "memory")
            async with db.session() as session:
                assert await session.scalar("SELECT count(*) FROM memory") > 0


async def test_a_wrong_name_is_a_wrong_name(filled: Filled, place: Place) -> None:
    header_overwritten(place.folder / "memory.db")
    async with place.open(**SETTINGS) as db:
        # It may have been a table of the damaged file.
        for statement in ("SELECT * FROM notes", "SELECT * FROM memory.notes"):
            with refused("memory"):
                async with db.session() as session:
                    await session.execute(statement)
        with pytest.raises(QueryError, match=r"no such table: costs\.notes"):
            async with db.session() as session:
                await session.execute("SELECT * FROM costs.notes")
        put_back(filled, place, "memory")
        with pytest.raises(QueryError, match="no such table: notes"):
            async with db.session() as session:
                await session.execute("SELECT * FROM notes")


async def test_nothing_is_written_in_place_of_the_damaged_file(place: Place) -> None:
    header_overwritten(place.folder / "generations.db")
    async with place.open(**SETTINGS) as db:
        for schema in ("", "main."):
            with pytest.raises(StorageError):
                async with db.session(write=True) as session:
                    await session.execute(f"CREATE TABLE {schema}notes (id)")


async def test_what_needs_the_damaged_file_too(filled: Filled, place: Place) -> None:
    zeros(place.folder / "feedback.db")
    async with place.open(**SETTINGS) as db:
        generations, templates = GenerationRepository(db), TemplateRepository(db)
        for cascade in (False, True):
            with refused("feedback"):
                await generations.delete("gen-1", cascade=cascade)
        with refused("feedback"):
            await generations.get_with_feedback("gen-1")
        with refused("feedback"):
            await templates.promote_qualified()
        assert await contents(db, "generations") == filled.truth["generations"]
        assert (await templates.promote_from_generation("gen-1")).source == "generation:gen-1"
    put_back(filled, place, "feedback")
    zeros(place.folder / "generations.db")
    async with place.open(**SETTINGS) as db:
        with refused("generations"):
            await FeedbackRepository(db).add(Feedback(generation_id="gen-1", rating=1))
        assert await contents(db, "feedback") == filled.truth["feedback"]


async def test_what_needs_all_files_is_refused_and_writes_nothing(
    place: Place, tmp_path: Path
) -> None:
    zeros(place.folder / "memory.db")
    target = Place(settings={"sqlite_dir": str(tmp_path / "target")})
    async with place.open(**SETTINGS) as db, target.open(**SETTINGS) as other:
        for use in (
            back_up(db, tmp_path / "backup"),
            export_jsonl(db, tmp_path / "export.jsonl"),
            export_jsonl(db, f"{tmp_path / 'export'}/"),
            copy_database(db, other),
            copy_database(other, db),
            db.migrate(),
        ):
            with refused("memory"):
                await use
        assert {name: await count(other, name) for name in NAMES} == dict.fromkeys(NAMES, 0)
    assert names_in(tmp_path) == {"files", "target"}


async def test_an_older_schema_is_not_migrated_in_part(place: Place) -> None:
    for name in NAMES:
        place_stamp(place, name)
    zeros(place.folder / "memory.db")
    before = {name: (place.folder / f"{name}.db").read_bytes() for name in NAMES}
    db = place.open(**SETTINGS)
    with refused("memory"):
        await db.open()
    await db.close()
    assert {name: (place.folder / f"{name}.db").read_bytes() for name in NAMES} == before


def place_stamp(place: Place, name: str) -> None:
    place.rows(
        f"UPDATE {'main' if name == NAMES[0] else name}.paracle_meta_version"
        " SET version_num = '0001' RETURNING version_num"
    )


async def test_status_and_doctor_tell_of_the_others(place: Place) -> None:
    async with place.open(**SETTINGS) as db, db.session(write=True) as session:
        await session.execute("UPDATE templates SET embedding = NULL, embedding_model = NULL")
        await session.execute("UPDATE feedback SET generation_id = 'gone' WHERE rowid = 1")
    header_overwritten(place.folder / "best_practices.db")
    db = place.open(**SETTINGS)
    status = await db.status()
    assert list(status.counts) == [name for name in NAMES if name != "best_practices"]
    report = await examine(db)
    found = {(finding.name, finding.where) for finding in report.findings}
    assert found >= {
        ("damaged-file", "best_practices.db"),
        ("missing-vectors", "templates"),
        ("orphaned-feedback", "feedback"),
    }
    assert not report.healthy
    header_overwritten(place.folder / "generations.db")
    found = {(finding.name, finding.where) for finding in (await examine(db)).findings}
    assert found >= {("damaged-file", "generations.db"), ("missing-vectors", "templates")}
    await db.close()


async def test_a_restore_makes_it_whole(filled: Filled, place: Place, tmp_path: Path) -> None:
    async with filled.place.open(**SETTINGS) as db:
        await back_up(db, tmp_path / "backup")
    schema_overwritten(place.folder / "generations.db")
    async with place.open(**SETTINGS) as db, place.open(**SETTINGS) as other:
        for each in (db, other):
            with refused("generations"):
                await count(each, "generations")
            await MemoryRepository(each).set("key", "value")
        await restore(db, tmp_path / "backup", replace=True)
        for each in (db, other):
            for name in NAMES:
                assert await contents(each, name) == filled.truth[name]
        for each in (db, other):
            for name in NAMES:
                await add_one(each, name)
        assert await count(db, "costs") == await count(other, "costs")


def test_figures(faults: Faults) -> None:
    faults.note(
        "Header or schema of one file destroyed: overwritten, another encoding, cut to 10 bytes or"
        " to a page, zeros, random bytes in the schema",
        where="SQLite",
        times=f"{len(WAYS)} ways with each of the six files",
        lost="nothing of the other five files, which are read and written as ever",
        seen="calls that need the file are told at once by a StorageError with its name; all goes"
        " on in the same process when a copy of it is put back",
    )
