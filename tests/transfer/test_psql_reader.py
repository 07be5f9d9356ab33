"""Reading an SQL export back: whole files, damaged ones, and those that are none."""

from __future__ import annotations

import io
import json
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import BestPractice, GenerationResult, Template
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.backends.postgresql.script import script
from paracle_meta.backends.postgresql.script_reader import ScriptProblem, ScriptRow, read_script
from paracle_meta.exceptions import TransferError
from paracle_meta.schema import BEST_PRACTICES, GENERATIONS, TABLES, TEMPLATES
from tests.transfer.scripts import exported, portable, script_of
from tests.transfer.stock import fill, folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from paracle_meta.backends.portable import Row
    from paracle_meta.schema import Table

GENERATION = GenerationResult(id="gen-1", artifact_type="agent", name="n", content="c")
INSIDE = (
    "one\n('gen-9','agent','n',NULL,'c'),\nON CONFLICT DO NOTHING;\n-- End of the rows\nCOMMIT;"
)
"""A text with lines that look like those of the file."""


def generations(*contents: str) -> list[Row]:
    return [
        portable(GENERATIONS, replace(GENERATION, id=f"gen-{number}", content=content))
        for number, content in enumerate(contents, start=1)
    ]


def read(text: str) -> tuple[list[ScriptRow], list[ScriptProblem]]:
    found = list(read_script(io.StringIO(text, newline="\n")))
    return (
        [one for one in found if isinstance(one, ScriptRow)],
        [one for one in found if isinstance(one, ScriptProblem)],
    )


def ids(rows: Iterable[ScriptRow]) -> list[str]:
    return [one.row[0] for one in rows]


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


async def test_everything_comes_back(tmp_path: Path) -> None:
    async with folder(tmp_path / "db") as db:
        await fill(db)
        async with (await db.backend()).bulk.snapshot() as snapshot:
            stored = [
                (table, row)
                for table in TABLES
                async for rows in snapshot.rows(table)
                for row in rows
            ]
        text = await exported(db)
    rows, problems = read(text)
    assert problems == []
    assert [comparable(one.table, one.row) for one in rows] == [
        comparable(table, row) for table, row in stored
    ]


def comparable(table: Table[Any], row: Row) -> tuple[str, Any]:
    """Return a row with its JSON read, as the same value may be written in two ways."""
    return table.name, [
        repr(json.loads(value)) if value and column.name == "metadata" else value
        for column, value in zip(table.columns, row, strict=True)
    ]


def test_rows_know_the_line_where_they_begin() -> None:
    text = script_of([(GENERATIONS, generations("a", INSIDE, "b's\n'"))])
    rows, problems = read(text)
    assert problems == []
    assert [one.line for one in rows] == [line_of(text, f"('gen-{n}'") for n in (1, 2, 3)]
    assert [one.row for one in rows] == generations("a", INSIDE, "b's\n'")


def test_ends_of_lines_are_part_of_a_text() -> None:
    texts = ["a\r\nb", "a\rb", "\na\n", "\ra\r", "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"]
    rows, problems = read(script_of([(GENERATIONS, generations(*texts))]))
    assert problems == []
    assert [one.row for one in rows] == generations(*texts)


def test_a_model_that_is_called_like_a_line_of_the_file() -> None:
    model = f"m'\n-- Rows\n{INSIDE}"
    template = Template(
        artifact_type="a", name="n", content="c", embedding=[1.0, 0.5], embedding_model=model
    )
    row = portable(TEMPLATES, template)
    text = script_of([(TEMPLATES, [row])], {"templates": VectorSpace(model, 2)})
    rows, problems = read(text)
    assert problems == []
    assert [one.row for one in rows] == [row]


def test_columns_that_the_file_does_not_name_are_missing() -> None:
    text = script_of([(GENERATIONS, generations("a"))])
    head, _, rest = text.partition("INSERT INTO generations (")
    columns, _, after = rest.partition(")")
    assert columns.startswith("id, artifact_type, ")
    values = after.replace("'gen-1',", "", 1)
    ((row,), problems) = read(
        f"{head}INSERT INTO generations ({columns.removeprefix('id, ')}){values}"
    )
    assert problems == []
    assert row.row == (None, *generations("a")[0][1:])


# --- Damaged files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("NULL,NULL", "NULL", "12 values instead of 13"),
        ("'agent'", "7", "artifact_type is not written as label"),
        ("+00'", "'", "created_at is not written as timestamp"),
        (",NULL,'20", ",'{}','20", "cost is not written as float"),
    ],
)
def test_a_row_that_is_wrong_is_named_and_the_others_are_read(
    old: str, new: str, reason: str
) -> None:
    text = script_of([(GENERATIONS, generations("a", INSIDE, "b"))])
    before, after = text.split("('gen-2'")
    broken = f"{before}('gen-2'{after.replace(old, new, 1)}"
    rows, problems = read(broken)
    assert ids(rows) == ["gen-1", "gen-3"]
    ((problem,)) = problems
    assert problem.line == line_of(text, "('gen-2'")
    assert reason in problem.reason


