from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pysqlite3 import dbapi2 as pysqlite
from sqlalchemy import text

from paracle_meta import (
    DatabaseBusyError,
    DatabaseSettings,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    MigrationError,
    ParacleMetaError,
    StorageError,
    Template,
    TemplateRepository,
)
from paracle_meta.exceptions import TransferError
from paracle_meta.testing import FakeEmbeddings
from paracle_meta.transfer import back_up, restore
from tests.search.collection import DIMENSIONS, Collection
from tests.transfer.stock import fill, folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TABLES = ("generations", "templates", "feedback", "costs", "memory", "best_practices")
ROOT = Path(__file__).parents[2]
WAIT = 60
"""Seconds for what takes less than one, on a machine that runs other tests too."""


async def contents(db: MetaDatabase) -> dict[str, list[Any]]:
    """All columns of all rows."""
    async with db.session() as session:
        found = {}
        for table in TABLES:
            rows = await session.execute(text(f"SELECT * FROM {table} ORDER BY id"))
            found[table] = [tuple(row) for row in rows]
        return found


async def contents_of(path: Path) -> dict[str, list[Any]]:
    async with folder(path) as db:
        return await contents(db)


async def add_generations(db: MetaDatabase, *ids: str) -> None:
    for record_id in ids:
        await GenerationRepository(db).add(
            GenerationResult(id=record_id, artifact_type="agent", name="n", content="x")
        )


