"""Measure exports and copies: ``make bench-transfer``.

A copy into an empty PostgreSQL database is put beside asyncpg's COPY of the same rows, and an
export as SQL beside the ``.dump`` of SQLite's own shell, in turns, so that what slows the machine
down for a while slows both. The memory of an export is that of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import numpy as np

from benchmarks.search import SEED, machine
from benchmarks.transfer_report import write_transfer
from paracle_meta import DatabaseSettings, MetaDatabase
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.backends.portable import encode_time
from paracle_meta.backends.postgresql.codec import register
from paracle_meta.schema import GENERATIONS, TEMPLATES
from paracle_meta.testing import FakeEmbeddings
from paracle_meta.transfer import copy_database, export_jsonl, export_sql
from tests.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from paracle_meta.backends.portable import Row
    from paracle_meta.schema import Table

TEXT: Final = (
    "review the code for secrets and injections then explain what an attacker could do with it and"
    " propose a smaller change that keeps the tests green while the agent waits for an answer"
)

BATCH: Final = 2_000
"""Rows that are made and stored at once."""

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)


# --- What is stored -----------------------------------------------------------------------------


def text_of(random: np.random.Generator) -> str:
    """Return a Markdown text of 200 to 2,000 characters, with the characters that need escaping."""
    words = random.choice(TEXT.split(), int(random.integers(30, 300)))
    lines = [" ".join(words[start : start + 12]) for start in range(0, len(words), 12)]
    return "# What it's for\n\n" + "\n".join(lines)


def generations(rows: int) -> Iterator[list[Row]]:
    """Yield rows of generations in batches."""
    random = np.random.default_rng(SEED)
    for start in range(0, rows, BATCH):
        batch: list[Row] = []
        for n in range(start, min(start + BATCH, rows)):
            moment = encode_time(BEGINNING + timedelta(seconds=n, microseconds=n % 1000))
            metadata = json.dumps({"step": n, "tools": ["read", "write"], "temperature": 0.7})
            batch.append(
                (
                    f"gen-{n:09}", "agent", f"Reviewer {n}", "Looks for what is wrong.",
                    text_of(random), n % 100 / 10, "openai", "gpt-4o-mini", n % 5000,
                    n % 5000 / 1e6, moment, metadata, moment,
                )
            )  # fmt: skip
        yield batch


def templates(rows: int, dimensions: int, model: str) -> Iterator[list[Row]]:
    """Yield rows of templates with vectors in batches."""
    random = np.random.default_rng(SEED)
    for start in range(0, rows, BATCH):
        batch: list[Row] = []
        end = min(start + BATCH, rows)
        vectors = random.standard_normal((end - start, dimensions)).astype("<f4")
        for n, vector in zip(range(start, end), vectors, strict=True):
            moment = encode_time(BEGINNING + timedelta(seconds=n))
            batch.append(
                (
                    f"tpl-{n:09}", "agent", f"Reviewer {n}", "review", text_of(random)[:300],
                    n % 100 / 10, 0, None, moment, vector.tobytes(), moment, model,
                )
            )  # fmt: skip
        yield batch


async def stocked(folder: Path, rows: int, vectors: int, dimensions: int) -> DatabaseSettings:
    """Make a folder of SQLite files with generations, and templates with vectors."""
    settings = DatabaseSettings(sqlite_dir=folder, index_in_background=False)
    embeddings = FakeEmbeddings(dimensions)
    async with MetaDatabase(settings, embeddings=embeddings) as db:
        backend = await db.backend()
        async with backend.bulk.loading() as loading:
            for batch in generations(rows):
                await loading.insert(GENERATIONS, batch)
            if vectors:
                await loading.prepare(TEMPLATES, VectorSpace(embeddings.model_id, dimensions))
                for batch in templates(vectors, dimensions, embeddings.model_id):
                    await loading.insert(TEMPLATES, batch)
                await loading.finish(TEMPLATES)
    return settings


# --- A copy, beside COPY ------------------------------------------------------------------------


class Copies:
    """Empty databases on one server, filled in turn by a copy of ours and by bare COPY."""

    def __init__(self, server: PostgresServer, dimensions: int) -> None:
        self._server = server
        self._embeddings = FakeEmbeddings(dimensions)
        self._template = ""

    async def measure(self, source: DatabaseSettings, table: Table[Any], rounds: int) -> Any:
        """Return the seconds of each round: ours, COPY of the same rows, and that with words.

        The words are the other table in which a copy of ours leaves rows, where there is one.
        """
        rows = await self._rows_of(source, table)
        words = b""

        async def ours_once(url: str) -> float:
            nonlocal words
            taken = await self._ours(source, url)
            words = await self._words_of(table, url)
            return taken

        ways: dict[str, Callable[[str], Awaitable[float]]] = {
            "ours": lambda url: self._ours(source, url),
            "bare": lambda url: self._bare(table, rows, b"", url),
        }
        if table.searched:
            await self._on_empty(ours_once, table, len(rows))
            ways["bare_with_words"] = lambda url: self._bare(table, rows, words, url)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds):
            # Who comes first finds another state of the server's caches.
            for name in list(ways) if turn % 2 else reversed(ways):
                taken[name].append(await self._on_empty(ways[name], table, len(rows)))
        return {"rows": len(rows), **taken}

    def _settings(self, url: str) -> DatabaseSettings:
        # No index of the vectors: building one takes longer than everything else on either way.
        return DatabaseSettings(postgres_url=url, vector_index="none")

    async def _on_empty(
        self, way: Callable[[str], Awaitable[float]], table: Table[Any], rows: int
    ) -> float:
        if not self._template:
            self._template = self._server.create_database()
            settings = self._settings(self._server.url_of(self._template))
            async with MetaDatabase(settings, embeddings=self._embeddings):
                pass
        name = "measured"
        self._server.sql(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        # What the last round has left to write is not this one's to wait for.
        self._server.sql("CHECKPOINT")
        taken = await way(self._server.url_of(name))
        assert self._server.sql(f"SELECT count(*) FROM {table.name}", name) == str(rows)
        self._server.sql(f"DROP DATABASE {name} WITH (FORCE)")
        return taken

    async def _ours(self, source: DatabaseSettings, url: str) -> float:
        async with (
            MetaDatabase(source, embeddings=self._embeddings) as one,
            MetaDatabase(self._settings(url), embeddings=self._embeddings) as other,
        ):
            started = time.perf_counter()
            await copy_database(one, other, verify=False)
            return time.perf_counter() - started

    async def _bare(self, table: Table[Any], rows: list[Any], words: bytes, url: str) -> float:
        connection = await asyncpg.connect(url)
        try:
            await register(connection, schema="public")
            columns = [column.name for column in table.columns]
            started = time.perf_counter()
            await connection.copy_records_to_table(table.name, records=rows, columns=columns)
            if words:
                source = BytesIO(words)
                await connection.copy_to_table(
                    f"{table.name}_terms", source=source, format="binary"
                )
            return time.perf_counter() - started
        finally:
            await connection.close()

    async def _words_of(self, table: Table[Any], url: str) -> bytes:
        """Return what stands in the table of words, as COPY reads it."""
        output = BytesIO()
        connection = await asyncpg.connect(url)
        try:
            sql = f"SELECT * FROM {table.name}_terms ORDER BY id"
            await connection.copy_from_query(sql, output=output, format="binary")
        finally:
            await connection.close()
        return output.getvalue()

    async def _rows_of(self, source: DatabaseSettings, table: Table[Any]) -> list[Any]:
        """Return the rows as asyncpg wants them."""
        times = [n for n, column in enumerate(table.columns) if column.kind == "timestamp"]
        found = []
        async with MetaDatabase(source, embeddings=self._embeddings) as db:
            backend = await db.backend()
            async with backend.bulk.snapshot() as snapshot:
                async for batch in snapshot.rows(table):
                    for row in batch:
                        values = list(row)
                        for n in times:
                            values[n] = datetime.fromisoformat(f"{row[n]}+00:00")
                        found.append(tuple(values))
        return found


# --- An export, beside .dump --------------------------------------------------------------------


def dump(folder: Path, file: Path) -> float:
    """Return the seconds that SQLite's shell takes to dump all files of a folder to one."""
    started = time.perf_counter()
    with file.open("wb") as output:
        for database in sorted(folder.glob("*.db")):
            subprocess.run(["sqlite3", database, ".dump"], stdout=output, check=True)
    return time.perf_counter() - started


