from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from paracle_meta.migrations import HEAD, VERSION_TABLE, runner
from tests.migrations.databases import (
    FILES,
    NAMES,
    on_postgres,
    postgres_catalog,
    sqlite_catalog,
    sqlite_engine,
    sqlite_stamps,
    upgraded,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from tests.migrations.databases import Catalog
    from tests.postgres import PostgresServer


State = tuple[str, str]
"""Catalog and stamps of six files."""


READING = ("PRAGMA", "SELECT")


class StoppedError(Exception):
    """Raised in the middle of a migration in place of whatever would stop a real one."""


def stop_at_new_ones(engine: Engine, seen: set[tuple[str, str]], start: str) -> None:
    """Raise at the first statement that writes and is not seen yet, and add it.

    Before one that reads, there is what there is before the next one that writes. Each stop leaves
    what the next run goes on from, so all of them together take as long as a few whole runs.

    Args:
        engine: Of the database.
        seen: Statements, with the state that the run began with.
        start: That of this run.
    """

    def check(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.lstrip().startswith(READING) and (start, statement) not in seen:
            seen.add((start, statement))
            raise StoppedError

    event.listen(engine, "before_cursor_execute", check)


@pytest.fixture
def between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """What six files contain before, between and after the revisions."""
    folder = tmp_path / "between"
    history = runner._history()
    states = []
    for length in range(len(history) + 1):
        with monkeypatch.context() as patched, sqlite_engine(folder).connect() as connection:
            patched.setattr(runner, "_history", lambda length=length: history[:length])
            runner.upgrade(connection, FILES)
        states.append(sqlite_state(folder))
    return states


def sqlite_state(folder: Path) -> State:
    """Return catalog and stamps, whose table is not there before the first revision is done."""
    catalog = {name: items for name, items in sqlite_catalog(folder).items() if items}
    try:
        stamps = [stamp for stamp in sqlite_stamps(folder) if stamp]
    except sqlite3.OperationalError:
        stamps = []
    return json.dumps(catalog), json.dumps(stamps)


def test_sqlite_stopped_at_any_statement_is_finished_by_the_next_run(
    tmp_path: Path, complete: Catalog, between: list[State]
) -> None:
    folder = tmp_path / "stopped"
    seen: set[tuple[str, str]] = set()
    state = between[0]
    while True:
        engine = sqlite_engine(folder)
        stop_at_new_ones(engine, seen, start=state[1])
        try:
            with engine.connect() as connection:
                runner.upgrade(connection, FILES)
            break
        except StoppedError:
            state = sqlite_state(folder)
            assert state in between
    assert sqlite_catalog(folder) == complete
    assert sqlite_stamps(folder) == [[(HEAD,)]] * 6
    assert len(seen) > 150  # Six tables, their indexes and triggers, and six stamps a revision.


KILLER = """
    import json, os, signal, sys
    from pathlib import Path
    from tests.migrations.databases import FILES, sqlite_engine
    from tests.migrations.test_stopped import StoppedError, sqlite_state, stop_at_new_ones
    from paracle_meta.migrations import runner

    folder = Path(sys.argv[1])
    seen = set()

    class Killing(set):
        def add(self, statement):
            os.write(written, json.dumps(statement).encode())
            os.kill(os.getpid(), signal.SIGKILL)

    start = "[]"
    while True:
        read, written = os.pipe()
        if (child := os.fork()) == 0:
            engine = sqlite_engine(folder)
            with engine.connect() as connection:
                stop_at_new_ones(engine, Killing(seen), start)
                runner.upgrade(connection, FILES)
            os._exit(0)
        os.close(written)
        with os.fdopen(read) as file:
            said = file.read()
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        seen.add(tuple(json.loads(said)))
        state = sqlite_state(folder)
        start = state[1]
        print(json.dumps(state))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to be killed often and cheaply")
def test_sqlite_killed_at_any_statement_is_finished_by_the_next_run(
    tmp_path: Path, complete: Catalog, between: list[State], request: pytest.FixtureRequest
) -> None:
    # A process of its own forks: this one may have threads, of which a fork has only one.
    folder = tmp_path / "killed"
    killer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), folder],
        cwd=request.config.rootpath,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
        capture_output=True,
        text=True,
        check=True,
    )
    left = [tuple(json.loads(line)) for line in killer.stdout.splitlines()]
    assert len(left) > 150
    for state in left:
        assert state in between
    assert sqlite_catalog(folder) == complete
    assert sqlite_stamps(folder) == [[(HEAD,)]] * 6


@pytest.mark.parametrize("committed", range(6))
def test_sqlite_commit_that_reached_some_files_only_is_finished_by_the_next_run(
    tmp_path: Path, complete: Catalog, committed: int
) -> None:
    # In WAL mode a transaction is committed file by file: a power cut between two of them leaves
    # the first ones with all of the transaction and the others with nothing of it.
    folder = tmp_path / "cut"
    with sqlite_engine(folder).connect() as connection:
        runner.upgrade(connection, FILES)
    for name in NAMES[committed:]:
        for file in folder.glob(f"{name}.db*"):
            file.unlink()
    with sqlite_engine(folder).connect() as connection:
        assert runner.upgrade(connection, FILES)[-1] == HEAD
    assert sqlite_catalog(folder) == complete
    assert sqlite_stamps(folder) == [[(HEAD,)]] * 6


@pytest.mark.parametrize("committed", range(1, 6))
def test_sqlite_downgrade_that_reached_some_files_only_is_finished_by_the_next_one(
    tmp_path: Path, committed: int
) -> None:
    with sqlite_engine(tmp_path).connect() as connection:
        runner.upgrade(connection, FILES)
        with connection.begin():
            for name in NAMES[:committed]:
                connection.exec_driver_sql(f"DROP TABLE {FILES[name]}.{name}")
                connection.exec_driver_sql(f"DELETE FROM {FILES[name]}.{VERSION_TABLE}")
        assert runner.downgrade(connection, FILES, "base")[-1] == "0001"
    assert not any(sqlite_catalog(tmp_path).values())


async def test_postgres_stopped_at_any_statement_is_finished_by_the_next_run(
    postgres: PostgresServer,
) -> None:
    whole = postgres.create_database()
    revisions = await on_postgres(postgres, whole, upgraded)
    complete = postgres_catalog(postgres, whole)
    between = {complete}
    for below in [*revisions[-2::-1], "base"]:

        def down(connection: Connection, below: str = below) -> list[str]:
            return runner.downgrade(connection, {}, below)

        await on_postgres(postgres, whole, down)
        between.add(postgres_catalog(postgres, whole))
    database = postgres.create_database()
    seen: set[tuple[str, str]] = set()
    state = ""

    # By its text, not its number: what SQLAlchemy itself asks a server when it connects varies.
    while True:
        try:
            stop = partial(stop_at_new_ones, seen=seen, start=state)
            await on_postgres(postgres, database, upgraded, prepare=stop)
            break
        except StoppedError:
            state = postgres_catalog(postgres, database)
            assert state in between
    stamping = f"INSERT INTO public.{VERSION_TABLE}"
    assert any(statement.startswith(stamping) for _, statement in seen)  # It was stopped there too.
    assert postgres_catalog(postgres, database) == complete
    assert postgres.sql(f"SELECT * FROM {VERSION_TABLE}", database) == HEAD
