"""What the processes do that open databases and are killed; started as `workers` are."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

from paracle_meta import GenerationRepository, ParacleMetaError
from tests.faults.workers import database, generation, heard, load_all, main, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from paracle_meta import MetaDatabase
    from tests.faults.workers import Settings


def _ready() -> None:
    """Load and compile what a migration needs, which else each forked process would do anew."""
    from paracle_meta.migrations import runner

    load_all()
    for dialect in ("sqlite", "postgresql"):
        runner.upgrade_sql(dialect, {})


FILES = ("mkdir", "open", "chmod")
STATEMENTS = ("do_execute", "do_commit", "execute", "fetch", "fetchrow", "fetchval")
STATEMENT_FILES = ("sqlalchemy/engine/default.py", "asyncpg/connection.py")


def _is_step(frame: Any, event: str, argument: Any) -> bool:
    """Whether the interpreter is just beginning a call that changes a file or sends a statement."""
    if event == "c_call":
        name, owner = argument.__name__, argument.__self__
        if name == "execute":
            return type(owner).__module__ == "pysqlite3.dbapi2"
        return name in FILES and getattr(owner, "__name__", "") == "posix"
    return (
        event == "call"
        and frame.f_code.co_name in STATEMENTS
        and frame.f_code.co_filename.endswith(STATEMENT_FILES)
    )


def kill_before(steps: int) -> None:
    """Kill this process as it begins one more step than so many, in whatever thread.

    The steps are seen as the interpreter makes the calls, so nothing has to be changed in order to
    be killed between two of them.
    """
    begun: list[Any] = []

    def watch(frame: Any, event: str, argument: Any) -> None:
        if not _is_step(frame, event, argument):
            return
        # A coroutine is called anew whenever it goes on, in the same frame.
        if event == "call" and any(frame is other for other in begun):
            return
        if len(begun) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        begun.append(frame if event == "call" else None)

    threading.setprofile(watch)
    sys.setprofile(watch)


def _forked(work: Callable[[], object]) -> int:
    """Do something in a child and return its id."""
    if (child := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child must not go on as if it were the parent
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def openers_to_kill() -> None:
    """Open a database in a child that is killed after so many steps, then in one that is not.

    It says what came of both: 0 where the database was open.
    """
    _ready()
    for settings, steps in heard():
        ends = []
        for most in (steps, None):
            child = _forked(partial(_open, settings, most))
            ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        say(ends)


def _open(settings: Settings, steps: int | None) -> None:
    db = database(settings)
    if steps is not None:
        kill_before(steps)
    asyncio.run(db.open())


def openers_at_once(openers: int) -> None:
    """Open each database that comes in so many processes at the same moment, and write to it.

    It says what each one said.
    """
    _ready()
    for settings in heard():
        start, go = os.pipe()
        said, answer = os.pipe()
        children = [
            _forked(partial(_open_together, settings, start, go, answer)) for _ in range(openers)
        ]
        for pipe in (start, go, answer):
            os.close(pipe)
        with os.fdopen(said) as answers:
            say(answers.read().splitlines())
        for child in children:
            os.waitpid(child, 0)


def _open_together(settings: Settings, start: int, go: int, answer: int) -> None:
    os.close(go)
    os.read(start, 1)  # Ends when the parent, the last to hold the other end, closes that.
    os.write(answer, asyncio.run(_open_and_write(database(settings))).encode() + b"\n")


async def _open_and_write(db: MetaDatabase) -> str:
    try:
        async with db:
            await GenerationRepository(db).add(generation("opener"))
    except ParacleMetaError as error:
        return repr(error)
    return "opened"


if __name__ == "__main__":
    main(globals())