def shell_version() -> str:
    shell = subprocess.run(["sqlite3", "--version"], capture_output=True, text=True, check=True)
    return shell.stdout.split()[0]


async def export(settings: DatabaseSettings, dimensions: int, form: str, file: Path) -> float:
    """Return the seconds that an export takes."""
    write = {"sql": export_sql, "jsonl": export_jsonl}[form]
    async with MetaDatabase(settings, embeddings=FakeEmbeddings(dimensions)) as db:
        started = time.perf_counter()
        await write(db, file)
        return time.perf_counter() - started


async def exports(settings: DatabaseSettings, dimensions: int, rounds: int, place: Path) -> Any:
    """Return the seconds of each round, and the bytes of the files, for both."""
    taken: dict[str, Any] = {"ours": [], "dump": []}
    for turn in range(rounds):
        for name in ("ours", "dump") if turn % 2 else ("dump", "ours"):
            file = place / f"{name}.sql"
            if name == "ours":
                seconds = await export(settings, dimensions, "sql", file)
            else:
                seconds = await asyncio.to_thread(dump, settings.sqlite_folder, file)
            taken[name].append(seconds)
            taken[f"{name}_bytes"] = file.stat().st_size
            file.unlink()
    return taken


# --- Memory -------------------------------------------------------------------------------------


