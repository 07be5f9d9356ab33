from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
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
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from tests.migrations.databases import Catalog
    from tests.postgres import PostgresServer


class StoppedError(Exception):
    """Raised in the middle of a migration in place of whatever would stop a real one."""


@contextmanager
def stopped_after(engine: Engine, statements: int) -> Iterator[list[str]]:
    """Let so many statements through and raise at the next one; yields those that ran."""
    ran: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if len(ran) == statements:
            raise StoppedError
        ran.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield ran
    finally:
        event.remove(engine, "before_cursor_execute", count)


def test_sqlite_stopped_at_any_statement_is_finished_by_the_next_run(
    tmp_path: Path, complete: Catalog
) -> None:
    stops = 0
    while True:
        folder = tmp_path / str(stops)
        engine = sqlite_engine(folder)
        try:
            with stopped_after(engine, stops), engine.connect() as connection:
                runner.upgrade(connection, FILES)
            break
        except StoppedError:
            with engine.connect() as connection:
                runner.upgrade(connection, FILES)
        assert sqlite_catalog(folder) == complete
        assert sqlite_stamps(folder) == [[(HEAD,)]] * 6
        stops += 1
    assert stops > 40  # Six tables, their indexes and six stamps.


KILLER = """
    import os, signal, sys
    from pathlib import Path
    from sqlalchemy import event
    from tests.migrations.databases import FILES, sqlite_engine
    from paracle_meta.migrations import runner

    for statements in range(1_000):
        if (child := os.fork()) == 0:
            engine = sqlite_engine(Path(sys.argv[1]) / str(statements))
            ran = []

            def count(*_):
                if len(ran) == statements:
                    os.kill(os.getpid(), signal.SIGKILL)
                ran.append(1)

            event.listen(engine, "before_cursor_execute", count)
            with engine.connect() as connection:
                runner.upgrade(connection, FILES)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            print(statements)
            break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to be killed often and cheaply")
def test_sqlite_killed_at_any_statement_is_finished_by_the_next_run(
    tmp_path: Path, complete: Catalog, request: pytest.FixtureRequest
) -> None:
    # A process of its own forks: this one may have threads, of which a fork has only one.
    folder = tmp_path / "killed"
    folder.mkdir()
    kills = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), folder],
        cwd=request.config.rootpath,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(kills.stdout) > 40
    for statements in range(int(kills.stdout)):
        with sqlite_engine(folder / str(statements)).connect() as connection:
            runner.upgrade(connection, FILES)
        assert sqlite_catalog(folder / str(statements)) == complete
        assert sqlite_stamps(folder / str(statements)) == [[(HEAD,)]] * 6


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
    seen: list[str] = []

    # By its text, not its number: what SQLAlchemy itself asks a server when it connects varies.
    def stop_at_a_new_one(engine: Engine) -> None:
        def check(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if statement not in seen:
                seen.append(statement)
                raise StoppedError

        event.listen(engine, "before_cursor_execute", check)

    while True:
        try:
            await on_postgres(postgres, database, upgraded, prepare=stop_at_a_new_one)
            break
        except StoppedError:
            assert postgres_catalog(postgres, database) in between
    stamping = f"INSERT INTO public.{VERSION_TABLE}"
    assert any(statement.startswith(stamping) for statement in seen)  # It was stopped there too.
    assert postgres_catalog(postgres, database) == complete
    assert postgres.sql(f"SELECT * FROM {VERSION_TABLE}", database) == HEAD
