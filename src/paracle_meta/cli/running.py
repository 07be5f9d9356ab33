"""From a command to the database and back."""

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import typer

    from paracle_meta.config import Config
    from paracle_meta.database import MetaDatabase

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """What the options of `meta` say.

    Attributes:
        config: The YAML file, or None to look for it.
        url: The database to use instead of the configured one.
        verbose: Whether to show the log and tracebacks.
    """

    config: str | None
    url: str | None
    verbose: bool


def load(ctx: "typer.Context") -> "Config":
    """Return the configuration that the options of `meta` lead to.

    Raises:
        ConfigurationError: It is wrong.
    """
    from paracle_meta.config import load_config

    target: Target = ctx.obj
    if target.url is None:
        return load_config(target.config)
    return load_config(target.config, database=_from_url(target.url))


def _from_url(url: str) -> dict[str, str | None]:
    from paracle_meta.exceptions import ConfigurationError

    if url.startswith("sqlite:"):
        return {"sqlite_dir": url, "postgres_url": None, "migration_url": None}
    if url.startswith(("postgresql:", "postgres:", "postgresql+asyncpg:")):
        return {"postgres_url": url, "migration_url": None}
    raise ConfigurationError("--url should be sqlite:///folder or postgresql://user@host/database.")


def run(ctx: "typer.Context", work: "Callable[[MetaDatabase], Awaitable[T]]") -> T:
    """Open the database, do the work, close the database and return what the work returned."""
    from paracle_meta.database import MetaDatabase

    settings = load(ctx).database

    async def opened_and_closed() -> T:
        # A command is over before an index would be made.
        database = MetaDatabase(settings.model_copy(update={"index_in_background": False}))
        try:
            return await work(database)
        finally:
            # After Ctrl-C the process ends; closing would wait for a write that waits for a lock.
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                await database.close()

    with _log_to_stderr(verbose=ctx.obj.verbose):
        return asyncio.run(opened_and_closed())


@contextlib.contextmanager
def _log_to_stderr(*, verbose: bool) -> "Iterator[None]":
    import logging

    class Lowercase(logging.Formatter):
        def format(self, record: Any) -> str:
            return f"{record.levelname.lower()}: {record.getMessage()}"

    logger = logging.getLogger("paracle_meta")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lowercase())
    handler.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
