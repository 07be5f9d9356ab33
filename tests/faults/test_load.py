"""A day's load in small: many clients that read and write all six kinds for minutes.

Run it by itself: what else the machine does is in the figures.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_left
from collections import Counter
from contextlib import ExitStack
from itertools import accumulate
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import MemoryRepository
from tests.faults.load_workers import TTL, milliseconds
from tests.faults.places import Place
from tests.faults.processes import Worker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.faults.figures import Faults
    from tests.postgres import PostgresServer

PROCESSES = 4
CLIENTS = {"SQLite": 20, "PostgreSQL": 200}

GROWTH = 1.10
"""Most by which memory may grow from the first third to the last: what a heap wavers by. If each of
the 10,000 records and more that a process adds in the long form were kept, it would grow by more.
"""

SHORT_GROWTH = 1.5
"""In the short form it is a new process that still loads and fills what it holds."""

LOG = 64 * 1024 * 1024
"""Bytes that no write-ahead log may reach, four times what it is cut back to."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the memory of a process is read from /proc"
)


def test_a_days_load_on_sqlite(sqlite: Place, faults: Faults) -> None:
    _bear(sqlite, "SQLite", faults)


def test_a_days_load_on_postgresql(request: pytest.FixtureRequest, faults: Faults) -> None:
    # Where it is measured in earnest, the server waits for the disk.
    server: PostgresServer = request.getfixturevalue(faults.times("server", "postgres18"))
    database = server.create_database()
    settings = {"postgres_url": server.url_of(database)}
    _bear(Place(settings=settings, server=server, database=database), "PostgreSQL", faults)


def _bear(place: Place, where: str, faults: Faults) -> None:
    clients = CLIENTS[where]
    processes = faults.times(2, PROCESSES)
    seconds, warm = faults.times((1.0, 0.5), (600.0, 60.0))
    with ExitStack() as stack:
        _migrate(place)
        workers = [
            stack.enter_context(
                Worker(
                    "load",
                    *(place.settings, f"worker {number}", clients // processes, seconds, warm),
                    module="load_workers",
                )
            )
            for number in range(processes)
        ]
        assert [worker.receive() for worker in workers] == ["ready"] * processes
        for worker in workers:
            worker.send()
        # A client that met an error has ended its worker, with the error in what `receive` raises.
        answers = [worker.receive() for worker in workers]
    rows = _sum(answer["rows"] for answer in answers)
    _assert_exact(place, rows, answers)

    growth = [_growth(answer["memory"]) for answer in answers]
    assert max(growth) < faults.times(SHORT_GROWTH, GROWTH)
    log = max(answer["longest log"] for answer in answers)
    assert log < LOG
    times = {kind for answer in answers for kind in answer["times"]}
    steps = {kind: _sum(answer["times"].get(kind, {}) for answer in answers) for kind in times}
    calls = sum(each.total() for each in steps.values())
    held = max(median(answer["memory"]) for answer in answers) / 2**20
    seen = [
        f"{calls / seconds:,.0f} calls/s",
        f"{rows.total():,} rows at the end",
        f"memory of a process {held:.0f} MB, from the first to the last third "
        f"{max(growth) - 1:+.1%}",
        *([f"longest write-ahead log {log / 2**20:.1f} MB"] if log else []),
        "p50/p99 in ms: "
        + ", ".join(f"{kind} {_percentiles(steps[kind])}" for kind in sorted(steps)),
    ]
    faults.note(
        f"{clients} clients in {processes} processes that read and write all six kinds",
        where=where,
        times=f"{seconds:g} s, {calls:,} calls",
        lost="0 rows, 0 errors",
        seen="; ".join(seen),
    )


def _migrate(place: Place) -> None:
    async def migrate() -> None:
        async with place.open():
            pass

    asyncio.run(migrate())


def _assert_exact(place: Place, rows: Counter[str], answers: list[dict[str, Any]]) -> None:
    """Assert that there is what the clients have counted, and nothing else."""

    async def count() -> tuple[Counter[str], int]:
        async with place.open() as db:
            await asyncio.sleep(TTL)  # Until the last item is over that has a time to live.
            purged = await MemoryRepository(db).purge()
            return Counter((await db.status()).counts), purged

    counts, purged = asyncio.run(count())
    assert counts == rows
    assert sum(answer["expiring"] - answer["purged"] for answer in answers) == purged
    assert place.orphans() == []


def _sum(counts: Iterable[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _growth(memory: list[int]) -> float:
    third = len(memory) // 3
    return median(memory[-third:]) / median(memory[:third])


def _percentiles(steps: Counter[str]) -> str:
    """Return the median and the 99th percentile in milliseconds."""
    ordered = sorted((int(step), count) for step, count in steps.items())
    reached = list(accumulate(count for _, count in ordered))
    both = (
        milliseconds(ordered[bisect_left(reached, share * reached[-1])][0]) for share in (0.5, 0.99)
    )
    return "/".join(f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in both)
