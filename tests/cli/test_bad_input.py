"""Each bad input is one line that says what to do, an exit code, and nothing half written."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import socket
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Cli, paracle
from tests.postgres import PASSWORD, PASSWORD_ROLE, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = ("check", "choose", "repeat", "restore", "see that", "Upgrade", "Install", "Have a DBA")
"""What messages tell to do; each has one of these words."""


def database_error(cli: Cli, *command: str, warning: str | None = None) -> str:
    line = cli.fails(4, *command, warning=warning)
    assert any(step in line for step in STEPS), line
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize(
    "command",
    [
        ("generations", "add", "-", "--type", "a", "--name", "n", "--quality-score", "11"),
        ("generations", "add", "-", "--type", "a", "--name", "n", "--quality-score", "nan"),
        ("generations", "add", "-", "--type", "a", "--name", "n", "--tokens", "-1"),
        ("generations", "add", "-", "--type", "a", "--name", "n\x00"),
        ("generations", "add", "-", "--type", "a", "--name", "n\udc80"),
        ("generations", "add", "-", "--type", "a", "--name", "n", "--metadata", "[1]"),
        ("generations", "add", "-", "--type", "a", "--name", "n", "--metadata", "{"),
        ("generations", "add", "missing.md", "--type", "a", "--name", "n"),
        ("generations", "add", ".", "--type", "a", "--name", "n"),
        ("generations", "add", "-", "--name", "no type"),
        ("generations", "update", "gen-1"),
        ("generations", "list", "--limit", "0"),
        ("generations", "list", "--limit", "many"),
        ("generations", "list", "--since", "yesterday"),
        ("generations", "list", "--filter", '{"id; DROP TABLE generations": 1}'),
        ("generations", "list", "--filter", '{"name": {"$regex": "x"}}'),
        ("generations", "list", "--filter", '{"created_at": {"$gt": "soon"}}'),
        ("generations", "list", "--filter", "[]"),
        ("generations", "list", "--filter", "[" * 100_000),
        ("feedback", "add", "gen-1", "6"),
        ("feedback", "add", "gen-1", "good"),
        ("costs", "record", "p", "m", "--cost", "-1"),
        ("costs", "report", "--on", "2026-02-30"),
        ("costs", "report", "--period", "weekly"),
        ("memory", "set", "k", "NaN"),
        ("memory", "set", "k", "1", "--ttl", "0"),
        ("memory", "set", "", "1"),
        ("search", "templates", "x", "--top-k", "0"),
        ("search", "memory", "x"),
        ("search", "templates", " "),
        ("templates", "promote"),
        ("templates", "promote", "gen-1", "--qualified"),
    ],
    ids=lambda command: " ".join(command)[:60].encode("ascii", "backslashreplace").decode(),
)
def test_a_wrong_value_is_refused_with_its_reason(sqlite: Cli, command: tuple[str, ...]) -> None:
    sqlite.fails(2, *command, stdin="content")
    assert all(count == 0 for count in sqlite.json("db", "status")["counts"].values())


def test_text_that_is_no_utf_8_or_empty_is_refused(sqlite: Cli) -> None:
    add = ("generations", "add", "-", "--type", "a", "--name", "n")
    assert "UTF-8" in sqlite.fails(2, *add, stdin=b"\xff\xfe")
    assert "blank" in sqlite.fails(2, *add, stdin=" \n")


def test_what_is_not_there_is_a_failure(sqlite: Cli) -> None:
    sqlite.fails(1, "feedback", "add", "gen-missing", "5")
    sqlite.fails(1, "templates", "promote", "gen-missing")
    sqlite.fails(1, "templates", "show", "tpl-missing")
    sqlite.fails(1, "practices", "show", "bpr-missing")
    sqlite.fails(1, "generations", "list", "--after", "gen-missing")
    sqlite.fails(1, "memory", "delete", "missing")


def test_a_global_option_in_the_wrong_place_is_told_its_own(sqlite: Cli) -> None:
    assert "paracle meta --url" in sqlite.fails(2, "memory", "list", "--url", "sqlite:///x")
    assert "did you mean 'memory'" in sqlite.fails(2, "memry")


def folder_of(cli: Cli) -> Path:
    return Path(cli.url.removeprefix("sqlite:///"))


def test_a_file_that_is_no_database(sqlite: Cli) -> None:
    sqlite.ok("memory", "set", "k", "1")
    (folder_of(sqlite) / "memory.db").write_bytes(b"This is a letter to a friend. " * 500)
    error = database_error(sqlite, "memory", "get", "k", warning="memory.db is damaged")
    assert "memory.db" in error


def test_a_schema_of_a_newer_version(sqlite: Cli) -> None:
    sqlite.ok("memory", "set", "k", "1")
    for file in folder_of(sqlite).glob("*.db"):
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE paracle_meta_version SET version_num = '9999'")
        connection.close()
    assert "newer" in database_error(sqlite, "memory", "get", "k")


PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h


def obey_permissions() -> None:
    """Give up root's right to write to every file; for anyone else there is nothing to give up."""
    if os.geteuid() == 0:
        dropped = ctypes.CDLL(None, use_errno=True).prctl(
            PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0
        )
        assert dropped == 0, os.strerror(ctypes.get_errno())


