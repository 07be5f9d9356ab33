"""A restore on PostgreSQL that is killed, with its programs or without them, and made again."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from paracle_meta import (
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    Template,
    TemplateRepository,
)
from paracle_meta.transfer import back_up, restore
from tests.faults.cancelling import quiet
from tests.faults.places import NAMES, Place
from tests.faults.processes import Worker
from tests.faults.workers import generation

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.figures import Faults

GENERATIONS = 300
LATER = (
    "INSERT INTO generations (id, artifact_type, name, content) VALUES ('later', 'agent', 'n', 'c')"
)
OTHERS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid()"
)
WAITING = f"{OTHERS} AND wait_event_type = 'Lock'"
STRIDE = 60
"""How far apart the steps are that the short form tries; there are some 130."""


def contents(place: Place) -> list[tuple[str, ...]]:
    """Return all rows of the six tables; none where there are no tables."""
    if place.rows("SELECT to_regclass('generations')") == []:
        return []
    return place.rows(
        " UNION ALL ".join(f"SELECT '{name}', t::text FROM {name} t" for name in NAMES)
        + " ORDER BY 1, 2"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork, to be killed cheaply")
@pytest.mark.parametrize("replace", [False, True], ids=["empty", "replace"])
async def test_a_restore_killed_at_any_step_leaves_all_or_nothing(
    postgresql: Place, tmp_path: Path, faults: Faults, replace: bool
) -> None:
    server = postgresql.server
    assert server is not None
    async with postgresql.open() as db:
        added = [generation(number) for number in range(GENERATIONS)]
        await GenerationRepository(db).add_many(added)
        await FeedbackRepository(db).add(Feedback(generation_id=added[0].id, rating=5))
        await TemplateRepository(db).add(Template(artifact_type="agent", name="t", content="c"))
        report = await back_up(db, tmp_path / "backup", pg_bin=server.bin)
    whole = contents(postgresql)
    kept = made = 0
    backup = str(tmp_path / "backup")
    stride = faults.times(STRIDE, 1)
    with Worker("restorers_to_kill", backup, str(server.bin), module="restore_workers") as nursery:
        for step in itertools.count(0, stride):
            # With its programs, as a machine or a container is stopped; and it alone.
            ends = set()
            for with_programs in (False, True):
                target = postgresql
                if replace:
                    postgresql.rows(LATER)
                else:
                    database = server.create_database()
                    target = Place(
                        settings={"postgres_url": server.url_of(database)},
                        server=server,
                        database=database,
                    )
                before = contents(target)
                ends.add(nursery.ask([target.settings, replace, step, with_programs]))
                # A look at all tables while the server is still at it could be its deadlock.
                quiet(target, OTHERS)
                seen = contents(target)
                assert seen in (before, whole), step
                if replace or seen != whole:
                    again = await restore(target.open(), backup, replace=replace, pg_bin=server.bin)
                    assert again.counts == report.counts
                assert contents(target) == whole
                quiet(target, OTHERS)
                kept, made = kept + (seen != whole), made + (seen == whole)
                assert contents(target) == whole
            if ends == {0}:
                break
            assert ends <= {0, -signal.SIGKILL}
    assert kept
    assert made
    faults.note(
        "Restore killed (kill -9) at each step, with pg_restore and psql or without them, "
        f"{'in place of other records' if replace else 'into an empty database'}",
        where="PostgreSQL",
        times=f"{kept + made:,} restores, {step // stride:,} steps",
        lost="0 rows",
        seen=f"left as it was {kept:,} times, whole {made:,} times; made again each time",
    )


async def test_a_killed_restore_does_not_go_on_behind_the_back_of_whoever_writes_then(
    postgresql: Place, tmp_path: Path, faults: Faults
) -> None:
    server = postgresql.server
    assert server is not None
    backup = str(tmp_path / "backup")
    async with postgresql.open() as db:
        await GenerationRepository(db).add(generation(0))
        await back_up(db, tmp_path / "backup", pg_bin=server.bin)
        async with db.session() as session:
            await session.execute("SELECT count(*) FROM generations")  # Who reads is waited for.
            with Worker(
                "restore_and_wait", backup, str(server.bin), module="restore_workers"
            ) as it:
                it.send(postgresql.settings)
                async with asyncio.timeout(60):
                    while not (waiting := postgresql.rows(WAITING)):  # noqa: ASYNC110 - there
                        await asyncio.sleep(0.02)
                it.process.kill()
                with pytest.raises(EOFError):
                    it.receive()
            await session.execute(LATER)
            await session.commit()
        # Its programs were still there, waiting for the lock that they got now.
        ((program,),) = waiting
        quiet(postgresql, f"{OTHERS} AND pid = {program}")
        assert await GenerationRepository(db).count() == 2
        assert await GenerationRepository(db).get("later") is not None
        report = await restore(db, backup, replace=True, pg_bin=server.bin)
        assert report.counts["generations"] == 1
    faults.note(
        "Restore killed (kill -9) while it waited for a reader, who then wrote",
        where="PostgreSQL",
        times="1 kill, 1 acknowledged row",
        lost="0 rows",
        seen="the next restore was made",
    )
