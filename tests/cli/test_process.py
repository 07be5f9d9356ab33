"""What only shows in a process of its own: streams, signals, and what is imported."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import WAIT, paracle, process_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Cli

HEAVY = {"alembic", "asyncpg", "numpy", "ollama", "openai", "rich", "sqlalchemy", "wordllama"}
OF_TYPER = {"annotated_doc", "shellingham", "typer"}
OF_PYDANTIC = {
    "annotated_types",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}
REPORT_MODULES = """
import sys
before = set(sys.modules)
from paracle_meta.cli.main import main
try:
    main()
finally:
    import json
    print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""


def modules_after(*arguments: str) -> set[str]:
    return {name.partition(".")[0] for name in all_modules_after(*arguments)}


def installed(modules: set[str]) -> set[str]:
    """Return the packages that are no part of Python."""
    packages = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    # Python's own file about how it was built, whose name is another on each machine.
    return {name for name in packages if not name.startswith("_sysconfigdata")}


def all_modules_after(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", REPORT_MODULES, *arguments],
        capture_output=True,
        text=True,
        env=process_environment(),
        timeout=WAIT,
        check=True,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_loads_nothing_heavy() -> None:
    assert modules_after("meta", "--help").isdisjoint(HEAVY | {"pydantic", "yaml", "asyncio"})
    assert modules_after("meta", "templates", "search", "--help").isdisjoint(HEAVY)


def test_commands_on_sqlite_files_load_no_sqlalchemy_and_no_model(sqlite: Cli) -> None:
    sqlite.ok("memory", "set", "k", "1")
    for command in (
        ("memory", "get", "k"),
        ("memory", "set", "k", "2"),
        ("generations", "list"),
        ("templates", "list"),
        ("costs", "list"),
        ("db", "path"),
        ("db", "status"),
        ("config", "validate"),
    ):
        assert modules_after("meta", "--url", sqlite.url, *command).isdisjoint(HEAVY), command


def test_help_loads_no_package_but_typer() -> None:
    assert installed(modules_after("meta", "--help")) - OF_TYPER == {"paracle_meta"}


def test_reading_a_value_loads_what_it_takes_and_no_more(sqlite: Cli) -> None:
    sqlite.ok("memory", "set", "k", "1")
    loaded = all_modules_after("meta", "--url", sqlite.url, "memory", "get", "k")
    # The driver is Python's own where there is no pysqlite3.
    others = installed(loaded) - OF_TYPER - OF_PYDANTIC - {"pysqlite3"}
    assert others == {"paracle_meta"}
    # Of the package no other repository, no other provider, and nothing that moves or mends data.
    assert loaded.isdisjoint(
        f"paracle_meta.{name}"
        for name in (
            "backends.backup_folder",
            "backends.backups",
            "backends.bulk",
            "backends.health",
            "backends.sqlite.loading",
            "backends.sqlite.snapshot",
            "config_file",
            "embedder",
            "embeddings.http",
            "embeddings.minilm",
            "embeddings.ollama",
            "embeddings.openai",
            "health",
            "loading",
            "reembedding",
            "repositories.best_practices",
            "repositories.costs",
            "repositories.feedback",
            "repositories.generations",
            "repositories.templates",
            "retention",
            "transfer",
        )
    )


def test_no_plugin_of_another_package_sees_what_is_validated(tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text("import sys\nprint('spied', file=sys.stderr)\nplugin = None\n")
    (tmp_path / "spy-1.dist-info").mkdir()
    (tmp_path / "spy-1.dist-info" / "METADATA").write_text("Name: spy\nVersion: 1\n")
    (tmp_path / "spy-1.dist-info" / "entry_points.txt").write_text("[pydantic]\nspy = spy:plugin\n")
    search = f"{tmp_path}{os.pathsep}{process_environment()['PYTHONPATH']}"
    done = paracle("meta", "config", "validate", environment={"PYTHONPATH": search})
    assert (done.returncode, done.stderr.count("spied")) == (0, 0)


def test_data_goes_to_stdout_and_the_rest_to_stderr(sqlite: Cli) -> None:
    add = ("generations", "add", "-", "--type", "agent", "--name", "Ä", "--id", "gen-1", "--json")
    added = paracle("meta", "--url", sqlite.url, *add, stdin="Grüße".encode())
    assert (added.returncode, added.stderr) == (0, "")
    assert json.loads(added.stdout)["content"] == "Grüße"

    other = paracle("meta", "--url", sqlite.url, *add, stdin=b"other")
    assert (other.returncode, other.stdout) == (1, "")
    assert other.stderr.startswith("error: ")


def test_the_exit_code_says_what_kind_of_error_it_was(sqlite: Cli, tmp_path: Path) -> None:
    codes = {
        ("meta", "--url", sqlite.url, "memory", "get", "nothing"): 1,
        ("meta", "unknown"): 2,
        ("meta", "--url", "mysql://x", "db", "status"): 2,
        ("meta", "--url", sqlite.url, "memory", "list", "--limit", "0"): 2,
        ("meta", "--url", f"sqlite:///{__file__}/below-a-file", "memory", "list"): 4,
    }
    for command, code in codes.items():
        done = paracle(*command)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ")
    configuration = tmp_path / "ollama.yaml"
    configuration.write_text(
        # Nothing listens on the discard port.
        "database:\n  embedding_provider: ollama\n  ollama_url: http://127.0.0.1:9\n"
        f"  embedding_max_retries: 0\n  embedding_dimensions: 8\n  sqlite_dir: {tmp_path / 'e'}\n"
    )
    done = paracle("meta", "--config", str(configuration), "search", "templates", "x")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


def test_verbose_shows_where_an_error_came_from() -> None:
    done = paracle("meta", "--verbose", "--url", "sqlite:///x", "memory", "get", "nothing")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_a_reader_that_goes_away_is_no_error(sqlite: Cli) -> None:
    # More than a pipe holds, so that the writer is still writing when the reader has gone.
    sqlite.ok("memory", "set", "long", "-", "--text", stdin="x" * 1_000_000)
    command = [sys.executable, "-m", "paracle_meta", "meta", "--url", sqlite.url]
    with subprocess.Popen(
        [*command, "memory", "get", "long"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=process_environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5) == b"xxxxx"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(WAIT) == 141


@pytest.fixture
def locked(sqlite: Cli) -> Iterator[Cli]:
    """A database whose memory another process writes to and does not let go of."""
    sqlite.ok("memory", "set", "k", "1")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()",
            f"{sqlite.url.removeprefix('sqlite:///')}/memory.db",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield sqlite
        holder.kill()


def test_a_locked_file_is_reported_after_the_time_that_was_set(locked: Cli) -> None:
    environment = {"PARACLE_META_DATABASE__BUSY_TIMEOUT": "0.2"}
    done = paracle("meta", "--url", locked.url, "memory", "set", "k", "2", environment=environment)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "busy_timeout" in done.stderr


def test_ctrl_c_ends_a_command_that_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/x"
        with subprocess.Popen(
            [sys.executable, "-m", "paracle_meta", "meta", "--url", url, "memory", "list"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=process_environment(),
        ) as waiting:
            silent.settimeout(WAIT)
            connection, _ = silent.accept()
            with connection:
                waiting.send_signal(signal.SIGINT)
                out, err = waiting.communicate(timeout=WAIT)
    assert (waiting.returncode, out, err) == (130, "", "error: interrupted.\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_groups_commands_and_choices(shell: str) -> None:
    shown = paracle("--show-completion", shell)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "_PARACLE_COMPLETE" in shown.stdout


def test_completion_of_a_line() -> None:
    def completed(line: str) -> list[str]:
        environment = {
            "_PARACLE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        done = paracle(environment=environment)
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("paracle me") == ["meta"]
    assert completed("paracle meta te") == ["templates"]
    assert "promote" in completed("paracle meta templates ")
    assert completed("paracle meta search ") == ["templates", "best_practices"]
    assert completed("paracle meta costs report --period ") == ["daily", "monthly"]
