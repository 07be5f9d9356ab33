from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Cli, paracle

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer

KINDS = ("generations", "templates", "feedback", "costs", "memory", "best practices")


def fields(said: str) -> dict[str, str]:
    parts = [line.partition(":") for line in said.splitlines()]
    return {name: value.strip() for name, _, value in parts}


@pytest.fixture
def programs(postgres18: PostgresServer) -> tuple[str, str]:
    return "--pg-bin", str(postgres18.bin)


def test_a_backup_and_what_it_says(
    cli: Cli, programs: tuple[str, str], nothing_configured: Path
) -> None:
    cli.ok("memory", "set", "step", "3")
    said = fields(cli.ok("backup", "saved/today", *programs))
    assert (said["backup"], said["memory"], said["best practices"]) == ("saved/today", "1", "0")
    assert list(said) == ["backup", "of", "bytes", *KINDS]
    assert int(said["bytes"]) > 0
    assert (nothing_configured / "saved" / "today" / "manifest.json").is_file()

    # It is nobody's to overwrite, and neither are records.
    assert "exists already" in cli.fails(1, "backup", "saved/today", *programs)
    cli.ok("memory", "set", "step", "4")
    refused = cli.fails(1, "restore", "saved/today", *programs)
    assert "holds records already" in refused
    assert "--replace" in refused
    assert cli.json("memory", "get", "step")["value"] == 4

    restored = cli.run("restore", "saved/today", "--replace", *programs)
    assert restored.exit_code == 0, restored.stderr
    assert list(fields(restored.stdout)) == ["restored", "as of", *KINDS]
    assert ("What was there before is kept in" in restored.stderr) == cli.url.startswith("sqlite")
    assert cli.json("memory", "get", "step")["value"] == 3


def test_both_say_it_in_json(cli: Cli, programs: tuple[str, str]) -> None:
    cli.ok("memory", "set", "step", "3")
    made = cli.json("backup", "saved", *programs)
    assert made["folder"] == "saved"
    assert made["counts"] == {kind.replace(" ", "_"): int(kind == "memory") for kind in KINDS}
    restored = cli.json("restore", "saved", "--replace", *programs)
    assert (restored["counts"], restored["created_at"]) == (made["counts"], made["created_at"])
    assert (restored["kept"] is None) != cli.url.startswith("sqlite")


def test_a_backup_is_of_one_kind_of_database(
    sqlite: Cli, postgres18: PostgresServer, programs: tuple[str, str]
) -> None:
    server = Cli(postgres18.url_of(postgres18.create_database()))
    server.ok("backup", "of-server", *programs)
    sqlite.ok("backup", "of-files")
    for cli, folder in ((sqlite, "of-server"), (server, "of-files")):
        assert "paracle meta copy" in cli.fails(1, "restore", folder, *programs)


def test_a_missing_program_is_named(postgres18: PostgresServer, nothing_configured: Path) -> None:
    server = Cli(postgres18.url_of(postgres18.create_database()))
    said = server.fails(1, "backup", "saved", "--pg-bin", str(nothing_configured))
    assert said.startswith(f"error: pg_dump was not found in {nothing_configured}. Install")
    assert "postgresql-client-18" in said
    assert list(nothing_configured.iterdir()) == []


def test_what_cannot_be_read_is_an_error_of_the_database(sqlite: Cli, tmp_path: Path) -> None:
    sqlite.ok("memory", "set", "step", "3")
    sqlite.ok("backup", "saved")
    (tmp_path / "db" / "memory.db").write_bytes(b"no database" * 1000)
    damage = "memory.db is damaged"
    assert damage in sqlite.fails(4, "backup", "other", warning=damage)
    assert "--replace" in sqlite.fails(1, "restore", "saved")
    sqlite.ok("restore", "saved", "--replace")
    assert sqlite.json("memory", "get", "step")["value"] == 3


def test_a_folder_must_be_named(sqlite: Cli) -> None:
    for command in ("backup", "restore"):
        assert "Missing argument" in sqlite.fails(2, command)


def test_the_real_program(nothing_configured: Path) -> None:
    for command in (["backup", "saved"], ["restore", "saved", "--replace"]):
        done = paracle("meta", "--url", "sqlite:///db", *command)
        assert (done.returncode, done.stderr) == (0, "")
    assert (nothing_configured / "saved" / "memory.db").is_file()


def test_a_full_disk_changes_nothing(sqlite: Cli, nothing_configured: Path, tmp_path: Path) -> None:
    sqlite.ok("memory", "set", "step", "3")
    sqlite.ok("backup", "saved")
    sqlite.ok("memory", "set", "step", "4")
    for command in (["backup", "other"], ["restore", "saved", "--replace"]):
        done = paracle("meta", "--url", sqlite.url, *command, prepare=_little_room)
        assert (done.returncode, done.stdout) == (4, "")
        assert str(nothing_configured if command[0] == "backup" else tmp_path) in done.stderr
    assert [path.name for path in nothing_configured.iterdir()] == ["saved"]
    assert sqlite.json("memory", "get", "step")["value"] == 4


def _little_room() -> None:
    # No file may become larger; the largest of a new database is.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
