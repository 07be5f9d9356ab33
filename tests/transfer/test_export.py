"""What an export writes, and what it never leaves behind."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import stat
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    InvalidValueError,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.exceptions import TransferError, UnportableError
from paracle_meta.transfer import ExportReport, export_jsonl, export_sql, import_file
from tests.transfer.stock import ROWS, contents, fill, folder, later

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXPORTS = pytest.mark.parametrize("export", [export_jsonl, export_sql])


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[MetaDatabase]:
    async with folder(tmp_path / "db") as database:
        await fill(database)
        yield database


def lines_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def link_to(target: str, link: Path) -> Path:
    link.symlink_to(target)
    return link


def files_in(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir() if file.is_file())


async def test_every_row_is_a_line_and_kinds_come_in_the_order_of_loading(db: MetaDatabase) -> None:
    stream = io.BytesIO()
    report = await export_jsonl(db, stream)
    lines = lines_of(stream.getvalue())
    assert report == ExportReport(rows=ROWS)
    assert Counter(line["kind"] for line in lines) == ROWS
    assert list(dict.fromkeys(line["kind"] for line in lines)) == list(ROWS)
    assert not stream.closed
    (generation,) = [line for line in lines if line.get("id") == "gen-3"]
    stored = await GenerationRepository(db).get("gen-3")
    assert stored is not None
    assert generation["metadata"] == stored.metadata
    assert generation["created_at"] == "2026-01-31T09:00:00.123459Z"
    assert list(generation)[:3] == ["kind", "id", "artifact_type"]


async def test_an_empty_database_is_an_empty_file(tmp_path: Path) -> None:
    async with folder(tmp_path / "db") as db:
        await export_jsonl(db, tmp_path / "out.jsonl")
        assert (tmp_path / "out.jsonl").read_bytes() == b""
        await export_sql(db, tmp_path / "out.sql")
        report = await import_file(db, tmp_path / "out.sql")
        assert (report.added, report.rejected) == ({}, {})


@EXPORTS
async def test_a_file_is_compressed_by_its_name_and_only_its_owner_reads_it(
    export: Any, db: MetaDatabase, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    await export(db, stream)
    await export(db, tmp_path / "plain")
    await export(db, str(tmp_path / "packed.gz"))
    await export(db, tmp_path / "again.gz")
    assert (tmp_path / "plain").read_bytes() == stream.getvalue()
    packed = (tmp_path / "packed.gz").read_bytes()
    assert gzip.decompress(packed) == stream.getvalue()
    assert (tmp_path / "again.gz").read_bytes() == packed
    assert files_in(tmp_path) == ["again.gz", "packed.gz", "plain"]
    for name in ("plain", "packed.gz"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@EXPORTS
async def test_a_file_is_whole_or_as_it_was(export: Any, db: MetaDatabase, tmp_path: Path) -> None:
    target = tmp_path / "backup.gz"
    target.write_text("the last backup")

    class StoppedError(Exception):
        pass

    def stop(*_: Any) -> None:
        assert files_in(tmp_path) != ["backup.gz"]  # it is being written beside it
        raise StoppedError

    with pytest.raises(StoppedError):
        await export(db, target, progress=stop)
    assert target.read_text() == "the last backup"
    assert files_in(tmp_path) == ["backup.gz"]

    def cancel(*_: Any) -> None:
        task.cancel()

    task: asyncio.Task[Any] = asyncio.create_task(export(db, target, progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert target.read_text() == "the last backup"
    assert files_in(tmp_path) == ["backup.gz"]


async def test_a_folder_gets_a_file_a_kind(db: MetaDatabase, tmp_path: Path) -> None:
    stream = io.BytesIO()
    await export_jsonl(db, stream)
    await export_jsonl(db, f"{tmp_path}/new/records/")
    records = tmp_path / "new" / "records"
    assert files_in(records) == sorted(f"{kind}.jsonl" for kind in ROWS)
    parts = [(records / f"{kind}.jsonl").read_bytes() for kind in ROWS]
    assert b"".join(parts) == stream.getvalue()
    assert stat.S_IMODE(records.stat().st_mode) == 0o700

    # One that is there already.
    (records / "memory.jsonl").write_text("old")
    await export_jsonl(db, records, kinds=["memory"])
    assert (records / "memory.jsonl").read_bytes() == parts[4]

    with pytest.raises(TransferError, match="name a file in it"):
        await export_sql(db, records)


async def test_links_and_pipes_stay_what_they_are(db: MetaDatabase, tmp_path: Path) -> None:
    stream = io.BytesIO()
    await export_jsonl(db, stream)
    link = link_to("of-today.jsonl", tmp_path / "latest.jsonl")
    await export_jsonl(db, link)
    assert link.is_symlink()
    assert (tmp_path / "of-today.jsonl").read_bytes() == stream.getvalue()

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = asyncio.to_thread(pipe.read_bytes)
    _, read = await asyncio.gather(export_jsonl(db, pipe), reading)
    assert read == stream.getvalue()
    assert pipe.is_fifo()


@EXPORTS
async def test_only_the_kinds_that_are_wanted(export: Any, db: MetaDatabase) -> None:
    stream = io.BytesIO()
    report = await export(db, stream, kinds=["memory", "templates"])
    assert list(report.rows) == ["templates", "memory"]
    async with folder(Path(db.settings.sqlite_folder) / "other") as other:
        stream.seek(0)
        imported = await import_file(other, stream)
    assert imported.added == {kind: ROWS[kind] for kind in ("templates", "memory")}
    for wrong, reason in ((["prompts"], "'prompts' is no kind"), ([], "kinds is empty")):
        with pytest.raises(InvalidValueError, match=reason):
            await export(db, io.BytesIO(), kinds=wrong)


async def test_a_period_brings_the_generations_that_its_feedback_is_about(
    db: MetaDatabase,
) -> None:
    late = datetime(2030, 1, 1, tzinfo=UTC)
    await FeedbackRepository(db).add(
        Feedback(id="fbk-late", generation_id="gen-1", rating=5, created_at=late)
    )
    stream = io.BytesIO()
    told: list[tuple[str, int, int]] = []
    report = await export_jsonl(
        db, stream, since=late, progress=lambda *progress: told.append(progress)
    )
    found = [line["id"] for line in lines_of(stream.getvalue())]
    assert found == ["gen-1", "fbk-late"]
    assert report.rows["generations"] == report.rows["feedback"] == 1
    assert told == [("generations", 1, 1), ("feedback", 1, 1)]

    stream = io.BytesIO()
    report = await export_jsonl(db, stream, kinds=["generations"], since=later(1), until=later(3))
    assert [line["id"] for line in lines_of(stream.getvalue())] == ["gen-1", "gen-2"]
    with pytest.raises(InvalidValueError, match="since must have a time zone"):
        await export_jsonl(db, io.BytesIO(), since=datetime(2026, 1, 1))  # noqa: DTZ001


async def break_a_few(db: MetaDatabase) -> None:
    async with db.session(write=True) as session:
        await session.execute("UPDATE generations SET name = 'a' || char(0) WHERE id = 'gen-1'")
        await session.execute("UPDATE memory SET value = '{no json' WHERE key = 'key 1'")


@EXPORTS
async def test_what_nobody_else_can_hold_is_named_before_anything_is_written(
    export: Any, db: MetaDatabase, tmp_path: Path
) -> None:
    await break_a_few(db)
    stream = io.BytesIO()
    for target in (stream, tmp_path / "out", tmp_path / "out.gz"):
        with pytest.raises(UnportableError, match="2 stored values") as raised:
            await export(db, target)
        one, other = raised.value.values
        assert one.startswith("generations gen-1, name: ")
        assert other.startswith("memory mem-")
    assert stream.getvalue() == b""
    assert files_in(tmp_path) == []
    # The kinds that are sound are not held up by the others.
    await export(db, stream, kinds=["feedback"])

    report = await export(db, tmp_path / "out", replace=True)
    assert report.rows == ROWS
    assert list(report.replaced) == raised.value.values
    async with folder(tmp_path / "other") as other_db:
        imported = await import_file(other_db, tmp_path / "out")
        assert (imported.added, imported.rejected) == (ROWS, {})
        generation = await GenerationRepository(other_db).get("gen-1")
        assert generation is not None
        assert generation.name == "a\ufffd"


async def test_a_script_that_psql_would_refuse_for_a_rating_of_nothing_is_not_written(
    db: MetaDatabase, tmp_path: Path
) -> None:
    async with db.session() as session:
        await session.execute("DELETE FROM generations WHERE id = 'gen-1'")
    with pytest.raises(TransferError, match="2 rows of feedback refer to generations"):
        await export_sql(db, tmp_path / "out.sql")
    assert files_in(tmp_path) == []
    # Whoever imports lines is told which ones were not stored.
    await export_jsonl(db, tmp_path / "out.jsonl")
    async with folder(tmp_path / "other") as other:
        report = await import_file(other, tmp_path / "out.jsonl")
        assert len(report.rejected) == 2


@EXPORTS
async def test_vectors_of_several_models_are_refused_by_name(export: Any, db: MetaDatabase) -> None:
    async with db.session(write=True) as session:
        await session.execute("UPDATE templates SET embedding_model = 'b/c' WHERE id = 'tpl-1'")
    stream = io.BytesIO()
    with pytest.raises(TransferError, match=r"templates .* b/c .* paracle meta reembed"):
        await export(db, stream)
    assert stream.getvalue() == b""
    await export(db, stream, kinds=["best_practices"])


@EXPORTS
async def test_a_place_that_cannot_be_written_is_named(
    export: Any, db: MetaDatabase, tmp_path: Path
) -> None:
    with pytest.raises(TransferError, match=r"missing/out cannot be written: No such file"):
        await export(db, tmp_path / "missing" / "out")

    # Every write to it fails; compressed, and thereby short, only the last one.
    for full in ("/dev/full", link_to("/dev/full", tmp_path / "full.gz")):
        with pytest.raises(TransferError, match="cannot be written: No space left on device"):
            await export(db, full)

    class Gone(io.BytesIO):
        def write(self, _: Any) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await export(db, Gone())


@EXPORTS
async def test_the_event_loop_goes_on_while_a_slow_reader_is_waited_for(
    export: Any, db: MetaDatabase
) -> None:
    turned = threading.Event()
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            loop.call_soon_threadsafe(asked.set)
            assert turned.wait(60), "the event loop does not turn"
            return super().write(data)

    async def turn() -> None:
        await asked.wait()
        turned.set()

    await asyncio.gather(export(db, Slow()), turn())


async def test_writers_go_on_and_what_they_write_is_of_the_next_export(
    db: MetaDatabase, tmp_path: Path
) -> None:
    before = await contents(db)
    written = asyncio.Event()

    async def write() -> None:
        await GenerationRepository(db).add(
            GenerationResult(id="gen-new", artifact_type="a", name="n", content="c")
        )
        await TemplateRepository(db).add(Template(artifact_type="a", name="n", content="c"))
        written.set()

    loop = asyncio.get_running_loop()

    class Watched(io.BytesIO):
        writing: asyncio.Task[None] | None = None

        def write(self, data: Any) -> int:
            if self.tell() == 0:
                asyncio.run_coroutine_threadsafe(write(), loop).result(60)
            return super().write(data)

    stream = Watched()
    report = await export_jsonl(db, stream)
    assert written.is_set()
    assert report.rows == ROWS
    async with folder(tmp_path / "other") as other:
        stream.seek(0)
        await import_file(other, stream)
        assert await contents(other) == before
