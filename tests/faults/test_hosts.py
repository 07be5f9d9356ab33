"""Several hosts in the URL, of which the first is silent, gone or not what was asked for."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    DatabaseConnectionError,
    DatabaseSettings,
    GenerationRepository,
    GenerationResult,
    MetaDatabase,
)
from paracle_meta.backends.postgresql import hosts
from paracle_meta.urls import single_host_urls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.faults.figures import Faults
    from tests.faults.places import Place

CONNECT_SECONDS = 1.0
WAIT_SECONDS = 60
"""Longest wait for anything, so that nothing hangs."""
POOL = 3


@contextmanager
def deaf() -> Iterator[int]:
    """A port where connecting is never answered: the queue of those who wait is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = []
        try:
            # The first ones are taken into the queue; those after them hear nothing.
            for _ in range(4):
                client = socket.socket()
                client.setblocking(False)
                with suppress(BlockingIOError):
                    client.connect(("127.0.0.1", port))
                waiting.append(client)
            yield port
        finally:
            for client in waiting:
                client.close()


@contextmanager
def mute() -> Iterator[int]:
    """A port where connecting succeeds and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


@contextmanager
def closed() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield port


def open_with(place: Place, *ports: int, query: str = "", **more: Any) -> MetaDatabase:
    named = ",".join(f"127.0.0.1:{port}" for port in ports)
    settings = {
        "postgres_url": f"postgresql://postgres@{named}/{place.database}{query}",
        "enable_vectors": False,
        "connect_timeout": CONNECT_SECONDS,
        "pool_size": POOL,
    }
    return MetaDatabase(DatabaseSettings(**(settings | more)))


async def used_together(db: MetaDatabase) -> None:
    """Use the database on as many connections at once as its pool has."""
    together = asyncio.Barrier(POOL)

    async def use() -> None:
        async with db.session() as session:
            await session.execute("SELECT 1")
            async with asyncio.timeout(WAIT_SECONDS):
                await together.wait()

    await asyncio.gather(*(use() for _ in range(POOL)))


@pytest.mark.parametrize("black_hole", [deaf, mute])
async def test_the_first_host_is_a_black_hole(
    postgresql: Place, faults: Faults, black_hole: Callable[[], AbstractContextManager[int]]
) -> None:
    assert postgresql.server is not None
    times = faults.times(1, 10)
    opened = []
    async with postgresql.open(enable_vectors=False) as db:
        await GenerationRepository(db).count()
    with black_hole() as silent:
        for _ in range(times):
            started = time.monotonic()
            async with (
                asyncio.timeout(WAIT_SECONDS),
                open_with(postgresql, silent, postgresql.server.port) as db,
            ):
                await used_together(db)
                opened.append(time.monotonic() - started)
    assert min(opened) >= CONNECT_SECONDS  # Else it was no black hole.
    faults.note(
        "First of two hosts never answers "
        + ("at connecting" if black_hole is deaf else "after it has accepted"),
        where="PostgreSQL",
        times=f"{times} openings with connect_timeout {CONNECT_SECONDS:g} s, "
        f"{POOL} connections each",
        lost=f"{times - len(opened)} openings failed",
        seen=f"{POOL} connections after at most {max(opened):.1f} s",
    )


async def test_a_silent_host_is_not_asked_for_each_connection(postgresql: Place) -> None:
    assert postgresql.server is not None
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        port = silent.getsockname()[1]
        async with open_with(
            postgresql, port, postgresql.server.port, connect_timeout=0.5, pool_recycle=0.001
        ) as db:
            for _ in range(5):
                await used_together(db)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


async def test_a_silent_host_is_asked_again_after_a_while(
    postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgresql.server is not None
    monkeypatch.setattr(hosts, "SILENT_SECONDS", 0.0)
    with mute() as silent:
        async with open_with(postgresql, silent, postgresql.server.port, connect_timeout=0.2) as db:
            before = time.monotonic()
            await GenerationRepository(db).count()
            assert time.monotonic() - before >= 0.2


async def test_no_host_answers(postgresql: Place) -> None:
    with mute() as first, deaf() as second:
        async with asyncio.timeout(WAIT_SECONDS):
            with pytest.raises(DatabaseConnectionError, match="did not answer in time"):
                await open_with(postgresql, first, second, connect_timeout=0.2).open()


async def test_the_first_host_is_gone(postgresql: Place) -> None:
    assert postgresql.server is not None
    with closed() as gone:
        async with open_with(postgresql, gone, postgresql.server.port) as db:
            await used_together(db)


async def test_no_host_is_what_the_url_asks_for(postgresql: Place) -> None:
    assert postgresql.server is not None
    with closed() as gone, pytest.raises(DatabaseConnectionError, match="target_session_attrs"):
        await open_with(
            postgresql, gone, postgresql.server.port, query="?target_session_attrs=standby"
        ).open()
    async with open_with(
        postgresql, postgresql.server.port, query="?target_session_attrs=prefer-standby"
    ) as db:
        assert await GenerationRepository(db).count() == 0


async def test_a_host_that_refuses_the_password_is_believed(postgresql: Place) -> None:
    # The others would refuse it too, and some servers lock a role after a few wrong ones.
    assert postgresql.server is not None
    wrong = postgresql.server.password_url_of(postgresql.database, "wrong")
    asked = 0

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    async with await asyncio.start_server(count, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        own = f":{postgresql.server.port}"
        url = wrong.replace(f"{own}/", f"{own},127.0.0.1:{port}/")
        with pytest.raises(DatabaseConnectionError, match="password"):
            await MetaDatabase(DatabaseSettings(postgres_url=url)).open()
    assert asked == 0


async def insert(db: MetaDatabase) -> None:
    async with db.session() as session:
        await session.execute("UPDATE generations SET name = 'other'")


async def add(db: MetaDatabase) -> None:
    record = GenerationResult(artifact_type="agent", name="n", content="c")
    await GenerationRepository(db).add(record)


async def test_connections_to_a_server_that_takes_no_writes_are_replaced(
    postgresql: Place,
) -> None:
    # Whoever meets the error first, a session or a call, has all of them replaced.
    assert postgresql.server is not None
    async with postgresql.open(enable_vectors=False) as db:
        await add(db)
    for first, fails in ((insert, True), (add, False)):
        setting = f"ALTER DATABASE {postgresql.database} SET default_transaction_read_only = "
        postgresql.server.sql(f"{setting}on")
        async with open_with(postgresql, postgresql.server.port) as db:
            await used_together(db)
            # It holds for connections that have begun by now, as for those to a former primary.
            postgresql.server.sql(f"{setting}off")
            if fails:
                with pytest.raises(DatabaseConnectionError, match="takes no writes"):
                    await first(db)
            else:
                await first(db)  # Nothing was done, so it was repeated.
            await asyncio.gather(*(insert(db) for _ in range(POOL)))
            await asyncio.gather(*(add(db) for _ in range(POOL)))


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("postgresql://u:p@h/db", ["postgresql://u:p@h/db"]),
        (
            "postgresql://u:p@h,[::1]:5433,i:5434/db?sslmode=require",
            [
                "postgresql://u:p@h/db?sslmode=require",
                "postgresql://u:p@[::1]:5433/db?sslmode=require",
                "postgresql://u:p@i:5434/db?sslmode=require",
            ],
        ),
        ("postgresql://u:a,b@h", ["postgresql://u:a,b@h"]),
        ("postgresql:///db?host=/run,/tmp", ["postgresql:///db?host=/run,/tmp"]),
    ],
)
def test_a_url_for_each_host(url: str, urls: list[str]) -> None:
    assert single_host_urls(url) == urls
