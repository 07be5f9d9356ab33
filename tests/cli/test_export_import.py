"""`paracle meta export` and `import`: data on stdout, the rest on stderr, and honest exit codes."""

from __future__ import annotations

import gzip
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import WAIT, Cli, paracle, process_environment
from tests.cli.test_process import HEAVY, modules_after


@pytest.fixture
def stocked(cli: Cli) -> Cli:
    """A database with a few records, on each database in turn."""
    return stock(cli)


@pytest.fixture
def files(sqlite: Cli) -> Cli:
    """The same on SQLite alone."""
    return stock(sqlite)


@pytest.fixture
def other(tmp_path: Path) -> Cli:
    """Another database, which is empty."""
    return Cli(f"sqlite:///{tmp_path / 'other'}")


def stock(cli: Cli) -> Cli:
    lines = [
        {"kind": "generations", "id": "gen-1", "artifact_type": "agent", "name": "n",
         "content": "Grüße", "created_at": "2026-01-01"},
        {"kind": "feedback", "id": "fbk-1", "generation_id": "gen-1", "rating": 5,
         "created_at": "2026-02-01"},
        {"kind": "memory", "id": "mem-1", "key": "k", "value": {"a": [1, None]},
         "created_at": "2026-03-01"},
    ]  # fmt: skip
    cli.ok("import", "-", stdin="".join(f"{json.dumps(line)}\n" for line in lines))
    return cli


def exported(cli: Cli, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cli.ok("export", *options).splitlines()]


def test_an_export_is_on_stdout_and_what_it_holds_on_stderr(stocked: Cli, other: Cli) -> None:
    done = stocked.run("export")
    assert (done.exit_code, done.stderr.splitlines()[0]) == (0, "generations: 1 exported")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [
        *("gen-1", "fbk-1", "mem-1")
    ]
    script = stocked.ok("export", "--format", "sql")
    assert script.startswith("-- paracle_meta export")

    expected = "generations: 1 added\nfeedback: 1 added\nmemory: 1 added"
    assert other.ok("import", "-", stdin=f"{script}\n") == expected
    again = other.ok("import", "-", stdin=done.stdout)
    assert again == expected.replace("added", "already there")
    assert other.json("memory", "list")[0]["value"] == {"a": [1, None]}


def test_the_name_of_the_file_says_what_it_becomes(files: Cli, other: Cli, tmp_path: Path) -> None:
    for name in ("a.sql", "a.jsonl", "a.sql.gz", "a.jsonl.gz", "a"):
        done = files.run("export", "--output", str(tmp_path / name))
        assert (done.exit_code, done.stdout) == (0, "")
        data = (tmp_path / name).read_bytes()
        text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
        assert text.startswith("-- paracle_meta export" if ".sql" in name else '{"kind":'), name
        report = other.json("import", str(tmp_path / name))
        assert sum(report["added"].values()) + sum(report["unchanged"].values()) == 3
    files.ok("export", "--format", "sql", "--output", str(tmp_path / "b.jsonl"))
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.sql").read_bytes()

    files.ok("export", "--output", f"{tmp_path}/records/", "--kind", "memory", "--kind", "feedback")
    names = sorted(file.name for file in (tmp_path / "records").iterdir())
    assert names == ["feedback.jsonl", "memory.jsonl"]


def test_kinds_and_times_can_be_chosen(files: Cli, other: Cli) -> None:
    assert [line["id"] for line in exported(files, "--kind", "memory")] == ["mem-1"]
    late = exported(files, "--since", "2026-02-01", "--until", "2026-03-01T00:00:00Z")
    assert [line["id"] for line in late] == ["gen-1", "fbk-1"]  # what the feedback is about
    everything = files.ok("export")
    assert other.ok("import", "-", "--kind", "memory", stdin=everything) == "memory: 1 added"
    for command in (("export", "--kind", "poems"), ("import", "-", "--kind", "poems")):
        assert "'poems' is no kind" in files.fails(2, *command)
    assert "no time" in files.fails(2, "export", "--since", "yesterday")
    files.fails(2, "export", "--format", "csv")


BAD = "\n".join(['{"kind": "memory", "key": "good", "value": 1}', "secret", "[1]"])


def test_bad_lines_are_named_on_stderr_and_good_ones_stored(cli: Cli) -> None:
    done = cli.run("import", "-", stdin=BAD)
    assert done.exit_code == 1
    assert done.stdout == "memory: 1 added\n"
    assert done.stderr == "line 2: it is not JSON\nline 3: it is no JSON object\n"
    assert cli.ok("memory", "get", "good") == "1"

    done = cli.run("import", "-", "--json", stdin=BAD)
    assert (done.exit_code, done.stderr) == (1, "")
    report = json.loads(done.stdout)
    assert report["rejected"] == {"2": "it is not JSON", "3": "it is no JSON object"}
    assert report["unchanged"] == {"memory": 1}