@pytest.fixture
def read_only(sqlite: Cli) -> Iterator[Path]:
    """A folder with a database in which nothing can be written."""
    sqlite.ok("memory", "set", "k", "1")
    folder = folder_of(sqlite)
    for file in folder.iterdir():
        file.chmod(0o400)
    folder.chmod(0o500)
    yield folder
    folder.chmod(0o700)


@pytest.mark.skipif(
    os.geteuid() == 0 and sys.platform != "linux", reason="root may write everywhere"
)
def test_a_folder_that_cannot_be_written(read_only: Path) -> None:
    for url, *command in (
        (f"sqlite:///{read_only}", "memory", "set", "k", "2"),
        (f"sqlite:///{read_only}/new", "db", "migrate"),
    ):
        done = paracle("meta", "--url", url, *command, prepare=obey_permissions)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1), done.stderr
        assert str(read_only) in done.stderr
        assert "rights" in done.stderr or "can be read" in done.stderr


def test_a_disk_that_takes_no_more(sqlite: Cli) -> None:
    """The limit on the size of a file stands for a full disk, which only root can make."""
    sqlite.ok("memory", "set", "k", "1")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = paracle(
        *("meta", "--url", sqlite.url, "memory", "set", "k", "-", "--text"),
        stdin=b"x" * 1_000_000,
        prepare=small_files,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert "disk" in done.stderr
    assert sqlite.ok("memory", "get", "k") == "1"


def test_a_wrong_password_is_not_repeated(postgres18: PostgresServer) -> None:
    database = postgres18.create_database()
    line = database_error(
        Cli(postgres18.password_url_of(database, "wrong-horse")), "memory", "list"
    )
    assert "password" in line
    assert "wrong-horse" not in line
    line = database_error(Cli(postgres18.password_url_of("no_such_database")), "memory", "list")
    assert "no_such_database" in line
    assert PASSWORD not in line


def test_no_server() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        # Bound and not listening: nobody else takes the port meanwhile.
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        assert address in database_error(Cli(f"postgresql://me:pw@{address}/x"), "db", "status")


def test_a_role_that_may_not_create_the_extension(postgres18: PostgresServer) -> None:
    database = postgres18.create_database()
    postgres18.sql(f"ALTER DATABASE {database} OWNER TO postgres")
    postgres18.sql(f"GRANT ALL ON SCHEMA public TO {PASSWORD_ROLE}", database)
    cli = Cli(postgres18.password_url_of(database))
    assert "CREATE EXTENSION vector" in database_error(cli, "memory", "list")
    postgres18.sql("CREATE EXTENSION vector", database)
    assert cli.json("memory", "list") == []


@pytest.fixture
def without_pgvector(server_folder: Path) -> Iterator[PostgresServer]:
    """A server whose installation has no pgvector: a copy, without the extension's control file."""
    server = PostgresServer(18, server_folder / "plain", fsync=False)
    package = server.bin.parents[1]
    copy = server_folder / "plain-programs"
    for source in (server.bin.parent, package.with_name(f"{package.name}.libs")):
        shutil.copytree(source, copy / source.relative_to(package.parent))
    server.bin = copy / server.bin.relative_to(package.parent)
    (control,) = copy.rglob("vector.control")
    control.unlink()
    with server:
        yield server


def test_a_server_without_pgvector(
    without_pgvector: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = Cli(without_pgvector.url_of(without_pgvector.create_database()))
    assert "pgvector" in database_error(cli, "memory", "list")
    monkeypatch.setenv("PARACLE_META_DATABASE__ENABLE_VECTORS", "false")
    cli.ok("memory", "set", "k", "1")
    assert "enable_vectors" in cli.fails(2, "search", "templates", "x")
