"""Migrations: killed at each step, by many processes at once, and while an index is built."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import Template, TemplateRepository
from paracle_meta.migrations import HEAD, VERSION_TABLE
from paracle_meta.schema import COLLECTIONS
from tests.faults.cancelling import quiet
from tests.faults.conftest import MEMORY, MEMORY_NEEDED
from tests.faults.places import Place, unsound_files
from tests.faults.processes import Worker
from tests.migrations.databases import postgres_catalog, sqlite_catalog, sqlite_stamps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.figures import Faults

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="needs fork, to be killed cheaply")
INDEXES = [f"{name}_embedding_idx" for name in COLLECTIONS]

STRIDES = {"sqlite": 16, "postgresql": 11}
"""How far apart the steps are that the short form tries: some 240 on SQLite, 110 on PostgreSQL.

Each statement alone is tried by `tests/migrations` too."""


@pytest.fixture
def empty(request: pytest.FixtureRequest, where: str) -> Iterator[Place]:
    """An empty database on each of the two; one on SQLite in memory, as the machine stays on."""
    if where == "postgresql":
        yield request.getfixturevalue("postgresql")
        return
    fits = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED
    with tempfile.TemporaryDirectory(dir=MEMORY if fits else None) as folder:
        yield Place(settings={"sqlite_dir": str(Path(folder) / "files")})


def elsewhere(place: Place, name: str) -> Place:
    """Return another empty database of the same kind."""
    if place.server is None:
        return Place(settings=place.given(sqlite_dir=str(place.folder / name)))
    database = place.server.create_database()
    url = place.server.url_of(database)
    return replace(place, settings=place.given(postgres_url=url), database=database)


def given_up(place: Place) -> None:
    """Delete the files that nobody looks at any more; a server takes longer to drop a database."""
    if place.server is None:
        shutil.rmtree(place.folder)


def catalog(place: Place) -> Any:
    """Return all that the database contains but rows: one head, and every file or index sound."""
    if place.server is None:
        assert unsound_files(place.folder) == {}
        assert sqlite_stamps(place.folder) == [[(HEAD,)]] * 6
        return sqlite_catalog(place.folder)
    assert place.rows(f"SELECT version_num FROM {VERSION_TABLE}") == [(HEAD,)]
    assert place.rows("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []
    return postgres_catalog(place.server, place.database), valid_indexes(place)


def valid_indexes(place: Place) -> list[tuple[str, ...]]:
    return place.rows(
        "SELECT indexrelid::regclass, indisvalid FROM pg_index"
        " WHERE indexrelid::regclass::text LIKE '%embedding_idx' ORDER BY 1"
    )


async def completed(place: Place) -> Any:
    """Open and use the database, and return what it contains."""
    async with place.open() as db:
        await TemplateRepository(db).add(Template(artifact_type="agent", name="t", content="c"))
        assert await TemplateRepository(db).find_similar("anything")
    return catalog(place)


@needs_fork
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
async def test_an_opening_killed_between_any_two_steps_is_finished_by_the_next(
    empty: Place, where: str, faults: Faults
) -> None:
    whole = await completed(elsewhere(empty, "whole"))
    stride = faults.times(STRIDES[where], 1)
    kills = 0
    with Worker("openers_to_kill", module="migration_workers") as nursery:
        for steps in itertools.count(0, stride):
            place = elsewhere(empty, str(steps))
            ended, again = nursery.ask([place.settings, steps])
            assert again == 0
            assert catalog(place) == whole, steps
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            kills += 1
            given_up(place)
    assert await completed(place) == whole
    assert steps > 60  # Folder, files, six tables with their indexes, stamps; vectors.
    faults.note(
        "Migration of an empty database killed (kill -9) before each statement and file call",
        where={"sqlite": "SQLite", "postgresql": "PostgreSQL"}[where],
        times=f"{kills:,} kills, each {stride} steps" if stride > 1 else f"{kills:,} kills",
        lost="0 tables or indexes after the next opening",
        seen="one head, "
        + {"sqlite": "integrity_check ok on six files", "postgresql": "no invalid index"}[where],
    )


@needs_fork
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_many_processes_may_open_an_empty_database_at_once(
    empty: Place, where: str, faults: Faults
) -> None:
    openers, rounds = faults.times((4, 2), (16, 20))
    first = None
    with Worker("openers_at_once", openers, module="migration_workers") as nursery:
        for number in range(rounds):
            place = elsewhere(empty, str(number))
            assert nursery.ask(place.settings) == ["opened"] * openers
            assert place.rows("SELECT count(*) FROM generations") == [(str(openers),)]
            found = catalog(place)
            first = first or found
            assert found == first
            given_up(place)
    faults.note(
        "Empty database opened and migrated by many processes at once",
        where={"sqlite": "SQLite", "postgresql": "PostgreSQL"}[where],
        times=f"{openers} processes x {rounds}",
        lost="0 of their rows",
        seen="one head and the same tables and indexes each time, no error",
    )


async def test_an_index_left_invalid_by_a_killed_build_is_built_anew(
    postgresql: Place, faults: Faults
) -> None:
    async with postgresql.open(vector_index="none") as db:
        await TemplateRepository(db).add(Template(artifact_type="agent", name="t", content="c"))
        async with db.session() as blocking:
            # CREATE INDEX CONCURRENTLY waits for everybody who has written to the table.
            await blocking.execute("UPDATE templates SET usage_count = 1")
            with Worker("open_and_close") as opener:
                assert opener.receive() == "ready"
                opener.send(postgresql.settings)
                await building(postgresql)
                opener.process.kill()
                with pytest.raises(EOFError):
                    opener.receive()
                # The server would notice the death of its client when the index is done only.
                postgresql.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND pid <> pg_backend_pid()"
                )
                quiet(postgresql, BUILDING)
    assert valid_indexes(postgresql) == [(INDEXES[0], "f")]
    async with postgresql.open() as db:
        assert (await db.status()).vectors["templates"].index == INDEXES[0]
    assert sorted(valid_indexes(postgresql)) == [(name, "t") for name in sorted(INDEXES)]
    faults.note(
        "Process killed (kill -9) while it builds a vector index",
        where="PostgreSQL",
        times="1 kill",
        lost="0 indexes after the next opening",
        seen="the invalid one was dropped and built anew",
    )


BUILDING = (
    "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"
    " AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
)


async def building(place: Place) -> None:
    async with asyncio.timeout(30):
        while not place.rows(BUILDING):  # noqa: ASYNC110 - the event is in the server
            await asyncio.sleep(0.02)
