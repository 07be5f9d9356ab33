from __future__ import annotations

import asyncio
import json
import os
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from paracle_meta import (
    DatabaseSettings,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MetaDatabase,
    MigrationError,
)
from paracle_meta.backends.postgresql import backup as postgresql_backup
from paracle_meta.exceptions import TransferError
from paracle_meta.testing import FakeEmbeddings
from paracle_meta.transfer import back_up, restore
from tests.postgres import PASSWORD, PASSWORD_ROLE
from tests.transfer.stock import DIMENSIONS, fill

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer

TABLES = ("generations", "templates", "feedback", "costs", "memory", "best_practices")
OTHERS = """
CREATE TABLE others (a int PRIMARY KEY);
INSERT INTO others VALUES (1);
CREATE TABLE generations_of_others (b int GENERATED ALWAYS AS IDENTITY);
CREATE VIEW others_view AS SELECT a FROM others;
CREATE FUNCTION others_function() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TYPE others_type AS (a int);
"""
"""What somebody else has in the same schema."""


def opened(url: str, **settings: Any) -> MetaDatabase:
    return MetaDatabase(
        DatabaseSettings(postgres_url=url, **settings), embeddings=FakeEmbeddings(DIMENSIONS)
    )


def database_of_role(server: PostgresServer, *, extension: bool = True) -> tuple[str, str]:
    """Create a database of a role that may not create the extension; return its name and URL."""
    name = server.create_database()
    if extension:
        server.sql("CREATE EXTENSION vector", name)
    return name, server.password_url_of(name)


async def contents(db: MetaDatabase) -> dict[str, list[Any]]:
    """All columns of all rows."""
    async with db.session() as session:
        found = {}
        for table in TABLES:
            rows = await session.execute(text(f"SELECT * FROM {table} ORDER BY id"))
            found[table] = [str(row) for row in rows]
        return found


def names_in(path: Path) -> set[str]:
    return {inside.name for inside in path.iterdir()}


async def add_generations(db: MetaDatabase, *ids: str) -> None:
    for record_id in ids:
        await GenerationRepository(db).add(
            GenerationResult(id=record_id, artifact_type="agent", name="n", content="x")
        )


def wrapped(folder: Path, programs: Path, **scripts: str) -> Path:
    """Return a folder of programs, some of which are a shell script around ``$REAL``."""
    folder.mkdir()
    for real in programs.iterdir():
        (folder / real.name).symlink_to(real)
    for name, script in scripts.items():
        (folder / name).unlink()
        version = f'if [ "$1" = --version ]; then exec {programs / name} --version; fi'
        lines = ["#!/bin/sh", version, f"REAL={shlex.quote(str(programs / name))}", script]
        (folder / name).write_text("\n".join(lines))
        (folder / name).chmod(0o755)
    return folder