async def generations(db: MetaDatabase) -> set[str]:
    return {record.id for record in await GenerationRepository(db).list(limit=10_000)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database that has rows of every kind, and its backup."""
    path = tmp_path_factory.mktemp("made")

    async def make() -> None:
        async with folder(path / "origin") as db:
            await fill(db)
            await back_up(db, path / "backup")

    asyncio.run(make())
    return path


@pytest.fixture
def backup(tmp_path: Path, made: Path) -> Path:
    """A backup, and beside it the folder of which it is."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "backup"


@contextlib.contextmanager
def worker(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a function of `backup_workers`; it is killed at the end of the block."""
    command = [sys.executable, "-W", "error", "-m", "tests.transfer.backup_workers", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the process has ended"
    return json.loads(line)


def rest_of(process: subprocess.Popen[str]) -> list[Any]:
    """Kill a process and return what it had said; a line is one write, so none is cut."""
    process.kill()
    assert process.stdout is not None
    return [json.loads(line) for line in process.stdout]


def names_in(path: Path) -> set[str]:
    return {inside.name for inside in path.iterdir()}


def kept_in(path: Path) -> list[Path]:
    """The whole backups of what was there before a restore."""
    return [manifest.parent for manifest in path.glob("before-restore-*/manifest.json")]


def rewrite_manifest(path: Path, changes: Mapping[str, Any]) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


# Backing up


async def test_a_backup_is_restored_elsewhere(tmp_path: Path) -> None:
    async with folder(tmp_path / "origin") as db:
        await fill(db)
        was = await contents(db)
        report = await back_up(db, tmp_path / "backup")
    assert report.counts == {table: len(rows) for table, rows in was.items()}
    assert all(report.counts.values())
    files = {file.name: file.stat().st_size for file in (tmp_path / "backup").iterdir()}
    # Whole by themselves: no log beside that could be forgotten.
    assert set(files) == {"manifest.json", *(f"{table}.db" for table in TABLES)}
    assert report.size == sum(files.values()) - files["manifest.json"]

    shutil.move(tmp_path / "backup", tmp_path / "moved")
    async with folder(tmp_path / "elsewhere" / "deep") as db:
        restored = await restore(db, tmp_path / "moved")
        assert await contents(db) == was
        assert await db.migrate() == []
        assert await db.vector_search("templates", "security review", mode="hybrid")
    assert (restored.counts, restored.created_at, restored.kept) == (
        report.counts,
        report.created_at,
        None,
    )


async def test_only_the_owner_may_read_a_backup(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with folder(tmp_path / "db") as db:
            await back_up(db, tmp_path / "backup")
            await add_generations(db, "one")
            kept = (await restore(db, tmp_path / "backup", replace=True)).kept
    finally:
        os.umask(before)
    assert kept is not None
    for path in (tmp_path / "backup", kept):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}


async def test_a_backup_belongs_to_one_moment_while_others_write(tmp_path: Path) -> None:
    async with folder(tmp_path / "db") as db:
        # Some time to copy, some 60 MB.
        await GenerationRepository(db).add_many(
            [
                GenerationResult(artifact_type="agent", name="n", content="z" * 60_000)
                for _ in range(1_000)
            ]
        )
        with worker("write", str(tmp_path / "db"), "wal") as writing:
            known = {said(writing) for _ in range(50)}
            steps: dict[str, list[int]] = {}
            begun = time.monotonic()
            await back_up(
                db,
                tmp_path / "backup",
                progress=lambda what, done, _: steps.setdefault(what, []).append(done),
            )
            took = time.monotonic() - begun
            # Writers went on meanwhile.
            assert len(rest_of(writing)) > 50
    assert took < WAIT / 4
    # No file was begun anew.
    assert steps.keys() == set(TABLES)
    assert len(steps["generations"]) > 10
    assert all(done == sorted(set(done)) for done in steps.values())
    async with folder(tmp_path / "restored") as db:
        await restore(db, tmp_path / "backup")
        stored = await generations(db)
        rated = {item.generation_id for item in await FeedbackRepository(db).list(limit=10_000)}
    assert known <= rated <= stored
    # Each writer is in between two of its writes.
    assert len(stored) - 1_000 - len(rated) <= 4


async def test_no_rating_is_ever_without_its_generation(tmp_path: Path) -> None:
    # A backup with one is refused.
    async with folder(tmp_path / "db") as db:
        with worker("write", str(tmp_path / "db"), "wal") as writing:
            said(writing)
            counts = [
                (await back_up(db, tmp_path / f"backup-{n}")).counts["feedback"] for n in range(15)
            ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


async def test_with_a_rollback_journal_too(tmp_path: Path) -> None:
    async with folder(tmp_path / "db", journal_mode="truncate") as db:
        with worker("write", str(tmp_path / "db"), "truncate") as writing:
            known = {said(writing) for _ in range(20)}
            await back_up(db, tmp_path / "backup")
            known |= set(rest_of(writing))
        await add_generations(db, "last")
        kept = (await restore(db, tmp_path / "backup", replace=True)).kept
        assert "last" not in await generations(db)
        assert kept is not None
        await restore(db, kept, replace=True)
        assert known | {"last"} <= await generations(db)


@pytest.mark.parametrize("taken", ["file", "folder", "link"])
async def test_a_backup_replaces_nothing(tmp_path: Path, taken: str) -> None:
    target = tmp_path / "backup"
    match taken:
        case "file":
            target.write_text("mine")
        case "folder":
            target.mkdir()
            (target / "mine").touch()
        case "link":
            target.symlink_to(tmp_path / "nowhere")
    async with folder(tmp_path / "db") as db:
        with pytest.raises(TransferError, match="never replaces anything"):
            await back_up(db, target)
    assert names_in(tmp_path) == {"backup", "db"}
    assert taken != "file" or target.read_text() == "mine"


async def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    async with folder(tmp_path / "db") as db:
        await back_up(db, str(tmp_path / "backup"))
        assert (await restore(db, str(tmp_path / "backup"))).kept is None


async def test_where_nothing_can_be_written_the_error_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with folder(tmp_path / "db") as db:
        with pytest.raises(StorageError, match="file/backup cannot be made or written"):
            await back_up(db, tmp_path / "file" / "backup")


async def test_a_backup_that_is_killed_leaves_nothing_under_its_name(
    tmp_path: Path, backup: Path
) -> None:
    with worker("killed_backup", str(tmp_path / "origin"), str(tmp_path / "other")) as process:
        assert process.wait(WAIT) == -signal.SIGKILL
    assert not (tmp_path / "other").exists()
    async with folder(tmp_path / "origin") as db:
        await back_up(db, tmp_path / "other")
        assert (await restore(folder(tmp_path / "new"), tmp_path / "other")).counts == (
            await restore(folder(tmp_path / "newer"), backup)
        ).counts


async def test_a_backup_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async with folder(tmp_path / "db") as db:
        await fill(db)
        begun = asyncio.Event()
        task = asyncio.create_task(
            back_up(db, tmp_path / "backup", progress=lambda *_: begun.set())
        )
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The thread has ended and nothing is locked.
        assert names_in(tmp_path) == {"db"}
        await add_generations(db, "one")


async def test_a_rating_of_nothing_is_named(tmp_path: Path) -> None:
    async with folder(tmp_path / "db") as db:
        await fill(db)
        with contextlib.closing(pysqlite.connect(tmp_path / "db" / "generations.db")) as alone:
            alone.execute("DELETE FROM generations WHERE id = 'gen-1'")
            alone.commit()
        with pytest.raises(TransferError, match="2 rows of feedback refer to generations"):
            await back_up(db, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    async with folder(tmp_path / "db") as db:
        await fill(db)
    with (tmp_path / "db" / "templates.db").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 8192)
    async with folder(tmp_path / "db") as db:
        with pytest.raises(StorageError, match=r"templates\.db is damaged"):
            await back_up(db, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


# Restoring


@pytest.mark.parametrize("name", [f"{table}.db" for table in TABLES])
async def test_a_flipped_bit_is_found(tmp_path: Path, backup: Path, name: str) -> None:
    data = bytearray((backup / name).read_bytes())
    data[len(data) // 2] ^= 1
    (backup / name).write_bytes(data)
    with pytest.raises(TransferError, match=f"{name} is damaged"):
        await restore(folder(tmp_path / "db"), backup)
    assert not any((await contents_of(tmp_path / "db")).values())


async def test_a_backup_that_is_not_whole_is_refused(tmp_path: Path, backup: Path) -> None:
    def broken(name: str) -> Path:
        shutil.copytree(backup, tmp_path / name)
        return tmp_path / name

    async def refused(path: Path, match: str, kind: type[ParacleMetaError] = TransferError) -> None:
        with pytest.raises(kind, match=match):
            await restore(folder(tmp_path / "db"), path)

    path = broken("without a file")
    (path / "costs.db").unlink()
    await refused(path, r"costs\.db is missing")
    path = broken("without a manifest")
    (path / "manifest.json").unlink()
    await refused(path, r"is no backup: it has no manifest\.json")
    for number, text_ in enumerate(["", "{", "[]", '{"format": 1}', '{"format": "x"}']):
        path = broken(f"garbage {number}")
        (path / "manifest.json").write_text(text_)
        await refused(path, r"manifest\.json is damaged")
    path = broken("other rows")
    rewrite_manifest(path, {"rows": dict.fromkeys(TABLES, 1)})
    await refused(path, "does not describe the files")
    path = broken("of the future")
    rewrite_manifest(path, {"format": 2})
    await refused(path, "made by a newer version")
    path = broken("with new tables")
    rewrite_manifest(path, {"revision": "9999"})
    await refused(path, "9999.*newer paracle_meta", MigrationError)
    path = broken("of another kind")
    rewrite_manifest(path, {"backend": "postgresql"})
    await refused(path, "is a backup of a postgresql database and this is a sqlite one")
    await refused(tmp_path / "nowhere", "is no backup")
    assert not any((await contents_of(tmp_path / "db")).values())


async def test_records_are_replaced_only_when_told_and_kept_then(
    tmp_path: Path, backup: Path
) -> None:
    async with folder(tmp_path / "db") as db:
        await MemoryRepository(db).set("key", 1)
        was = await contents(db)
        with pytest.raises(TransferError, match=r"holds records already.*--replace"):
            await restore(db, backup)
        assert await contents(db) == was
        report = await restore(db, backup, replace=True)
        assert await contents(db) == await contents_of(tmp_path / "origin")
        assert report.kept is not None
        assert report.kept.parent == tmp_path / "db"
        # What is kept is a backup too.
        await restore(db, report.kept, replace=True)
        assert await contents(db) == was


async def test_a_restore_goes_on_beside_a_process_that_searches_and_writes(
    tmp_path: Path, backup: Path
) -> None:
    async with folder(tmp_path / "db") as db:
        await TemplateRepository(db).add(
            Template(id="tpl-old", name="n", artifact_type="agent", content="security review")
        )
        with worker("live", str(tmp_path / "db")) as living:
            acknowledged: list[str] = []
            while len(acknowledged) < 20:
                record_id, found = said(living)
                acknowledged.append(record_id)
                assert found == ["tpl-old"]
            report = await restore(db, backup, replace=True)
            # It has seen nothing but the new records soon, and has not noticed anything else.
            while "tpl-old" in (answer := said(living))[1]:
                acknowledged.append(answer[0])
            acknowledged.append(answer[0])
            for _ in range(20):
                record_id, found = said(living)
                acknowledged.append(record_id)
                assert found
                assert "tpl-old" not in found
            assert living.poll() is None
        now = await generations(db)
    assert report.kept is not None
    await restore(folder(tmp_path / "kept"), report.kept)
    async with folder(tmp_path / "kept") as db:
        before = await generations(db)
    # Whatever was acknowledged is in the one or in the other.
    assert set(acknowledged) <= before | now
    assert before & now == set()
    assert set(acknowledged) & before
    assert set(acknowledged) & now


async def test_a_killed_restore_leaves_the_old_or_the_new(tmp_path: Path, backup: Path) -> None:
    places = tmp_path / "places"
    async with folder(tmp_path / "db") as db:
        await add_generations(db, "old")
        await FeedbackRepository(db).add(Feedback(generation_id="old", rating=1))
        old = await contents(db)
    new = await contents_of(tmp_path / "origin")
    ends = []
    arguments = ("killed_restores", str(tmp_path / "db"), str(backup), str(places))
    with worker(*arguments) as process:
        killed = True
        while killed:
            target, killed = said(process)
            async with folder(Path(target)) as db:
                found = await contents(db)
                assert found in (old, new)
                # And it can be used.
                await add_generations(db, "more")
            if found == new:
                (kept,) = kept_in(Path(target))
            assert ".restore.json" not in names_in(Path(target))
            ends.append(found == new)
    # One point divides them.
    assert ends == sorted(ends)
    assert 10 < ends.index(True) < len(ends) - 5
    assert await _holds(kept, tmp_path / "kept") == old


async def _holds(backup: Path, into: Path) -> dict[str, list[Any]]:
    await restore(folder(into), backup)
    return await contents_of(into)


async def test_a_restore_that_was_killed_is_finished_by_the_next_one(
    tmp_path: Path, backup: Path
) -> None:
    async with folder(tmp_path / "db") as db:
        await add_generations(db, "old")
        other = await back_up(db, tmp_path / "other")
    # As it is left between two of the six commits.
    shutil.copytree(backup, tmp_path / "db" / ".restore-x")
    (tmp_path / "db" / ".restore.json").write_text('{"copy": ".restore-x", "move_to": null}')
    report = await restore(folder(tmp_path / "db"), other.folder, replace=True)
    async with folder(tmp_path / "db") as db:
        assert await generations(db) == {"old"}
    assert report.kept is not None
    assert await _holds(report.kept, tmp_path / "kept") == await contents_of(tmp_path / "origin")


async def test_a_cancelled_restore_changes_nothing(tmp_path: Path, backup: Path) -> None:
    async with folder(tmp_path / "db") as db:
        await add_generations(db, "old")
        was = await contents(db)
        begun = asyncio.Event()
        task = asyncio.create_task(
            restore(db, backup, replace=True, progress=lambda *_: begun.set())
        )
        with contextlib.closing(pysqlite.connect(tmp_path / "db" / "costs.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await contents(db) == was
        assert list((tmp_path / "db").glob(".restore*")) == []


async def test_a_writer_that_does_not_end_is_waited_for_and_named(
    tmp_path: Path, backup: Path
) -> None:
    async with folder(tmp_path / "db", busy_timeout=0.2) as db:
        await add_generations(db, "old")
        was = await contents(db)
        with contextlib.closing(pysqlite.connect(tmp_path / "db" / "costs.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseBusyError, match="busy_timeout"):
                await restore(db, backup, replace=True)
        assert await contents(db) == was
        await restore(db, backup, replace=True)


async def test_a_damaged_database_is_replaced_when_told(tmp_path: Path, backup: Path) -> None:
    async with folder(tmp_path / "db") as db:
        await add_generations(db, "old")
    garbage = b"no database" * 1_000
    (tmp_path / "db" / "generations.db").write_bytes(garbage)
    with pytest.raises(StorageError, match="damaged"):
        await contents_of(tmp_path / "db")
    with pytest.raises(TransferError, match=r"damaged.*--replace"):
        await restore(folder(tmp_path / "db"), backup)
    report = await restore(folder(tmp_path / "db"), backup, replace=True)
    assert await contents_of(tmp_path / "db") == await contents_of(tmp_path / "origin")
    assert report.kept is not None
    assert (report.kept / "generations.db").read_bytes() == garbage


async def test_a_file_that_was_lost_is_restored(tmp_path: Path, backup: Path) -> None:
    async with folder(tmp_path / "db") as db:
        await fill(db)
    (tmp_path / "db" / "feedback.db").unlink()
    report = await restore(folder(tmp_path / "db"), backup, replace=True)
    assert await contents_of(tmp_path / "db") == await contents_of(tmp_path / "origin")
    assert report.kept is not None
    assert (report.kept / "generations.db").stat().st_size


async def test_pages_may_be_of_another_size(tmp_path: Path, backup: Path) -> None:
    async with folder(tmp_path / "db"):
        pass
    for file in (tmp_path / "db").glob("*.db"):
        with contextlib.closing(pysqlite.connect(file, isolation_level=None)) as alone:
            alone.executescript("PRAGMA journal_mode = delete; PRAGMA page_size = 8192; VACUUM;")
    await restore(folder(tmp_path / "db"), backup)
    assert await contents_of(tmp_path / "db") == await contents_of(tmp_path / "origin")


@pytest.mark.usefixtures("backup")
async def test_a_backup_of_an_older_version_is_migrated(tmp_path: Path) -> None:
    from paracle_meta.backends.sqlite.files import SCHEMAS
    from paracle_meta.migrations import HEAD, runner

    origin = DatabaseSettings(sqlite_dir=tmp_path / "origin", auto_migrate=False)
    async with MetaDatabase(origin) as db:
        was = await contents(db)
        backend: Any = await db.backend()
        await backend._session_factory().run(
            lambda connection: runner.downgrade(connection, SCHEMAS, "0003")
        )
        report = await back_up(db, tmp_path / "older")
    assert report.revision == "0003"
    by_hand = MetaDatabase(DatabaseSettings(sqlite_dir=tmp_path / "by hand", auto_migrate=False))
    await restore(by_hand, tmp_path / "older")
    with pytest.raises(MigrationError, match="auto_migrate"):
        await by_hand.open()
    assert (await by_hand.migrate())[-1] == HEAD
    async with folder(tmp_path / "db") as db:
        await restore(db, tmp_path / "older")
        assert await contents(db) == was
        assert (await db.status()).revision == HEAD


# Vectors


def vectors_of(path: Path) -> MetaDatabase:
    return MetaDatabase(
        DatabaseSettings(sqlite_dir=path, index_in_background=False),
        embeddings=FakeEmbeddings(DIMENSIONS),
    )


def unit(number: int) -> np.ndarray[Any, Any]:
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    vector[number] = 1
    return vector


async def nearest(db: MetaDatabase, vector: np.ndarray[Any, Any]) -> list[str]:
    return [match.id for match in await db.vector_search("templates", vector=vector, top_k=3)]


async def test_an_index_of_what_was_replaced_answers_nothing(tmp_path: Path) -> None:
    async with vectors_of(tmp_path / "db") as db, vectors_of(tmp_path / "db") as other:
        collection = Collection(db)
        await collection.fill()
        await back_up(db, tmp_path / "backup")
        query = collection.vectors["tpl-7"] if "tpl-7" in collection.vectors else unit(3)
        truth = collection.nearest(query, 3)
        # Another future: the closest ones go, others come, and an index is made of that.
        for record_id in truth:
            await TemplateRepository(db).delete(record_id)
        assert (await db.build_index("templates"))["templates"]
        for one in (db, other):
            assert truth[0] not in await nearest(one, query)

        await restore(db, tmp_path / "backup", replace=True)
        for one in (db, other):
            assert await nearest(one, query) == truth
        # Made anew, it answers, and what comes after is found.
        assert (await db.build_index("templates"))["templates"]
        for one in (db, other):
            assert await nearest(one, query) == truth


async def test_what_is_held_in_memory_is_not_taken_for_what_was_restored(tmp_path: Path) -> None:
    # As many changes before the restore as after it: a log that counted on from the backup would
    # come to the very number that the other process knows.
    async def add(db: MetaDatabase, name: str, vector: np.ndarray[Any, Any]) -> None:
        await TemplateRepository(db).add(
            Template(id=name, name=name, artifact_type="agent", content="c", embedding=vector)
        )

    async with vectors_of(tmp_path / "db") as db, vectors_of(tmp_path / "db") as holding:
        await add(db, "first", unit(0))
        await back_up(db, tmp_path / "backup")
        for _ in range(2):
            await add(db, "before", unit(1))
            assert await nearest(holding, unit(1)) == ["before", "first"]
            await restore(db, tmp_path / "backup", replace=True)
            await add(db, "after", unit(2))
            assert await nearest(holding, unit(2)) == ["after", "first"]
            await TemplateRepository(db).delete("after")
