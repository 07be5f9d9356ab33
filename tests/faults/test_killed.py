"""A writer to SQLite that is killed at any moment: what was acknowledged is kept."""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    BestPracticeRepository,
    CostRepository,
    FeedbackRepository,
    GenerationRepository,
    TemplateRepository,
)
from tests.faults.killed_ledger import Ledger, halves
from tests.faults.places import NAMES, Place, unsound_files
from tests.faults.processes import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from paracle_meta.repositories.base import Reader
    from tests.faults.figures import Faults

KILLS_A_FOLDER = 100
"""After so many another folder begins: looking at all of a large one takes longer than the kill."""

LONGEST = {"wal": 0.2, "truncate": 0.6}
"""Seconds until the kill, by journal_mode: from the first write to some hundred later."""

PLAIN = {"enable_vectors": False}


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork, to be killed often and cheaply")
@pytest.mark.parametrize("journal_mode", ["wal", "truncate"])
async def test_a_killed_writer_loses_nothing_that_was_acknowledged(
    tmp_path: Path, faults: Faults, journal_mode: str
) -> None:
    kills = faults.times(10, 1_000) if journal_mode == "wal" else faults.times(3, 200)
    chance = random.Random(1)  # The same moments each time, as far as clocks allow.
    ledgers = []
    in_part: set[str] = set()
    with Worker("writers_to_kill", module="killed_writer") as nursery:
        for number in range(kills):
            if number % KILLS_A_FOLDER == 0:
                folder = tmp_path / str(number)
                place = Place(
                    settings={"sqlite_dir": str(folder), "journal_mode": journal_mode, **PLAIN}
                )
                # What a first opening does is killed elsewhere, step by step.
                async with place.open():
                    ledgers.append(Ledger())
            ledger = ledgers[-1]
            # One in four while it opens the database, or soon after.
            once_open = number % 4 != 3
            nursery.send([place.settings, chance.uniform(0.0, LONGEST[journal_mode]), once_open])
            while isinstance(line := nursery.receive(), list):
                ledger.take(line)
            # It was killed, and had not failed before.
            assert (line, nursery.errors) == (-9, "")
            with _put_back(folder):
                assert unsound_files(folder) == {}
                # One update a kill may have been made and not acknowledged.
                kills_here = number % KILLS_A_FOLDER + 1
                assert ledger.lost(folder, unanswered=kills_here) == []
                # With a write-ahead log a transaction over several files is atomic for each only.
                parts = halves(folder)
                assert journal_mode == "wal" or parts == set()
                in_part |= parts
            # The next writer finds what was left as it was left, every other time.
            if number % 2:
                await _look_through_the_api(place, ledger)
    assert all(sum(len(ledger.there[name]) for ledger in ledgers) for name in NAMES)
    rows, deleted = (
        sum(ledger.rows for ledger in ledgers),
        sum(ledger.deleted for ledger in ledgers),
    )
    assert deleted
    faults.note(
        f"Writer killed (kill -9) at a random moment, journal_mode {journal_mode}",
        where="SQLite",
        times=f"{kills:,} kills, {rows:,} acknowledged rows, {deleted:,} acknowledged deletions",
        lost="0 rows, 0 feedback without its generation, 0 unsound files",
        seen=f"transactions of a session over three files that are there in part: {len(in_part)}",
    )


@contextlib.contextmanager
def _put_back(folder: Path) -> Iterator[None]:
    """Leave the files as they are now: whoever looks at them mends them.

    It is the copy that is kept for later, as SQLite's journals name each other by absolute paths.
    """
    copy = folder.with_name("copy")
    # The shared memory is made anew from the log, as after any crash.
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*-shm"))
    yield
    shutil.rmtree(folder)
    copy.rename(folder)


async def _look_through_the_api(place: Place, ledger: Ledger) -> None:
    async with place.open() as db:
        repositories: dict[str, Reader[Any]] = {
            "generations": GenerationRepository(db),
            "templates": TemplateRepository(db),
            "feedback": FeedbackRepository(db),
            "costs": CostRepository(db),
            "best_practices": BestPracticeRepository(db),
        }
        for name, repository in repositories.items():
            for record_id in list(ledger.there[name])[-1:]:
                assert await repository.get(record_id) is not None
            for record_id in list(ledger.gone[name])[-1:]:
                assert await repository.get(record_id) is None
        counts = (await db.status()).counts
    assert all(counts[name] >= len(ledger.there[name]) for name in NAMES)
