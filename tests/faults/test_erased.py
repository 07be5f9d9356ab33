"""What was erased is gone: from every byte of the SQLite files, from every row on PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import numpy as np
import pytest

from paracle_meta import (
    DatabaseBusyError,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    QueryError,
    Template,
    TemplateRepository,
)
from paracle_meta.backends.vectors.rounded import rounded
from paracle_meta.backends.vectors.segment import unit
from paracle_meta.retention import BATCH, erase_generation, erase_session, prune
from tests.faults.places import attached, unsound_files
from tests.faults.vectors import TinyEmbeddings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.figures import Faults
    from tests.faults.places import Place

OTHERS: Final = 5_000
"""Templates beside those that are erased: from so many on there is an index in files."""

INDEXED: Final = "(index)"

OLD: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Secret:
    """A generation and a session of which nothing may be left. Each word stands nowhere else."""

    number: int

    def word(self, about: str) -> str:
        # Words are also kept cut to their first letters, so those differ.
        return f"{'bcdfghjklm'[self.number % 10]}qx{'npqrstvwxz'[self.number // 10]}zj{about}"

    @property
    def session(self) -> str:
        return self.word("session")

    @property
    def generation(self) -> str:
        return f"gen-{self.word('id')}"

    async def store(self, db: MetaDatabase) -> str:
        """Leave it wherever the package does, and return the id of its template."""
        await GenerationRepository(db).add(
            GenerationResult(
                id=self.generation,
                artifact_type="agent",
                name=self.word("name"),
                description=self.word("description"),
                content=f"{self.word('content')} " * 2_000,  # More than a page of a file.
                metadata={"asked": self.word("metadata")},
            )
        )
        await FeedbackRepository(db).add(
            Feedback(
                id=f"fbk-{self.word('feedback')}",
                generation_id=self.generation,
                rating=5,
                comment=self.word("comment"),
            )
        )
        templates = TemplateRepository(db)
        made = await templates.promote_from_generation(self.generation)
        # Its first text is in nothing but the room that it has left.
        await templates.update(made.id, pattern=self.word("pattern"))
        memory = MemoryRepository(db)
        for value in ("overwritten", "value"):
            await memory.set("plan", {"is": self.word(value)}, session_id=self.session)
        return made.id

    async def needles(self, embeddings: TinyEmbeddings) -> dict[str, bytes]:
        words = "id name description content metadata feedback comment pattern session value"
        needles = {about: self.word(about).encode() for about in words.split()}
        needles["cut"] = f"_{self.word('')[:4]}".encode()
        for pattern in ("description", "pattern"):
            text = f"{self.word('name')}: {self.word(pattern)}"
            numbers = np.array([await embeddings.embed(text)], dtype=np.float32)
            needles[f"vector of {pattern}"] = numbers.tobytes()
        # The index was made when the vector was the last one.
        needles[f"direction {INDEXED}"] = unit(numbers).tobytes()
        needles[f"rounded {INDEXED}"] = rounded(unit(numbers))[0].tobytes()
        return needles


async def store_others(db: MetaDatabase, templates: int) -> None:
    await TemplateRepository(db).add_many(
        Template(
            id=f"tpl-{number}",
            artifact_type="agent",
            name="other",
            content="text",
            embedding=[float((number * 7 + place * place) % 97 + 1) for place in range(16)],
        )
        for number in range(templates)
    )
    await GenerationRepository(db).add_many(
        GenerationResult(id=f"gen-{number}", artifact_type="agent", name="other", content="text")
        for number in range(100)
    )
    await FeedbackRepository(db).add(Feedback(generation_id="gen-1", rating=4))
    await MemoryRepository(db).set("plan", 1, session_id="other")


def found(folder: Path, needles: dict[str, bytes]) -> dict[str, list[str]]:
    """Return what is found, and in which files."""
    contents = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    places = {
        about: [name for name, content in contents.items() if needle in content]
        for about, needle in needles.items()
    }
    return {about: names for about, names in places.items() if names}


@pytest.mark.parametrize(("journal", "others"), [("wal", OTHERS), ("truncate", 100)])
async def test_not_a_byte_is_left_in_the_files(
    sqlite: Place, faults: Faults, journal: str, others: int
) -> None:
    embeddings = TinyEmbeddings(16)
    secrets = [Secret(number) for number in range(faults.times(1, 20))]
    db = MetaDatabase(sqlite.open(journal_mode=journal).settings, embeddings=embeddings)
    needles: dict[str, bytes] = {}
    async with db:
        await store_others(db, others)
        template_ids = [await secret.store(db) for secret in secrets]
        indexed = await db.build_index("templates")
        assert indexed == {"templates": others + len(secrets) if others == OTHERS else 0}
        with contextlib.closing(attached(sqlite.folder)) as connection:
            connection.execute("ANALYZE")  # Somebody may: it samples keys, and keeps them.
        for secret, template_id in zip(secrets, template_ids, strict=True):
            mine = {**await secret.needles(embeddings), "template": template_id.encode()}
            # Else there is nothing to erase, and nothing shown.
            missing = mine.keys() - found(sqlite.folder, mine).keys()
            assert all(INDEXED in about and others < OTHERS for about in missing), missing
            # This one is only where there was no reason to use the room again.
            mine["overwritten"] = secret.word("overwritten").encode()
            needles |= {f"{about} {secret.number}": word for about, word in mine.items()}
        started = time.monotonic()
        for secret in secrets:
            report = await erase_generation(db, secret.generation, templates=True)
            assert report.rows == {"generations": 1, "feedback": 1, "templates": 1}
            assert (await erase_session(db, secret.session)).rows == {"memory": 1}
        took = (time.monotonic() - started) / len(secrets)
        assert found(sqlite.folder, needles) == {}
        # All others are as they were, and found.
        assert await TemplateRepository(db).count() == others
        assert await GenerationRepository(db).count() == 100
        assert await MemoryRepository(db).count(session_id="other") == 1
        (match,) = await db.vector_search("templates", vector=[1.0] * 16, top_k=1)
        assert match.name == "other"
        assert len(await db.vector_search("templates", "other", 7, mode="text")) == 7
        assert len(list(sqlite.folder.glob(".index/templates/idx-*"))) == (others == OTHERS)
    assert unsound_files(sqlite.folder) == {}
    assert found(sqlite.folder, needles) == {}
    faults.note(
        f"A generation and a session erased; all bytes of the folder searched ({journal} journal)",
        where="SQLite",
        times=f"{len(secrets)} of each, {len(needles)} words, ids and vectors",
        lost="nothing of what was not erased",
        seen=f"0 found; {took:.1f} s to erase both beside {others:,} templates",
    )


async def test_a_reader_that_keeps_the_bytes_is_told_of(sqlite: Place) -> None:
    secret = Secret(0)
    needles = {"value": secret.word("value").encode()}
    async with sqlite.open(busy_timeout=0.2) as db:
        await MemoryRepository(db).set("plan", secret.word("value"), session_id=secret.session)
        with contextlib.closing(attached(sqlite.folder)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM memory").fetchone()
            with pytest.raises(DatabaseBusyError, match="a reader"):
                await erase_session(db, secret.session)
            assert found(sqlite.folder, needles)
        assert (await erase_session(db, secret.session)).rows == {"memory": 0}
        assert found(sqlite.folder, needles) == {}


EVERY_ROW: Final = """
CREATE FUNCTION pg_temp.rows_with(word text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE t record; found bigint; total bigint := 0; BEGIN
FOR t IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND nspname = 'public' OR c.oid = 'pg_stats'::regclass LOOP
  EXECUTE format('SELECT count(*) FROM %s t WHERE strpos(t::text, $1) > 0', t.name)
    INTO found USING word;
  total := total + found;
END LOOP; RETURN total; END $$;
"""


async def test_not_a_row_is_left_on_a_server(postgresql: Place, faults: Faults) -> None:
    server = postgresql.server
    assert server is not None
    embeddings = TinyEmbeddings()

    def rows_with(words: list[str]) -> list[str]:
        calls = "; ".join(f"SELECT pg_temp.rows_with('{word}')" for word in words)
        return server.sql(EVERY_ROW + calls, postgresql.database).splitlines()

    secret = Secret(0)
    async with postgresql.open() as db:
        await Secret(1).store(db)
        template_id = await secret.store(db)
        server.sql("ANALYZE", postgresql.database)  # As it does by itself when tables grow.
        vector = await embeddings.embed(f"{secret.word('name')}: {secret.word('pattern')}")
        # As `vector` and `bytea` print it.
        numbers = [
            ",".join(f"{number:g}" for number in vector),
            np.array(vector, dtype="<f4").tobytes().hex(),
        ]
        about = "id name description content metadata feedback comment pattern session value"
        words = [*map(secret.word, about.split()), template_id, *numbers]
        assert "0" not in rows_with(words)
        await erase_generation(db, secret.generation, templates=True)
        await erase_session(db, secret.session)
        assert set(rows_with(words)) == {"0"}
        assert "0" not in rows_with([Secret(1).word("content"), Secret(1).session])
        # Until a table is vacuumed, its files and indexes have all of it.
        left = postgresql.rows(
            "SELECT relname FROM pg_stat_user_tables WHERE relname <> 'paracle_meta_version'"
            " AND relname !~ '^(cost|best_practices)' AND (n_dead_tup > 0 OR last_vacuum IS NULL)"
        )
        assert left == []
    faults.note(
        "A generation and a session erased; all rows of all tables searched",
        where="PostgreSQL",
        times=f"1 of each, {len(words)} words, ids and vectors",
        lost="nothing of what was not erased",
        seen="0 found, all tables vacuumed",
    )


async def test_a_role_that_may_not_vacuum_is_told_so(postgresql: Place) -> None:
    server = postgresql.server
    assert server is not None
    secret = Secret(0)
    async with postgresql.open() as db:
        await secret.store(db)
    server.sql(
        "CREATE ROLE guest LOGIN PASSWORD 'guest'; GRANT USAGE ON SCHEMA public TO guest;"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest",
        postgresql.database,
    )
    owner = str(postgresql.settings["postgres_url"])
    guest = urlsplit(owner)._replace(
        netloc=f"guest:guest@{urlsplit(owner).netloc.rpartition('@')[2]}"
    )
    async with postgresql.open(postgres_url=guest.geturl(), auto_migrate=False) as db:
        with pytest.raises(QueryError, match="may not vacuum memory"):
            await erase_session(db, secret.session)
        assert await MemoryRepository(db).count() == 0
    both = {"postgres_url": guest.geturl(), "migration_url": owner, "auto_migrate": False}
    async with postgresql.open(**both) as db:
        assert (await erase_session(db, secret.session)).rows == {"memory": 0}


async def test_pruning_leaves_writers_their_turn_and_can_be_stopped(
    place: Place, faults: Faults
) -> None:
    number = faults.times(4, 100) * BATCH
    # Two of them on SQLite know of each other no more than two processes do.
    async with place.open() as db, place.open(busy_timeout=30) as other:
        generations = GenerationRepository(db)
        for first in range(0, number, 5_000):
            await generations.add_many(
                GenerationResult(
                    id=f"gen-{n}", artifact_type="a", name="n", content="c" * 500, created_at=OLD
                )
                for n in range(first, min(first + 5_000, number))
            )
        await FeedbackRepository(db).add_many(
            Feedback(generation_id=f"gen-{n}", rating=3, created_at=OLD)
            for n in range(0, number, 10)
        )
        planned = await prune(db, ["generations"], before=OLD + timedelta(1), dry_run=True)
        assert planned.rows == {"generations": number, "feedback": number // 10}

        begun = asyncio.create_task(prune(db, ["generations"], before=OLD + timedelta(1)))
        while await GenerationRepository(other).count() == number:
            pass
        begun.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await begun
        assert place.orphans() == []

        going_on = asyncio.create_task(prune(db, ["generations"], before=OLD + timedelta(1)))
        slowest, written = 0.0, 0
        while not going_on.done():
            started = time.monotonic()
            await GenerationRepository(other).add(
                GenerationResult(artifact_type="a", name="new", content="c")
            )
            written += 1
            slowest = max(slowest, time.monotonic() - started)
        report = await going_on
        assert 0 < report.rows["generations"] < number
        assert await generations.count() == written
        assert place.rows("SELECT count(*) FROM feedback") == [("0",)]
    faults.note(
        "Pruning stopped and gone on with, while another connection writes",
        where="PostgreSQL" if place.server else "SQLite",
        times=f"{number:,} generations, {written:,} writes meanwhile",
        lost="0 rows, no feedback without its generation",
        seen=f"slowest write {1000 * slowest:.0f} ms",
    )
