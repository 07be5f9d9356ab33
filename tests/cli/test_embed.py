"""`embed` and `reembed`, with the local model and with a real server on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from paracle_meta import MetaDatabase, Template, TemplateRepository
from paracle_meta.embeddings import LocalEmbeddings
from paracle_meta.testing import FakeEmbeddings
from tests.cli.conftest import WAIT, process_environment
from tests.embedding_server import Answer, EmbeddingServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Cli

OLLAMA = "ollama/nomic-embed-text"
LOCAL = LocalEmbeddings().model_id


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    """An Ollama server that is configured by its address, not yet as the provider."""
    with EmbeddingServer() as running:
        monkeypatch.setenv("PARACLE_META_DATABASE__OLLAMA_URL", running.url)
        monkeypatch.setenv("PARACLE_META_DATABASE__EMBEDDING_MAX_RETRIES", "0")
        monkeypatch.setenv("PARACLE_META_DATABASE__EMBEDDING_BATCH_SIZE", "2")
        yield running


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARACLE_META_DATABASE__EMBEDDING_PROVIDER", "ollama")


def add(cli: Cli, *names: str) -> None:
    for name in names:
        result = cli.run(
            "templates", "add", "-", "--type", "skill", "--name", name, "--id", f"tpl-{name}",
            stdin="Text.",
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr


def fill(url: str, count: int) -> None:
    """Store templates with vectors of a model that no configuration names."""

    async def store() -> None:
        async with MetaDatabase(url, embeddings=FakeEmbeddings()) as db:
            await TemplateRepository(db).add_many(
                Template(artifact_type="agent", name=f"Agent {number}", content="...")
                for number in range(count)
            )

    asyncio.run(store())


def test_the_configured_model_takes_the_place_of_another(cli: Cli) -> None:
    fill(cli.url, 3)
    assert "paracle meta reembed" in cli.fails(3, "search", "templates", "agent")
    assert cli.ok("reembed").splitlines() == [
        f"templates:      3 records embedded with {LOCAL}",
        "best practices: nothing to do",
    ]
    assert len(cli.json("search", "templates", "agent")) == 3
    assert cli.json("reembed", "templates") == {
        "templates": {"model": LOCAL, "embedded": 0, "failed": 0}
    }


def test_a_model_that_is_named_is_to_be_configured(
    cli: Cli, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(cli, "Baking", "Brewing", "Frying")
    result = cli.run("reembed", "--to", OLLAMA, "templates")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"templates: 3 records embedded with {OLLAMA}\n"
    assert 'database:\n  embedding_provider: "ollama"\n' in result.stderr
    # The setting is for both collections.
    assert result.stderr.endswith("\n  paracle meta reembed best_practices\n")
    assert sorted(text for texts in server.texts for text in texts) == [
        "Baking: Text.",
        "Brewing: Text.",
        "Frying: Text.",
    ]
    assert OLLAMA in cli.fails(3, "search", "templates", "baking")
    monkeypatch.setenv("PARACLE_META_DATABASE__EMBEDDING_PROVIDER", "ollama")
    assert cli.json("search", "templates", "baking")[0]["id"] == "tpl-Baking"
    # Where it is configured, there is nothing to say.
    assert cli.run("reembed", "--to", OLLAMA, "--json").stderr == ""


@pytest.mark.usefixtures("ollama")
def test_what_was_stored_while_the_provider_was_away(cli: Cli, server: EmbeddingServer) -> None:
    add(cli, "Baking")
    server.always(Answer(status=503))
    add(cli, "Brewing", "Frying")
    assert "1 stored, 2 missing" in cli.ok("db", "status")
    result = cli.run("embed")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "goes on from there" in result.stderr
    server.always(Answer())
    assert cli.ok("embed", "templates") == f"templates: 2 records embedded with {OLLAMA}"
    assert "3 stored, 0 missing" in cli.ok("db", "status")
    assert cli.json("embed") == {
        name: {"model": OLLAMA, "embedded": 0, "failed": 0}
        for name in ("templates", "best_practices")
    }


@pytest.mark.usefixtures("ollama")
def test_a_text_that_is_refused_is_counted(cli: Cli, server: EmbeddingServer) -> None:
    server.always(Answer(status=503))
    add(cli, "Baking", "Brewing", "Frying")
    server.always(Answer())
    server.refuses.add("Brewing: Text.")
    result = cli.run("embed", "templates")
    assert result.exit_code == 0
    assert result.stdout == f"templates: 2 records embedded with {OLLAMA}, 1 refused\n"
    assert "tpl-Brewing" in result.stderr
    assert "Text." not in result.stderr


def test_wrong_arguments(sqlite: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("embed", "reembed"):
        assert "'templates', 'best_practices'" in sqlite.fails(2, command, "costs")
    for model in ("nonsense", "nobody/model"):
        sqlite.fails(2, "reembed", "--to", model)
    monkeypatch.setenv("PARACLE_META_DATABASE__ENABLE_VECTORS", "false")
    for command in ("embed", "reembed"):
        assert "enable_vectors" in sqlite.fails(2, command)


def test_ctrl_c_says_that_it_may_be_run_again(sqlite: Cli, server: EmbeddingServer) -> None:
    add(sqlite, "Baking", "Brewing", "Frying")
    server.plan(Answer(), Answer(hang=True))
    command = ["meta", "--url", sqlite.url, "reembed", "--to", OLLAMA]
    with subprocess.Popen(
        [sys.executable, "-m", "paracle_meta", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=process_environment(),
    ) as process:
        for _ in range(2):
            assert server.arrived.wait(WAIT)
            server.arrived.clear()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines() == [
        "What was embedded so far is kept; the same command goes on from there.",
        "error: interrupted.",
    ]
    assert len(server.requests) == 2
    # The answer that was waited for is the only one that is asked for again.
    sqlite.ok("reembed", "--to", OLLAMA)
    assert server.texts == [["Baking: Text.", "Brewing: Text."], *[["Frying: Text."]] * 2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_on_a_terminal_a_bar_shows_how_far_it_is(sqlite: Cli) -> None:
    fill(sqlite.url, 3)
    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "paracle_meta", "meta", "--url", sqlite.url, "reembed", "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=process_environment({"TERM": "xterm"}),
        timeout=WAIT,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "templates" in shown
    assert "3/3" in shown
    # What programs read has none of it.
    assert b"3/3" not in done.stdout