def test_strict_stores_nothing(cli: Cli) -> None:
    done = cli.run("import", "-", "--strict", stdin=BAD)
    assert (done.exit_code, done.stdout) == (1, "")
    *lines, error = done.stderr.splitlines()
    assert lines == ["line 2: it is not JSON", "line 3: it is no JSON object"]
    assert error.startswith("error: 2 lines cannot be stored")
    cli.fails(1, "memory", "get", "good")


def test_of_many_bad_lines_the_first_are_named(sqlite: Cli) -> None:
    done = sqlite.run("import", "-", stdin="x\n" * 30)
    assert done.stderr.splitlines()[-2:] == ["line 20: it is not JSON", "... and 10 more lines"]
    done = sqlite.run("import", "-", "--json", stdin="x\n" * 30)
    assert len(json.loads(done.stdout)["rejected"]) == 30


def test_what_has_no_vector_is_said(sqlite: Cli) -> None:
    line = '{"kind": "templates", "artifact_type": "a", "name": "n", "content": "c"}'
    done = sqlite.run("import", "-", stdin=line)
    assert (done.exit_code, done.stdout) == (0, "templates: 1 added\n")
    assert done.stderr == "1 templates have no vector; `paracle meta embed` makes them.\n"
    sqlite.ok("embed")
    (template,) = exported(sqlite)
    assert isinstance(template["embedding"], str)


def test_nothing_and_no_file(sqlite: Cli, tmp_path: Path) -> None:
    assert sqlite.run("import", "-", stdin="").stderr == "Nothing to import.\n"
    assert "nothing cannot be read" in sqlite.fails(1, "import", str(tmp_path / "nothing"))
    missing = str(tmp_path / "missing" / "out.jsonl")
    assert "cannot be written: No such file" in sqlite.fails(1, "export", "--output", missing)


def test_what_nobody_else_can_hold_is_named_line_by_line(
    files: Cli, other: Cli, tmp_path: Path
) -> None:
    folder = Path(files.url.removeprefix("sqlite:///"))
    with sqlite3.connect(folder / "generations.db") as connection:
        connection.execute("UPDATE generations SET name = 'a' || char(0), provider = char(0)")
    connection.close()
    for options in ((), ("--format", "sql"), ("--output", str(tmp_path / "out"))):
        done = files.run("export", *options)
        assert (done.exit_code, done.stdout) == (1, "")
        *values, error = done.stderr.splitlines()
        assert [value.partition(":")[0] for value in values] == [
            *("generations gen-1, name", "generations gen-1, provider")
        ]
        assert error.startswith("error: 2 stored values cannot be held elsewhere")
        assert "--replace" in error
    assert not (tmp_path / "out").exists()

    done = files.run("export", "--replace")
    assert done.exit_code == 0
    assert done.stderr.startswith("replaced: generations gen-1, name")
    other.ok("import", "-", stdin=done.stdout)
    assert other.json("generations", "show", "gen-1")["name"] == "a\ufffd"


@pytest.fixture
def long(files: Cli) -> Cli:
    """A database with more than a pipe holds."""
    files.ok("memory", "set", "long", "-", "--text", stdin="x" * 1_000_000)
    return files


@pytest.mark.parametrize("form", ["jsonl", "sql"])
def test_a_reader_that_goes_away_is_no_error(form: str, long: Cli) -> None:
    command = [sys.executable, "-m", "paracle_meta", "meta", "--url", long.url]
    with subprocess.Popen(
        [*command, "export", "--format", form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=process_environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) in (b'{"', b"--")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(WAIT) == 141


def test_ctrl_c_ends_an_export_that_nobody_reads(long: Cli) -> None:
    command = [sys.executable, "-m", "paracle_meta", "meta", "--url", long.url, "export"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=process_environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) == b'{"'
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
        assert process.stderr.read() == b"error: interrupted.\n"


def test_a_record_cannot_steer_the_terminal(files: Cli) -> None:
    files.ok("memory", "set", "k", "\x9b2J", "--text")
    main, terminal = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "paracle_meta", "meta", "--url", files.url, "export"],
            stdout=terminal,
            stderr=subprocess.DEVNULL,
            env=process_environment(),
        ) as process:
            assert process.wait(WAIT) == 0
        shown = os.read(main, 100_000).decode()
    finally:
        os.close(terminal)
        os.close(main)
    assert "\ufffd2J" in shown
    assert "\x9b" not in shown


def test_files_are_exported_and_imported_without_what_is_heavy(
    files: Cli, other: Cli, tmp_path: Path
) -> None:
    file = str(tmp_path / "out.jsonl")
    other.ok("memory", "set", "made", "1")
    for command in (("--help",), ("--url", files.url, "export", "--output", file)):
        assert modules_after("meta", *command).isdisjoint(HEAVY), command
    assert modules_after("meta", "--url", other.url, "import", file).isdisjoint(HEAVY)


def test_bytes_arrive_as_they_were(files: Cli, other: Cli) -> None:
    done = paracle("meta", "--url", files.url, "export", "--kind", "generations")
    assert "Grüße" in done.stdout
    imported = paracle("meta", "--url", other.url, "import", "-", stdin=done.stdout.encode())
    assert (imported.returncode, imported.stdout) == (0, "generations: 1 added\n")
