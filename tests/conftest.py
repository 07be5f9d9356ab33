from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults", "tests of faults")
    group.addoption("--long", action="store_true", help="the long form: an hour, not minutes")
    group.addoption("--figures", metavar="FILE", help="append what was done and lost to FILE")


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for servers: short, as sockets need it, and open to the user whom they run as."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres16(server_folder: Path) -> Iterator[PostgresServer]:
    with PostgresServer(16, server_folder / "16") as server:
        yield server


@pytest.fixture(scope="session")
def postgres18(server_folder: Path) -> Iterator[PostgresServer]:
    with PostgresServer(18, server_folder / "18") as server:
        yield server


@pytest.fixture(scope="session", params=[16, 18])
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """Each server in turn; all tests share it, so each creates a database of its own."""
    server: PostgresServer = request.getfixturevalue(f"postgres{request.param}")
    return server
