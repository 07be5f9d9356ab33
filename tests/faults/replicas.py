"""Two PostgreSQL servers, a primary and a synchronous standby, that change their roles."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Final, Literal

from tests.postgres import PostgresServer

if TYPE_CHECKING:
    from pathlib import Path

WAIT_SECONDS: Final = 60
"""Longest wait for a standby to follow, on a machine that is very busy."""


class Replica(PostgresServer):
    """A server that is the primary of another one, or its standby.

    Args:
        folder: Where data, log and socket go.
        of: Whose copy it begins as; None for a new primary.
    """

    def __init__(self, folder: Path, of: PostgresServer | None = None) -> None:
        super().__init__(18, folder, fsync=False)
        self._of = of

    def _initialise(self) -> None:
        if self._of is None:
            super()._initialise()
            with (self.data / "pg_hba.conf").open("a") as rules:
                rules.write("host replication all 127.0.0.1/32 trust\n")
            return
        self._run(
            "pg_basebackup", "-d", self._of.url, "-D", self.data, "--checkpoint=fast", "--no-sync"
        )
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write(f"port = {self.port}\nunix_socket_directories = '{self.folder}'\n")
        self.follow(self._of)

    def follow(self, primary: PostgresServer) -> None:
        """Be the standby of another server from the next start on."""
        (self.data / "standby.signal").touch()
        # The file that ALTER SYSTEM writes is read last, and in it the last line counts.
        with (self.data / "postgresql.auto.conf").open("a") as configuration:
            configuration.write(
                f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=postgres'\n"
                "synchronous_standby_names = ''\n"
            )

    def begin_again(self, primary: PostgresServer) -> None:
        """Be a new copy of another server from the next start on."""
        self._of = primary
        shutil.rmtree(self.data)

    def wait_for_standby(self) -> None:
        """Answer commits only when a standby has them too, from the end of this call on."""
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.sql("SELECT pg_reload_conf()")
        end = time.monotonic() + WAIT_SECONDS
        while self.sql("SELECT sync_state FROM pg_stat_replication") != "sync":
            assert time.monotonic() < end
            time.sleep(0.02)  # There is no event to wait for.

    def promote(self) -> None:
        """Become the primary, and wait until it is."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", str(WAIT_SECONDS), "promote")


class Pair:
    """A primary with its synchronous standby.

    Attributes:
        primary: The one that takes writes.
        standby: The other.
    """

    def __init__(self, folder: Path) -> None:
        self.primary = Replica(folder / "1")
        self.standby = Replica(folder / "2", of=self.primary)

    def __enter__(self) -> Pair:
        self.primary.start()
        self.standby.start()
        self.primary.wait_for_standby()
        return self

    def __exit__(self, *_error: object) -> None:
        for server in (self.primary, self.standby):
            server.__exit__(None, None, None)

    def fail_over(self, mode: Literal["fast", "immediate"]) -> None:
        """Stop the primary, by a crash where `mode` is immediate, and promote the standby."""
        self.primary.stop(mode)
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def demote(self, mode: Literal["fast", "immediate"]) -> None:
        """Bring the former primary back as the standby; after a crash it may have written more."""
        if mode == "fast":
            self.standby.follow(self.primary)
        else:
            self.standby.begin_again(self.primary)
        self.standby.start()
        self.primary.wait_for_standby()
