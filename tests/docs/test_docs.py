"""What the README and the pages show is run, page by page, as a reader would who follows it.

The blocks of a page run in order, in one empty project folder, beside a copy of `examples`:

- ``python``: in one namespace a page, as in ``python -m asyncio``; examples in the reference, which
  are parts of docstrings, find the public names there already;
- ``bash``: by bash, which stops at the first error; variables that it exports stay;
- ``console``: each line after ``$`` by bash, its output compared (``...`` stands for anything);
- ``yaml``: loaded as a configuration;
- ``sql``: by psql, as the superuser of the server.

A block whose first line is a comment with a file's name is that file. Where a page names
POSTGRES_URL, a real server stands in for it. Blocks that cannot run here have a comment right above
them that says why; they are listed as skipped.
"""

from __future__ import annotations

import asyncio
import doctest
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from paracle_meta import load_config
from tests.docs.markdown import ROOT, Block, anchors_of, blocks_of, links_of, run_python

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

POSTGRES_URL = "postgresql://paracle:secret@localhost:5432/paracle_meta"
GUIDE = ROOT / "docs" / "database-guide.md"  # test_guide.py runs it, with more to say about it.
REFERENCE = ROOT / "docs" / "reference"
PUBLIC_NAMES = "import pytest; from paracle_meta import *; from paracle_meta.testing import *"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LANGUAGES = ("python", "bash", "console", "yaml", "sql")
BLOCKS = {page: blocks_of(page, *LANGUAGES) for page in PAGES if page != GUIDE}
RUNNABLE = [page for page, blocks in BLOCKS.items() if any(not block.not_run for block in blocks)]
NOT_RUN = [block for blocks in BLOCKS.values() for block in blocks if block.not_run]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Reader:
    """Somebody who follows a page from top to bottom in an empty folder."""

    def __init__(
        self, folder: Path, server: PostgresServer | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder = folder
        self._server = server
        self._database = server.create_database() if server is not None else ""
        self._monkeypatch = monkeypatch
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._programs: list[Path] = []

    def follow(self, blocks: list[Block]) -> None:
        if blocks[0].page.is_relative_to(REFERENCE):
            exec(PUBLIC_NAMES, self._names)
        # One event loop a page, as the shell has that people paste these blocks into.
        with asyncio.Runner() as runner:
            for block in blocks:
                if not block.not_run:
                    self._run(block, self._code(block), runner)
        for file in self._programs:
            # By a command, or as a module by another file; its own first line does not count.
            elsewhere = [block.code.removeprefix(f"# {file.name}\n") for block in blocks]
            used = any(file.name in code or f"from {file.stem} " in code for code in elsewhere)
            assert used, f"{file.name} is shown in {_name(blocks[0].page)} and never run"

    def _run(self, block: Block, code: str, runner: asyncio.Runner) -> None:
        match block.language:
            case "python":
                self._run_python(block, code, runner)
            case "bash":
                self._bash(block, code)
            case "console":
                self._run_console(block, code)
            case "yaml":
                self._run_yaml(block, code)
            case "sql":
                self._run_sql(block, code)

    def _code(self, block: Block) -> str:
        if self._server is None:
            return block.code
        return block.code.replace(POSTGRES_URL, self._server.url_of(self._database))

    def _run_python(self, block: Block, code: str, runner: asyncio.Runner) -> None:
        if self._is_file(block, code):
            return
        running = run_python(block, code, self._names)
        if running is not None:
            runner.run(_awaited(running))

    def _run_console(self, block: Block, code: str) -> None:
        for command, _rest, wanted in re.findall(
            r"^\$ ((.+\\\n)*.+\n)((?:(?!\$ ).*\n)*)", code, re.MULTILINE
        ):
            said = self._bash(block, command)
            checker = doctest.OutputChecker()
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert checker.check_output(wanted, said, options), f"{block.place}: {command}{said}"

    def _run_yaml(self, block: Block, code: str) -> None:
        file = self.folder / "settings.yaml"
        file.write_text(code)
        load_config(file)
        self._is_file(block, code)

    def _run_sql(self, block: Block, code: str) -> None:
        assert self._server is not None, f"{block.place}: SQL on a page without {POSTGRES_URL}"
        self._server.sql(code, self._database)

    def _is_file(self, block: Block, code: str) -> bool:
        """Write the block where its first line says, if it says so."""
        named = re.match(r"# (\S+\.(?:py|yaml))\n", block.code)
        if named:
            file = self.folder / named[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(code)
            if file.suffix == ".py":
                self._programs.append(file)
        return bool(named)

    def _bash(self, block: Block, script: str) -> str:
        variables = self.folder / ".exported"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{script}\nenv -0 > {variables}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block.place}\n{script}\n{done.stdout}\n{done.stderr}"
        for line in variables.read_text().split("\0"):
            name, _, value = line.partition("=")
            if name.startswith("PARACLE_META_") or name == "OPENAI_API_KEY":
                self._monkeypatch.setenv(name, value)
        variables.unlink()
        return done.stdout


async def _awaited(running: Any) -> None:
    await running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, which is home too, with the command `paracle` in reach."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("PARACLE_META_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    for name in ("XDG_DATA_HOME", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    # Also from a checkout that is not installed.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    programs = [str(Path(sys.executable).parent)]
    if shutil.which("paracle", path=programs[0]) is None:
        command = tmp_path / ".bin" / "paracle"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m paracle_meta "$@"\n')
        command.chmod(0o755)
        programs.insert(0, str(command.parent))
    monkeypatch.setenv("PATH", os.pathsep.join([*programs, os.environ["PATH"]]))
    return tmp_path


@pytest.mark.parametrize("page", RUNNABLE, ids=_name)
def test_a_page_can_be_followed(
    page: Path, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = BLOCKS[page]
    wants_server = any(POSTGRES_URL in block.code for block in blocks if not block.not_run)
    server = request.getfixturevalue("postgres18") if wants_server else None
    Reader(folder, server, monkeypatch).follow(blocks)


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.place)
def test_a_block_is_marked_as_not_run(block: Block) -> None:
    pytest.skip(f"{block.place} is not run: {block.not_run}")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links_of(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("https", "http"), link
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if parts.fragment:
            assert parts.fragment in anchors_of(target), link


def test_every_page_is_linked_from_the_readme_in_two_steps() -> None:
    def linked(page: Path) -> set[Path]:
        paths = [urlsplit(link).path for link in links_of(page) if not urlsplit(link).scheme]
        targets = {(page.parent / path).resolve() for path in paths if path.endswith(".md")}
        return {target for target in targets if target.exists()}

    first = linked(ROOT / "README.md")
    second = {page for near in first for page in linked(near)}
    assert set(PAGES) - first - second - {ROOT / "README.md"} == set()
