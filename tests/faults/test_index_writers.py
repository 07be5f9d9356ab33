"""Processes that write and search through one vector index, are killed, and make it meanwhile."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from paracle_meta import DatabaseBusyError, DatabaseSettings, MetaDatabase
from tests.faults.processes import Worker
from tests.faults.vectors import TinyEmbeddings
from tests.search.collection import DIMENSIONS, ROWS, Collection, template
from tests.search.vectors import clustered

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.faults.places import Place

PROCESSES = 4
BUILDER, BACKGROUND = 0, 1
SECONDS = 10.0
KILL_AFTER = (0.5, 1.5)
RECENT = 50
"""How many of the last changes searches look for: those are in memory here and in files there."""

MANY = 300
"""Rows added at once now and then, so that enough lie outside the index for a new one."""

ENOUGH = 0.99


@dataclass
class Truth:
    """What was acknowledged so far. A row that is being changed is in none of these."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stored: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    deleted: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))
    checked: int = 0

    def begin(self, record_id: str) -> NDArray[np.float32]:
        """Take a row out, before a process is told to change it."""
        with self.lock:
            return self.stored.pop(record_id)

    def store(self, ids: list[str], vectors: NDArray[np.float32]) -> None:
        with self.lock:
            self.stored.update(zip(ids, vectors, strict=True))
            self.recent.extend(ids[-5:])

    def delete(self, record_id: str, vector: NDArray[np.float32]) -> None:
        with self.lock:
            self.deleted[record_id] = vector
            self.recent.append(record_id)


class Client:
    """Tells one process what to do, starts it anew when it was killed, and checks its answers."""

    def __init__(self, number: int, settings: dict[str, Any], truth: Truth, own: list[str]) -> None:
        self.number = number
        self.worker: Worker | None = None
        self.killed = 0
        self._settings = {**settings, "index_in_background": number == BACKGROUND}
        self._truth = truth
        self._own = own  # Only this process changes them, so that the order of changes is known.
        self._random = random.Random(number)
        self._samples = iter(range(1_000 + number, 10**9, PROCESSES))

    def work(self, until: float) -> None:
        while time.monotonic() < until:
            with Worker("search_and_write", self._settings, module="index_workers") as worker:
                try:
                    assert worker.receive() == "ready"
                    self.worker = worker
                    while time.monotonic() < until:
                        self._step(worker)
                except (EOFError, BrokenPipeError):
                    # What it was told last was done or was not; that row is no longer looked at.
                    assert worker.process.wait() == -9, worker.errors
                    assert worker.errors == ""
                    self.killed += 1
                finally:
                    self.worker = None

    def _step(self, worker: Worker) -> None:
        kind = self._random.choices(["add", "move", "delete", "build"], [6, 3, 3, 0.2])[0]
        match kind:
            case "add":
                count = MANY if self._random.random() < 0.05 else 1
                sample = next(self._samples)
                ids = [f"new-{sample:06}-{n:03}" for n in range(count)]
                vectors = clustered(count, DIMENSIONS, seed=1, sample=sample)
                assert worker.ask(["add", ids, sample]) == "added"
                self._truth.store(ids, vectors)
                self._own += ids
                self._find(worker, ids[-1])
            case "move":
                record_id = self._random.choice(self._own)
                sample = next(self._samples)
                self._own.remove(record_id)
                self._truth.begin(record_id)
                assert worker.ask(["move", record_id, sample]) == "moved"
                self._truth.store([record_id], clustered(1, DIMENSIONS, seed=1, sample=sample))
                self._own.append(record_id)
                self._find(worker, record_id)
            case "delete":
                record_id = self._own.pop(self._random.randrange(len(self._own)))
                vector = self._truth.begin(record_id)
                assert worker.ask(["delete", record_id]) == "deleted"
                self._truth.delete(record_id, vector)
                self._find(worker, record_id)
            case "build" if self.number == BUILDER:
                assert worker.ask(["build"]) in ("built", "another builds it")
        with self._truth.lock:
            somebodys = self._random.choice(self._truth.recent) if self._truth.recent else None
        if somebodys is not None:
            self._find(worker, somebodys)

    def _find(self, worker: Worker, record_id: str) -> None:
        """Search where a row is or was; everything known now must show in the answer."""
        truth = self._truth
        with truth.lock:
            deleted = set(truth.deleted)
            vector = truth.stored.get(record_id)
            place = vector if vector is not None else truth.deleted.get(record_id)
        if place is None:
            return
        found = worker.ask(["search", place.tolist()])
        assert len(found) == 10
        assert not deleted & set(found)
        with truth.lock:
            unchanged = vector is not None and truth.stored.get(record_id) is vector
            truth.checked += 1
        if unchanged:
            assert found[0] == record_id


