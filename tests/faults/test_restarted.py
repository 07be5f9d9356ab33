"""The PostgreSQL server is restarted while it is used: what was acknowledged is there, once."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from paracle_meta import (
    CostRepository,
    DatabaseConnectionError,
    GenerationRepository,
    GenerationResult,
    MetaDatabase,
    ParacleMetaError,
    Template,
    TemplateRepository,
)

if TYPE_CHECKING:
    import pytest

    from tests.faults.figures import Faults
    from tests.faults.places import Place
    from tests.postgres import PostgresServer

POOL = 4
WRITERS = 8
CALLS_BETWEEN = 50
"""Acknowledged writes before the next restart."""
WAIT_SECONDS = 60
"""Longest wait for a write to succeed: far more than a busy machine takes to start a server."""
TEMPLATE = "tpl-used"


@dataclass
class Account:
    """What the writers were told."""

    ids: list[str] = field(default_factory=list)
    """Of rows that are acknowledged, at the first call or at its repetition."""
    uses: int = 0
    unknown_uses: int = 0
    """Uses of which an error said that nobody knows."""
    inserted: int = 0
    """Acknowledged rows of sessions, each of which counted in a transaction of its own."""
    unknown_inserts: int = 0
    errors: list[ParacleMetaError] = field(default_factory=list)


async def add(db: MetaDatabase, account: Account) -> None:
    """Add a record, and the same one again until it is acknowledged."""
    record = GenerationResult(artifact_type="agent", name="n", content="c")
    while True:
        try:
            await GenerationRepository(db).add(record)
        except ParacleMetaError as error:
            account.errors.append(error)
            await asyncio.sleep(0.01)
        else:
            account.ids.append(record.id)
            return


async def use(db: MetaDatabase, account: Account) -> None:
    try:
        await TemplateRepository(db).record_use(TEMPLATE)
    except ParacleMetaError as error:
        account.unknown_uses += 1
        account.errors.append(error)
        await asyncio.sleep(0.01)
    else:
        account.uses += 1


async def insert(db: MetaDatabase, account: Account) -> None:
    try:
        async with db.session() as session:
            await session.execute("INSERT INTO counted DEFAULT VALUES")
    except ParacleMetaError as error:
        account.unknown_inserts += 1
        account.errors.append(error)
        await asyncio.sleep(0.01)
    else:
        account.inserted += 1


async def record(db: MetaDatabase, account: Account) -> None:
    try:
        account.ids.append((await CostRepository(db).record("p", "m")).id)
    except ParacleMetaError as error:
        account.errors.append(error)
        await asyncio.sleep(0.01)


async def test_restarted_while_in_use(
    postgresql: Place, server: PostgresServer, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    restarts = faults.times(2, 40)
    modes: tuple[Literal["fast", "immediate"], ...] = ("immediate", "fast")
    account = Account()
    stop = asyncio.Event()
    pauses: list[float] = []
    outages: list[float] = []
    async with postgresql.open(enable_vectors=False, pool_size=POOL) as db:
        await TemplateRepository(db).add(
            Template(id=TEMPLATE, artifact_type="agent", name="t", content="c")
        )
        async with db.session() as session:
            await session.execute("CREATE TABLE counted (n serial)")

        async def write(number: int) -> None:
            for work in itertools.islice(itertools.cycle((add, use, insert, record)), number, None):
                if stop.is_set():
                    return
                await work(db, account)

        async def written(more: int) -> None:
            wanted = len(account.ids) + more
            async with asyncio.timeout(WAIT_SECONDS):
                while len(account.ids) < wanted:  # noqa: ASYNC110 - it counts
                    await asyncio.sleep(0.01)

        writers = [asyncio.create_task(write(number)) for number in range(WRITERS)]
        for mode in itertools.islice(itertools.cycle(modes), restarts):
            await written(CALLS_BETWEEN)
            stopped = time.monotonic()
            await asyncio.to_thread(server.restart, mode)
            started = time.monotonic()
            await written(1)
            pauses.append(time.monotonic() - started)
            outages.append(time.monotonic() - stopped)
        stop.set()
        await asyncio.gather(*writers)
        used = await TemplateRepository(db).get(TEMPLATE)
    assert {type(error) for error in account.errors} == {DatabaseConnectionError}
    rows = postgresql.rows("SELECT id FROM costs UNION ALL SELECT id FROM generations")
    stored = [record_id for (record_id,) in rows]
    missing = set(account.ids) - set(stored)
    assert missing == set()
    assert len(stored) == len(set(stored))
    # Every other row is that of a call whose answer was lost.
    assert len(stored) - len(account.ids) <= len(account.errors)
    assert used is not None
    assert account.uses <= used.usage_count <= account.uses + account.unknown_uses
    ((inserted,),) = postgresql.rows("SELECT count(*) FROM counted")
    assert account.inserted <= int(inserted) <= account.inserted + account.unknown_inserts
    acknowledged = len(account.ids) + account.uses + account.inserted
    # Each call was told by its error; the log is for what nobody was told.
    assert [record for record in caplog.records if record.name.startswith("sqlalchemy")] == []
    faults.note(
        "Server restarted, every other time by a crash, under load",
        where="PostgreSQL",
        times=f"{restarts} restarts, {acknowledged} acknowledged writes of {WRITERS} tasks",
        lost=f"{len(missing)} writes; none was done twice",
        seen=f"{len(account.errors)} calls raised; the first write was acknowledged at most "
        f"{max(pauses):.2f} s after the server was back, {max(outages):.1f} s after it was stopped",
    )
