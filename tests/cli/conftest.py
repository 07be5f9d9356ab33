from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

import paracle_meta
from paracle_meta.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typer.testing import Result

    from tests.postgres import PostgresServer

SOURCE = str(Path(paracle_meta.__file__).parents[1])
EXAMPLES = Path(__file__).parents[2] / "examples"
WAIT = 120
"""Seconds for a process that takes one or two, on a machine that runs other tests too."""


class Cli:
    """The command line on one database, in this process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, *arguments: str, stdin: str | bytes | None = None) -> Result:
        command = ["meta", "--url", self.url, *arguments]
        return CliRunner().invoke(app, command, input=stdin, prog_name="paracle")

    def ok(self, *arguments: str, stdin: str | bytes | None = None) -> str:
        """Run a command that must succeed and return what it printed, without the last newline."""
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.stderr
        return result.stdout.removesuffix("\n")

    def json(self, *arguments: str, stdin: str | bytes | None = None) -> Any:
        return json.loads(self.ok(*arguments, "--json", stdin=stdin))

    def fails(
        self,
        code: int,
        *arguments: str,
        stdin: str | bytes | None = None,
        warning: str | None = None,
    ) -> str:
        """Run a command that must fail and return the one line that says why.

        Where a warning is given, a line with that comes before.
        """
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        *warnings, line = result.stderr.splitlines()
        assert len(warnings) == (warning is not None)
        assert all(warning in one for one in warnings if warning is not None)
        assert line.startswith("error: ")
        return line


def paracle(
    *arguments: str,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the real entry point in a process of its own, after `prepare` ran in it."""
    return subprocess.run(
        [sys.executable, "-m", "paracle_meta", *arguments],
        input=None if stdin is None else stdin.decode(),
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        env=process_environment(environment),
        preexec_fn=prepare,
        timeout=WAIT,
        check=False,
    )


def process_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process that imports this source and buffers its output."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**inherited, "PYTHONPATH": SOURCE, "PYTHONWARNINGS": "error", **(more or {})}


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no setting from whoever runs the tests."""
    for name in list(os.environ):
        if name.upper().startswith("PARACLE_META_") or name == "OPENAI_API_KEY":
            monkeypatch.delenv(name)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    # Where the platform's data folder would be.
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return folder


@pytest.fixture
def sqlite(tmp_path: Path) -> Cli:
    return Cli(f"sqlite:///{tmp_path / 'db'}")


@pytest.fixture(params=["sqlite", "postgresql"])
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Cli:
    """The command line on each database in turn."""
    if request.param == "sqlite":
        return Cli(f"sqlite:///{tmp_path / 'db'}")
    server: PostgresServer = request.getfixturevalue("postgres18")
    return Cli(server.url_of(server.create_database()))
