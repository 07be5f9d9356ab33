"""What the process does that restores a database and is killed; started as `workers` are."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from paracle_meta.transfer import restore
from tests.faults.workers import database, heard, load_all, main, say

if TYPE_CHECKING:
    from types import FrameType

STEPS = {
    "asyncpg/connection.py": {"execute", "fetch", "fetchrow", "fetchval"},
    "postgresql/programs.py": {"find", "_started", "_pump", "_check"},
    "asyncio/streams.py": {"write", "drain", "close"},
}
"""Calls by which a restore asks the server, and starts the programs and talks to them."""


def _kill_before(step: int, *, with_programs: bool) -> None:
    """Kill this process, or all of its group, as it begins the step of this number."""
    begun: list[FrameType] = []

    def watch(frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if not any(
            code.co_name in names and code.co_filename.endswith(file)
            for file, names in STEPS.items()
        ):
            return
        # A coroutine is called anew whenever it goes on, in the same frame.
        if any(frame is other for other in begun):
            return
        begun.append(frame)
        if len(begun) > step:
            if with_programs:
                os.killpg(0, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)


def restorers_to_kill(backup: str, programs: str) -> None:
    """Restore in a child that is killed at the step that comes, with or without its programs.

    It says 0 where the restore was done before there were so many.
    """
    load_all()
    for settings, replace, step, with_programs in heard():
        if (child := os.fork()) == 0:
            os.setpgid(0, 0)
            _kill_before(step, with_programs=with_programs)
            asyncio.run(restore(database(settings), backup, replace=replace, pg_bin=programs))
            os._exit(0)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


async def restore_and_wait(backup: str, programs: str) -> None:
    """Restore in the place of what is there, at the settings that come."""
    settings = next(heard())
    await restore(database(settings), backup, replace=True, pg_bin=programs)
    say("restored")


if __name__ == "__main__":
    main(globals())
