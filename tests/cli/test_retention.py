from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import WAIT, process_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

OLD = (
    '{"kind": "generations", "id": "gen-old", "artifact_type": "agent", "name": "old",'
    ' "content": "x", "created_at": "2020-01-01T00:00:00Z"}\n'
)


@pytest.fixture
def filled(cli: Cli, tmp_path: Path) -> Cli:
    """A generation of 2020 with feedback of today, and one of today with a template."""
    lines = tmp_path / "old.jsonl"
    lines.write_text(OLD)
    cli.ok("import", str(lines))
    cli.ok("feedback", "add", "gen-old", "4")
    cli.ok(
        *("generations", "add", "-", "--type", "agent", "--name", "new", "--id", "gen-new"),
        stdin="text",
    )
    cli.ok("templates", "promote", "gen-new")
    return cli


def test_prune_counts_first_and_deletes_when_told_to(filled: Cli) -> None:
    command = ("prune", "generations", "costs", "--older-than", "90d")
    planned = filled.json(*command, "--dry-run")
    assert planned["rows"] == {"generations": 1, "feedback": 1, "costs": 0}
    assert planned["dry_run"] is True
    assert filled.ok("generations", "count") == "2"

    assert "--yes" in filled.fails(2, *command)
    assert filled.ok("generations", "count") == "2"

    assert filled.ok(*command, "--yes").split() == [
        "generations:",
        "1",
        "feedback:",
        "1",
        "costs:",
        "0",
    ]
    assert [each["id"] for each in filled.json("generations", "list")] == ["gen-new"]
    again = filled.json("prune", "generations", "--before", "2021-01-01", "--yes")
    assert again["rows"] == {"generations": 0, "feedback": 0}
    assert again["before"] == "2021-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generations",), "--older-than"),
        (("generations", "--older-than", "1d", "--before", "2021-01-01"), "--older-than"),
        (("generations", "--older-than", "soon", "--yes"), "90d"),
        (("generations", "--older-than", "-1d", "--yes"), "90d"),
        (("generations", "--older-than", "9999999999w", "--yes"), "90d"),
        (("generations", "--older-than", "900000w", "--yes"), "year 1"),
        (("generations", "--before", "2999-01-01", "--yes"), "older than now"),
        (("sessions", "--older-than", "1d", "--yes"), "no kind of record"),
    ],
)
def test_how_old_must_be_said(sqlite: Cli, arguments: tuple[str, ...], said: str) -> None:
    assert said in sqlite.fails(2, "prune", *arguments)


def test_a_generation_is_erased(filled: Cli) -> None:
    (template,) = filled.json("templates", "list")
    planned = filled.json("erase", "generation", "gen-new", "--dry-run")
    assert planned["rows"] == {"generations": 1, "feedback": 0, "templates": 0}
    assert planned["kept"] == [template["id"]]
    assert filled.ok("generations", "count") == "2"
    assert "--yes" in filled.fails(2, "erase", "generation", "gen-new")

    result = filled.run("erase", "generation", "gen-new", "--yes")
    assert result.exit_code == 0
    assert result.stdout.split()[:2] == ["generations:", "1"]
    assert f"kept: template {template['id']}" in result.stderr
    assert "backups" in result.stderr
    assert filled.ok("generations", "count") == "1"
    assert filled.json("templates", "list")[0]["source"] is None

    filled.ok("templates", "promote", "gen-old")
    erased = filled.json("erase", "generation", "gen-old", "--templates", "--yes")
    assert erased["rows"] == {"generations": 1, "feedback": 1, "templates": 1}


def test_a_session_is_erased(cli: Cli) -> None:
    cli.ok("memory", "set", "step", "3", "--session", "build-7")
    cli.ok("memory", "set", "step", "3", "--session", "build-8")
    assert cli.json("erase", "session", "build-7", "--dry-run")["rows"] == {"memory": 1}
    assert len(cli.json("memory", "list")) == 2
    assert cli.json("erase", "session", "build-7", "--yes")["rows"] == {"memory": 1}
    assert cli.json("erase", "session", "build-7", "--yes")["rows"] == {"memory": 0}
    assert [item["session_id"] for item in cli.json("memory", "list")] == ["build-8"]


def test_purging_can_be_planned(cli: Cli) -> None:
    cli.ok("memory", "set", "gone", "5", "--ttl", "0.001")
    assert cli.json("memory", "purge", "--dry-run") == {"deleted": 1}
    assert cli.json("memory", "purge") == {"deleted": 1}
    assert cli.json("memory", "purge", "--dry-run") == {"deleted": 0}


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals to open here")
def test_a_person_is_asked(sqlite: Cli) -> None:
    sqlite.ok("memory", "set", "step", "3", "--session", "build-7")

    def erase(answer: bytes) -> subprocess.CompletedProcess[str]:
        keyboard, terminal = os.openpty()
        try:
            os.write(keyboard, answer)
            return subprocess.run(
                [
                    *(sys.executable, "-m", "paracle_meta", "meta", "--url", sqlite.url),
                    *("erase", "session", "build-7"),
                ],
                stdin=terminal,
                capture_output=True,
                text=True,
                env=process_environment(),
                timeout=WAIT,
                check=False,
            )
        finally:
            os.close(keyboard)
            os.close(terminal)

    refused = erase(b"n\n")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Erase for good (memory: 1)?" in refused.stderr
    assert len(sqlite.json("memory", "list")) == 1
    agreed = erase(b"y\n")
    assert agreed.returncode == 0, agreed.stderr
    assert agreed.stdout.split()[:2] == ["memory:", "1"]
    assert sqlite.json("memory", "list") == []