def memory(folder: Path, dimensions: int, form: str, place: Path) -> dict[str, Any]:
    """Return the most memory that a process took which exports a folder, and for how long."""
    arguments = [str(folder), str(dimensions), form, str(place / "exported")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.transfer", "--export", *arguments],
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    (place / "exported").unlink()
    return result


def export_here(folder: str, dimensions: str, form: str, file: str) -> None:
    """Export in this process and print its peak of resident memory."""
    settings = DatabaseSettings(sqlite_dir=folder)
    seconds = asyncio.run(export(settings, int(dimensions), form, Path(file)))
    # Not `ru_maxrss`, which begins with what the parent had when it started this process.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    size = Path(file).stat().st_size
    print(json.dumps({"seconds": seconds, "peak_bytes": 1024 * int(peak), "file_bytes": size}))


# --- All of it ----------------------------------------------------------------------------------


async def measure(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    rows, vectors, dimensions = arguments.rows, arguments.vectors, arguments.dimensions
    rounds = arguments.rounds
    started = datetime.now(UTC)
    texts = await stocked(place / "texts", rows, 0, dimensions)
    vector_files = await stocked(place / "vectors", 0, vectors, dimensions)
    with PostgresServer(18, place / "server") as server:
        copies = Copies(server, dimensions)
        copied = {
            "generations": await copies.measure(texts, GENERATIONS, rounds),
            "templates": await copies.measure(vector_files, TEMPLATES, rounds),
        }
        versions = {"PostgreSQL": server.sql("SHOW server_version").split()[0]}
    exported = {
        "generations": {"rows": rows, **await exports(texts, dimensions, rounds, place)},
        "templates": {"rows": vectors, **await exports(vector_files, dimensions, rounds, place)},
    }
    shutil.rmtree(place / "texts")
    shutil.rmtree(place / "vectors")
    both = place / "both"
    await stocked(both, arguments.memory_rows, arguments.memory_vectors, arguments.memory_width)
    return {
        "rows": rows,
        "vectors": vectors,
        "dimensions": dimensions,
        "memory_rows": arguments.memory_rows,
        "memory_vectors": arguments.memory_vectors,
        "memory_width": arguments.memory_width,
        "copies": copied,
        "exports": exported,
        "memory": {form: memory(both, arguments.memory_width, form, place) for form in FORMS},
        "started": started.isoformat(timespec="seconds"),
        "load": os.getloadavg()[0],
        "machine": machine(),
        "versions": {
            **versions,
            "asyncpg": version("asyncpg"),
            "sqlite3 shell": shell_version(),
        },
    }


FORMS: Final = ("sql", "jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.transfer", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="generations, for the times")
    parser.add_argument("--vectors", type=int, default=10_000, help="templates, for the times")
    parser.add_argument("--dimensions", type=int, default=1_536)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-rows", type=int, default=1_000_000)
    parser.add_argument("--memory-vectors", type=int, default=100_000)
    parser.add_argument("--memory-width", type=int, default=1_536)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--note", default="", help="what to say of this run on the page")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="a folder")
    parser.add_argument("--folder", type=Path, help="where to put databases; needs several GB")
    parser.add_argument("--export", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export:
        export_here(*arguments.export)
        return
    if arguments.quick:
        arguments.rows, arguments.vectors, arguments.rounds = 20_000, 2_000, 3
        arguments.memory_rows, arguments.memory_vectors = 50_000, 5_000
    with tempfile.TemporaryDirectory(prefix="bench-tr-", dir=arguments.folder) as folder:
        Path(folder).chmod(0o755)  # The server may run as another user.
        run = asyncio.run(measure(arguments, Path(folder)))
    run["note"] = arguments.note
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "transfer.json"
    file.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    write_transfer(run, arguments.output)


if __name__ == "__main__":
    main()
