"""Connections to PostgreSQL: how they are made, lent, looked after and given up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import asyncpg

from paracle_meta.backends.postgresql.errors import DRIVER_ERRORS, is_lost
from paracle_meta.exceptions import DatabaseBusyError, DatabaseConnectionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pydantic import SecretStr

    from paracle_meta.backends.postgresql.hosts import PostgresHosts
    from paracle_meta.config import DatabaseSettings

PING_AFTER: Final = 1.0
"""Seconds of rest after which `pool_pre_ping` looks whether a connection still lives.

One in use tells by itself; asking before each call would double the time of a short one.
"""


CLOSE_WAIT: Final = 10.0
"""Seconds that closing waits for connections which are still lent."""


class TrackedConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that knows its age and whether somebody may have changed its settings."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.opened_at = time.monotonic()
        self.used_at = self.opened_at
        self.lent_to_session = False

    # Methods, since the pool's proxy passes calls on to the connection and keeps attributes.
    def touch(self) -> None:
        """Note that the connection was just in use."""
        self.used_at = time.monotonic()

    def mark_lent(self) -> None:
        """Note that the borrower may change the connection's settings."""
        self.lent_to_session = True


async def _reset(connection: TrackedConnection) -> None:
    # Repository calls leave nothing behind (asyncpg has rolled back an open transaction by now), so
    # only what a session may have changed costs a round trip.
    if connection.lent_to_session:
        await connection.execute(connection.get_reset_query())
        connection.lent_to_session = False


def connection_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return what `PostgresHosts.connect` needs, without `search_path`."""
    server_settings = {"application_name": "paracle_meta"}
    if settings.statement_timeout is not None:
        server_settings["statement_timeout"] = f"{settings.statement_timeout * 1000:.0f}"
    return {
        "timeout": settings.connect_timeout,
        "server_settings": server_settings,
        "connection_class": TrackedConnection,
    }


def describe_place(url: SecretStr) -> str:
    """Return the server and database as a message may name them: no user, no password."""
    parts = urlsplit(url.get_secret_value())
    hosts = parts.netloc.rpartition("@")[2] or "localhost"
    return f"PostgreSQL at {hosts}{parts.path}"


class PostgresPool:
    """At most `pool_size` connections, lent to repositories and sessions alike."""

    def __init__(
        self,
        settings: DatabaseSettings,
        hosts: PostgresHosts,
        arguments: dict[str, Any],
        place: str,
    ) -> None:
        self._settings = settings
        self._place = place
        # asyncpg's own waiting cannot tell a pool that is in use from a server that is slow.
        self._places = asyncio.Semaphore(settings.pool_size)
        self._expired_at = float("-inf")
        # Good connections between two repository calls, the last one given back at the end. Giving
        # them back to asyncpg's pool and taking them again costs 0.05 ms, mostly for a task.
        self._resting: list[Any] = []
        self._closing = False
        self._pool = asyncpg.create_pool(
            min_size=0,
            max_size=settings.pool_size,
            connect=hosts.connect,
            reset=_reset,
            # The age of a connection is what is limited, not its rest.
            max_inactive_connection_lifetime=0,
            **arguments,
        )

    async def open(self) -> None:
        """Make the pool ready; connections are opened when they are first needed."""
        await self._pool

    async def close(self) -> None:
        """Close all connections; those still lent after CLOSE_WAIT are cut off."""
        self._closing = True
        try:
            async with asyncio.timeout(CLOSE_WAIT):
                while self._resting:
                    await self._pool.release(self._resting.pop())
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()
        except BaseException:
            self._pool.terminate()
            raise

    async def acquire(self) -> Any:
        """Return a connection that is young enough and, as far as was looked, alive.

        Raises:
            DatabaseBusyError: None became free within `pool_timeout`.
            DatabaseConnectionError: The pool is closed.
        """
        try:
            if self._places.locked():
                async with asyncio.timeout(self._settings.pool_timeout):
                    await self._places.acquire()
            else:
                await self._places.acquire()  # Waits for nobody.
        except TimeoutError as error:
            raise DatabaseBusyError(
                f"All {self._settings.pool_size} connections to {self._place} were in use for "
                f"{self._settings.pool_timeout:g} seconds; raise pool_size or pool_timeout."
            ) from error
        try:
            return await self._good()
        except BaseException:
            self._places.release()
            raise

    async def _good(self) -> Any:
        while True:
            connection = self._rested()
            if connection is None:
                try:
                    connection = await self._pool.acquire()
                except asyncpg.InterfaceError as error:
                    if self._pool.is_closing():
                        raise DatabaseConnectionError("This MetaDatabase is closed.") from error
                    raise
            good = False
            try:
                good = await self._is_good(connection)
            finally:
                # Also where the caller was cancelled meanwhile: nobody else would give it back.
                if not good:
                    await self._give_back(connection, broken=True)
            if good:
                return connection

    def _rested(self) -> Any:
        """Return a connection that rests, or None."""
        while self._resting and not self._closing:
            connection = self._resting.pop()
            # The pool takes a lost connection back by itself; its proxy then refuses all calls.
            with contextlib.suppress(asyncpg.InterfaceError):
                connection.is_closed()
                return connection
        return None

    async def _is_good(self, connection: Any) -> bool:
        now = time.monotonic()
        if connection.is_closed() or connection.opened_at <= self._expired_at:
            return False
        if now - connection.opened_at > self._settings.pool_recycle:
            return False
        if not self._settings.pool_pre_ping or now - connection.used_at < PING_AFTER:
            return True
        try:
            # Not an empty statement: asyncpg cannot read the server's answer to that.
            await connection.execute("SELECT 1", timeout=self._settings.connect_timeout)
        except DRIVER_ERRORS:
            return False
        return True

    async def release(self, connection: Any, broken: bool = False) -> None:
        """Take a connection back; a broken one is cut off and replaced when one is needed."""
        try:
            await self._give_back(connection, broken=broken)
        finally:
            self._places.release()

    async def _give_back(self, connection: Any, *, broken: bool) -> None:
        # The pool takes a lost connection back by itself; its proxy then refuses all calls.
        with contextlib.suppress(asyncpg.InterfaceError):
            if broken:
                connection.terminate()
            else:
                connection.touch()
        # Where it breaks just now, as it is reset, the pool has replaced it, and whoever gives it
        # back has had the answer.
        with contextlib.suppress(*DRIVER_ERRORS):
            await self._pool.release(connection)

    async def acquire_for_session(self) -> Any:
        """Return a connection whose settings the borrower may change."""
        connection = await self.acquire()
        connection.mark_lent()
        return connection

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend a connection for a repository call."""
        connection = await self.acquire()
        try:
            yield connection
        except BaseException as error:
            self.notice(error)
            await self.release(connection, is_lost(error))
            raise
        else:
            await self._rest(connection)

    async def _rest(self, connection: Any) -> None:
        """Keep a connection for the next call, if the call before left it as it was."""
        with contextlib.suppress(asyncpg.InterfaceError):
            if not (self._closing or connection.is_closed() or connection.is_in_transaction()):
                connection.touch()
                self._resting.append(connection)
                self._places.release()
                return
        await self.release(connection)

    def notice(self, error: BaseException) -> None:
        """Replace all connections after an error by which the server went away or changed role.

        The others lead to the same server as the one that has met it.
        """
        if is_lost(error):
            self.expire()

    def expire(self) -> None:
        """Replace every connection when it is next needed."""
        self._expired_at = time.monotonic()
