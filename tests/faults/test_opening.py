"""Opening: killed in the middle, by several processes at once, and where a newer version was."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pysqlite3 import dbapi2 as pysqlite

from paracle_meta import (
    DatabaseConnectionError,
    GenerationRepository,
    GenerationResult,
    MigrationError,
    Template,
    TemplateRepository,
)
from paracle_meta.migrations import HEAD, VERSION_TABLE
from paracle_meta.schema import COLLECTIONS
from tests.faults.cancelling import quiet
from tests.faults.places import NAMES, Place, unsound_files
from tests.faults.processes import Worker
from tests.migrations.databases import postgres_catalog, sqlite_catalog, sqlite_stamps

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer

OPENERS = 4
ROUNDS = 4
SQLITE_FILES = 50
"""Steps in which folder and files are made, opened and switched to write-ahead logs."""
STRIDE = 7
"""How far apart the others are that are tried: they are one transaction on SQLite, and the history
is one on PostgreSQL, and `tests/migrations` tries each statement of these."""

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="needs fork, to be killed cheaply")
INDEXES = [f"{name}_embedding_idx" for name in COLLECTIONS]


def elsewhere(place: Place, name: str) -> Place:
    """Return another empty database of the same kind."""
    if place.server is None:
        return Place(settings=place.given(sqlite_dir=str(place.folder / name)))
    database = place.server.create_database()
    url = place.server.url_of(database)
    return replace(place, settings=place.given(postgres_url=url), database=database)


def catalog(place: Place) -> Any:
    """Return all that the database contains but rows."""
    if place.server is None:
        assert unsound_files(place.folder) == {}
        assert len(set(map(str, sqlite_stamps(place.folder)))) == 1
        return sqlite_catalog(place.folder)
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
async def test_an_opening_killed_between_any_two_steps_is_finished_by_the_next(
    place: Place,
) -> None:
    whole = await completed(elsewhere(place, "whole"))
    steps = 0
    with Worker("openers_to_kill") as nursery:
        while True:
            killed = elsewhere(place, str(steps))
            ended = nursery.ask([killed.settings, steps])
            # Finished in a forked process as well, which is fresh as a real one and starts fast.
            assert nursery.ask([killed.settings, None]) == 0
            assert catalog(killed) == whole, steps
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            steps += 1 if place.server is None and steps < SQLITE_FILES else STRIDE
    assert await completed(killed) == whole
    assert steps > 60  # Folder, files, six tables with their indexes, stamps; vectors.


async def test_an_index_left_invalid_by_a_killed_build_is_built_anew(postgresql: Place) -> None:
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


BUILDING = (
    "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"
    " AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
)


async def building(place: Place) -> None:
    async with asyncio.timeout(30):
        while not place.rows(BUILDING):  # noqa: ASYNC110 - the event is in the server
            await asyncio.sleep(0.02)


def test_several_processes_may_open_an_empty_database_at_once(place: Place) -> None:
    with ExitStack() as stack:
        openers = [stack.enter_context(Worker("open_and_close")) for _ in range(OPENERS)]
        for opener in openers:
            assert opener.receive() == "ready"
        catalogs = []
        for number in range(ROUNDS):
            empty = elsewhere(place, str(number))
            for opener in openers:
                opener.send(empty.settings)
            assert [opener.receive() for opener in openers] == ["opened"] * OPENERS
            assert empty.rows("SELECT count(*) FROM generations") == [(str(OPENERS),)]
            catalogs.append(catalog(empty))
    assert all(catalog == catalogs[0] for catalog in catalogs)


async def test_a_migration_waits_for_one_that_holds_the_lock(sqlite: Place) -> None:
    async with sqlite.open() as db:
        await db.migrate()
        with Worker("hold_migration", str(sqlite.folder)) as holder:
            assert holder.receive() == "held"
            waiting = asyncio.create_task(db.migrate())
            await asyncio.sleep(0.2)  # That nothing happens can only be seen by waiting.
            assert not waiting.done()
            await GenerationRepository(db).count()  # Who need not migrate need not wait.
            async with sqlite.open() as other:
                await GenerationRepository(other).count()
        assert await waiting == []


@pytest.mark.parametrize("auto_migrate", [True, False])
async def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(
    place: Place, auto_migrate: bool
) -> None:
    async with place.open() as db:
        await GenerationRepository(db).add(
            GenerationResult(artifact_type="agent", name="n", content="c")
        )
    stamp = f"UPDATE {VERSION_TABLE} SET version_num = '9999'"
    if place.server is not None:
        place.server.sql(stamp, place.database)
    else:
        for name in NAMES:
            with closing(pysqlite.connect(place.folder / f"{name}.db")) as connection:
                connection.execute(stamp)
                connection.commit()
    before = contents(place)
    db = place.open(auto_migrate=auto_migrate)
    with pytest.raises(MigrationError, match=r"newer paracle_meta\. Upgrade"):
        await db.open()
    with pytest.raises(MigrationError, match="newer"):
        await GenerationRepository(db).count()
    with pytest.raises(MigrationError, match="newer"):
        await db.migrate()
    assert (await db.status()).revision == "9999"
    await db.close()
    assert contents(place) == before


def contents(place: Place) -> Any:
    if place.server is not None:
        return catalog(place), place.rows("SELECT * FROM generations")
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in place.folder.glob("*.db")
    }


async def test_without_auto_migrate_nothing_is_made(place: Place) -> None:
    db = place.open(auto_migrate=False)
    for _ in range(2):
        with pytest.raises(MigrationError, match="paracle meta db migrate"):
            await db.open()
    await db.close()
    if place.server is None:
        assert not place.folder.exists()
    else:
        assert place.rows("SELECT 1 FROM pg_extension WHERE extname = 'vector'") == []
        assert place.rows("SELECT relname FROM pg_class WHERE relname = 'generations'") == []
    assert (await db.migrate())[-1] == HEAD
    await db.open()
    assert await db.migrate() == []
    await db.close()


async def test_a_failed_opening_can_be_repeated(
    place: Place, server: PostgresServer, tmp_path: Path
) -> None:
    if place.server is None:
        blocked = tmp_path / "files"
        blocked.write_text("in the way")
        db = place.open()
        with pytest.raises(Exception, match="sqlite_dir"):
            await db.open()
        blocked.unlink()
    else:
        db = place.open()
        server.stop()
        with pytest.raises(DatabaseConnectionError):
            await db.open()
        server.start()
    await db.open()
    await db.close()
