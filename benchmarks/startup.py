"""How long a process takes until it has done what it was started for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.turns import comparison, in_turns
from paracle_meta import DatabaseSettings, MemoryRepository, MetaDatabase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.turns import Comparison, Way
    from tests.postgres import PostgresServer

KEY: Final = "k"

ROOT: Final = Path(__file__).parents[1]


def _run(arguments: Sequence[str], folder: Path) -> str:
    """Run a program in an empty folder, with the database in another one; return what it says."""
    environment = {
        # An installed package is compiled once. Where Python may not write what it compiled, each
        # start would compile anew what was edited last, and nothing else.
        **{
            name: value
            for name, value in os.environ.items()
            if "PARACLE" not in name and name != "PYTHONDONTWRITEBYTECODE"
        },
        "PARACLE_META_SQLITE_DIR": str(folder / "database"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def _started(arguments: Sequence[str], folder: Path) -> Way:
    async def way(n: int) -> None:  # noqa: ARG001
        # It is this process that waits, and has nothing else to do.
        _run(arguments, folder)

    return way


async def _prepare(folder: Path) -> None:
    settings = DatabaseSettings(sqlite_dir=folder / "database", index_in_background=False)
    async with MetaDatabase(settings) as database:
        await MemoryRepository(database).set(KEY, {"step": 3})


async def measure(folder: Path, server: PostgresServer, rounds: int) -> list[Comparison]:
    """Compare starts, in turns.

    Args:
        folder: An empty one, where nothing configures anything.
        server: For a database that is opened.
        rounds: Starts of each.
    """
    await _prepare(folder)
    programs = Path(sys.executable).parent
    python = [sys.executable, "-c"]
    paracle = [str(programs / "paracle"), "meta"]
    peer = [str(programs / "sqlite-utils"), "--help"]
    get = [*paracle, "memory", "get", KEY]
    if json.loads(_run(get, folder)) != {"step": 3}:
        raise RuntimeError("The command line does not find what was stored for it.")
    compared: dict[str, dict[str, list[str]]] = {
        "import": {"paracle": [*python, "import paracle_meta"], "python": [*python, ""]},
        "help": {"paracle": [*paracle, "--help"], "sqlite-utils": peer},
        "cli-get": {"paracle": get, "sqlite-utils": peer},
    }
    comparisons = []
    for work, commands in compared.items():
        ways = {name: _started(arguments, folder) for name, arguments in commands.items()}
        comparisons.append(comparison(work, await in_turns(ways, rounds=rounds, calls=1)))
    return [*comparisons, *await _opening(folder, server, rounds)]


async def _opening(folder: Path, server: PostgresServer, rounds: int) -> list[Comparison]:
    url = server.url_of(server.create_database())
    # With what a process has where nothing is configured.
    async with MetaDatabase(DatabaseSettings(postgres_url=url)):
        pass
    database = folder / "database"
    places = {
        "sqlite": {
            "paracle": ("ours", f"sqlite:///{database}"),
            "bare": ("aiosqlite", str(database / "memory.db")),
        },
        "postgresql": {"paracle": ("ours", url), "bare": ("asyncpg", url)},
    }
    comparisons = []
    for name, ways in places.items():
        first: dict[str, list[float]] = {system: [] for system in ways}
        again: dict[str, list[float]] = {system: [] for system in ways}
        imported: set[str] = set()
        for turn in range(rounds + 1):
            for system in list(ways) if turn % 2 else reversed(ways):
                command = [sys.executable, "-m", "benchmarks.opening", *ways[system]]
                answer = json.loads(_run(command, folder))
                if turn:
                    first[system].append(answer["first_ms"])
                    again[system].append(answer["again_ms"])
                if system == "paracle":
                    imported.update(answer["imported"])
        comparisons += [
            comparison("open-first", first, database=name, imported=sorted(imported)),
            comparison("open", again, database=name, imported=sorted(imported)),
        ]
    return comparisons
