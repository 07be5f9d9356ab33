"""SQLite files that are read-only, damaged, of another kind or on a full disk, and their rights."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from paracle_meta import (
    BestPracticeRepository,
    CostRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    StorageError,
)
from paracle_meta.transfer import back_up, export_jsonl, restore
from tests.faults.cancelling import assert_no_locks, assert_nothing_open
from tests.faults.files_damage import (
    Outcome,
    contents,
    copy,
    damage,
    fill,
    look,
    noticed,
)
from tests.faults.places import NAMES, Place, unsound_files
from tests.faults.processes import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.figures import Faults

PLAIN = {"enable_vectors": False}
DISK = 3 * 1024 * 1024


@pytest.fixture
async def filled(sqlite: Place) -> Place:
    async with sqlite.open(**PLAIN) as db:
        await GenerationRepository(db).add(
            GenerationResult(artifact_type="agent", name="n", content="c" * 20_000)
        )
        await CostRepository(db).record("p", "m")
        await MemoryRepository(db).set("key", "value")
    return sqlite


def overwritten(path: Path) -> None:
    path.write_text("This is a letter and no database. " * 1_000)


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(6_000)


def first_page_damaged(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)  # After the header: the file is still taken for a database.
        file.write(b"\xff" * 3_000)


def table_damaged(place: Place, name: str) -> None:
    """Overwrite the page at which a table begins."""
    ((page, size),) = place.rows(
        f"SELECT rootpage, page_size FROM {name}.sqlite_master, pragma_page_size"
        f" WHERE name = '{name}'"
    )
    with (place.folder / f"{name}.db").open("r+b") as file:
        file.seek((int(page) - 1) * int(size))
        file.write(b"\xff" * int(size))


@pytest.mark.parametrize(
    ("damage", "named"),
    [(overwritten, r"costs\.db"), (cut_short, r"costs\.db"), (first_page_damaged, r"costs\.db")],
)
async def test_a_damaged_file_is_told_at_once(
    filled: Place, damage: Callable[[Path], None], named: str
) -> None:
    damage(filled.folder / "costs.db")
    async with filled.open(**PLAIN) as db:
        with pytest.raises(StorageError, match=f"{named}.*damaged.*restore it from a backup"):
            await CostRepository(db).count()
        # The others are there, see `test_damaged_file`.
        assert await GenerationRepository(db).count() == 1
    assert_nothing_open(filled)


async def test_with_damage_in_one_file_the_others_can_be_read(filled: Place) -> None:
    table_damaged(filled, "memory")
    async with filled.open(**PLAIN) as db:
        for use in (MemoryRepository(db).get("key"), MemoryRepository(db).set("key", 1)):
            with pytest.raises(StorageError, match=r"damaged.*restore it from a backup"):
                await use
        assert await CostRepository(db).count() == 1
        assert len(await GenerationRepository(db).list()) == 1
        await CostRepository(db).record("p", "m")


async def test_a_file_that_is_gone_is_made_again_only_where_that_is_asked_for(
    filled: Place,
) -> None:
    for path in filled.folder.glob("generations.db*"):
        path.unlink()
    db = filled.open(**PLAIN)
    with pytest.raises(StorageError, match=r"generations\.db is gone.*paracle meta db migrate"):
        await CostRepository(db).count()
    assert not (filled.folder / "generations.db").exists()
    await db.migrate()
    assert await GenerationRepository(db).count() == 0
    assert await CostRepository(db).count() == 1
    await db.close()


async def test_a_file_in_place_of_the_folder(sqlite: Place) -> None:
    sqlite.folder.write_text("in the way")
    db = sqlite.open(**PLAIN)
    with pytest.raises(StorageError, match="sqlite_dir"):
        await db.open()
    await db.close()
    assert sqlite.folder.read_text() == "in the way"


async def test_a_folder_in_place_of_a_file(filled: Place) -> None:
    path = filled.folder / "memory.db"
    path.unlink()
    path.mkdir()
    db = filled.open(**PLAIN)
    with pytest.raises(StorageError, match=r"memory\.db|cannot be opened"):
        await db.open()
    await db.close()


@contextmanager
def read_only(*paths: Path) -> Iterator[None]:
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.skipif(sys.platform == "win32", reason="rights are another matter on Windows")
def test_what_may_not_be_written(filled: Place, faults: Faults) -> None:
    # In a process of its own, which gives up what lets the superuser write everywhere.
    with Worker("write_without_rights", filled.given(**PLAIN)) as worker:
        assert worker.receive() == "ready"
        with read_only(filled.folder / "costs.db"):
            answers = worker.ask()
            assert answers["costs"].startswith("StorageError: ")
            assert "check the rights" in answers["costs"]
            assert {answers["read"], answers["memory"]} == {"done"}
        with read_only(filled.folder, *filled.folder.iterdir()):
            answers = worker.ask()
            assert answers["costs"].startswith("StorageError: ")
            assert answers["memory"].startswith("StorageError: ")
        for path in filled.folder.iterdir():
            path.chmod(0o600)  # SQLite gives the logs that it makes the rights of their database.
        answers = worker.ask()
        assert set(answers.values()) == {"done"}
    faults.note(
        "A read-only file, then a read-only folder, without the superuser's rights",
        where="SQLite",
        times="once each, with reads and writes of new connections",
        lost="0 rows",
        seen="writes refused at once by a StorageError that names the rights; reads and writes of"
        " the other files go on; all goes on when the rights are back",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="rights are another matter on Windows")
def test_a_folder_that_may_not_be_made(tmp_path: Path) -> None:
    place = Place(settings={"sqlite_dir": str(tmp_path / "locked" / "files")})
    (tmp_path / "locked").mkdir()
    with Worker("write_without_rights", place.given(**PLAIN)) as worker:
        assert worker.receive() == "ready"
        with read_only(tmp_path / "locked"):
            answers = worker.ask()
        for words in answers.values():
            assert words.startswith("StorageError: ")
            assert "sqlite_dir" in words


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with little room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk of its own can only be mounted by the superuser of a Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def make_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,size={4 * DISK}", str(disk)], check=True)


async def test_a_full_disk(small_disk: Path) -> None:
    place = Place(settings={"sqlite_dir": str(small_disk / "files")})
    async with place.open(**PLAIN) as db:
        memory = MemoryRepository(db)
        kept = await CostRepository(db).record("p", "m")
        stored = 0
        with pytest.raises(StorageError, match="full; make room"):  # noqa: PT012 - until it is
            while True:
                await memory.set(f"{stored}", "x" * 50_000)
                stored += 1
        # What was acknowledged is there, the rest is not, and reading goes on.
        assert stored > 5
        assert await memory.count() == stored
        assert await CostRepository(db).get(kept.id) == kept
        assert_no_locks(place)
        make_room(small_disk)
        await memory.set("more", "x" * 50_000)
        assert await memory.count() == stored + 1
    assert unsound_files(place.folder) == {}


async def test_a_disk_that_is_full_before_the_files_are_made(small_disk: Path) -> None:
    place = Place(settings={"sqlite_dir": str(small_disk / "files")})
    ballast = small_disk / "ballast"
    try:
        ballast.write_bytes(b"x" * DISK)
    except OSError:
        """It is full now."""
    db = place.open(**PLAIN)
    with pytest.raises(StorageError, match=r"full; make room|cannot be made"):
        await db.open()
    await db.close()
    ballast.unlink()
    async with db:
        await CostRepository(db).record("p", "m")
    assert unsound_files(place.folder) == {}


def test_a_write_that_the_system_refuses(sqlite: Place) -> None:
    # As with a full disk, for those who cannot mount one.
    with Worker("write_up_to_a_size", sqlite.given(**PLAIN), 500_000) as worker:
        answer = worker.receive()
        assert answer["error"].startswith("StorageError: ")
        assert answer["stored"] == answer["count"]
        assert answer["costs"] == 1
    assert unsound_files(sqlite.folder) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="rights are another matter on Windows")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_only_the_owner_may_read_whatever_the_umask(
    sqlite: Place, tmp_path: Path, umask: int, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paracle_meta.backends.sqlite.vectors.INDEX_FROM", 10)
    backup, export = tmp_path / "backup", tmp_path / "export"
    modes: dict[str, int] = {}

    def look_at(folder: Path) -> None:
        for path in (folder, *folder.rglob("*")):
            if path.suffix != ".sock":
                modes[str(path.relative_to(tmp_path))] = stat.S_IMODE(path.stat().st_mode)

    before = os.umask(umask)
    try:
        async with sqlite.open(index_in_background=False) as db:
            await fill(db)
            assert await db.build_index("templates")
            await db.reembed("best_practices")
            async with db.session(write=True) as session:
                for name in NAMES:
                    await session.execute(f"UPDATE {name} SET id = id")
            look_at(sqlite.folder)
            await back_up(db, backup)
            await export_jsonl(db, f"{export}/")
            await export_jsonl(db, tmp_path / "one.jsonl")
            await restore(db, backup, replace=True)
            look_at(sqlite.folder)
    finally:
        os.umask(before)
    look_at(backup)
    look_at(export)
    modes["one.jsonl"] = stat.S_IMODE((tmp_path / "one.jsonl").stat().st_mode)
    wanted = {f"files/{name}.db{suffix}" for name in NAMES for suffix in ("", "-wal", "-shm")}
    assert modes.keys() >= wanted
    assert any("graph" in name for name in modes)
    wide = {name: oct(mode) for name, mode in modes.items() if mode not in (0o600, 0o700)}
    assert wide == {}
    faults.note(
        f"Rights of files and folders (database, logs, index, locks, backup, export, what a restore"
        f" kept) under umask {umask:03o}",
        where="SQLite",
        times=f"{len(modes)} of them",
        lost=f"{len(wide)} that others may read",
    )


async def test_damage_at_random_places(sqlite: Place, tmp_path: Path, faults: Faults) -> None:
    """Never another error than ours, and never any harm to the other five files."""
    chance = random.Random(7)  # The same damage each time.
    async with sqlite.open(index_in_background=False) as db:
        await fill(db)
    async with sqlite.open(index_in_background=False) as db:
        truth = {name: await contents(db, name) for name in NAMES}
        # While it is open, so that there are logs too, which have the newest of each file.
        await BestPracticeRepository(db).update(
            (await BestPracticeRepository(db).list(limit=1))[0].id, title="changed"
        )
        await CostRepository(db).update(
            (await CostRepository(db).list(limit=1))[0].id, model="changed"
        )
        truth |= {name: await contents(db, name) for name in ("best_practices", "costs")}
        open_copy = copy(sqlite.folder, tmp_path / "open").folder
    at_rest = sqlite.folder
    times = faults.times(14, 200)
    counts: Counter[str] = Counter()
    wrong: list[tuple[str, Outcome]] = []
    for number in range(times):
        place = copy(open_copy if number % 2 else at_rest, tmp_path / f"{number}")
        name = chance.choice(NAMES)
        files = [path for path in place.folder.glob(f"{name}.db*") if path.stat().st_size]
        what = damage(chance.choice(sorted(files)), chance)
        outcome = await look(place, truth)
        if outcome.refused:
            counts["told"] += 1
            # Where nothing of the file can be read, the message names it.
            counts["left out"] += f"{name}.db" in outcome.refused.get(name, "")
        elif f"{name}.db-" in what:
            # SQLite's logs have checksums: what is damaged and all after it never happened.
            counts["log"] += 1
        elif not outcome.changed:
            counts["harmless"] += 1
        else:
            counts["noticed" if noticed(place.folder) else "silent"] += 1
        if outcome.raw or not {*outcome.refused, *outcome.changed} <= {name}:
            wrong.append((what, outcome))
        shutil.rmtree(place.folder)
    assert wrong == [], "\n".join(f"{what}: {outcome}" for what, outcome in wrong)
    faults.note(
        "One file damaged at a random place: a bit, bytes, a page, zeros, cut off; header, pages,"
        " log and its index",
        where="SQLite",
        times=f"{times:,} times",
        lost="nothing of the other five files",
        seen=f"{counts['told']} told at once by a StorageError"
        f" ({counts['left out']} of them with the file's name, where nothing of it can be read; the"
        f" other five are read and written meanwhile); {counts['log']} in a log, from whose"
        f" damaged place on SQLite leaves out what is newer without a word; {counts['harmless']}"
        f" where nothing stands or that is never read; {counts['noticed']} changed a value"
        f" and are noticed by integrity_check (every backup runs it), {counts['silent']} changed"
        " a value silently: SQLite has no checksums of rows",
    )
