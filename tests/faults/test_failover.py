"""A primary goes and its standby is promoted: the application writes on, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from paracle_meta import (
    DatabaseConnectionError,
    DatabaseSettings,
    GenerationRepository,
    GenerationResult,
    MetaDatabase,
    ParacleMetaError,
)
from tests.faults.conftest import MEMORY, MEMORY_NEEDED
from tests.faults.replicas import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.figures import Faults

WRITERS = 4
CALLS = 50
"""Acknowledged writes before the next fail-over, and after it."""
WAIT_SECONDS = 60
MODES: tuple[Literal["fast", "immediate"], ...] = ("immediate", "fast")


@pytest.fixture
def pair() -> Iterator[Pair]:
    place = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED else None
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=place))
    folder.chmod(0o755)  # The servers run as another user where we are root.
    with Pair(folder) as pair:
        yield pair
    shutil.rmtree(folder)


async def test_a_standby_is_promoted_under_load(
    pair: Pair, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = faults.times(1, 10)
    database = pair.primary.create_database()
    hosts = f"127.0.0.1:{pair.primary.port},127.0.0.1:{pair.standby.port}"
    settings = DatabaseSettings(
        postgres_url=f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write",
        enable_vectors=False,
        pool_size=WRITERS,
    )
    acknowledged: list[str] = []
    errors: list[ParacleMetaError] = []
    stop = asyncio.Event()
    pauses: list[float] = []
    outages: list[float] = []
    async with MetaDatabase(settings) as db:

        async def write(number: int) -> None:
            while not stop.is_set():
                record = GenerationResult(artifact_type="agent", name="n", content="c")
                try:
                    # Both ways to write, as each has its own way to its connection.
                    if number % 2:
                        await GenerationRepository(db).add(record)
                    else:
                        async with db.session() as session:
                            await session.execute(
                                "INSERT INTO generations SELECT (jsonb_populate_record(g,"
                                " jsonb_build_object('id', CAST(:id AS text)))).*"
                                " FROM generations g LIMIT 1",
                                {"id": record.id},
                            )
                except ParacleMetaError as error:
                    errors.append(error)
                    await asyncio.sleep(0.02)
                else:
                    acknowledged.append(record.id)

        async def written(more: int) -> None:
            wanted = len(acknowledged) + more
            async with asyncio.timeout(WAIT_SECONDS):
                while len(acknowledged) < wanted:  # noqa: ASYNC110 - it counts
                    await asyncio.sleep(0.01)

        await GenerationRepository(db).add(
            GenerationResult(artifact_type="agent", name="n", content="c")
        )
        writers = [asyncio.create_task(write(number)) for number in range(WRITERS)]
        for mode in itertools.islice(itertools.cycle(MODES), rounds):
            await written(CALLS)
            stopped = time.monotonic()
            await asyncio.to_thread(pair.fail_over, mode)
            promoted = time.monotonic()
            # Each of the writers, whatever connection it had.
            await written(WRITERS * 2)
            outages.append(time.monotonic() - stopped)
            pauses.append(time.monotonic() - promoted)
            await asyncio.to_thread(pair.demote, mode)
            # Nobody is led to the one that is the standby now.
            before = len(errors)
            await written(CALLS)
            assert errors[before:] == []
        stop.set()
        await asyncio.gather(*writers)
    assert {type(error) for error in errors} == {DatabaseConnectionError}
    stored = pair.primary.sql("SELECT id FROM generations", database).splitlines()
    missing = set(acknowledged) - set(stored)
    assert missing == set()
    assert len(stored) == len(set(stored))
    # Each call was told by its error; the log is for what nobody was told.
    assert [record for record in caplog.records if record.name.startswith("sqlalchemy")] == []
    faults.note(
        "Primary stopped, every other time by a crash, and its synchronous standby promoted",
        where="PostgreSQL",
        times=f"{rounds} fail-overs under load, {len(acknowledged)} acknowledged writes",
        lost=f"{len(missing)} writes",
        seen=f"all tasks wrote again at most {max(pauses):.2f} s after the promotion, and "
        f"{max(outages):.1f} s after the primary was stopped",
    )
