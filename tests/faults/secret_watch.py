"""What a program prints, logs and raises, looked through for secrets."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any, Final, Self

from paracle_meta import ParacleMetaError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import TracebackType

    from tests.faults.figures import Faults
    from tests.postgres import PostgresServer

PASSWORD: Final = "canary-password-41"
KEY: Final = "sk-canary-key-42"
PROMPT: Final = " ".join(["canary-prompt-43"] * 12)
"""It begins anew again and again, so that a part of it is found as well."""

SIGNS: Final = ("canary-password", "canary-key", "canary-prompt")
"""What is looked for."""

LOGGERS: Final = (
    "paracle_meta",
    *("aiosqlite", "alembic", "asyncpg", "filelock", "httpcore", "httpx", "ollama"),
    *("openai", "sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "sqlalchemy.orm"),
)
"""Our logger and those of the packages that get to see secrets; here all of them say all."""

SOME: Final = "asyncio"
"""Says at DEBUG that it has an event loop, which other tests take for a complaint."""


class Watch(logging.Handler):
    """Keeps what is logged at any level in a block, and what it is shown, as (place, how, text)."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.places: list[tuple[str, str, str]] = []
        self._levels: dict[logging.Logger, int] = {}
        self._doing = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.places.append((f"log of {record.name}", self._doing, self.format(record)))

    def __enter__(self) -> Self:
        root = logging.getLogger()
        root.addHandler(self)
        for logger in (root, *map(logging.getLogger, LOGGERS)):
            self._levels[logger] = logger.level
            logger.setLevel(logging.DEBUG)
        some = logging.getLogger(SOME)
        self._levels[some] = some.level
        some.setLevel(logging.INFO)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        logging.getLogger().removeHandler(self)
        for logger, level in self._levels.items():
            logger.setLevel(level)

    def shown(self, place: str, how: str, text: object) -> None:
        """Keep what can be read somewhere."""
        self.places.append((place, how, f"{text}"))

    def raised(self, how: str, error: BaseException) -> None:
        """Keep all that can be read of an error: its own words and those of what led to it."""
        self.shown("traceback", how, "".join(traceback.format_exception(error)))
        for each in _chain(error):
            self.shown(f"str of {type(each).__name__}", how, each)
            self.shown(f"repr of {type(each).__name__}", how, repr(each))
            self.shown(f"attributes of {type(each).__name__}", how, _attributes(each))

    async def refused(self, how: str, work: Awaitable[Any]) -> ParacleMetaError:
        """Await work that has to fail, and keep what can be read of its error."""
        self._doing = how
        try:
            await work
        except ParacleMetaError as error:
            self.raised(how, error)
            return error
        raise AssertionError(f"{how}: nothing was raised")

    def refused_now(
        self, how: str, work: Callable[..., Any], *arguments: Any, **named: Any
    ) -> ParacleMetaError:
        """Do work that has to fail; see `refused`."""
        self._doing = how
        try:
            work(*arguments, **named)
        except ParacleMetaError as error:
            self.raised(how, error)
            return error
        raise AssertionError(f"{how}: nothing was raised")

    async def done(self, how: str, work: Awaitable[Any]) -> Any:
        """Await work that may log what it likes."""
        self._doing = how
        return await work

    @property
    def leaks(self) -> list[str]:
        """Where a secret was found, and how it came there."""
        return [
            f"{how}: {place}: {text[max(0, text.find(sign) - 120) :][:200]!r}"
            for place, how, text in self.places
            for sign in SIGNS
            if sign in text.lower()
        ]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The errors that a traceback shows, and those that report an error send."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _attributes(error: BaseException) -> str:
    return repr({**vars(error), "notes": getattr(error, "__notes__", ())})


def trusting_url(server: PostgresServer, database: str) -> str:
    """Return a URL with the canary password, for a role that is let in whatever it says."""
    return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{server.port}/{database}"


def noted(faults: Faults, watch: Watch, what: str, where: str, seen: str = "") -> None:
    """Assert that nothing leaked, and note in how many texts it was looked for."""
    assert watch.leaks == [], "\n".join(watch.leaks)
    assert watch.places
    faults.note(
        f"Canary password, API key and prompt looked for: {what}",
        where=where,
        times=f"{len(watch.places):,} texts",
        lost=f"{len(watch.leaks)} leaks",
        seen=seen,
    )
