"""What the processes of these tests do. Run as ``python -m tests.faults.workers FUNCTION ARGS``.

Each function reads a JSON value a line from stdin and answers with one on stdout, where a line is
one write, so that whoever kills the process reads whole lines only.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from paracle_meta import (
    CostRepository,
    DatabaseSettings,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    InUseError,
    MemoryRepository,
    MetaDatabase,
    NotFoundError,
    ParacleMetaError,
    Template,
    TemplateRepository,
)
from tests.faults.places import attached
from tests.faults.vectors import TinyEmbeddings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

Settings = dict[str, Any]


def say(value: Any) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


def heard() -> Iterator[Any]:
    """Return each value as it comes. It blocks the event loop, in which nothing else runs."""
    for line in iter(sys.stdin.readline, ""):
        yield json.loads(line)


def database(settings: Settings) -> MetaDatabase:
    return MetaDatabase(DatabaseSettings(**settings), embeddings=TinyEmbeddings())


def load_all() -> None:
    """Load what a migration needs, before a race or a fork and not in it."""
    import paracle_meta.backends.postgresql.session
    import paracle_meta.backends.sqlite.session
    import paracle_meta.migrations.runner
    import paracle_meta.tables  # noqa: F401


def generation(number: int | str) -> GenerationResult:
    return GenerationResult(artifact_type="agent", name=f"made by {number}", content="x" * 200)


# --- Races --------------------------------------------------------------------------------------


async def rate(settings: Settings) -> None:
    """Add feedback to each generation that is named."""
    async with database(settings) as db:
        feedback = FeedbackRepository(db)
        say("ready")
        for generation_id in heard():
            try:
                await feedback.add(Feedback(generation_id=generation_id, rating=5))
                say("added")
            except NotFoundError:
                say("missing")


async def delete(settings: Settings) -> None:
    """Delete each generation that is named."""
    async with database(settings) as db:
        generations = GenerationRepository(db)
        say("ready")
        for generation_id, cascade in heard():
            try:
                await generations.delete(generation_id, cascade=cascade)
                say("deleted")
            except InUseError:
                say("in use")


async def open_and_close() -> None:
    """Open the database at each of the settings that come, and say what came of it."""
    load_all()
    say("ready")
    for settings in heard():
        db = database(settings)
        try:
            await db.open()
            await GenerationRepository(db).add(generation("opener"))
            say("opened")
        except ParacleMetaError as error:
            say(repr(error))
        finally:
            await db.close()


# --- Many writers -------------------------------------------------------------------------------


async def write_all_kinds(settings: Settings, rounds: int, shared_id: str) -> None:
    """Write so many of each kind and count uses of one template, several at a time."""
    async with database(settings) as db:
        say("ready")
        for _ in heard():
            parent = await GenerationRepository(db).add(generation(os.getpid()))
            for number in range(rounds):
                await asyncio.gather(
                    GenerationRepository(db).add(generation(number)),
                    FeedbackRepository(db).add(Feedback(generation_id=parent.id, rating=3)),
                    CostRepository(db).record("p", "m", 1, 2, 0.5),
                    MemoryRepository(db).set(f"{os.getpid()}-{number}", number),
                    TemplateRepository(db).record_use(shared_id),
                )
            say("done")


async def hold(folder: str, name: str) -> None:
    """Hold a write transaction on one file, past the package, until the input ends."""
    with closing(attached(Path(folder))) as connection:
        connection.execute("BEGIN")
        connection.execute(f"UPDATE {name} SET id = id WHERE 0")
        say("held")
        for _ in heard():
            """Go on holding."""
        connection.execute("ROLLBACK")


def hold_migration(folder: str) -> None:
    """Hold the lock of migrations until the input ends."""
    with FileLock(Path(folder) / ".migrate.lock"):
        say("held")
        for _ in heard():
            """Go on holding."""


# --- The life of a database ---------------------------------------------------------------------


async def forget_to_close(settings: Settings) -> None:
    """Use everything that opens connections, and end without closing."""
    db = database(settings)
    await TemplateRepository(db).add(Template(artifact_type="agent", name="t", content="c"))
    async with db.session() as session:
        say(await session.scalar("SELECT count(*) FROM templates"))


def forget_the_loop(settings: Settings) -> None:
    """Use one database in event loops that come and go, without closing."""
    db = database(settings)
    for number in range(3):
        asyncio.run(_write(db, number))
    say(asyncio.run(MemoryRepository(db).count()))


async def _write(db: MetaDatabase, number: int) -> None:
    await MemoryRepository(db).set(f"key {number}", number)
    async with db.session() as session:
        await session.execute("SELECT count(*) FROM memory")


def fork_while_open(settings: Settings) -> None:
    """Write in a child and its parent in turn, and close in the parent first."""
    db = database(settings)
    loop = asyncio.new_event_loop()

    def write(key: str) -> None:
        loop.run_until_complete(MemoryRepository(db).set(key, key))
        # Each time by another way, as the first has to read what the second finds in memory.
        for _ in range(2):
            loop.run_until_complete(db.vector_search("templates", key))

    loop.run_until_complete(
        TemplateRepository(db).add(Template(artifact_type="agent", name="t", content="c"))
    )
    write("before the fork")
    child_reads, parent_writes = os.pipe()
    parent_reads, child_writes = os.pipe()
    if (child := os.fork()) == 0:
        loop = asyncio.new_event_loop()
        write("child, while the parent is open")
        os.write(child_writes, b".")
        os.read(child_reads, 1)
        write("child, after the parent has closed")
        loop.run_until_complete(db.close())
        os._exit(0)
    os.read(parent_reads, 1)
    write("parent, after the child has written")
    loop.run_until_complete(db.close())
    os.write(parent_writes, b".")
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    loop.close()


# --- Rights and room ----------------------------------------------------------------------------


def _give_up_capabilities() -> None:
    """Be held to the rights of files, which the superuser of Linux is not."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return
    import ctypes

    # Version 3 of the call and this process; all three sets of capabilities empty (capset(2)).
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


async def write_without_rights(settings: Settings) -> None:
    """Read and write, whenever told to, with a new connection, and say what came of it."""
    _give_up_capabilities()
    say("ready")
    for _ in heard():
        db = database(settings)
        answers = {
            "read": await _outcome(CostRepository(db).count()),
            "costs": await _outcome(CostRepository(db).record("p", "m")),
            "memory": await _outcome(MemoryRepository(db).set("key", 1)),
        }
        # Closed first: closing removes the logs, and whoever gets the answer looks at the files.
        await db.close()
        say(answers)


async def _outcome(work: Awaitable[Any]) -> str:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - named in the answer
        return f"{type(error).__name__}: {error}"
    return "done"


async def write_up_to_a_size(settings: Settings, size: int) -> None:
    """Write until a file may grow no more, then say what is there."""
    import resource

    async with database(settings) as db:
        await CostRepository(db).record("p", "m")
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        stored = 0
        try:
            while True:
                await MemoryRepository(db).set(f"{stored}", "x" * 50_000)
                stored += 1
        except ParacleMetaError as error:
            say(
                {
                    "error": f"{type(error).__name__}: {error}",
                    "stored": stored,
                    "count": await MemoryRepository(db).count(),
                    "costs": await CostRepository(db).count(),
                }
            )
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def main(functions: dict[str, Any]) -> None:
    """Run the function that the command line names."""
    function, *arguments = sys.argv[1:]
    work = functions[function]
    values = map(json.loads, arguments)
    if inspect.iscoroutinefunction(work):
        asyncio.run(work(*values))
    else:
        work(*values)


if __name__ == "__main__":
    main(globals())
