from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from pysqlite3 import dbapi2 as pysqlite

from paracle_meta.backends.sqlite.surroundings import has_wal_bug
from tests.cli.conftest import WAIT, process_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

FIELDS = {"name", "severity", "where", "what", "repair", "count", "fixable", "fixed", "result"}


def add_template(cli: Cli) -> None:
    cli.ok("templates", "add", "-", "--type", "skill", "--name", "Baking", stdin="Bread.")


def test_a_database_that_is_well_gives_exit_code_0(cli: Cli) -> None:
    add_template(cli)
    result = cli.run("doctor")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "All is well.\n")
    assert cli.json("doctor") == {"healthy": True, "findings": []}


def test_one_that_is_not_there_is_not_well_until_it_is_made(cli: Cli) -> None:
    first = cli.run("doctor")
    assert (first.exit_code, first.stdout.splitlines()[-2].split()[0]) == (1, "error:")
    assert "`paracle meta doctor --fix` mends" in first.stderr
    fixed = cli.run("doctor", "--fix")
    assert (fixed.exit_code, fixed.stderr) == (0, "All is well.\n")
    assert all(line.startswith("fixed: ") for line in fixed.stdout.splitlines())
    assert cli.run("doctor", "--fix").stdout == ""


def test_findings_are_told_to_people_and_to_monitors(
    sqlite: Cli, tmp_path: Path, nothing_configured: Path
) -> None:
    generation = sqlite.ok(
        *("generations", "add", "-", "--type", "agent", "--name", "n"), stdin="text"
    )
    sqlite.ok("feedback", "add", generation, "4")
    add_template(sqlite)
    with closing(pysqlite.connect(tmp_path / "db" / "generations.db")) as connection, connection:
        connection.execute("DELETE FROM generations")
    with closing(pysqlite.connect(tmp_path / "db" / "templates.db")) as connection, connection:
        connection.execute("UPDATE templates SET embedding_model = 'else/where'")

    result = sqlite.run("doctor")
    assert result.exit_code == 1
    orphan, to_do, model, reembed = result.stdout.splitlines()
    assert orphan.startswith("error: orphaned-feedback (feedback): 1 of feedback ")
    assert to_do.startswith("  to do: ")
    assert model.startswith("error: other-model (templates): ")
    assert "paracle meta reembed templates" in reembed
    assert result.stderr == (
        "2 things are not well; `paracle meta doctor --fix` mends 1 of them.\n"
    )

    monitor = sqlite.run("doctor", "--json")
    assert (monitor.exit_code, monitor.stderr) == (1, "")
    report = json.loads(monitor.stdout)
    assert report["healthy"] is False
    assert [set(finding) for finding in report["findings"]] == [FIELDS] * 2
    assert [finding["fixable"] for finding in report["findings"]] == [True, False]

    result = sqlite.run("doctor", "--fix")
    assert result.exit_code == 1
    (file,) = nothing_configured.glob("orphaned-feedback-*.jsonl")
    assert f"  --fix: 1 moved into {file.name}." in result.stdout.splitlines()
    assert result.stderr == "1 thing is not well; what to do stands above.\n"
    sqlite.ok("reembed", "templates")
    assert sqlite.run("doctor").exit_code == 0


def test_a_server_that_is_away_is_an_error_of_the_database(sqlite: Cli) -> None:
    sqlite.url = "postgresql://postgres@127.0.0.1:1/nothing"
    assert "127.0.0.1:1" in sqlite.fails(4, "doctor")


@pytest.mark.skipif(
    not has_wal_bug(sqlite3.sqlite_version_info),
    reason=f"the SQLite of this Python, {sqlite3.sqlite_version}, has no such bug",
)
def test_the_sqlite_of_an_old_python_is_told(sqlite: Cli) -> None:
    """Without pysqlite3, the package uses what Python was built with."""
    add_template(sqlite)
    program = "import sys; sys.modules['pysqlite3'] = None; from paracle_meta.cli.main import main"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; main()", "meta", "--url", sqlite.url, "doctor"],
        env=process_environment(),
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[:2]) == (1, ["warning:", "outdated-sqlite"]), done
