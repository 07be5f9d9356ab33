"""A writer to SQLite whose machine loses its power: what was acknowledged is kept.

The calls of a writer are recorded and made again on a disk that forgets what was not synced; see
``power_disk``.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from paracle_meta import TemplateRepository
from paracle_meta.transfer import restore
from tests.faults.killed_ledger import Ledger, halves
from tests.faults.places import NAMES, Place, sqlite_rows, unsound_files
from tests.faults.power_disk import SHARED_MEMORY, Call, Disk, read_calls
from tests.faults.processes import Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.faults.figures import Faults

RECORDER = Path(__file__).with_name("power_recorder.c")

OPENINGS = 3

SECTOR = 512
PAGE = 4096
"""What old and new disks write as a whole."""


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that records the calls of a process in which it is loaded first."""
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C compiler (cc), to record the calls of a process")
    library = tmp_path_factory.mktemp("recorder") / "recorder.so"
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", library, RECORDER, "-ldl", "-lpthread"],
        check=True,
    )
    return library


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: the disk below is not the one that is tested."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as folder:
        yield Path(folder)


class Record:
    """Runs processes, one after the other, and keeps their calls.

    Args:
        recorder: See the fixture.
        folder: Where to make the disk.
        monkeypatch: Says in the environment what to record.
    """

    def __init__(self, recorder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir(parents=True)
        self.was_killed = False
        self._acknowledged = self.disk / "acknowledged"
        self._file = 0
        self._recorder = recorder
        self._log = folder / "calls"
        self._monkeypatch = monkeypatch

    def run(
        self,
        function: str,
        settings: Mapping[str, object],
        *arguments: object,
        killed_at_sync: int | None = None,
    ) -> list[Call]:
        """Run a function of ``power_writer`` on the disk and return all calls so far.

        Args:
            function: Which one.
            settings: Of the database, but for its folder.
            *arguments: What it takes besides the settings and the file of what was acknowledged.
            killed_at_sync: Kill it as it begins so many syncs; it need not make so many.
        """
        with self._monkeypatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(self._recorder))
            patch.setenv("POWER_FOLDER", str(self.disk))
            patch.setenv("POWER_LOG", str(self._log))
            if killed_at_sync is not None:
                patch.setenv("POWER_KILL", str(killed_at_sync))
            worker = Worker(
                function,
                self.place(settings).settings,
                str(self._acknowledged),
                *arguments,
                module="power_writer",
            )
        with worker:
            if killed_at_sync is not None:
                worker.process.communicate()
                self.was_killed = worker.process.returncode == -9
                assert self.was_killed or worker.process.returncode == 0, worker.errors
        self._file = self._acknowledged.stat().st_ino
        calls = list(read_calls(self._log))
        disk = Disk(self.disk)
        for call in calls:
            disk.take(call)
        # A way to write that is not recorded would make every cut a test of nothing.
        assert disk.undisturbed() == {
            str(path.relative_to(self.disk)): path.read_bytes()
            for path in self.disk.rglob("*")
            if path.is_file() and not path.name.endswith(SHARED_MEMORY)
        }
        return calls

    def acknowledges(self, call: Call) -> bool:
        """Whether a call is the writing of a line of what was acknowledged."""
        return call.what == "w" and call.file == self._file

    def place(self, settings: Mapping[str, object]) -> Place:
        """Return the database on the disk."""
        return Place(settings={**settings, "sqlite_dir": str(self.disk / "files")})


