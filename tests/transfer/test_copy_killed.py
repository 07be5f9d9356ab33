"""`paracle meta copy` killed by force in the middle, and run again."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest
from pysqlite3 import dbapi2 as pysqlite

from paracle_meta import (
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.transfer import compare_databases
from tests.cli.conftest import WAIT, paracle, process_environment
from tests.transfer.stock import folder, on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.postgres import PostgresServer

ROWS = {"generations": 3_500, "templates": 3_500, "feedback": 2_500}
"""Rows of which each takes several batches."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is large enough to be killed in the middle."""
    path = tmp_path_factory.mktemp("copied") / "source"

    async def fill() -> None:
        vectors = np.random.default_rng(3).standard_normal((ROWS["templates"], 16))
        async with folder(path) as db:
            generations = [
                GenerationResult(
                    id=f"gen-{n:05}", artifact_type="agent", name=f"{n}", content="x" * 500
                )
                for n in range(ROWS["generations"])
            ]
            await GenerationRepository(db).add_many(generations)
            templates = [
                Template(
                    id=f"tpl-{n:05}",
                    artifact_type="agent",
                    name=f"{n}",
                    content="some words",
                    embedding=vector,
                )
                for n, vector in enumerate(vectors.astype(np.float32))
            ]
            await TemplateRepository(db).add_many(templates)
            feedback = [
                Feedback(id=f"fbk-{n:05}", generation_id=f"gen-{n:05}", rating=4)
                for n in range(ROWS["feedback"])
            ]
            await FeedbackRepository(db).add_many(feedback)

    asyncio.run(fill())
    return path


@contextmanager
def copying(source: Path, target: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the real command; it is killed at the end of the block."""
    command = [sys.executable, "-m", "paracle_meta", "meta", "copy"]
    with subprocess.Popen(
        [*command, "--from", f"sqlite:///{source}", "--to", target],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=process_environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def finished(source: Path, target: MetaDatabase, url: str) -> None:
    """Run the command to its end, and see that it stores what is missing and nothing else."""
    before = (await target.status()).counts
    await target.close()
    done = await asyncio.to_thread(
        paracle, "meta", "copy", "--from", f"sqlite:///{source}", "--to", url, "--json"
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["equal"]
    for table in report["tables"]:
        rows = ROWS.get(table["table"], 0)
        assert table["unchanged"] == before[table["table"]]
        assert table["copied"] == rows - before[table["table"]]
        assert table["updated"] == 0
    async with folder(source) as one:
        assert all(compared.equal for compared in await compare_databases(one, target))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def stall(connection: Any, table: str, record_id: str) -> Any:
    """Let whoever comes to store this row wait until the transaction that is returned ends."""
    columns = {"id": record_id, "artifact_type": "a", "name": "n", "content": "c"}
    if table == "feedback":
        columns = {"id": record_id, "generation_id": "gen-00001", "rating": "1"}
    values = ", ".join(f"'{value}'" for value in columns.values())
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})")
    return transaction


OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def stalled(connection: Any, table: str) -> None:
    """Wait until somebody waits to store rows of a table, of which others are stored."""
    waiting = f"{OTHERS} AND wait_event_type = 'Lock' AND query LIKE 'COPY%\"{table}\"%'"
    some = f"(SELECT count(*) > 0 FROM {table})"
    await _until(connection, f"SELECT count(*) > 0 AND {some} {waiting}")


async def rows_after(connection: Any, table: str) -> int:
    """Return how many rows a killed client has left, once the server has seen that it is gone."""
    # Another connection of this test is there as well.
    await _until(connection, f"SELECT count(*) = 1 {OTHERS} AND backend_type = 'client backend'")
    number: int = await connection.fetchval(f"SELECT count(*) FROM {table}")
    return number


async def _until(connection: Any, sql: str) -> None:
    async with asyncio.timeout(WAIT):
        while not await connection.fetchval(sql):  # noqa: ASYNC110 - the event is in the server
            await asyncio.sleep(0.02)


async def test_a_copy_to_postgresql_goes_on_where_it_was_killed(
    source: Path, postgres18: PostgresServer
) -> None:
    async with on(postgres18) as target:
        assert target.settings.postgres_url is not None
        url = target.settings.postgres_url.get_secret_value()
        await target.close()
        async with connected(url) as one, connected(url) as other:
            held = await stall(one, "generations", "gen-00500")
            with copying(source, url):
                await stalled(other, "generations")
            await held.rollback()
            assert 0 < await rows_after(one, "generations") < ROWS["generations"]

            # Its batch was not stored, whatever became of those beside it.
            held = await stall(one, "generations", "gen-00500")
            with copying(source, url):
                await stalled(other, "generations")
                # Not before it is at work, as to open the database it needs this table for itself.
                later = await stall(other, "templates", "tpl-00500")
                await held.rollback()
                await stalled(one, "templates")
            await later.rollback()
            assert 0 < await rows_after(one, "templates") < ROWS["templates"]
            assert await rows_after(one, "generations") == ROWS["generations"]

            held = await stall(one, "feedback", "fbk-00600")
            with copying(source, url):
                await stalled(other, "feedback")
            await held.rollback()
            assert 0 < await rows_after(one, "feedback") < ROWS["feedback"]
            assert await rows_after(one, "templates") == ROWS["templates"]
        await finished(source, target, url)
        # The vectors are of the model of this program, which was not that of the command.
        assert len(await TemplateRepository(target).find_similar("some words")) == 10


async def test_a_copy_to_sqlite_goes_on_where_it_was_killed(source: Path, tmp_path: Path) -> None:
    async with folder(tmp_path / "target") as target:
        await target.close()
        killed = 0
        for table in ROWS:
            file = tmp_path / "target" / f"{table}.db"
            with (
                closing(pysqlite.connect(file)) as watching,
                copying(source, f"sqlite:///{tmp_path / 'target'}") as process,
            ):
                counting = f"SELECT count(*) FROM {table}"
                while not watching.execute(counting).fetchone()[0]:
                    assert process.poll() is None
                    await asyncio.sleep(0.002)
            killed += process.wait() == -signal.SIGKILL
        assert killed
        await finished(source, target, f"sqlite:///{tmp_path / 'target'}")
