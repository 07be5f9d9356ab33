"""PostgreSQL's own client programs: where they are, and how they are run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, unquote

from paracle_meta.exceptions import ConfigurationError, TransferError
from paracle_meta.urls import POSTGRES_URL, resolve_url

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from pydantic import SecretStr

    from paracle_meta.config import DatabaseSettings

STOP_SECONDS: Final = 5.0
"""For a program to cancel what its server does and end, before it is killed."""

GIVE_UP: Final = signal.SIGTERM if sys.platform == "win32" else signal.SIGINT
"""What makes each of these programs have the server give up what it does; on the other signal psql
ends and leaves the server at it."""

FIRST_LINES: Final = 64
"""Far more than stand before the first statement of a script that is about a table."""

READ_AT_ONCE: Final = 1 << 16
"""Bytes that go from one program to the other at once: as many as a pipe holds."""

ERROR: Final = re.compile(r"(?:(?:pg_dump|pg_restore|psql): error: |(?=ERROR: |FATAL: ))(.*)")
"""A line by which one of the programs says what went wrong."""

SAID: Final = 300
"""Most characters of what a program says that are shown."""

LIBPQ: Final = frozenset(
    {
        *("application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname"),
        *("gssencmode", "gsslib", "host", "hostaddr", "krbsrvname", "load_balance_hosts"),
        *("keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval"),
        *("passfile", "port", "require_auth", "service", "tcp_user_timeout", "user"),
        *("ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcertmode"),
        *("sslcompression", "sslcrl", "sslcrldir", "sslkey", "sslmode", "sslnegotiation"),
        *("sslrootcert", "sslsni", "target_session_attrs"),
    }
)
"""Parameters of a URL that PostgreSQL's programs understand and that are no secrets.

The driver gives any other to the server as a setting.
"""


@dataclass(frozen=True, slots=True)
class Program:
    """One of PostgreSQL's programs.

    Attributes:
        name: Such as ``pg_dump``.
        path: Where it is.
        major: Its version.
    """

    name: str
    path: str
    major: int


async def find(name: str, folder: Path | None, server: int) -> Program:
    """Return a program.

    Args:
        name: Such as ``pg_dump``.
        folder: Where it is; None to look in ``PATH``.
        server: The major version that is wanted, to say what to install.

    Raises:
        TransferError: There is none.
    """
    path = shutil.which(name, path=None if folder is None else str(folder))
    if path is None:
        where = "PATH" if folder is None else str(folder)
        raise TransferError(f"{name} was not found in {where}. {to_install(server)}")
    said = await run(Program(name, path, 0), ["--version"], {})
    version = re.search(r"\(PostgreSQL\) (\d+)", said)
    if version is None:
        raise TransferError(f"{path} is not PostgreSQL's {name}. {to_install(server)}")
    return Program(name, path, int(version[1]))


def to_install(major: int) -> str:
    """Return what to do to get the programs of a version."""
    return (
        f"Install the client programs of PostgreSQL {major} (on Debian and Ubuntu the package "
        f"postgresql-client-{major} from apt.postgresql.org, with Homebrew postgresql@{major}), or "
        "name the folder where they are with --pg-bin (in Python, pg_bin)."
    )


def connection(
    settings: DatabaseSettings, url: SecretStr, server_settings: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """Return how a program reaches the database: a URL without a password, and its environment.

    Neither the list of processes nor their titles show the password then.

    Args:
        settings: Say how long to wait for the server.
        url: As in the settings.
        server_settings: Settings of the server for these connections.

    Raises:
        ConfigurationError: The password is in an environment variable that is not set, or the URL
            has the passphrase of a key, which the programs take on the command line only.
    """
    text = resolve_url(url)
    match = POSTGRES_URL.fullmatch(text)
    if match is None:
        raise ConfigurationError("The database URL is none of PostgreSQL.")
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PGAPPNAME": "paracle_meta",
        "PGCONNECT_TIMEOUT": str(ceil(settings.connect_timeout)),
    }
    kept: dict[str, str] = {}
    options = [f"-c {name}={value}" for name, value in server_settings.items()]
    for name, value in parse_qsl(match["query"] or "", keep_blank_values=True):
        if name == "password":
            environment["PGPASSWORD"] = value
        elif name == "sslpassword":
            raise ConfigurationError(
                "PostgreSQL's programs take the passphrase of a key (sslpassword) only where "
                "everybody can see it; use a key without one in the database URL."
            )
        elif name == "options":
            options.append(value)
        elif name == "database":
            kept["dbname"] = value
        elif name in LIBPQ:
            kept[name] = value
        else:
            escaped = re.sub(r"([\\ ])", r"\\\1", value)
            options.append(f"-c {name}={escaped}")
    place = text[: match.start("query") - 1] if match["query"] is not None else text.rstrip("?")
    if match["password"] is not None:
        start, end = match.span("password")
        place = place[: start - 1] + place[end:]
        if match["password"]:
            environment["PGPASSWORD"] = unquote(match["password"])
    if options:
        kept["options"] = " ".join(options)
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in kept.items())
    place = re.sub(r"^[a-z+]+://", "postgresql://", place)
    return f"{place}?{query}" if query else place, environment


async def run(program: Program, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a program to its end and return what it printed; where the caller is cancelled, end it.

    Args:
        program: Which.
        arguments: Of it, none of them secret.
        environment: All of it; empty for this process's own.

    Raises:
        TransferError: It cannot be run, or failed.
    """
    async with _started(program, arguments, environment, stdout=PIPE) as process:
        printed, said = await process.communicate()
    _check(program, process, said)
    return printed.decode(errors="replace")