async def test_a_role_without_rights_backs_up_and_restores(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    name, url = database_of_role(postgres)
    async with opened(url) as db:
        await fill(db)
        postgres.sql(OTHERS, name)
        was = await contents(db)
        report = await back_up(db, tmp_path / "backup", pg_bin=postgres.bin)
    assert report.counts == {table: len(rows) for table, rows in was.items()}
    files = {file.name: file.stat() for file in (tmp_path / "backup").iterdir()}
    assert set(files) == {"manifest.json", "paracle_meta.dump"}
    assert {file.st_mode & 0o777 for file in files.values()} == {0o600}
    assert report.size == files["paracle_meta.dump"].st_size

    # Where somebody else has the same too; the search answers and nothing is left to migrate.
    name, url = database_of_role(postgres)
    postgres.sql(f"{OTHERS} INSERT INTO others VALUES (2);", name)
    async with opened(url) as db:
        assert not any((await contents(db)).values())
        restored = await restore(db, tmp_path / "backup", pg_bin=postgres.bin)
        assert (restored.counts, restored.kept) == (report.counts, None)
    async with opened(url, auto_migrate=False) as db:
        assert await db.migrate() == []
        assert await contents(db) == was
        assert await db.vector_search("templates", "security review", mode="hybrid")
        assert (await db.status()).vectors["templates"].index == "templates_embedding_idx"
        # Everything goes on as before: numbers, triggers and what refers to what.
        await db.reembed()
        await add_generations(db, "more")
        await FeedbackRepository(db).add(Feedback(generation_id="more", rating=5))
    assert postgres.sql("SELECT count(*) FROM others", name) == "2"


async def test_only_what_is_ours_is_dumped(postgres18: PostgresServer, tmp_path: Path) -> None:
    name, url = database_of_role(postgres18)
    async with opened(url) as db:
        # Tables, sequences and functions that any part of the package makes.
        await fill(db)
        await db.reembed()
        tables = postgres18.sql(
            "SELECT relname FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
            name,
        )
        assert set(tables.split()) == set(postgresql_backup.OURS)
        functions = postgres18.sql(
            "SELECT proname FROM pg_proc p WHERE pronamespace = 'public'::regnamespace"
            " AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND deptype = 'e')",
            name,
        )
        assert set(functions.split()) <= set(postgresql_backup.OUR_FUNCTIONS)
        postgres18.sql(OTHERS, name)
        await back_up(db, tmp_path / "backup", pg_bin=postgres18.bin)
    dump = (tmp_path / "backup" / "paracle_meta.dump").read_bytes()
    assert b"CREATE TABLE public.generations (" in dump
    assert b"CREATE TABLE public.others" not in dump
    assert b"generations_of_others" not in dump
    assert b"others_view" not in dump


async def test_records_are_replaced_only_when_told_and_all_or_none(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    name, url = database_of_role(postgres)
    async with opened(url) as db:
        await fill(db)
        was = await contents(db)
        await back_up(db, tmp_path / "backup", pg_bin=postgres.bin)
        await add_generations(db, "later")
        now = await contents(db)
        with pytest.raises(TransferError, match=r"holds records already.*--replace"):
            await restore(db, tmp_path / "backup", pg_bin=postgres.bin)
        assert await contents(db) == now
        postgres.sql("CREATE VIEW in_the_way AS SELECT id FROM generations", name)
        with pytest.raises(TransferError, match=r"cannot drop table public\.generations"):
            await restore(db, tmp_path / "backup", replace=True, pg_bin=postgres.bin)
        assert await contents(db) == now
        postgres.sql("DROP VIEW in_the_way", name)
        await restore(db, tmp_path / "backup", replace=True, pg_bin=postgres.bin)
        assert await contents(db) == was
        assert await db.vector_search("templates", "security review", mode="hybrid")


async def test_a_backup_belongs_to_one_moment_while_others_write(
    postgres18: PostgresServer, tmp_path: Path
) -> None:
    acknowledged: list[str] = []

    async def write(db: MetaDatabase, writer: int) -> None:
        for n in range(1_000_000):
            record_id = f"gen-{writer}-{n}"
            await add_generations(db, record_id)
            await FeedbackRepository(db).add(Feedback(generation_id=record_id, rating=3))
            acknowledged.append(record_id)

    _, url = database_of_role(postgres18)
    async with opened(url) as db, asyncio.TaskGroup() as group:
        writers = [group.create_task(write(db, writer)) for writer in range(3)]
        await asyncio.sleep(0.2)
        known = set(acknowledged)
        await back_up(db, tmp_path / "backup", pg_bin=postgres18.bin)
        assert len(acknowledged) > len(known) > 0
        for writer in writers:
            writer.cancel()
    _, url = database_of_role(postgres18)
    async with opened(url) as db:
        report = await restore(db, tmp_path / "backup", pg_bin=postgres18.bin)
        rated = {item.generation_id for item in await FeedbackRepository(db).list(limit=10_000)}
    assert known <= rated
    assert 0 <= report.counts["generations"] - report.counts["feedback"] <= 3


async def test_pgvector_is_made_where_the_role_may(
    postgres18: PostgresServer, tmp_path: Path
) -> None:
    _, url = database_of_role(postgres18)
    async with opened(url) as db:
        await fill(db)
        await back_up(db, tmp_path / "backup", pg_bin=postgres18.bin)
    empty, url = database_of_role(postgres18, extension=False)
    with pytest.raises(MigrationError, match="CREATE EXTENSION vector"):
        await restore(opened(url), tmp_path / "backup", pg_bin=postgres18.bin)
    await restore(opened(postgres18.url_of(empty)), tmp_path / "backup", pg_bin=postgres18.bin)
    # In another schema, its names are others.
    elsewhere, url = database_of_role(postgres18, extension=False)
    postgres18.sql("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions", elsewhere)
    with pytest.raises(TransferError, match="'public' in the backup and in 'extensions'"):
        await restore(opened(url), tmp_path / "backup", pg_bin=postgres18.bin)


async def test_without_vectors_no_pgvector_is_needed(
    postgres18: PostgresServer, tmp_path: Path
) -> None:
    _, url = database_of_role(postgres18, extension=False)
    async with opened(url, enable_vectors=False) as db:
        await add_generations(db, "one")
        was = await contents(db)
        await back_up(db, tmp_path / "backup", pg_bin=postgres18.bin)
    _, url = database_of_role(postgres18, extension=False)
    async with opened(url, enable_vectors=False) as db:
        await restore(db, tmp_path / "backup", pg_bin=postgres18.bin)
        assert await contents(db) == was


async def test_a_tenant_is_restored_beside_the_others(
    postgres18: PostgresServer, tmp_path: Path
) -> None:
    name = postgres18.create_database()
    url = postgres18.url_of(name)
    tenants = [opened(url, postgres_schema=tenant) for tenant in ("a", "b")]
    for tenant in tenants:
        await add_generations(tenant, "before")
    await back_up(tenants[0], tmp_path / "backup", pg_bin=postgres18.bin)
    for tenant in tenants:
        await add_generations(tenant, "after")
    with pytest.raises(TransferError, match=r"of the schema 'a' and .* is used with 'b'"):
        await restore(tenants[1], tmp_path / "backup", replace=True, pg_bin=postgres18.bin)
    await restore(tenants[0], tmp_path / "backup", replace=True, pg_bin=postgres18.bin)
    assert [await GenerationRepository(tenant).count() for tenant in tenants] == [1, 2]
    for tenant in tenants:
        await tenant.close()
    fresh = opened(postgres18.url_of(postgres18.create_database()), postgres_schema="a")
    await restore(fresh, tmp_path / "backup", pg_bin=postgres18.bin)
    assert await GenerationRepository(fresh).count() == 1
    await fresh.close()


async def test_programs_of_other_versions(
    postgres16: PostgresServer, postgres18: PostgresServer, tmp_path: Path
) -> None:
    _, new_url = database_of_role(postgres18)
    async with opened(new_url) as db:
        await fill(db)
        with pytest.raises(TransferError, match=r"pg_dump is of version 16 and .* PostgreSQL 18"):
            await back_up(db, tmp_path / "new", pg_bin=postgres16.bin)
        await back_up(db, tmp_path / "new", pg_bin=postgres18.bin)
    # A newer program, an older server: there and back again.
    name, old_url = database_of_role(postgres16)
    async with opened(old_url) as db:
        await fill(db)
        was = await contents(db)
        await back_up(db, tmp_path / "old", pg_bin=postgres18.bin)
        await add_generations(db, "later")
        now = await contents(db)
        postgres16.sql("CREATE VIEW in_the_way AS SELECT id FROM generations", name)
        with pytest.raises(TransferError, match=r"psql failed: .*cannot drop table"):
            await restore(db, tmp_path / "old", replace=True, pg_bin=postgres18.bin)
        assert await contents(db) == now
        postgres16.sql("DROP VIEW in_the_way", name)
        await restore(db, tmp_path / "old", replace=True, pg_bin=postgres18.bin)
        assert await contents(db) == was
        with pytest.raises(TransferError, match="of PostgreSQL 18 and the server is PostgreSQL 16"):
            await restore(db, tmp_path / "new", replace=True, pg_bin=postgres18.bin)
        with pytest.raises(TransferError, match="pg_restore is of version 16 and cannot read"):
            await restore(db, tmp_path / "old", replace=True, pg_bin=postgres16.bin)
        assert await contents(db) == was
    # An older one into a newer server.
    _, url = database_of_role(postgres18)
    async with opened(url) as db:
        await restore(db, tmp_path / "old", pg_bin=postgres18.bin)
        assert (await contents(db)).keys() == was.keys()


async def test_a_script_that_is_cut_off_changes_nothing(
    postgres16: PostgresServer, postgres18: PostgresServer, tmp_path: Path
) -> None:
    _, url = database_of_role(postgres16)
    async with opened(url) as db:
        await fill(db)
        await back_up(db, tmp_path / "backup", pg_bin=postgres18.bin)
        await add_generations(db, "later")
        now = await contents(db)
        cut = 'if [ "$1" = --list ]; then exec $REAL "$@"; fi; $REAL "$@" | head -c 9000; exit 1'
        programs = wrapped(tmp_path / "bin", postgres18.bin, pg_restore=cut)
        with pytest.raises(TransferError, match="failed"):
            await restore(db, tmp_path / "backup", replace=True, pg_bin=programs)
        assert await contents(db) == now


async def test_no_password_is_seen_and_all_else_is_passed_on(
    postgres18: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = database_of_role(postgres18)
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    url = (
        f"postgresql+asyncpg://{PASSWORD_ROLE}:env:DB_PASSWORD@127.0.0.1:{postgres18.port},"
        f"127.0.0.1:{postgres18.port}/{name}?sslmode=prefer&target_session_attrs=read-write"
        "&statement_timeout=60000"
    )
    said = tmp_path / "said"
    note = f'printf "%s\\n" "$@" "PGPASSWORD is $PGPASSWORD" >> {said}; exec $REAL "$@"'
    noted = dict.fromkeys(("pg_dump", "pg_restore", "psql"), note)
    programs = wrapped(tmp_path / "bin", postgres18.bin, **noted)
    async with opened(url) as db:
        await add_generations(db, "one")
        await back_up(db, tmp_path / "backup", pg_bin=programs)
        await restore(db, tmp_path / "backup", replace=True, pg_bin=programs)
    lines = said.read_text().splitlines()
    assert PASSWORD not in "".join(line for line in lines if not line.startswith("PGPASSWORD is"))
    assert lines.count(f"PGPASSWORD is {PASSWORD}") == 2
    databases = [line for line in lines if line.startswith("--dbname=")]
    assert len(databases) == 2
    for database in databases:
        assert database.startswith(
            f"--dbname=postgresql://{PASSWORD_ROLE}@127.0.0.1:{postgres18.port},"
            f"127.0.0.1:{postgres18.port}/{name}?sslmode=prefer&target_session_attrs=read-write"
        )
        assert "-c%20statement_timeout%3D60000" in database


async def test_a_password_file_serves_too(
    postgres18: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = database_of_role(postgres18)
    file = tmp_path / "passwords"
    file.write_text(f"127.0.0.1:{postgres18.port}:{name}:{PASSWORD_ROLE}:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    url = f"postgresql://{PASSWORD_ROLE}@127.0.0.1:{postgres18.port}/{name}"
    async with opened(url) as db:
        await back_up(db, tmp_path / "backup", pg_bin=postgres18.bin)


async def test_what_a_program_says_is_shown_without_details(
    postgres18: PostgresServer, tmp_path: Path
) -> None:
    _, url = database_of_role(postgres18)
    failing = "echo 'pg_dump: error: no more room' >&2; echo 'DETAIL: a prompt' >&2; exit 1"
    programs = wrapped(tmp_path / "bin", postgres18.bin, pg_dump=failing)
    async with opened(url) as db:
        with pytest.raises(TransferError) as caught:
            await back_up(db, tmp_path / "backup", pg_bin=programs)
    assert str(caught.value) == "pg_dump failed: no more room"
    assert names_in(tmp_path) == {"bin"}


async def test_a_cancelled_backup_ends_the_program(
    postgres18: PostgresServer, tmp_path: Path
) -> None:
    _, url = database_of_role(postgres18)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    programs = wrapped(
        tmp_path / "bin", postgres18.bin, pg_dump=f"echo $$ > {pipe}; exec sleep 600"
    )
    async with opened(url) as db:
        task = asyncio.create_task(back_up(db, tmp_path / "backup", pg_bin=programs))
        process = int(await asyncio.to_thread(pipe.read_text))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert names_in(tmp_path) == {"bin", "pipe"}


async def test_a_cancelled_restore_changes_nothing(
    postgres18: PostgresServer, tmp_path: Path
) -> None:
    name, url = database_of_role(postgres18)
    async with opened(url) as db, opened(url) as other:
        await fill(db)
        await back_up(db, tmp_path / "backup", pg_bin=postgres18.bin)
        await add_generations(db, "later")
        now = await contents(db)
        async with other.session() as session:
            # What is read cannot be dropped.
            await session.execute(text("SELECT count(*) FROM generations"))
            task = asyncio.create_task(
                restore(db, tmp_path / "backup", replace=True, pg_bin=postgres18.bin)
            )
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            )
            while await asyncio.to_thread(postgres18.sql, waiting, name) == "0":
                assert not task.done()
                await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(postgres18.sql, waiting, name) == "0"
        assert await contents(db) == now


async def test_a_flipped_bit_is_found(postgres18: PostgresServer, tmp_path: Path) -> None:
    _, url = database_of_role(postgres18)
    async with opened(url) as db:
        await fill(db)
        await back_up(db, tmp_path / "backup", pg_bin=postgres18.bin)
        dump = tmp_path / "backup" / "paracle_meta.dump"
        data = bytearray(dump.read_bytes())
        data[len(data) // 2] ^= 1
        dump.write_bytes(data)
        was = await contents(db)
        with pytest.raises(TransferError, match=r"paracle_meta\.dump is damaged"):
            await restore(db, tmp_path / "backup", replace=True, pg_bin=postgres18.bin)
        dump.unlink()
        with pytest.raises(TransferError, match=r"paracle_meta\.dump is missing"):
            await restore(db, tmp_path / "backup", replace=True, pg_bin=postgres18.bin)
        assert await contents(db) == was


async def test_tables_of_another_revision_are_not_replaced(
    postgres18: PostgresServer, tmp_path: Path
) -> None:
    _, url = database_of_role(postgres18)
    async with opened(url) as db:
        await add_generations(db, "one")
        await back_up(db, tmp_path / "backup", pg_bin=postgres18.bin)
        manifest = tmp_path / "backup" / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "revision": "0003"}))
        with pytest.raises(TransferError, match="restore into an empty database"):
            await restore(db, tmp_path / "backup", replace=True, pg_bin=postgres18.bin)
        assert await GenerationRepository(db).count() == 1
