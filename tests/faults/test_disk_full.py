"""Disks that become full: at every write in turn, and real small ones that fill up."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    StorageError,
    Template,
    TemplateRepository,
    TransferError,
)
from paracle_meta.transfer import back_up, export_jsonl
from paracle_meta.transfer import restore as restore_backup
from tests.faults.cancelling import assert_no_locks
from tests.faults.places import Place, unsound_files
from tests.faults.processes import Worker
from tests.postgres import SERVER_USER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.figures import Faults
    from tests.postgres import PostgresServer

MIB = 1024 * 1024
WITHOUT_VECTORS = {"enable_vectors": False}
NEXT = ("make room", "it has room")
"""What to do next, as the messages say it."""


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes a disk full, compiled."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("a disk that is full from a certain write on needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("full") / "full.so"
    source = Path(__file__).with_name("files_full.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.mark.timeout(1_200)  # Of the long form, which makes a database five hundred times.
@pytest.mark.parametrize("made", ["before", "on the full disk"])
async def test_every_write_in_turn_is_the_first_that_has_no_room(
    sqlite: Place,
    tmp_path: Path,
    filling: Path,
    made: str,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = ""
    if made == "before":
        template = str(sqlite.folder)
        async with sqlite.open():
            """Only its files are needed."""
    monkeypatch.setenv("LD_PRELOAD", str(filling))
    arguments = (template, str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    refused, read, words = 0, 0, set()
    with Worker("write_until_full", *arguments, module="files_workers") as worker:
        # With room for all of it: how many writes there are.
        calls = worker.ask(1_000_000)["calls"]
        assert calls > 20
        steps = range(0, calls, faults.times(calls // 8, 1 if template else 3))
        for number in steps:
            answer = worker.ask(number)
            # A write that is not needed for what is acknowledged, as in a checkpoint, may fail.
            if answer["error"] is not None:
                refused += 1
                words.add(answer["error"].partition(" of ")[0])
                assert answer["error"].startswith("StorageError: "), (number, answer)
                assert any(word in answer["error"] for word in NEXT), (number, answer)
            assert answer["more"]
            assert (answer["lost"], answer["unsound"]) == ([], {}), (number, answer)
            read += answer["read"]
    assert refused > len(steps) // 2
    faults.note(
        f"Disk full (ENOSPC, half a write) from the n-th write or sync on; database made {made}",
        where="SQLite",
        times=f"{len(steps):,} points of {calls:,}",
        lost="0 acknowledged rows, 0 unsound files",
        seen=f"{refused:,} times a StorageError at once, {read:,} acknowledged rows read while it"
        " was full; writes went on each time there was room again",
    )


@pytest.fixture
def small_disks(tmp_path: Path) -> Iterator[Any]:
    """A function that mounts a disk of its own with so many MiB."""
    mounted: list[Path] = []

    def mount(size: int, below: Path = tmp_path) -> Path:
        folder = below / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)]
        if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk of its own can only be mounted by the superuser of a Linux")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        # Lazily: an index may be mapped until its memory is collected.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(disk: Path) -> Path:
    """Leave no room on a disk and return the file that takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (MIB, 4_096, 1):
            try:
                while file.write(b"x" * size):
                    """Some more."""
            except OSError:
                """Not so much at once any more."""
    return ballast


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}m", str(disk)], check=True)


async def test_a_real_disk_fills_up_and_gets_room_again_and_again(
    small_disks: Any, faults: Faults
) -> None:
    disk = small_disks(4)
    place = Place(settings={"sqlite_dir": str(disk / "files")})
    rounds = faults.times(3, 20)
    stored = 0
    async with place.open(**WITHOUT_VECTORS) as db:
        memory = MemoryRepository(db)
        generations = GenerationRepository(db)
        for number in range(rounds):
            resize(disk, 4 + number * 2)
            with pytest.raises(StorageError, match="full; make room"):  # noqa: PT012 - until it is
                while True:
                    await memory.set(f"{stored}", "x" * 100_000)
                    stored += 1
            # The other files can be read as well, and what has room is written.
            assert await memory.count() == stored
            assert await generations.count() == number
            assert_no_locks(place)
            resize(disk, 5 + number * 2)
            await generations.add(GenerationResult(artifact_type="a", name="n", content="c"))
    resize(disk, 6 + rounds * 2)
    assert unsound_files(place.folder) == {}
    faults.note(
        "A real small file system (tmpfs) fills up and gets more room",
        where="SQLite",
        times=f"{rounds} times, {stored:,} rows",
        lost="0 acknowledged rows, 0 unsound files",
    )


