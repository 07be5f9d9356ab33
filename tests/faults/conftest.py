from __future__ import annotations

import gc
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.faults.figures import Faults
from tests.faults.places import Place
from tests.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator


ASYNCPG_LEFT: Final = "unexpected connection_lost() call"
"""What asyncpg leaves in a future of its own when connecting is cancelled before the server has
said whether it speaks TLS. The connection is closed all the same."""


MEMORY: Final = Path("/dev/shm")
"""A file system in memory, on Linux: a hundred databases are many thousand files, which some disks
take a minute to delete."""
MEMORY_NEEDED: Final = 4 * 1024**3
"""Far more than they take; containers often have little or none of it."""


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        words = self.format(record)
        if ASYNCPG_LEFT not in words:
            self.words.append(words)


@pytest.fixture(autouse=True)
def _quiet_loop() -> Iterator[None]:
    """See that no event loop complains, such as about an error that nobody has asked for."""
    kept = _Kept()
    logging.getLogger("asyncio").addHandler(kept)
    yield
    gc.collect()  # It is the collector that finds what was forgotten.
    logging.getLogger("asyncio").removeHandler(kept)
    assert kept.words == []


@pytest.fixture(scope="session")
def faults(request: pytest.FixtureRequest) -> Faults:
    """How much is done in this run, and where it is noted."""
    file = request.config.getoption("--figures")
    return Faults(long=request.config.getoption("--long"), file=file and Path(file).absolute())


@pytest.fixture
def sqlite(tmp_path: Path) -> Place:
    return Place(settings={"sqlite_dir": str(tmp_path / "files")})


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A server that these tests may stop and start, and fill with databases.

    It never waits for the disk: it is killed here, but the machine below it is not.
    """
    place = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED else None
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=place))
    folder.chmod(0o755)  # The server runs as another user where we are root.
    with PostgresServer(18, folder, fsync=False) as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture
def postgresql(server: PostgresServer) -> Place:
    database = server.create_database()
    return Place(
        settings={"postgres_url": server.url_of(database)}, server=server, database=database
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty database, on each of the two in turn."""
    where: Place = request.getfixturevalue(request.param)
    return where