def indexes(folder: Path) -> list[str]:
    return [path.name for path in (folder / ".index" / "templates").glob("idx-*")]


async def filled(place: Place) -> dict[str, NDArray[np.float32]]:
    async with opened(place) as db:
        collection = Collection(db)
        await collection.fill()
        await db.build_index("templates")
    return collection.vectors


def opened(place: Place) -> MetaDatabase:
    settings = DatabaseSettings(**place.given(index_in_background=False))
    return MetaDatabase(settings, embeddings=TinyEmbeddings(DIMENSIONS))


def test_killed_processes_lose_nothing_and_find_what_others_wrote(sqlite: Place) -> None:
    stored = asyncio.run(filled(sqlite))
    truth = Truth(stored=dict(stored))
    clients = [
        Client(number, sqlite.settings, truth, sorted(stored)[number::PROCESSES])
        for number in range(PROCESSES)
    ]
    seen = set(indexes(sqlite.folder))
    failed = threading.Event()
    chance = random.Random(1)
    until = time.monotonic() + SECONDS

    def work(client: Client) -> None:
        try:
            client.work(until)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(PROCESSES) as pool:
        running = [pool.submit(work, client) for client in clients]
        while time.monotonic() < until - KILL_AFTER[1]:
            if failed.wait(chance.uniform(*KILL_AFTER)):
                break
            seen.update(indexes(sqlite.folder))
            worker = chance.choice(clients).worker
            if worker is not None:
                worker.process.kill()
        for one in running:
            one.result()

    assert sum(client.killed for client in clients) >= 3
    assert len(seen) >= 3
    assert truth.checked > 100
    asyncio.run(check_the_end(sqlite, truth))


async def check_the_end(place: Place, truth: Truth) -> None:
    """Compare what is there with what was acknowledged, and searches with the exact answer."""
    async with opened(place) as db:
        collection = Collection(db)
        async with db.session() as session:
            for record_id, vector in await session.execute("SELECT id, embedding FROM templates"):
                collection.vectors[record_id] = np.frombuffer(vector, dtype="<f4")
        assert not truth.deleted.keys() & collection.vectors.keys()
        for record_id, vector in truth.stored.items():
            assert np.array_equal(collection.vectors[record_id], vector)
        assert await collection.recall() >= ENOUGH
        rows = len(collection.vectors)
        assert await db.build_index("templates") == {"templates": rows}
        assert await collection.recall() >= ENOUGH
    ((current,),) = place.rows("SELECT token FROM templates_index")
    assert indexes(place.folder) == [current]
    async with opened(place) as db:
        again = Collection(db)
        again.vectors = collection.vectors
        assert await again.recall() >= ENOUGH


async def test_a_build_that_makes_no_index_hides_nothing_from_others(sqlite: Place) -> None:
    """It empties the log, and which index there is, none, stays the same."""
    vectors = clustered(30, DIMENSIONS, seed=1)
    async with opened(sqlite) as db, opened(sqlite) as other:
        collection = Collection(db)
        await collection.add([template(n, vector) for n, vector in enumerate(vectors[:20])])
        await other.vector_search("templates", vector=vectors[0])
        await collection.add([template(20, vectors[20])])
        assert await db.build_index("templates") == {"templates": 0}
        (match,) = await other.vector_search("templates", vector=vectors[20], top_k=1)
        assert match.id == "tpl-00020"


async def test_a_row_written_again_by_sql_that_ignores_conflicts_is_found(sqlite: Place) -> None:
    """Its id is in the log already, and the statement's rule for conflicts holds in triggers."""
    vectors = clustered(30, DIMENSIONS, seed=1)
    async with opened(sqlite) as db, opened(sqlite) as other:
        collection = Collection(db)
        await collection.add([template(n, vector) for n, vector in enumerate(vectors)])
        await collection.delete("tpl-00003")
        await other.vector_search("templates", vector=vectors[3])
        async with db.session() as session:
            await session.execute(
                "INSERT OR IGNORE INTO templates"
                " (id, artifact_type, name, content, embedding, embedding_model)"
                " VALUES ('tpl-00003', 'agent', 'Again', 'x', :vector, :model)",
                {"vector": vectors[3].tobytes(), "model": db.embeddings().model_id},
            )
        (match,) = await other.vector_search("templates", vector=vectors[3], top_k=1)
        assert match.id == "tpl-00003"


async def test_a_cancelled_build_does_not_stop_the_next_one(sqlite: Place) -> None:
    async with opened(sqlite) as db:
        await Collection(db).fill()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):  # It takes ten times as long.
                await db.build_index("templates")
        while True:
            try:
                assert await db.build_index("templates") == {"templates": ROWS}
                break
            except DatabaseBusyError:
                await asyncio.sleep(0.01)  # The thread is just leaving.
    assert len(indexes(sqlite.folder)) == 1
