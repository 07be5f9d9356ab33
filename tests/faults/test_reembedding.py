"""Embedding by a real server, killed in the middle: nothing that is done is paid for twice."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest
from pysqlite3 import dbapi2 as pysqlite

from paracle_meta import DatabaseSettings, MetaDatabase, Template, TemplateRepository
from paracle_meta.testing import FakeEmbeddings
from tests.embedding_server import Answer, EmbeddingServer, vector_of
from tests.faults.processes import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.places import Place

ROWS: Final = 20
BATCH: Final = 2
WAIT: Final = 60
"""Seconds for a request that comes within a second, on a machine that is very busy."""


@pytest.fixture
def embedding_server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


def old(place: Place, server: EmbeddingServer, **more: Any) -> dict[str, Any]:
    """Settings with a model of 1,536 numbers, and without a cache that would hide a repetition."""
    return place.given(
        embedding_provider="openai",
        openai_api_key="sk-test",
        openai_base_url=server.openai_url,
        embedding_cache_size=0,
        embedding_batch_size=BATCH,
        embedding_max_retries=0,
        **more,
    )


def new(place: Place, server: EmbeddingServer) -> dict[str, Any]:
    """The same with one of 768."""
    return old(place, server) | {"embedding_provider": "ollama", "ollama_url": server.url}


async def fill(settings: dict[str, Any]) -> None:
    async with MetaDatabase(DatabaseSettings(**settings)) as db:
        await TemplateRepository(db).add_many(
            Template(
                id=f"tpl-{number:02}",
                artifact_type="agent",
                name=f"Agent {number}",
                content="Text.",
            )
            for number in range(ROWS)
        )


async def vectors(settings: dict[str, Any]) -> dict[str, Any]:
    """What is stored, by the text that it was made of."""
    async with MetaDatabase(DatabaseSettings(**settings)) as db:
        templates = TemplateRepository(db)
        records = [
            await templates.get(record.id, with_embedding=True)
            for record in await templates.list(ROWS * 2)
        ]
    return {f"{one.name}: {one.content}": one.embedding for one in records if one is not None}


def asked(server: EmbeddingServer) -> list[str]:
    return [text for texts in server.texts for text in texts]


class Runs:
    """A command that is run until it comes to its end, and killed again and again."""

    def __init__(self, function: str, settings: dict[str, Any], server: EmbeddingServer) -> None:
        self._start = (function, settings)
        self._server = server
        self.finished: set[str] = set()
        """Texts whose vectors are stored, as the command has said; it may have stored more."""

    def _worker(self) -> Worker:
        return Worker(*self._start, module="embedding_workers")

    def _check(self, before: int, done: int) -> None:
        """See that this run asked for nothing that was finished, and add what it has finished."""
        texts = asked(self._server)[before:]
        assert self.finished.isdisjoint(texts)
        self.finished |= set(texts[:done])

    def kill_after(self, batches: int) -> None:
        """Kill it as soon as it has said that so many batches are done."""
        before = len(asked(self._server))
        with self._worker() as worker:
            done, total = worker.receive()
            assert ROWS - before <= total <= ROWS - len(self.finished)
            while done < min(batches * BATCH, total):
                done, total = worker.receive()
            worker.process.kill()
            worker.process.wait()
        self._check(before, done)

    def kill_while_it_waits(self, batches: int) -> None:
        """Kill it when it has got so many answers and waits for another one."""
        before = len(asked(self._server))
        self._server.plan(*[Answer()] * batches, Answer(hang=True))
        self._server.arrived.clear()
        with self._worker() as worker:
            for _ in range(batches + 1):
                assert self._server.arrived.wait(WAIT)
                self._server.arrived.clear()
            worker.process.kill()
            worker.process.wait()
        self._check(before, batches * BATCH)

    def finish(self) -> int:
        """Let it come to its end and return how many records it has embedded."""
        before = len(asked(self._server))
        done = 0  # Where nothing is left to do, it does not speak of batches.
        with self._worker() as worker:
            while isinstance(said := worker.receive(), list):
                done = said[0]
        self._check(before, done)
        return int(said)


async def test_killed_a_change_of_model_goes_on_where_it_was(
    place: Place, embedding_server: EmbeddingServer
) -> None:
    before = old(place, embedding_server)
    after = new(place, embedding_server)
    await fill(before)
    embedding_server.requests.clear()
    runs = Runs("reembed", after, embedding_server)
    runs.kill_after(0)
    runs.kill_after(2)
    runs.kill_while_it_waits(1)
    # All that time the old model answers.
    async with MetaDatabase(DatabaseSettings(**before)) as db:
        query = vector_of("Agent 7: Text.", 1536)
        found = await db.vector_search("templates", vector=query, top_k=1)
        assert [record.name for record in found] == ["Agent 7"]
    runs.kill_while_it_waits(0)
    runs.kill_after(1)
    # With everything embedded it is killed in or before the switch.
    runs.kill_after(ROWS)
    assert runs.finish() == 0
    assert len(asked(embedding_server)) <= ROWS + 6 * BATCH
    stored = await vectors(after)
    assert stored.keys() == set(asked(embedding_server))
    for text, vector in stored.items():
        assert vector == pytest.approx(vector_of(text, 768), abs=1e-6)


async def test_killed_the_making_up_for_vectors_goes_on_where_it_was(
    place: Place, embedding_server: EmbeddingServer
) -> None:
    settings = old(place, embedding_server)
    embedding_server.always(Answer(status=503))
    await fill(settings)
    embedding_server.always(Answer())
    embedding_server.requests.clear()
    runs = Runs("embed_missing", settings, embedding_server)
    runs.kill_after(2)
    runs.kill_while_it_waits(3)
    assert runs.finish() <= ROWS - 5 * BATCH
    assert len(asked(embedding_server)) <= ROWS + 2 * BATCH
    stored = await vectors(settings)
    assert stored.keys() == set(asked(embedding_server))
    assert all(vector is not None for vector in stored.values())


def test_two_processes_embed_a_text_once(place: Place, embedding_server: EmbeddingServer) -> None:
    settings = old(place, embedding_server) | {"embedding_cache_size": 100}
    for record_id in ("tpl-1", "tpl-2"):
        with Worker("add", settings, module="embedding_workers") as worker:
            worker.receive()
            assert worker.ask([record_id, "Auditor"]) == "added"
    assert len(asked(embedding_server)) == 1


async def test_what_others_write_during_a_change_is_part_of_it(
    place: Place, embedding_server: EmbeddingServer
) -> None:
    before = old(place, embedding_server)
    after = new(place, embedding_server)
    await fill(before)
    with (
        Worker("add", before, module="embedding_workers") as writer,
        Worker("reembed_slowly", after, module="embedding_workers") as worker,
    ):
        writer.receive()
        for number in range(5):
            assert isinstance(worker.receive(), list)
            # Before and after those that are done by now.
            record_id = f"a-{number}" if number % 2 else f"z-{number}"
            assert writer.ask([record_id, f"Added {number}"]) == "added"
            worker.send()
        while isinstance(said := worker.receive(), list):
            worker.send()
        assert said == ROWS + 5
    stored = await vectors(after)
    assert len(stored) == ROWS + 5
    for text, vector in stored.items():
        assert vector == pytest.approx(vector_of(text, 768), abs=1e-6)


class Release(logging.Handler):
    """Lets go of a lock as soon as the log has a word to say."""

    def __init__(self, holder: Any) -> None:
        super().__init__(logging.WARNING)
        self._holder = holder
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())
        self._holder.execute("ROLLBACK")


async def test_a_cache_that_is_busy_costs_no_vector(sqlite: Place) -> None:
    settings = DatabaseSettings(**sqlite.given(busy_timeout=0.1))
    async with MetaDatabase(settings, embeddings=FakeEmbeddings()) as db:
        with closing(
            pysqlite.connect(sqlite.folder / "templates.db", isolation_level=None)
        ) as holder:
            holder.execute("BEGIN IMMEDIATE")
            release = Release(holder)
            logging.getLogger("paracle_meta").addHandler(release)
            try:
                added = await TemplateRepository(db).add(
                    Template(artifact_type="agent", name="Auditor", content="Text.")
                )
            finally:
                logging.getLogger("paracle_meta").removeHandler(release)
        assert added.embedding_model is not None
        (words,) = release.words
        assert "not in the cache" in words
        assert "Auditor" not in words