@pytest.mark.parametrize(
    ("column", "written", "changed", "kind"),
    [
        ("embedding", "'[1,2]'", "'[1,nan]'", "vector"),
        ("embedding", "'[1,2]'", "'[1e39,1]'", "vector"),
        ("embedding", "'[1,2]'", "'[1, 1]'", "vector"),
        ("embedding", "'[1,2]'", "'[]'", "vector"),
        ("tags", "'{\"a\"}'", "'{a}'", "tags"),
        ("tags", "'{\"a\"}'", "'[\"a\"]'", "tags"),
        ("usage_count", ",17,", ",1.5,", "integer"),
        ("usage_count", ",17,", ",'17',", "integer"),
        ("quality_score", "3.5", "3-5", "float"),
        ("created_at", "'2026-01-31 09:00:00.000000+00'", "'infinity'", "timestamp"),
    ],
)
def test_a_value_in_another_form(column: str, written: str, changed: str, kind: str) -> None:
    practice = BestPractice(
        category="c",
        title="t",
        content="c",
        tags=["a"],
        quality_score=3.5,
        usage_count=17,
        created_at=datetime(2026, 1, 31, 9, tzinfo=UTC),
        embedding=[1.0, 2.0],
    )
    row = portable(BEST_PRACTICES, practice)
    text = script_of([(BEST_PRACTICES, [row])], {"best_practices": VectorSpace("m", 2)})
    assert text.count(written) == 1
    rows, problems = read(text.replace(written, changed))
    assert rows == []
    assert [one.reason for one in problems] == [f"its {column} is not written as {kind} is"]


@pytest.mark.parametrize("quote", ["('gen-2", "'agent", "'b"])
def test_a_lost_quote_costs_one_row(quote: str) -> None:
    text = script_of(
        [(GENERATIONS, generations("a", "b", "c", INSIDE, "d'")), (BEST_PRACTICES, [])]
    )
    before, after = text.split("('gen-2'")
    rest = f"('gen-2'{after}"
    rows, problems = read(before + rest.replace(quote, quote.replace("'", ""), 1))
    assert ids(rows) == ["gen-1", "gen-3", "gen-4", "gen-5"]
    ((problem,)) = problems
    assert problem.line == line_of(text, "('gen-2'")
    assert "neither a row nor a statement" in problem.reason


def test_foreign_lines_are_named() -> None:
    text = script_of([(GENERATIONS, generations("a", "b"))])
    broken = text.replace("('gen-2'", "DELETE FROM generations;\n('gen-2'")
    rows, problems = read(broken)
    assert ids(rows) == ["gen-1", "gen-2"]
    assert [one.line for one in problems] == [line_of(broken, "DELETE FROM generations;\n('")]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("INTO generations", "INTO nowhere", "table that is not known"),
        ("content,", "contents,", "columns of generations"),
        ("content,", "name,", "columns of generations"),
        ("VALUES\n('gen", "SELECT\n('gen", "no statement of an export"),
    ],
)
def test_a_statement_that_is_not_understood(old: str, new: str, reason: str) -> None:
    practice = portable(BEST_PRACTICES, BestPractice(category="c", title="t", content=INSIDE))
    text = script_of([(GENERATIONS, generations("a", INSIDE)), (BEST_PRACTICES, [practice])])
    start = text.index("INSERT INTO generations")
    rows, problems = read(text[:start] + text[start:].replace(old, new, 1))
    assert ids(rows) == [practice[0]]
    assert [one.line for one in problems] == [
        line_of(text, part) for part in ("INSERT INTO generations", "('gen-1'", "('gen-2'")
    ]
    assert reason in problems[0].reason
    assert "statement that was not understood" in problems[1].reason


def test_a_file_that_was_cut() -> None:
    text = script_of([(GENERATIONS, generations("a", "b"))])
    for place, found in (("-- Rows\n", 0), ("('gen-2'", 1), ("ON CONFLICT", 2), ("-- End", 2)):
        rows, problems = read(text[: text.rindex(place)])
        assert len(rows) == found
        assert "the file ends here" in problems[-1].reason
        assert len(problems) == 1
    # Within a row.
    rows, problems = read(text[: text.index("en-2'")])
    assert ids(rows) == ["gen-1"]
    assert [one.line for one in problems] == [line_of(text, "('gen-2'"), line_of(text, "('gen-2'")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no SQL file that paracle_meta exported"),
        ("-- PostgreSQL database dump\n", "no SQL file that paracle_meta exported"),
        ('{"kind": "generations"}\n', "no SQL file that paracle_meta exported"),
        ("-- paracle_meta export, format x\n", "no SQL file that paracle_meta exported"),
        ("-- paracle_meta export, format 2\n", "Upgrade the package"),
    ],
)
def test_a_file_of_another_kind(text: str, message: str) -> None:
    with pytest.raises(TransferError, match=message):
        read_script(io.StringIO(text))


def test_no_text_is_in_a_repr_or_reason() -> None:
    text = script_of([(GENERATIONS, generations("secret", "secret"))])
    rows, problems = read(text.replace("'secret',NULL", "secret", 1))
    assert "secret" not in repr(rows)
    assert len(problems) == 1
    assert "secret" not in repr(problems)


def test_memory_does_not_grow_with_the_file() -> None:
    writer = script(TABLES, {})
    begin, end = writer.begin(), writer.end()
    batch = writer.rows(GENERATIONS, generations(*["x'\n" * 30] * 500)).splitlines(keepends=True)

    def lines() -> Iterable[str]:
        yield from begin.splitlines(keepends=True)
        for _ in range(10):
            yield from batch
        yield from end.splitlines(keepends=True)

    tracemalloc.start()
    try:
        assert sum(isinstance(one, ScriptRow) for one in read_script(lines())) == 5_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000
