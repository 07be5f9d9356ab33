"""From a command to the database and back."""

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import typer

    from paracle_meta.config import Config, DatabaseSettings
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


def load(ctx: "typer.Context", url: str | None = None) -> "Config":
    """Return the configuration that the options of `meta` lead to.

    Args:
        ctx: Of the command.
        url: The database instead of the one that these options say.

    Raises:
        ConfigurationError: It is wrong.
    """
    from paracle_meta.config import load_config

    target: Target = ctx.obj
    url = target.url if url is None else url
    if url is None:
        return load_config(target.config)
    return load_config(target.config, database=_from_url(url))


def _from_url(url: str) -> dict[str, str | None]:
    from paracle_meta.exceptions import ConfigurationError

    if url.startswith("env:"):
        # A whole URL, so that nothing of it is seen in a list of processes.
        name = url.removeprefix("env:")
        if not os.environ.get(name):
            raise ConfigurationError(
                "The database URL is to be taken from the environment variable "
                f"{name!r:.60}, which is not set."
            )
        url = os.environ[name]
    if url.startswith("sqlite:"):
        return {"sqlite_dir": url, "postgres_url": None, "migration_url": None}
    if url.startswith(("postgresql:", "postgres:", "postgresql+asyncpg:")):
        return {"postgres_url": url, "migration_url": None}
    raise ConfigurationError(
        "A database URL should be sqlite:///folder or postgresql://user@host/database, or env:NAME "
        "for one in the environment variable NAME."
    )


def run(ctx: "typer.Context", work: "Callable[[MetaDatabase], Awaitable[T]]") -> T:
    """Open the database, do the work, close the database and return what the work returned."""
    return run_on(ctx, [load(ctx).database], work)


def run_on(
    ctx: "typer.Context",
    databases: "Sequence[DatabaseSettings]",
    work: "Callable[..., Awaitable[T]]",
) -> T:
    """Do work with several databases, given in this order; see `run`."""
    from paracle_meta.database import MetaDatabase

    async def opened_and_closed() -> T:
        # A command is over before an index would be made.
        opened = [
            MetaDatabase(settings.model_copy(update={"index_in_background": False}))
            for settings in databases
        ]
        try:
            return await work(*opened)
        finally:
            # After Ctrl-C the process ends; closing would wait for a write that waits for a lock.
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                for database in opened:
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
