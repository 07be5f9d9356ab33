from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from paracle_meta import MetaDatabase
from paracle_meta.testing import FakeEmbeddings
from tests.search.collection import DIMENSIONS, ROWS, Collection

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Cli


def fill_templates(url: str) -> None:
    """Store enough templates that an index is worth it."""

    async def fill() -> None:
        async with MetaDatabase(url, embeddings=FakeEmbeddings(DIMENSIONS)) as db:
            await Collection(db).fill()

    asyncio.run(fill())


def indexes(folder: Path) -> list[Path]:
    return list(folder.glob(".index/*/idx-*"))


def test_an_index_is_made_for_people_and_for_programs(sqlite: Cli, tmp_path: Path) -> None:
    fill_templates(sqlite.url)
    assert indexes(tmp_path / "db") == []

    assert [line.split(":") for line in sqlite.ok("index").splitlines()] == [
        ["templates", f"      {ROWS} records"],
        ["best practices", " needs no index"],
    ]
    (first,) = indexes(tmp_path / "db")
    assert sqlite.json("index", "templates") == {"templates": ROWS}
    (second,) = indexes(tmp_path / "db")
    assert (first.parent, first == second) == (second.parent, False)
    assert sqlite.json("index") == {"templates": ROWS, "best_practices": 0}


def test_both_databases_have_the_command(cli: Cli) -> None:
    cli.ok("templates", "add", "-", "--type", "skill", "--name", "Baking", stdin="Bread.")
    # PostgreSQL indexes whatever there is, SQLite compares with so few.
    rows = 0 if cli.url.startswith("sqlite") else 1
    assert cli.json("index") == {"templates": rows, "best_practices": 0}
    assert cli.ok("index", "best_practices") == "best practices: needs no index"


def test_another_collection_is_refused(sqlite: Cli) -> None:
    assert "'templates', 'best_practices'" in sqlite.fails(2, "index", "costs")


def test_without_vectors_there_is_nothing_to_index(
    sqlite: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARACLE_META_DATABASE__ENABLE_VECTORS", "false")
    assert "enable_vectors" in sqlite.fails(2, "index")
