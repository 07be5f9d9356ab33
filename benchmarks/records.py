"""Measure records, costs, memory and starts: ``make bench-records``.

Each figure of ours is put beside a bare driver or a peer that does the same work in the same run,
in turns, so that what slows the machine down for a while slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import batches, growth, semantic, startup
from benchmarks.records_report import write_records
from benchmarks.search import machine
from paracle_meta.backends.sqlite.driver import load_driver
from tests.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PACKAGES: Final = (
    "aiosqlite",
    "asyncpg",
    "chromadb",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-sqlite",
    "sqlite-utils",
)

LANGCHAIN: Final = Path(".venv-langchain/bin/python")
"""The Python of the environment that `make bench-records` makes."""


class Run:
    """What is measured in one run, part by part."""

    def __init__(self, arguments: argparse.Namespace, place: Path, server: PostgresServer) -> None:
        self._arguments = arguments
        self._place = place
        self._server = server
        self.comparisons: list[Any] = []
        self.sums: list[Any] = []
        self.versions = {name: version(name) for name in PACKAGES}

    async def growth(self) -> None:
        """Everything that is asked of a database as it grows."""
        opened = {
            "sqlite": growth.on_sqlite(self._place / "growth"),
            "postgresql": growth.on_postgresql(self._server),
        }
        for name, opening in opened.items():
            async with opening as growing:
                for rows in growth.sizes_up_to(self._arguments.rows):
                    await growing.grow(rows)
                    await growing.measure(self._arguments.calls)
                    print(f"  {name}: {rows:,} rows", flush=True)
            self.comparisons += growing.comparisons
            self.sums += growing.sums

    async def batches(self) -> None:
        """Many rows at once, many tasks at once."""
        size, operations = self._arguments.batch, self._arguments.operations
        self.comparisons += await batches.on_sqlite(self._place / "batches", size)
        self.comparisons += await batches.on_postgresql(self._server, size, operations)

    async def semantic(self) -> None:
        """Storing and finding by meaning."""
        documents = semantic.Documents(
            self._arguments.documents, self._arguments.dimensions, self._arguments.queries
        )
        opening = semantic.stores(
            documents, self._place / "semantic", self._server, self._arguments.langchain
        )
        async with opening as (systems, langchain):
            self.comparisons += await semantic.measure(systems, documents)
        self.versions["langchain-postgres"] = langchain

    async def startup(self) -> None:
        """How long processes take."""
        starts = self._arguments.starts
        self.comparisons += await startup.measure(self._place / "startup", self._server, starts)


PARTS: Final[dict[str, Callable[[Run], Coroutine[Any, Any, None]]]] = {
    "startup": Run.startup,
    "batches": Run.batches,
    "semantic": Run.semantic,
    "growth": Run.growth,
}
"""By the name that the command line takes; the one that fills the disk is the last."""


def measure(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Measure everything on files in a folder and on a server of its own."""
    started = datetime.now(UTC)
    with PostgresServer(18, place / "server") as server:
        run = Run(arguments, place, server)
        for name, part in PARTS.items():
            if name in arguments.parts:
                print(name, flush=True)
                (place / name).mkdir()
                # A loop each: no task or thread of a peer is left for the next part.
                asyncio.run(part(run))
        postgresql = server.sql("SHOW server_version").split()[0]
    return {
        "rows": arguments.rows,
        "batch": arguments.batch,
        "documents": arguments.documents,
        "dimensions": arguments.dimensions,
        "comparisons": run.comparisons,
        "sums": run.sums,
        "started": started.isoformat(timespec="seconds"),
        "minutes": (datetime.now(UTC) - started).total_seconds() / 60,
        "load": os.getloadavg()[0],
        "machine": machine(),
        "versions": {
            "PostgreSQL": postgresql,
            "SQLite": load_driver().sqlite_version,
            **run.versions,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.records", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the largest database")
    parser.add_argument("--calls", type=int, default=40, help="of each way in a turn")
    parser.add_argument("--batch", type=int, default=10_000, help="rows that are stored at once")
    parser.add_argument("--operations", type=int, default=100, help="of each of 16 tasks")
    parser.add_argument("--documents", type=int, default=10_000, help="stored with vectors")
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--starts", type=int, default=15, help="of each program")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument(
        "--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="all make the page"
    )
    parser.add_argument("--langchain", type=Path, default=LANGCHAIN, help="its Python")
    parser.add_argument("--note", default="", help="what to say of this run on the page")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="a folder")
    parser.add_argument("--folder", type=Path, help="where to put databases; needs several GB")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.calls, arguments.batch = 10_000, 5, 1_000
        arguments.operations, arguments.documents, arguments.queries = 20, 1_000, 30
        arguments.starts = 3
    if "semantic" in arguments.parts and not arguments.langchain.exists():
        parser.error(
            f"{arguments.langchain} is missing: langchain-postgres has an environment of its own, "
            "which `make bench-records` makes"
        )
    with tempfile.TemporaryDirectory(prefix="bench-re-", dir=arguments.folder) as folder:
        Path(folder).chmod(0o755)  # The server may run as another user.
        run = measure(arguments, Path(folder))
    run["note"] = arguments.note
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "records.json"
    file.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    write_records(run, arguments.output)


if __name__ == "__main__":
    main()
