from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from paracle_meta.cli.app import app
from tests.cli.conftest import EXAMPLES, Cli, paracle
from tests.postgres import PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

    from tests.postgres import PostgresServer


def copy(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["meta", "copy", *arguments], prog_name="paracle")


@pytest.fixture
def stocked(sqlite: Cli) -> Cli:
    agent = str(EXAMPLES / "agents" / "security-reviewer.md")
    sqlite.ok("generations", "add", agent, "--type", "agent", "--name", "R", "--id", "gen-1")
    sqlite.ok("feedback", "add", "gen-1", "5")
    sqlite.ok("memory", "set", "step", "3")
    sqlite.ok("templates", "promote", "gen-1")
    return sqlite


def test_rows_and_checksums_are_the_proof(stocked: Cli, postgres18: PostgresServer) -> None:
    target = postgres18.url_of(postgres18.create_database())
    done = copy("--from", stocked.url, "--to", target)
    assert done.exit_code == 0, done.output
    assert done.stderr == "Both sides are equal.\n"
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[:4] for line in lines] == [
        ["generations", "1", "0", "0"],
        ["templates", "1", "0", "0"],
        ["feedback", "1", "0", "0"],
        ["costs", "0", "0", "0"],
        ["memory", "1", "0", "0"],
        ["best practices", "0", "0", "0"],
    ]
    for line in lines:
        assert line[4] == line[5]
        assert len(line[6]) == 32
        assert line[7] == "yes"

    # The other way round the checksums are the same.
    back = stocked.url + "-back"
    assert copy("--from", target, "--to", back).stdout == done.stdout
    assert Cli(back).ok("memory", "get", "step") == stocked.ok("memory", "get", "step")


def test_what_is_not_equal_is_said_and_the_exit_code_is_1(stocked: Cli) -> None:
    target = Cli(stocked.url + "-target")
    assert copy("--from", stocked.url, "--to", target.url).exit_code == 0
    stocked.ok("memory", "delete", "step")
    target.ok("generations", "update", "gen-1", "--name", "changed")

    done = copy("--from", stocked.url, "--to", target.url)
    assert done.exit_code == 1
    changed, deleted, last = done.stderr.splitlines()
    assert changed == (
        "generations: 1 ('gen-1') changed at the target since, left as they are there"
    )
    assert deleted.startswith("memory: 1 ('mem-")
    assert deleted.endswith("not at the source, or deleted there; left at the target")
    assert last == "The two sides are not equal."
    rows = {line.split("\t")[0]: line.split("\t")[4:] for line in done.stdout.splitlines()}
    assert rows["memory"][:2] == ["0", "1"]
    assert rows["memory"][3] == "no"
    assert rows["generations"][2].count(" / ") == 1

    done = copy("--from", stocked.url, "--to", target.url, "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["equal"] is False
    assert report["tables"][0]["changed_at_target"] == {"total": 1, "ids": ["gen-1"]}
    assert report["comparison"][0]["different"] == {"total": 1, "ids": ["gen-1"]}


def test_without_comparing_it_says_so(stocked: Cli) -> None:
    done = copy("--from", stocked.url, "--to", stocked.url + "-target", "--no-verify")
    assert done.exit_code == 0
    assert done.stderr == "Nothing was compared.\n"
    assert done.stdout.splitlines()[0] == "generations\t1\t0\t0"


def test_one_side_may_be_the_configured_database(
    stocked: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Cli(stocked.url + "-target")
    assert stocked.run("copy", "--to", target.url).exit_code == 0
    monkeypatch.setenv("PARACLE_META_SQLITE_DIR", stocked.url + "-other")
    assert copy("--from", target.url).exit_code == 0
    assert Cli(stocked.url + "-other").ok("memory", "get", "step")


def test_a_wrong_call_writes_nothing(stocked: Cli, tmp_path: Path) -> None:
    new = f"sqlite:///{tmp_path / 'new'}"
    missing = f"sqlite:///{tmp_path / 'mistyped'}"
    for code, words, arguments in (
        (2, "give --from, --to or both", ()),
        (2, "A database URL should be", ("--from", "mysql://x", "--to", new)),
        (2, "'NOT_SET', which is not set", ("--from", "env:NOT_SET", "--to", new)),
        (1, "no database at", ("--from", missing, "--to", new)),
        (1, "the same database", ("--from", stocked.url, "--to", stocked.url)),
    ):
        done = copy(*arguments)
        assert (done.exit_code, done.stdout) == (code, ""), done.output
        assert words in done.stderr
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "mistyped").exists()


def test_a_password_comes_from_the_environment_or_a_file_and_is_not_shown(
    stocked: Cli, postgres18: PostgresServer, tmp_path: Path
) -> None:
    database = postgres18.create_database()
    postgres18.sql("CREATE EXTENSION vector", database)
    url = postgres18.password_url_of(database, "env:SECRET")
    bare = url.replace(":env:SECRET", "")
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"127.0.0.1:*:{database}:*:{PASSWORD}\n")
    passwords.chmod(0o600)
    whole = postgres18.password_url_of(database)
    for target, environment in (
        (url, {"SECRET": PASSWORD}),
        ("env:TARGET", {"TARGET": whole}),
        ("env:TARGET", {"TARGET": url, "SECRET": PASSWORD}),
        (bare, {"PGPASSFILE": str(passwords)}),
    ):
        command = ("meta", "copy", "--from", stocked.url, "--to", target)
        done = paracle(*command, environment=environment)
        assert (done.returncode, done.stderr) == (0, "Both sides are equal.\n")
        assert PASSWORD not in done.stdout
    done = paracle("meta", "copy", "--from", stocked.url, "--to", bare)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1


def test_a_role_without_a_password_is_refused_without_showing_the_url(
    stocked: Cli, postgres18: PostgresServer
) -> None:
    url = postgres18.password_url_of(postgres18.create_database(), "wrong-horse")
    done = paracle("meta", "copy", "--from", url, "--to", stocked.url)
    assert done.returncode == 4
    assert "wrong-horse" not in done.stderr
