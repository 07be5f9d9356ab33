"""SQLite files that are read-only, damaged, of another kind or on a full disk, and their rights."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from paracle_meta import (
    CostRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    StorageError,
)
from tests.faults.cancelling import assert_no_locks, assert_nothing_open
from tests.faults.places import NAMES, Place, unsound_files
from tests.faults.processes import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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
    db = filled.open(**PLAIN)
    with pytest.raises(StorageError, match=f"{named}.*damaged.*restore it from a backup"):
        await GenerationRepository(db).list()
    await db.close()
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


async def test_a_file_that_is_missing_is_made_again_and_the_others_kept(filled: Place) -> None:
    for path in filled.folder.glob("generations.db*"):
        path.unlink()
    async with filled.open(**PLAIN) as db:
        assert await GenerationRepository(db).count() == 0
        assert await CostRepository(db).count() == 1


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
def test_what_may_not_be_written(filled: Place) -> None:
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
@pytest.mark.parametrize("umask", [0o000, 0o077])
async def test_only_the_owner_may_read_whatever_the_umask(sqlite: Place, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with sqlite.open(**PLAIN) as db:
            await MemoryRepository(db).set("key", "value")
            async with db.session() as session:
                await session.execute("UPDATE costs SET model = 'm'")
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode) for path in sqlite.folder.iterdir()
            }
    finally:
        os.umask(before)
    assert stat.S_IMODE(sqlite.folder.stat().st_mode) == 0o700
    wanted = {f"{name}.db{suffix}" for name in NAMES for suffix in ("", "-wal", "-shm")}
    assert modes.keys() >= wanted
    assert {name for name in modes if modes[name] != 0o600} - {".migrate.lock"} == set()
