"""What an import stores, what it rejects, and that the one never costs the other."""

from __future__ import annotations

import base64
import gzip
import io
import json
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest

from paracle_meta import (
    EmbeddingModelMismatchError,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.exceptions import RejectedLinesError, TransferError
from paracle_meta.transfer import export_jsonl, export_sql, import_file
from paracle_meta.transfer.reading import BATCH_LINES
from tests.transfer.stock import DIMENSIONS, ROWS, answers, contents, fill, folder, on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MODEL = f"fake/trigrams@{DIMENSIONS}"


@pytest.fixture(params=["sqlite", "postgresql"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MetaDatabase]:
    """An empty database of each sort in turn."""
    if request.param == "sqlite":
        database = folder(tmp_path / "db")
    else:
        database = on(request.getfixturevalue("postgres18"))
    async with database:
        yield database


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[MetaDatabase]:
    async with folder(tmp_path / "db") as database:
        yield database


def generation(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "generations",
        "id": f"gen-{number}",
        "artifact_type": "agent",
        "name": "n",
        "content": f"content {number}",
        **fields,
    }


def feedback(number: int, about: int, **fields: Any) -> dict[str, Any]:
    about_id = f"gen-{about}"
    return {
        "kind": "feedback",
        "id": f"fbk-{number}",
        "generation_id": about_id,
        "rating": 5,
        **fields,
    }


def template(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "templates",
        "id": f"tpl-{number}",
        "artifact_type": "agent",
        "name": "n",
        "content": "c",
        **fields,
    }


def memory(key: str, value: Any, **fields: Any) -> dict[str, Any]:
    return {"kind": "memory", "key": key, "value": value, **fields}


Line: TypeAlias = dict[str, Any] | str | bytes


def stream_of(*lines: Line) -> io.BytesIO:
    """Return lines as a stream; what is no record stands there as it is."""
    return io.BytesIO(
        b"".join(
            (line if isinstance(line, bytes) else _text(line).encode()) + b"\n" for line in lines
        )
    )


def _text(line: dict[str, Any] | str) -> str:
    return line if isinstance(line, str) else json.dumps(line)


WAYS = ["sqlite-postgresql18", "postgresql18-sqlite", "sqlite-sqlite"]


@pytest.mark.parametrize("export", [export_jsonl, export_sql])
@pytest.mark.parametrize("way", WAYS)
async def test_what_was_exported_is_imported_and_only_once(
    way: str, export: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def make(kind: str, name: str) -> MetaDatabase:
        if kind == "sqlite":
            return folder(tmp_path / name)
        return on(request.getfixturevalue(f"postgres{kind.removeprefix('postgresql')}"))

    one, other = way.split("-")
    file = tmp_path / ("out.gz" if way == "sqlite-sqlite" else "out")
    async with make(one, "source") as source, make(other, "target") as target:
        await fill(source)
        await export(source, file)
        report = await import_file(target, file)
        assert (report.added, report.unchanged, report.rejected) == (ROWS, {}, {})
        assert report.without_vector == {"best_practices": 1}
        assert await contents(target) == await contents(source)
        assert await answers(target) == await answers(source)

        again = await import_file(target, file, strict=True)
        assert (again.added, again.unchanged, again.rejected) == ({}, ROWS, {})
        assert await contents(target) == await contents(source)


async def test_a_folder_is_read_in_an_order_that_can_be_stored(
    sqlite: MetaDatabase, tmp_path: Path
) -> None:
    async with folder(tmp_path / "source") as source:
        await fill(source)
        await export_jsonl(source, f"{tmp_path}/records/")
    records = tmp_path / "records"
    with gzip.open(records / "costs.jsonl.gz", "wb") as packed:
        packed.write((records / "costs.jsonl").read_bytes())
    (records / "costs.jsonl").unlink()
    (records / "notes.txt").write_text("not ours")
    with (records / "feedback.jsonl").open("ab") as lines:
        lines.write(b"bad\n")

    report = await import_file(sqlite, records, kinds=["generations", "feedback", "costs"])
    assert report.added == {kind: ROWS[kind] for kind in ("generations", "feedback", "costs")}
    assert report.rejected == {"feedback.jsonl:7": "it is not JSON"}
    with pytest.raises(RejectedLinesError, match=r"feedback\.jsonl:7"):
        await import_file(sqlite, records, strict=True)
    assert (await import_file(sqlite, records)).added.keys() == {
        *("templates", "memory", "best_practices")
    }


async def test_bad_lines_are_named_and_the_good_ones_stored(db: MetaDatabase) -> None:
    lines: list[Line] = [
        generation(1),
        "secret",
        generation(2, quality_score=11),
        "",
        b'{"kind": "memory", "key": "\xff", "value": 1}',
        '{"kind": "poems"}',
        generation(3, rhyme="secret"),
        feedback(1, about=1),
        feedback(2, about=99),
        memory("k", "v"),
        generation(4, content=" "),
        generation(5, metadata={"a": "\ud800"}),
        generation(6),
    ]
    expected = {
        2: "it is not JSON",
        3: "generations.quality_score must be at most 10",
        5: "it is not UTF-8 text",
        6: "its kind is none of generations, templates, feedback, costs, memory, best_practices",
        7: "generations has no column 'rhyme'",
        9: "it is about the generation 'gen-99', which is not stored",
        11: "generations.content must not be blank",
        12: "generations.metadata has a lone surrogate, which is no valid Unicode text",
    }
    for strict in (True, False):
        if strict:
            with pytest.raises(RejectedLinesError) as raised:
                await import_file(db, stream_of(*lines), strict=True)
            assert raised.value.lines == expected
            assert "secret" not in str(raised.value)
            assert set((await db.status()).counts.values()) == {0}
        else:
            report = await import_file(db, stream_of(*lines))
            assert report.rejected == expected
            assert list(report.rejected) == sorted(expected)
            assert report.added == {"generations": 2, "feedback": 1, "memory": 1}
    stored = await GenerationRepository(db).list()
    assert {one.content for one in stored} == {"content 1", "content 6"}


async def test_a_strict_import_stores_all_or_nothing(db: MetaDatabase) -> None:
    # More than one batch, so that something would be stored before the bad line is met.
    lines = [generation(number) for number in range(BATCH_LINES + 10)]
    with pytest.raises(RejectedLinesError):
        await import_file(db, stream_of(*lines, "bad"), strict=True)
    assert await GenerationRepository(db).count() == 0
    report = await import_file(db, stream_of(*lines), strict=True)
    assert report.added == {"generations": len(lines)}
    assert await GenerationRepository(db).count() == len(lines)


async def test_a_file_that_is_all_wrong_ends_early_when_strict(sqlite: MetaDatabase) -> None:
    wrong = "x\n" * 25_000
    with pytest.raises(RejectedLinesError, match="1000 lines"):
        await import_file(sqlite, io.BytesIO(wrong.encode()), strict=True)
    report = await import_file(sqlite, io.BytesIO(wrong.encode()))
    assert (len(report.rejected), report.more_rejected) == (10_000, 15_000)


async def test_feedback_may_come_before_what_it_is_about(db: MetaDatabase) -> None:
    # In another batch than the generations, too.
    lines = [feedback(n, about=n % 3) for n in range(BATCH_LINES + 10)]
    lines += [generation(0), generation(1)]
    report = await import_file(db, stream_of(*lines))
    lost = [number for number in range(1, len(lines) - 1) if (number - 1) % 3 == 2]
    assert list(report.rejected) == lost
    assert report.added == {"generations": 2, "feedback": BATCH_LINES + 10 - len(lost)}
    assert await FeedbackRepository(db).count() == report.added["feedback"]


async def test_what_is_stored_is_never_overwritten(db: MetaDatabase) -> None:
    await GenerationRepository(db).add(
        GenerationResult(id="gen-1", artifact_type="agent", name="n", content="content 1")
    )
    await MemoryRepository(db).set("k", {"a": 1, "b": 2})
    await MemoryRepository(db).set("one", 1)
    stored = await contents(db)
    same = [generation(1), memory("k", {"b": 2, "a": 1})]
    other = [
        generation(1, content="edited"),
        memory("k", {"a": 1, "b": 3}),
        memory("one", 1.0),
        memory("one", 1, expires_at="2030-01-01"),
    ]
    report = await import_file(db, stream_of(*same, *other))
    assert report.unchanged == {"generations": 1, "memory": 1}
    key_taken = "another value is stored under this scope, session and key"
    assert report.rejected == {
        3: "another generation is stored under this id",
        4: key_taken,
        5: key_taken,
        6: key_taken,
    }
    assert await contents(db) == stored
    with pytest.raises(RejectedLinesError):
        await import_file(db, stream_of(memory("new", 1), *other), strict=True)
    assert await contents(db) == stored


async def test_a_line_that_stands_there_twice(db: MetaDatabase) -> None:
    lines = [generation(1), generation(1), memory("k", 1), memory("k", 1), generation(2)]
    report = await import_file(db, stream_of(*lines), strict=True)
    assert report.added == {"generations": 2, "memory": 1}
    assert report.unchanged == {"generations": 1, "memory": 1}
    lines = [generation(3), generation(3, content="edited"), memory("new", 1), memory("new", 2)]
    report = await import_file(db, stream_of(*lines))
    assert report.added == {"generations": 1, "memory": 1}
    assert list(report.rejected) == [2, 4]
    edited = generation(4, content="edited")
    with pytest.raises(RejectedLinesError) as raised:
        await import_file(db, stream_of(generation(4), edited), strict=True)
    assert raised.value.lines == {2: "another generation is stored under this id"}


async def test_vectors_are_stored_with_their_model_and_searched(db: MetaDatabase) -> None:
    vector = np.eye(DIMENSIONS, dtype="<f4")
    packed = base64.b64encode(vector[1].tobytes()).decode()
    lines = [
        template(1, embedding=vector[0].tolist(), embedding_model=MODEL),
        template(2, embedding=packed, embedding_model=MODEL),
        template(3),
        template(4, embedding=[1, 2], embedding_model="other/model"),
        template(5, embedding=[1, 2], embedding_model=MODEL),
    ]
    report = await import_file(db, stream_of(*lines))
    assert report.added == {"templates": 3}
    assert report.without_vector == {"templates": 1}
    assert report.rejected == {
        4: f"its vector is of other/model (2 numbers), those before it of {MODEL} (16)",
        5: f"its vector is of {MODEL} (2 numbers), those before it of {MODEL} (16)",
    }
    (best, _) = await db.vector_search("templates", vector=vector[1].tolist())
    assert best.id == "tpl-2"
    assert best.similarity == pytest.approx(1)
    embedded = await db.embed_missing("templates")
    assert embedded["templates"].embedded == 1


async def test_vectors_of_another_model_than_those_stored_are_refused(db: MetaDatabase) -> None:
    await TemplateRepository(db).add(Template(artifact_type="a", name="n", content="c"))
    lines = [
        template(1),
        template(2, embedding=[1, 2], embedding_model="other/model"),
        generation(1),
    ]
    with pytest.raises(EmbeddingModelMismatchError, match="other/model"):
        await import_file(db, stream_of(*lines))
    assert await TemplateRepository(db).count() == 1
    # What can be stored beside them is.
    report = await import_file(db, stream_of(*lines), kinds=["generations"])
    assert report.unchanged == {"generations": 1}


@pytest.mark.parametrize("export", [export_jsonl, export_sql])
async def test_a_compressed_file_that_was_cut_gives_what_it_has(
    export: Any, sqlite: MetaDatabase, tmp_path: Path
) -> None:
    async with folder(tmp_path / "source") as source:
        # Random, so that a part of the file is a part of the records.
        random = np.random.default_rng(3)
        await GenerationRepository(source).add_many(
            GenerationResult(artifact_type="a", name="n", content=random.bytes(2_000).hex())
            for _ in range(200)
        )
        await export(source, tmp_path / "out.gz")
    whole = (tmp_path / "out.gz").read_bytes()
    cut, broken = tmp_path / "cut.gz", tmp_path / "broken.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    # Its checksum, which comes last.
    broken.write_bytes(whole[:-8] + b"\0\0\0\0" + whole[-4:])
    with pytest.raises(RejectedLinesError):
        await import_file(sqlite, cut, strict=True)
    report = await import_file(sqlite, cut)
    assert 50 < report.added["generations"] < 150
    assert "from here on the compressed file is damaged or cut off" in report.rejected.values()
    assert max(map(int, report.rejected)) > report.added["generations"]

    rest = await import_file(sqlite, broken)
    assert report.added["generations"] + rest.added["generations"] == 200
    assert list(rest.rejected.values()) == [
        "from here on the compressed file is damaged or cut off"
    ]


async def test_a_script_that_was_edited_is_checked_like_any_other_file(
    db: MetaDatabase, tmp_path: Path
) -> None:
    async with folder(tmp_path / "source") as source:
        for number in range(1, 4):
            record = generation(number, quality_score=number)
            del record["kind"]
            await GenerationRepository(source).add(GenerationResult(**record))
        await FeedbackRepository(source).add(Feedback(id="f", generation_id="gen-1", rating=5))
        await export_sql(source, tmp_path / "out.sql")
    script = (tmp_path / "out.sql").read_text()
    edited = script.replace("'content 1'", "' '").replace("'content 2'", "'new'")
    report = await import_file(db, io.BytesIO(edited.encode()))
    assert report.added == {"generations": 2}
    line = 1 + next(n for n, text in enumerate(edited.splitlines()) if "('gen-1'" in text)
    assert report.rejected[line] == "generations.content must not be blank"
    assert "it is about the generation 'gen-1', which is not stored" in report.rejected.values()
    assert len(report.rejected) == 2

    # Bytes that are no text stand where they stand; the mark of some editors makes no difference.
    odd = b"\xef\xbb\xbf" + script.encode().replace(b"'content 1'", b"'\xff'")
    report = await import_file(db, io.BytesIO(odd))
    (reason,) = [why for why in report.rejected.values() if "content" in why]
    assert "lone surrogate" in reason
    with pytest.raises(TransferError, match="format 99"):
        await import_file(db, io.BytesIO(script.replace("format 1\n", "format 99\n").encode()))


async def test_a_line_without_an_end_costs_no_more_than_itself(tmp_path: Path) -> None:
    async with folder(tmp_path / "db", content_limit=1_000) as db:
        longest = 25 * 1_000
        lines: list[Line] = [
            memory("long", "x" * longest),
            memory("k", "x" * 998),
            "y" * longest * 5,
        ]
        report = await import_file(db, stream_of(*lines, generation(1)))
    assert report.rejected == {
        1: "it is longer than 25,000 bytes",
        3: "it is longer than 25,000 bytes",
    }
    assert report.added == {"generations": 1, "memory": 1}


@pytest.mark.parametrize("packed", [False, True])
async def test_progress_is_how_much_of_the_file_was_read(
    packed: bool, sqlite: MetaDatabase, tmp_path: Path
) -> None:
    data = stream_of(*[generation(number) for number in range(2 * BATCH_LINES)]).getvalue()
    file = tmp_path / "lines"
    file.write_bytes(gzip.compress(data) if packed else data)
    told: list[tuple[str, int, int]] = []
    await import_file(sqlite, file, progress=lambda *progress: told.append(progress))
    size = file.stat().st_size
    assert told[-1] == ("read", size, size)
    assert len(told) > 1
    assert told == sorted(told)

    told.clear()
    await import_file(sqlite, io.BytesIO(data), progress=lambda *progress: told.append(progress))
    assert told[-1] == ("read", len(data), 0)


async def test_a_file_that_is_not_there(sqlite: MetaDatabase, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="nothing cannot be read: No such file"):
        await import_file(sqlite, tmp_path / "nothing")
    with pytest.raises(TransferError, match=r"holds none of the files generations\.jsonl"):
        await import_file(sqlite, tmp_path)
    report = await import_file(sqlite, io.BytesIO(b""))
    assert (report.added, report.unchanged, report.rejected) == ({}, {}, {})


async def test_a_caller_keeps_the_stream_that_it_gave(sqlite: MetaDatabase) -> None:
    stream = stream_of(generation(1))
    await import_file(sqlite, stream)
    assert not stream.closed
    assert stream.read() == b""
