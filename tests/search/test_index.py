"""The vector index beside the SQLite files: right, whatever happens to it."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import DatabaseBusyError, MetaDatabase
from paracle_meta.testing import FakeEmbeddings
from tests.search.collection import DIMENSIONS, ROWS, Collection, template
from tests.search.vectors import clustered

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = ["graph.usearch", "vectors.f32", "vectors.i8", "rows.bin", "manifest.json"]

ENOUGH = 0.99
"""Recall that a search through the index has to reach."""


async def test_without_an_index_the_search_is_exact(collection: Collection) -> None:
    assert await collection.recall() == 1.0


async def test_with_an_index_nearly_all_are_found(collection: Collection) -> None:
    assert (await collection.database.status()).vectors["templates"].index is None
    assert await collection.database.build_index("templates") == {"templates": ROWS}
    assert await collection.recall() >= ENOUGH
    assert await collection.reopened().recall() >= ENOUGH
    state = await collection.database.status()
    assert state.vectors["templates"].index == collection.index_folder.name


def test_a_model_in_the_process_may_be_loaded_after_the_index(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from paracle_meta.backends.vectors.index import IndexWriter\n"
        f"IndexWriter(Path({str(tmp_path / 'index')!r}), 8, 1)\n"
        "import onnxruntime\n"
    )
    # In a process of its own, as it used to end it.
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


async def test_a_small_collection_gets_none(collection: Collection) -> None:
    assert await collection.database.build_index("best_practices") == {"best_practices": 0}


@pytest.mark.parametrize(
    ("filters", "share"),
    [
        ({"quality_score": {"$lt": 1}}, 10),
        ({"artifact_type": "type-7"}, 100),
        ({"artifact_type": {"$in": ["type-7", "type-8"]}}, 50),
        ({"artifact_type": {"$gt": "type-8"}, "quality_score": 9}, 100),
        ({"name": "Template 77"}, ROWS),
        ({"quality_score": {"$ne": 3}, "name": {"$lt": "Template 2"}}, None),
        ({"created_at": None}, 0),
    ],
)
async def test_filtered_rows_are_found_as_without_an_index(
    collection: Collection, filters: dict[str, object], share: int | None
) -> None:
    queries = clustered(10, DIMENSIONS, seed=1, sample=5)

    async def answers(database: MetaDatabase) -> list[list[str]]:
        return [
            [
                match.id
                for match in await database.vector_search(
                    "templates", vector=query, filters=filters
                )
            ]
            for query in queries
        ]

    exact = await answers(collection.database)
    if share is not None:
        assert {len(ids) for ids in exact} == {min(10, ROWS // share) if share else 0}
    await collection.database.build_index()
    indexed = await answers(collection.database)
    found = sum(len(set(a) & set(b)) for a, b in zip(exact, indexed, strict=True))
    assert [len(ids) for ids in indexed] == [len(ids) for ids in exact]
    assert found >= ENOUGH * sum(map(len, exact))


async def test_what_changed_since_is_right(collection: Collection) -> None:
    await collection.database.build_index()
    near, far = clustered(2, DIMENSIONS, seed=1, sample=7)
    gone = collection.nearest(near)[:3]
    for record_id in gone:
        await collection.delete(record_id)
    await collection.add([template(90_000, near), template(90_001, far)])
    moved = collection.nearest(far, 4)[2]
    await collection.move(moved, near)
    for view in (collection, collection.reopened()):
        found = [match.id for match in await view.database.vector_search("templates", vector=near)]
        assert found[:2] == sorted(["tpl-90000", moved])
        assert not set(gone) & set(found)
        assert await view.recall() >= ENOUGH
    # What filters look at changes too.
    await collection.templates.update("tpl-90000", artifact_type="brand-new")
    (match,) = await collection.database.vector_search(
        "templates", vector=far, filters={"artifact_type": "brand-new"}
    )
    assert match.id == "tpl-90000"
    await collection.database.build_index()
    assert await collection.reopened().recall() >= ENOUGH


async def test_many_small_changes_are_kept_up_with(collection: Collection) -> None:
    await collection.database.build_index()
    for n, vector in enumerate(clustered(60, DIMENSIONS, seed=1, sample=3)):
        await collection.add([template(70_000 + n, vector)])
        await collection.delete(f"tpl-{n:05}")
        (match,) = await collection.database.vector_search("templates", vector=vector, top_k=1)
        assert match.id == f"tpl-{70_000 + n}"
    assert await collection.recall() >= ENOUGH


def cut_short(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)


def flip_bytes(path: Path) -> None:
    with path.open("rb+") as file:
        for place in range(0, path.stat().st_size, 97):
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 0x55]))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, flip_bytes, empty, Path.unlink])
@pytest.mark.parametrize(
    "name", ["graph.usearch", "vectors.f32", "vectors.i8", "rows.bin", "manifest.json"]
)
async def test_a_damaged_file_is_noticed(
    collection: Collection, name: str, damage: Callable[[Path], None]
) -> None:
    await collection.database.build_index()
    damage(collection.index_folder / name)
    again = collection.reopened()
    # Without a filter the graph is asked, and nobody looks at the rounded vectors.
    (query,) = clustered(1, DIMENSIONS, seed=1, sample=4)
    some = {"quality_score": {"$lt": 1}}
    assert await again.database.vector_search("templates", vector=query, filters=some)
    assert await again.recall() == 1.0
    await again.database.close()


async def test_a_damaged_index_is_made_anew(collection: Collection) -> None:
    await collection.database.build_index()
    flip_bytes(collection.index_folder / "graph.usearch")
    again = collection.reopened()
    assert await again.recall() == 1.0
    await again.database.build_index()
    assert await collection.reopened().recall() >= ENOUGH
    await again.database.close()


@pytest.mark.parametrize("damage", [cut_short, flip_bytes])
@pytest.mark.parametrize("name", ["graph.usearch", "vectors.f32", "vectors.i8"])
async def test_a_file_that_is_damaged_in_use_is_noticed(
    collection: Collection, name: str, damage: Callable[[Path], None]
) -> None:
    # So many that the rounded vectors are looked at, and too few for the graph.
    some: dict[str, Any] = {"filters": {"quality_score": {"$lt": 1}}}
    everything: dict[str, Any] = {"top_k": 1_000}

    async def answers(database: MetaDatabase, options: dict[str, Any]) -> list[list[str]]:
        queries = clustered(5, DIMENSIONS, seed=1, sample=5)
        return [
            [match.id for match in await database.vector_search("templates", vector=q, **options)]
            for q in queries
        ]

    exact = [await answers(collection.database, options) for options in (some, everything)]
    await collection.database.build_index()
    assert await collection.recall() >= ENOUGH
    await answers(collection.database, some)
    damage(collection.index_folder / name)
    for options, expected in zip((some, everything), exact, strict=True):
        assert await answers(collection.database, options) == expected
    assert await collection.recall() == 1.0


async def test_a_deleted_index_is_done_without(collection: Collection) -> None:
    await collection.database.build_index()
    shutil.rmtree(collection.database.settings.sqlite_folder / ".index")
    assert await collection.reopened().recall() == 1.0


async def test_an_older_database_under_a_newer_index(
    collection: Collection, tmp_path: Path
) -> None:
    folder = collection.database.settings.sqlite_folder
    await collection.database.build_index()
    await collection.database.close()
    shutil.copytree(folder, tmp_path / "backup", ignore=shutil.ignore_patterns(".index"))
    before = dict(collection.vectors)
    near = clustered(1, DIMENSIONS, seed=1, sample=7)[0]
    for record_id in collection.nearest(near, 5):
        await collection.delete(record_id)
    await collection.add([template(80_000, near)])
    await collection.database.build_index()
    await collection.database.close()
    for path in (tmp_path / "backup").iterdir():
        shutil.copy2(path, folder / path.name)
    collection.vectors = before
    restored = collection.reopened()
    assert await restored.recall() == 1.0
    found = await restored.database.vector_search("templates", vector=near)
    assert [match.id for match in found] == collection.nearest(near)
    await restored.database.close()


async def test_a_vacuum_changes_nothing(collection: Collection) -> None:
    await collection.database.build_index()
    for record_id in list(collection.vectors)[:500]:
        await collection.delete(record_id)
    await collection.database.close()
    path = collection.database.settings.sqlite_folder / "templates.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
    assert await collection.reopened().recall() >= ENOUGH


async def test_rows_written_by_plain_sql_are_found(collection: Collection) -> None:
    await collection.database.build_index()
    vector = clustered(1, DIMENSIONS, seed=1, sample=11)[0]
    async with collection.database.session() as session:
        await session.execute(
            "INSERT INTO templates (id, artifact_type, name, content, embedding, embedding_model)"
            " VALUES ('raw', 'agent', 'Raw', 'x', :vector, :model)",
            {"vector": vector.tobytes(), "model": collection.database.embeddings().model_id},
        )
    (match,) = await collection.database.vector_search("templates", vector=vector, top_k=1)
    assert (match.id, round(match.score, 5)) == ("raw", 1.0)


async def test_a_deleted_text_leaves_no_vector_behind(collection: Collection) -> None:
    secret = clustered(1, DIMENSIONS, seed=1, sample=12)[0]
    await collection.add([template(60_000, secret)])
    await collection.database.build_index()
    (unit,) = [secret.tobytes()]
    assert unit[:16] in (collection.index_folder / "vectors.f32").read_bytes()
    await collection.delete("tpl-60000")
    await collection.database.build_index()
    for path in (collection.database.settings.sqlite_folder / ".index").rglob("*"):
        if path.is_file():
            assert b"tpl-60000" not in path.read_bytes()
            assert unit[:16] not in path.read_bytes()


async def test_a_long_lived_process_makes_it_by_itself(collection: Collection) -> None:
    settings = collection.database.settings.model_copy(update={"index_in_background": True})
    database = MetaDatabase(settings, embeddings=FakeEmbeddings(DIMENSIONS))
    query = clustered(1, DIMENSIONS, seed=1, sample=2)[0]
    await database.vector_search("templates", vector=query)
    # Waits for the one that runs, or finds it done.
    assert await database.build_index("templates") == {"templates": ROWS}
    await database.close()
    assert collection.index_folder.is_dir()


async def test_closing_stops_it(collection: Collection) -> None:
    settings = collection.database.settings.model_copy(update={"index_in_background": True})
    database = MetaDatabase(settings, embeddings=FakeEmbeddings(DIMENSIONS))
    query = clustered(1, DIMENSIONS, seed=1, sample=2)[0]
    await database.vector_search("templates", vector=query)
    await database.close()
    folder = settings.sqlite_folder / ".index" / "templates"
    assert all((path / "manifest.json").exists() for path in folder.glob("idx-*"))
    assert await collection.recall() >= ENOUGH


async def test_one_process_at_a_time(collection: Collection) -> None:
    from filelock import FileLock

    folder = collection.database.settings.sqlite_folder / ".index" / "templates"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(DatabaseBusyError):
        await collection.database.build_index("templates")
    assert await collection.database.build_index("templates") == {"templates": ROWS}
