"""PgBouncer of our own, from Debian's package, unpacked beside its libraries and not installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tests.postgres import SERVER_USER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer

PACKAGES: Final = ("pgbouncer", "libevent-2.1-7", "libc-ares2")
"""It, and what it needs beyond what a machine with Python has."""
DOWNLOAD_SECONDS: Final = 120
START_SECONDS: Final = 30


class CannotInstallError(Exception):
    """There is no Debian here, or its archive cannot be reached; the message says which."""


def unpack(folder: Path) -> None:
    """Download the packages and unpack them into a folder.

    Raises:
        CannotInstallError: That is not possible here.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise CannotInstallError("PgBouncer comes from Debian, and this system has no apt-get.")
    try:
        subprocess.run(
            ["apt-get", "download", *PACKAGES],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_SECONDS,
        )
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
        raise CannotInstallError(f"PgBouncer cannot be downloaded: {said}") from error
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder], check=True, capture_output=True)


class PgBouncer:
    """PgBouncer in transaction mode before a server, as it comes: no parameter is ignored.

    Args:
        folder: Where its packages were unpacked; log and configuration go there too.
        server: Which server it lends connections to.
        connections: How many of them it has for each database and role.
    """

    def __init__(self, folder: Path, server: PostgresServer, connections: int) -> None:
        self._folder = folder
        self._server = server
        self._connections = connections
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def url_of(self, database: str) -> str:
        """Return the superuser's URL of a database through PgBouncer."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def version(self) -> str:
        """What it calls itself: "PgBouncer 1.18.0"."""
        said = subprocess.run(
            [self._program, "--version"],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return said.stdout.splitlines()[0]

    @property
    def _program(self) -> Path:
        return self._folder / "usr" / "sbin" / "pgbouncer"

    @property
    def _environment(self) -> dict[str, str]:
        libraries = {path.parent for path in self._folder.glob("usr/lib/**/*.so*")}
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}

    def __enter__(self) -> PgBouncer:
        configuration = self._folder / "pgbouncer.ini"
        users = self._folder / "users.txt"
        users.write_text('"postgres" ""\n')
        configuration.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={self._server.port}\n"
            "[pgbouncer]\n"
            "pool_mode = transaction\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\n"
            f"default_pool_size = {self._connections}\nmax_client_conn = 1000\n"
        )
        with (self._folder / "pgbouncer.log").open("w") as log:
            self._process = subprocess.Popen(
                [self._program, configuration],
                env=self._environment,
                user=SERVER_USER if os.geteuid() == 0 else None,  # It refuses root.
                extra_groups=[] if os.geteuid() == 0 else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            time.sleep(0.02)  # There is no event to wait for.
        self.__exit__()
        raise RuntimeError(f"PgBouncer did not start.\n{self.log}")

    def __exit__(self, *_error: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def log(self) -> str:
        """What it has written."""
        return (self._folder / "pgbouncer.log").read_text()