def _cuts(calls: Sequence[Call], count: int, chance: random.Random) -> list[int]:
    """Return after how many calls the power goes.

    Most calls write a page. So half of the cuts are just before or after one of the others, each of
    which decides more.
    """
    others = [number for number, call in enumerate(calls) if call.what != "w"]
    beside = {number + after for number in others for after in (0, 1)}
    chosen = set(chance.sample(sorted(beside), count // 2))
    rest = sorted(set(range(len(calls) + 1)) - chosen)
    return sorted(chosen | set(chance.sample(rest, count - len(chosen))))


def _arrivals(disk: Disk, chance: random.Random) -> list[tuple[int, int | None]]:
    """Return what may arrive of what was not synced: how many names, and sectors of what size."""
    some = chance.randint(0, disk.pending_names)
    # Nothing; names without content; some of both.
    return [(0, None), (disk.pending_names, None), (some, SECTOR), (some, PAGE)]


async def _look_after_a_cut(
    disk: Disk,
    place: Place,
    ledger: Ledger,
    *,
    names: int,
    sector: int | None,
    chance: random.Random,
) -> set[str]:
    """Open what is there after a cut as any program would, and see that nothing is lost.

    Args:
        disk: Whose power goes.
        place: Where to put what is there, in a folder of its own.
        ledger: What was acknowledged before.
        names: See `Disk.cut`.
        sector: See `Disk.cut`.
        chance: See `Disk.cut`.

    Returns:
        What `halves` does.
    """
    disk.cut(names=names, sector=sector, chance=chance)
    async with place.open() as db:
        templates = await TemplateRepository(db).find_similar("d", 1_000)
    assert unsound_files(place.folder) == {}
    assert ledger.lost(place.folder) == []
    # What a search compares with is all that there is.
    stored = {row[0] for row in place.rows("SELECT id FROM templates")}
    assert {match.id for match in templates} == stored
    return halves(place.folder)


@pytest.mark.parametrize("journal_mode", ["wal", "truncate"])
async def test_a_power_cut_loses_nothing_that_was_acknowledged(
    recorder: Path,
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: Faults,
    journal_mode: str,
) -> None:
    count = faults.times(6, 500) if journal_mode == "wal" else faults.times(2, 200)
    chance = random.Random(1)
    record = Record(recorder, memory, monkeypatch)
    # In the long form SQLite also writes its logs back into the files while they are open.
    rounds = faults.times(10, 60)
    settings = {"journal_mode": journal_mode}
    calls = record.run("write_and_tell", settings, OPENINGS, rounds)
    disk, ledger = Disk(record.disk), Ledger()
    place = record.place(settings)
    states = 0
    in_part: set[str] = set()
    done = 0
    for until in _cuts(calls, count, chance):
        for call in calls[done:until]:
            disk.take(call)
            if record.acknowledges(call):
                ledger.take(json.loads(call.first))
        done = until
        for names, sector in _arrivals(disk, chance):
            parts = await _look_after_a_cut(
                disk, place, ledger, names=names, sector=sector, chance=chance
            )
            # With a write-ahead log a transaction over several files is atomic for each only.
            assert journal_mode == "wal" or parts == set()
            in_part |= parts
            states += 1
    assert all(ledger.there[name] for name in NAMES)
    syncs = sum(call.what in "sS" for call in calls)
    faults.note(
        f"Power cut: what a writer had not synced is dropped or torn, journal_mode {journal_mode}",
        where="SQLite",
        times=f"{count:,} cut points of {len(calls):,} calls ({syncs:,} syncs), {states:,} states "
        f"of the disk, {ledger.rows:,} acknowledged rows, {ledger.deleted:,} deletions",
        lost="0 rows, 0 feedback without its generation, 0 unsound files",
        seen=f"transactions of a session over three files that are there in part: {len(in_part)}",
    )


async def test_what_a_killed_process_left_unsynced_is_not_built_upon(
    recorder: Path, memory: Path, monkeypatch: pytest.MonkeyPatch, faults: Faults
) -> None:
    # A process is killed just before each of its syncs in turn, another one repeats what it did,
    # and then the power goes: what the other was told is stored must be on the disk by then, though
    # it found it written and had nothing to write.
    chance = random.Random(1)
    kills = cuts = 0
    # In the short form at one that is the commit of the feedback.
    for journal_mode in faults.times(["wal"], ["wal", "truncate"]):
        syncs: Iterable[int] = faults.times([6], range(1, 1_000))
        settings = {"journal_mode": journal_mode}
        for sync in syncs:
            record = Record(recorder, memory / f"{journal_mode}-{sync}", monkeypatch)
            place = record.place(settings)
            record.run("write_and_tell", settings, 1, 0)
            before = len(record.run("write_again", settings, killed_at_sync=sync))
            if not record.was_killed:
                break
            kills += 1
            disk, ledger = Disk(record.disk), Ledger()
            for number, call in enumerate(record.run("write_again", settings)):
                disk.take(call)
                if record.acknowledges(call):
                    ledger.take(json.loads(call.first))
                    if number >= before:
                        await _look_after_a_cut(
                            disk, place, ledger, names=0, sector=None, chance=chance
                        )
                        cuts += 1
    assert kills
    assert cuts == 5 * kills
    faults.note(
        "Writer killed before a sync, its work repeated by another process, then a power cut",
        where="SQLite",
        times=f"kills: {kills:,}, cut points: {cuts:,}",
        lost="0 rows, 0 feedback without its generation, 0 unsound files",
    )


@pytest.mark.parametrize("journal_mode", ["wal", "truncate"])
async def test_a_power_cut_leaves_a_restore_undone_or_done(
    recorder: Path,
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: Faults,
    journal_mode: str,
) -> None:
    count = faults.times(4, 200) if journal_mode == "wal" else faults.times(3, 100)
    settings = {"journal_mode": journal_mode}
    chance = random.Random(1)
    record = Record(recorder, memory, monkeypatch)
    backup = record.disk / "backups" / "first"  # A folder that has to be made is lost with it.
    calls = record.run("back_up_and_restore", settings, str(backup))
    (kept,) = (record.disk / "files").glob("before-restore-*")
    before, after = _ids(kept), _ids(backup)
    steps = {
        word: number
        for number, call in enumerate(calls)
        if record.acknowledges(call) and isinstance(word := json.loads(call.first), str)
    }
    place = record.place(settings)
    elsewhere = Place(settings={"sqlite_dir": str(record.disk / "elsewhere"), **settings})
    disk = Disk(record.disk)
    found: Counter[str] = Counter()
    done = 0
    # While it is written, the other tests cut.
    start = steps["restoring"] + 1
    during = [start + n for n in _cuts(calls[start : steps["restored"]], count - 3, chance)]
    for until in [steps["backed up"] + 1, start, *during, steps["restored"] + 1]:
        for call in calls[done:until]:
            disk.take(call)
        done = until
        for names, sector in _arrivals(disk, chance):
            disk.cut(names=names, sector=sector, chance=chance)
            if until >= start:
                # Whoever opens the database next finishes the restore, if it was decided.
                async with place.open():
                    there = _ids(place.folder)
                assert unsound_files(place.folder) == {}
                assert there in (before, after)
                assert there == after or until <= steps["restored"]
                found["done" if there == after else "undone"] += 1
                if there == after:
                    (replaced,) = place.folder.glob("before-restore-*")
                    assert _ids(replaced) == before
            await restore(elsewhere.open(), backup)
            assert _ids(elsewhere.folder) == after
    assert found["done"]
    assert found["undone"]
    faults.note(
        f"Power cut during a restore, journal_mode {journal_mode}",
        where="SQLite",
        times=f"{count:,} cut points, {found.total():,} states of the disk",
        lost="0 rows, 0 backups",
        seen=f"undone {found['undone']:,} times, done {found['done']:,} times, never in part",
    )


def _ids(folder: Path) -> dict[str, set[tuple[str, ...]]]:
    return {name: set(sqlite_rows(folder, f"SELECT id FROM {name}")) for name in NAMES}
