"""Opening: while another process migrates, where a newer version was, and where it fails."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from pysqlite3 import dbapi2 as pysqlite

from paracle_meta import (
    DatabaseConnectionError,
    GenerationRepository,
    GenerationResult,
    MigrationError,
)
from paracle_meta.migrations import HEAD, VERSION_TABLE
from tests.faults.places import NAMES, Place
from tests.faults.processes import Worker
from tests.migrations.databases import postgres_catalog

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer


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
        catalog = postgres_catalog(place.server, place.database)
        return catalog, place.rows("SELECT * FROM generations")
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