async def test_files_that_are_written_to_a_full_disk_leave_nothing_behind(
    small_disks: Any, sqlite: Place, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export, a backup, a restore and a vector index."""
    monkeypatch.setattr("paracle_meta.backends.sqlite.vectors.INDEX_FROM", 100)
    disk = small_disks(4)
    own = Place(settings={"sqlite_dir": str(disk / "files")})
    async with sqlite.open() as db:
        templates = [
            Template(id=f"tpl-{n}", artifact_type="a", name="n", content="x" * 5_000)
            for n in range(300)
        ]
        await TemplateRepository(db).add_many(templates)
        ballast = fill_up(disk)
        with pytest.raises(TransferError, match="No space left"):
            await export_jsonl(db, disk / "export.jsonl")
        with pytest.raises(StorageError, match="make room"):
            await back_up(db, disk / "backup")
        assert list(disk.iterdir()) == [ballast]
        await back_up(db, disk.parent / "backup")
        ballast.unlink()
    async with own.open(index_in_background=False) as db:
        fill_up(disk)
        with pytest.raises(StorageError, match="room"):
            await restore_backup(db, disk.parent / "backup", replace=True)
        assert await TemplateRepository(db).count() == 0
        resize(disk, 16)
        await restore_backup(db, disk.parent / "backup", replace=True)
        assert await TemplateRepository(db).count() == len(templates)
        fill_up(disk)
        before = sorted(path.name for path in own.folder.rglob("*"))
        with pytest.raises(StorageError, match="room"):
            await db.build_index("templates")
        after = sorted(path.name for path in own.folder.rglob("*"))
        assert {name for name in set(after) - set(before) if not name.startswith(".")} <= {
            "index", "templates",
        }  # fmt: skip
        # A search compares every row then.
        assert len(await db.vector_search("templates", "x", 10)) == 10
        resize(disk, 32)
        assert (await db.build_index("templates"))["templates"] == len(templates)
        assert len(await db.vector_search("templates", "x", 10)) == 10
    faults.note(
        "Export, backup, restore and vector index onto a full disk (tmpfs)",
        where="SQLite",
        times="4 of them, once each",
        lost="0 rows, no partial file under its name",
        seen="each again as soon as there was room",
    )


async def test_a_full_disk_below_postgresql(
    small_disks: Any, server: PostgresServer, faults: Faults
) -> None:
    disk = small_disks(24, server.folder)
    shutil.chown(disk, SERVER_USER)
    space = f"small_{id(disk)}"
    server.sql(f"CREATE TABLESPACE {space} LOCATION '{disk}'")
    name = server.create_database()
    server.sql(f"ALTER DATABASE {name} SET TABLESPACE {space}")
    place = Place(settings={"postgres_url": server.url_of(name)}, server=server, database=name)
    stored = 0
    try:
        async with place.open(**WITHOUT_VECTORS) as db:
            memory = MemoryRepository(db)
            # What cannot be packed, as the server packs long values.
            text = "".join(f"{n * n:x}" for n in range(20_000))
            with pytest.raises(StorageError, match="room"):  # noqa: PT012 - until it is full
                while True:
                    await memory.set(f"{stored}", text)
                    stored += 1
            assert await memory.count() == stored
            resize(disk, 64)
            await memory.set("more", text)
            assert await memory.count() == stored + 1
    finally:
        resize(disk, 64)
        server.sql(f"DROP DATABASE {name} WITH (FORCE)")
        server.sql(f"DROP TABLESPACE {space}")
    faults.note(
        "A real small file system below PostgreSQL fills up",
        where="PostgreSQL",
        times=f"once, {stored:,} rows",
        lost="0 acknowledged rows",
        seen="writes went on when there was room again",
    )