async def run_script(
    making: Program,
    making_arguments: Sequence[str],
    running: Program,
    running_arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    last: bytes,
    without: bytes | None,
) -> None:
    """Have one program make a script and another one run it, in one transaction.

    Args:
        making: Prints the script.
        making_arguments: Of it.
        running: Reads the script from its standard input, and stops at the first error.
        running_arguments: Of it.
        environment: Of the one that runs it.
        last: A statement to run when the script is done, before its transaction is committed.
        without: A line among the first of the script that is left out.

    Raises:
        TransferError: One of them cannot be run, or failed; nothing was changed.
    """
    async with (
        _started(making, making_arguments, {}, stdout=PIPE) as maker,
        _started(running, running_arguments, environment, stdin=PIPE) as runner,
    ):
        made, ran, _ = await asyncio.gather(
            _all_of(maker.stderr), _all_of(runner.stderr), _pump(maker, runner, last, without)
        )
        await runner.wait()
    _check(running, runner, ran)
    _check(making, maker, made)


async def _pump(maker: Process, runner: Process, last: bytes, without: bytes | None) -> None:
    source, target = maker.stdout, runner.stdin
    if source is None or target is None:
        raise AssertionError("both were started with pipes")
    target.write(b"BEGIN;\n")
    for _ in range(FIRST_LINES):
        line = await source.readline()
        if line == without:
            break
        target.write(line)
    # It stops reading at the first error.
    with contextlib.suppress(ConnectionError):
        while data := await source.read(READ_AT_ONCE):
            target.write(data)
            await target.drain()
        # Else it rolls back: half a script is none.
        if await maker.wait() == 0:
            target.write(last + b"COMMIT;\n")
            await target.drain()
    target.close()
    if maker.returncode is None:
        await _end(maker)


async def _all_of(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


@contextlib.asynccontextmanager
async def _started(
    program: Program,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
) -> AsyncIterator[Process]:
    """Run a program; where the block raises, as when the caller is cancelled, end it."""
    try:
        process = await asyncio.create_subprocess_exec(
            program.path,
            *arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=PIPE,
            env=dict(environment) or None,
        )
    except OSError as error:
        raise TransferError(f"{program.path} cannot be run ({error.strerror}).") from error
    try:
        yield process
    except BaseException:
        await _end(process)
        raise


def _check(program: Program, process: Process, said: bytes) -> None:
    if process.returncode:
        raise TransferError(f"{program.name} failed: {_shown(said.decode(errors='replace'))}")


async def _end(process: Process) -> None:
    # What it has read of a script by then is rolled back at the end of that.
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(GIVE_UP)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if not isinstance(error, TimeoutError):
            raise
        await process.wait()


def _shown(said: str) -> str:
    """Return the errors of a program, without the details, which may have text of records."""
    errors = [match[1] for match in map(ERROR.match, said.splitlines()) if match]
    return " ".join(errors)[:SAID] or "it does not say why."
