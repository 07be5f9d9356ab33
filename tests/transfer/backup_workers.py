"""What the processes of the tests of backups do: ``python -m tests.transfer.backup_workers``.

Each function prints one JSON value a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paracle_meta import (
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
)
from paracle_meta.transfer import back_up, restore
from tests.transfer.stock import folder

if TYPE_CHECKING:
    from types import FrameType

WRITERS = 4
POINTS = {"_prepare", "_keep", "seal", "_decide", "overwrite", "step", "_end"}
"""The functions of a restore at whose calls it is killed: each step of writing among them."""
SOURCES = ("backup_folder.py", "sqlite/overwrite.py", "sqlite/restore.py")


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201 - that is how it talks


async def write(path: str, journal_mode: str) -> None:
    """Write generations and their feedback, several at once, and say each that was acknowledged."""
    async with folder(Path(path), journal_mode=journal_mode) as db:
        generations, feedback = GenerationRepository(db), FeedbackRepository(db)

        async def writer(number: int) -> None:
            for n in range(1_000_000):
                record = GenerationResult(
                    id=f"gen-{number}-{n}", artifact_type="agent", name="n", content="x" * 2_000
                )
                await generations.add(record)
                await feedback.add(Feedback(generation_id=record.id, rating=1 + n % 5))
                if n % 3 == 0:
                    await generations.update(record.id, content="y" * 2_000)
                say(record.id)

        await asyncio.gather(*map(writer, range(WRITERS)))


async def live(path: str) -> None:
    """Search and write, and say what was acknowledged and how many were found."""
    async with folder(Path(path)) as db:
        generations = GenerationRepository(db)
        for n in range(1_000_000):
            record = GenerationResult(id=f"live-{n}", artifact_type="agent", name="n", content="x")
            await generations.add(record)
            found = await db.vector_search("templates", "security review", mode="hybrid")
            say([record.id, [match.id for match in found]])


async def killed_backup(path: str, target: str) -> None:
    """Back up, and be killed by force in the middle of it."""

    def kill(what: str, _done: int, _total: int) -> None:
        if what == "costs":
            os.kill(os.getpid(), signal.SIGKILL)

    async with folder(Path(path)) as db:
        await back_up(db, target, progress=kill)


def killed_restores(path: str, backup: str, places: str) -> None:
    """Restore into copies of a folder, each killed at another point, and say where they are.

    The last one is the first that was not killed.
    """
    for number in range(1_000_000):
        target = Path(places) / f"{number:03}"
        shutil.copytree(path, target)
        # A process of its own that needs no time to start.
        child = os.fork()
        if child == 0:
            asyncio.run(_killed_restore(target, backup, number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        say([str(target), os.WIFSIGNALED(status)])
        if not os.WIFSIGNALED(status):
            assert status == 0
            return


async def _killed_restore(target: Path, backup: str, number: int) -> None:
    calls = 0

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        code = frame.f_code
        if event == "call" and code.co_name in POINTS and code.co_filename.endswith(SOURCES):
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1

    threading.setprofile(count)
    await restore(folder(target), backup, replace=True)


if __name__ == "__main__":
    running = globals()[sys.argv[1]](*sys.argv[2:])
    if running is not None:
        asyncio.run(running)
