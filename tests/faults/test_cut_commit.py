"""Connections cut in the middle of a commit: each change is made once, or may be made again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pytest

from paracle_meta import (
    CostRepository,
    DatabaseConnectionError,
    DatabaseSettings,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from tests.faults.proxy import CommitCutter, Cut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.figures import Faults
    from tests.faults.places import Place

SIDES: tuple[Literal["request", "answer"], ...] = ("request", "answer")
UNKNOWN = r"lost.*is not known"
TEMPLATE = "tpl-used"
RATED = "gen-rated"


@dataclass
class Cutting:
    """A database behind the proxy, and what became of the calls whose commits it cut.

    Attributes:
        db: Behind the proxy.
        cutter: The proxy.
        place: The same database, to be looked at past the proxy.
        chance: Decides where a commit is cut.
        repaired: Calls that the package has repeated by itself.
        raised: Calls that raised and were repeated by the caller.
        recoveries: Seconds from an error to the next acknowledged write.
    """

    db: MetaDatabase
    cutter: CommitCutter
    place: Place
    chance: random.Random
    repaired: int = 0
    raised: int = 0
    recoveries: list[float] = field(default_factory=list)

    def cut(self, times: int) -> None:
        """Have the next commits cut, at a place that is decided here."""
        for _ in range(times):
            side = self.chance.choice(SIDES)
            # Both ends often: nothing of it arrived, or all.
            share = self.chance.choice((0.0, 1.0, self.chance.random()))
            self.cutter.cuts.append(Cut(side, share if side == "request" else share * 0.999))

    async def repeated(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Make a call that may be repeated, cut once or twice, until it is acknowledged."""
        times = self.chance.choice((1, 2))
        self.cut(times)
        if times == 1:
            await call()
            self.repaired += 1
            return
        with pytest.raises(DatabaseConnectionError, match=UNKNOWN):
            await call()
        await self.recovered(call)
        self.raised += 1

    async def recovered(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Make a call that has to succeed, since nothing is cut any more."""
        assert not self.cutter.cuts
        started = time.monotonic()
        await call()
        self.recoveries.append(time.monotonic() - started)

    async def count(self, sql: str) -> int:
        """Return a number, read past the proxy when nothing is under way any more."""
        await self.cutter.settled()
        ((number,),) = self.place.rows(sql)
        return int(number)

    async def one_more(self, sql: str, call: Callable[[], Awaitable[Any]]) -> None:
        """Make a call that may not be repeated: after its error the number has grown by 0 or 1."""
        before = await self.count(sql)
        self.cut(1)
        with pytest.raises(DatabaseConnectionError, match=UNKNOWN):
            await call()
        after = await self.count(sql)
        assert after in (before, before + 1)
        await self.recovered(call)
        assert await self.count(sql) == after + 1
        self.raised += 1


def generation(**more: Any) -> GenerationResult:
    return GenerationResult(**{"artifact_type": "agent", "name": "n", "content": "c", **more})


async def add(cutting: Cutting) -> None:
    record = generation()
    await cutting.repeated(lambda: GenerationRepository(cutting.db).add(record))
    assert await cutting.count(f"SELECT count(*) FROM generations WHERE id = '{record.id}'") == 1


async def add_many(cutting: Cutting) -> None:
    records = [generation(name="many") for _ in range(3)]
    before = await cutting.count("SELECT count(*) FROM generations WHERE name = 'many'")
    await cutting.repeated(lambda: GenerationRepository(cutting.db).add_many(records))
    after = await cutting.count("SELECT count(*) FROM generations WHERE name = 'many'")
    assert after - before == len(records)


async def add_in_a_transaction(cutting: Cutting) -> None:
    # Its words are stored in the same transaction, which so ends by a COMMIT of its own.
    record = Template(artifact_type="agent", name="t", content="c")
    await cutting.repeated(lambda: TemplateRepository(cutting.db).add(record))
    assert await cutting.count(f"SELECT count(*) FROM templates WHERE id = '{record.id}'") == 1
    words = f"SELECT count(*) FROM templates_terms WHERE id = '{record.id}'"
    assert await cutting.count(words) == 1


async def rate(cutting: Cutting) -> None:
    record = Feedback(generation_id=RATED, rating=5)
    await cutting.repeated(lambda: FeedbackRepository(cutting.db).add(record))
    assert await cutting.count(f"SELECT count(*) FROM feedback WHERE id = '{record.id}'") == 1


async def remember(cutting: Cutting) -> None:
    number = cutting.chance.random()
    memory = MemoryRepository(cutting.db)
    await cutting.repeated(lambda: memory.set("key", number))
    item = await memory.get("key")
    assert item is not None
    assert item.value == number
    assert await cutting.count("SELECT count(*) FROM memory") == 1


async def change(cutting: Cutting) -> None:
    name = f"{cutting.chance.random()}"
    templates = TemplateRepository(cutting.db)
    await cutting.repeated(lambda: templates.update(TEMPLATE, name=name))
    assert await cutting.count(f"SELECT count(*) FROM templates WHERE name = '{name}'") == 1


async def record_cost(cutting: Cutting) -> None:
    # A new row at each call, which the package itself repeats under one id.
    before = await cutting.count("SELECT count(*) FROM costs")
    cutting.cut(1)
    await CostRepository(cutting.db).record("p", "m")
    cutting.repaired += 1
    assert await cutting.count("SELECT count(*) FROM costs") == before + 1


async def record_cost_twice_cut(cutting: Cutting) -> None:
    before = await cutting.count("SELECT count(*) FROM costs")
    cutting.cut(2)
    with pytest.raises(DatabaseConnectionError, match=UNKNOWN):
        await CostRepository(cutting.db).record("p", "m")
    assert await cutting.count("SELECT count(*) FROM costs") in (before, before + 1)
    cutting.raised += 1


async def use(cutting: Cutting) -> None:
    await cutting.one_more(
        f"SELECT usage_count FROM templates WHERE id = '{TEMPLATE}'",
        lambda: TemplateRepository(cutting.db).record_use(TEMPLATE),
    )


async def use_a_session(cutting: Cutting) -> None:
    async def insert() -> None:
        async with cutting.db.session() as session:
            await session.execute("INSERT INTO counted DEFAULT VALUES")

    await cutting.one_more("SELECT count(*) FROM counted", insert)


async def delete(cutting: Cutting) -> None:
    record = await GenerationRepository(cutting.db).add(generation())
    cutting.cut(1)
    with pytest.raises(DatabaseConnectionError, match=UNKNOWN):
        await GenerationRepository(cutting.db).delete(record.id)
    assert await cutting.count(f"SELECT count(*) FROM generations WHERE id = '{record.id}'") in (
        0,
        1,
    )
    cutting.raised += 1


WORKS = (
    add,
    add_many,
    add_in_a_transaction,
    rate,
    remember,
    change,
    record_cost,
    record_cost_twice_cut,
    use,
    use_a_session,
    delete,
)


async def test_connections_cut_during_the_commit(postgresql: Place, faults: Faults) -> None:
    assert postgresql.server is not None
    # At least so many cuts, in whole rounds of all kinds of calls.
    wanted = faults.times(2 * len(WORKS), 200)
    async with CommitCutter("127.0.0.1", postgresql.server.port) as cutter:
        url = f"postgresql://postgres@127.0.0.1:{cutter.port}/{postgresql.database}"
        settings = DatabaseSettings(postgres_url=url, enable_vectors=False, pool_size=2)
        async with MetaDatabase(settings) as db:
            cutting = Cutting(db, cutter, postgresql, random.Random(6))
            await TemplateRepository(db).add(
                Template(id=TEMPLATE, artifact_type="agent", name="t", content="c")
            )
            await GenerationRepository(db).add(generation(id=RATED))
            async with db.session() as session:
                await session.execute("CREATE TABLE counted (n serial)")
            calls = 0
            while cutter.made < wanted:
                for work in WORKS:
                    await work(cutting)
                calls += len(WORKS)
    assert not cutter.cuts
    assert postgresql.orphans() == []
    faults.note(
        "Connection cut at a byte of the commit: of what the client sends, or of the answer",
        where="PostgreSQL",
        times=f"{cutter.made} cuts in {calls} calls of {len(WORKS)} kinds",
        lost="0 rows; none was stored twice, and none counted twice",
        seen=f"{cutting.repaired} calls were repeated by the package and succeeded, "
        f"{cutting.raised} raised that the outcome is not known; the next call took at most "
        f"{max(cutting.recoveries):.2f} s",
    )


async def test_a_connection_lost_after_the_commit_changes_nothing(
    postgresql: Place, caplog: pytest.LogCaptureFixture
) -> None:
    # What a session has set is undone before its connection is lent again: if the connection breaks
    # then, the session has ended well, and the next one gets another connection.
    assert postgresql.server is not None
    async with CommitCutter("127.0.0.1", postgresql.server.port) as cutter:
        url = f"postgresql://postgres@127.0.0.1:{cutter.port}/{postgresql.database}"
        settings = DatabaseSettings(postgres_url=url, enable_vectors=False, pool_size=1)
        async with MetaDatabase(settings) as db:
            await db.open()
            for made in range(4):
                cutter.cuts.append(Cut("request", 1.0, b"SELECT pg_advisory_unlock_all"))
                async with db.session() as session:
                    await session.execute("CREATE TABLE IF NOT EXISTS counted (n serial)")
                    await session.execute("INSERT INTO counted DEFAULT VALUES")
                assert cutter.made == made + 1
    assert postgresql.rows("SELECT count(*) FROM counted") == [("4",)]
    assert [record for record in caplog.records if record.name.startswith("sqlalchemy")] == []
