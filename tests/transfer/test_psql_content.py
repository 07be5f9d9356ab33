"""Every value that can be stored goes through a file and psql and comes back as it was."""

from __future__ import annotations

import io
import json
import random
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pglast.parser import parse_sql_json

from paracle_meta import GenerationRepository, GenerationResult, MetaDatabase, UnportableError
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.backends.postgresql.script_reader import ScriptRow, read_script
from paracle_meta.schema import (
    BEST_PRACTICES,
    COSTS,
    GENERATIONS,
    MAX_COUNT,
    MEMORY,
    TEMPLATES,
    Table,
)
from paracle_meta.testing import FakeEmbeddings
from paracle_meta.transfer import compare_databases, export_jsonl, export_sql, import_file
from paracle_meta.values import encode_json
from tests.transfer.scripts import load, script_of
from tests.transfer.stock import DIMENSIONS, folder

if TYPE_CHECKING:
    from pathlib import Path

    from paracle_meta.backends.portable import Row
    from tests.postgres import PostgresServer

MOMENT = "2026-01-31 09:00:00.000000"
START = datetime(2026, 1, 31, 9, tzinfo=UTC)
BROKEN = {
    "broken-nul": b"a\0b",
    "broken-surrogate": b"\xed\xa0\x80",
    "broken-bytes": b"caf\xe9",
}
HOSTILE = (
    *("'", "''", "\\", "\\'", "\\''", '"', "$$", "$1", "$tag$", "--", "/*", "*/", ";", "%s", "?"),
    *(
        "\n\\.\n",
        "\\! echo",
        "\\!",
        "\\.",
        "\\q\n",
        "\\copy",
        "\\restrict",
        ":name",
        ":'name'",
        "::",
    ),
    *(
        "\n",
        "\r\n",
        "\r",
        "\t",
        "\x0b",
        "\x01",
        "\x1a",
        "\x7f",
        "\x85",
        "\u2028",
        "\ufeff",
        "\uffff",
    ),
    *("🦄", "👩‍👩‍👧", "\u202e", "\u2067", "שלום", "مرحبا", "e\u0301", "\U0010ffff", "\ue000", "ß"),
    *(
        "NULL",
        "{",
        "}",
        '{"',
        "[]",
        "\\N",
        "\\u0041",
        "\\x41",
        "E'",
        "U&'\\0041'",
        "1e5",
        "('gen-1',",
    ),
    *("'); COMMIT; --", "\nCOMMIT;\n", "\n-- End of the rows\n", "\nON CONFLICT DO NOTHING;\n"),
)
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.lists(st.sampled_from(HOSTILE) | st.text(CHARACTERS, max_size=5), max_size=8).map(
    "".join
)
"""Without NUL and lone surrogates: what is exported has none."""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """10,000 texts, each of 1.1 million characters once, and some of 5 MB."""
    found: list[str] = []

    @settings(max_examples=500, database=None, deadline=None)
    @given(st.lists(TEXTS, min_size=20, max_size=20))
    def collect(some: list[str]) -> None:
        found.extend(some)

    collect()
    characters = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
    found += [
        "".join(characters[first : first + 4_000]) for first in range(0, len(characters), 4_000)
    ]
    large = "".join(random.Random(7).choices(HOSTILE, k=2_000))
    return [
        *found,
        "'" * 5_000_000,
        "\\.\n" * 1_700_000,
        large * (5_000_000 // len(large)),
        "🦄" * 1_250_000,
    ]


def label(text: str) -> str:
    return text[:80] or "-"


def rows_of(texts: list[str]) -> list[tuple[Table[Any], list[Row]]]:
    """Each text in every column that can hold it; also blank, as raw SQL may have stored it."""
    # One that is long goes to one row only.
    short = [text if len(text) <= 10_000 else "-" for text in texts]
    generations = [
        (
            *(f"gen-{n}{label(text)}", label(text), other, other or None, text, None, label(text)),
            *(label(text), None, None, MOMENT, encode_json({text[:9]: other, "1e5": 1e5}), MOMENT),
        )
        for n, (text, other) in enumerate(zip(texts, short, strict=True))
    ]
    memory = [
        (
            *(f"mem-{n}", label(text), f"{n} {label(text)}", encode_json([text]), label(text)),
            *(MOMENT, None, MOMENT),
        )
        for n, text in enumerate(short)
    ]
    practices = [
        (
            *(
                f"bpr-{n}",
                label(text),
                text,
                text,
                encode_json([label(text), text[-80:]] * (n % 3)),
            ),
            *(None, n, MOMENT, None, MOMENT, None),
        )
        for n, text in enumerate(short)
    ]
    return [(GENERATIONS, generations), (MEMORY, memory), (BEST_PRACTICES, practices)]


def meant(table: Table[Any], row: Row) -> list[Any]:
    """Return a row with its JSON read, as the same value may be written in two ways."""
    return [
        json.dumps(json.loads(value), sort_keys=True)
        if value and column.name in {"metadata", "tags"}
        else value
        for column, value in zip(table.columns, row, strict=True)
    ]


async def stored(url: str, table: Table[Any], output: dict[str, str]) -> list[Row]:
    """Return the rows that PostgreSQL has; `output` spells columns in another way."""
    columns = ", ".join(output.get(column.name, column.name) for column in table.columns)
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(f"SELECT {columns} FROM {table.name}")]
    finally:
        await connection.close()


TIMES = {
    name: f"to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
    for name in ("created_at", "updated_at", "expires_at")
}


async def test_every_text_comes_back(
    postgres16: PostgresServer, postgres18: PostgresServer, texts: list[str]
) -> None:
    batches = rows_of(texts)
    script = script_of(batches)

    # By the parser of PostgreSQL: no statement but those that were written, and values only.
    # As JSON, since pglast's own nodes take minutes for texts of megabytes.
    parsed = json.loads(parse_sql_json(script[script.index("\n-- Rows\n") :]))
    *inserts, indexes, mark, commit = [raw["stmt"] for raw in parsed["stmts"]]
    assert [*indexes, *mark, *commit] == ["DoStmt", "InsertStmt", "TransactionStmt"]
    found_rows = [
        row["List"]["items"]
        for insert in inserts
        for row in insert["InsertStmt"]["selectStmt"]["SelectStmt"]["valuesLists"]
    ]
    assert len(found_rows) == 3 * len(texts)
    assert {kind for row in found_rows for value in row for kind in value} == {"A_Const"}

    # By our own reader.
    wanted = [(table, row) for table, some in batches for row in some]
    found = read_script(io.StringIO(script, newline="\n"))
    for one, (table, row) in zip(found, wanted, strict=True):
        assert isinstance(one, ScriptRow)
        assert one.table is table
        assert meant(table, one.row) == meant(table, row)

    # By each psql, into each server.
    output = {
        **TIMES,
        "metadata": "metadata::text",
        "tags": "to_json(tags)::text",
        "embedding": "NULL",
    }
    for server in (postgres16, postgres18):
        url = server.url_of(server.create_database())
        load(server, url, script)
        for table, some in batches:
            there = {row[0]: meant(table, row) for row in await stored(url, table, output)}
            assert len(there) == len(some)
            for row in some:
                assert there[row[0]] == meant(table, row)


async def test_the_whole_way_there_and_back(
    postgres18: PostgresServer, texts: list[str], tmp_path: Path
) -> None:
    """SQLite, SQL, psql, PostgreSQL, JSON Lines, SQLite."""
    async with folder(tmp_path / "one") as first, folder(tmp_path / "two") as last:
        await GenerationRepository(first).add_many(
            GenerationResult(
                id=f"gen-{n:05}",
                artifact_type=f"a{label(text)}",
                name=f"n{text[:1_000]}",
                description=text,
                content=f".{text[:10_000]}",
                metadata={text[:1_000]: [text[:1_000]]},
                created_at=START + timedelta(microseconds=n),
            )
            for n, text in enumerate(texts)
        )
        # What the API refuses, by another hand.
        async with first.session() as session:
            for name, broken in BROKEN.items():
                await session.execute(
                    "INSERT INTO generations (id, artifact_type, name, content)"
                    f" VALUES ('{name}', 'a', 'n', CAST(x'{broken.hex()}' AS TEXT))"
                )
        with pytest.raises(UnportableError) as refused:
            await export_sql(first, tmp_path / "refused.sql")
        named = {name for name in BROKEN for value in refused.value.values if name in value}
        assert (len(refused.value.values), named) == (len(BROKEN), set(BROKEN))
        assert not (tmp_path / "refused.sql").exists()
        async with first.session() as session:
            await session.execute("DELETE FROM generations WHERE id LIKE 'broken%'")

        await export_sql(first, tmp_path / "there.sql")
        url = postgres18.url_of(postgres18.create_database())
        load(postgres18, url, (tmp_path / "there.sql").read_bytes().decode())
        async with MetaDatabase(url, embeddings=FakeEmbeddings(DIMENSIONS)) as between:
            await export_jsonl(between, tmp_path / "back.jsonl.gz")
        report = await import_file(last, tmp_path / "back.jsonl.gz")
        assert (report.added, report.rejected) == ({"generations": len(texts)}, {})
        assert all(one.equal for one in await compare_databases(first, last))


async def test_every_number_and_moment_comes_back(postgres18: PostgresServer) -> None:
    chance = random.Random(7)

    def moment() -> str:
        seconds = chance.randrange(
            int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) + 62_135_596_800
        )
        micros = chance.choice([0, 1, 999_999, chance.randrange(10**6)])
        made = datetime.fromordinal(1 + seconds // 86_400).replace(
            hour=seconds % 86_400 // 3600, minute=seconds % 3600 // 60, second=seconds % 60
        )
        return made.replace(microsecond=micros).isoformat(" ", "microseconds")

    def cost() -> float:
        number = float(np.array(chance.getrandbits(64), np.uint64).view(np.float64))
        return abs(number) if abs(number) <= 1e9 else chance.random()

    special = [None, 0.0, 5e-324, 2.2250738585072014e-308, 0.1, 1e9, 1e-7, 999_999_999.9999999]
    costs: list[Row] = [
        (
            *(
                f"cst-{n}",
                "p",
                "m",
                chance.choice([None, 0, 1, MAX_COUNT]),
                chance.randrange(2**31),
            ),
            special[n] if n < len(special) else cost(),
            *(
                "daily",
                date.fromordinal(chance.randrange(1, 3_652_060)).isoformat(),
                moment(),
                moment(),
            ),
        )
        for n in range(2_000)
    ]
    script = script_of([(COSTS, costs)])
    url = postgres18.url_of(postgres18.create_database())
    load(postgres18, url, script)
    there = await stored(url, COSTS, {**TIMES, "period_start": "period_start::text"})
    assert sorted(there) == sorted(costs)
    found = list(read_script(io.StringIO(script, newline="\n")))
    assert [one.row for one in found if isinstance(one, ScriptRow)] == costs


async def test_every_vector_comes_back_bit_for_bit(postgres18: PostgresServer) -> None:
    dimensions = 64
    generator = np.random.default_rng(7)
    shape = (1_000, dimensions)
    # Whatever has a direction as float32: from zeros of both signs and what is below the normal
    # numbers up to where the squares would no longer be finite.
    bits = generator.integers(0, 2, shape, np.uint32) << 31
    bits |= generator.integers(0, 127 + 50, shape, np.uint32) << 23
    bits |= generator.integers(0, 2**23, shape, np.uint32)
    bits[:, 1] = 0x80000000
    bits[:, 2] = 1
    bits[:, 3] = 0x807FFFFF
    vectors = bits.view("<f4")
    vectors[:, 0] = 1
    templates: list[Row] = [
        (
            *(f"tpl-{n}", "a", "n", None, "c", None, 0, None, MOMENT),
            *(vector.tobytes(), MOMENT, "m"),
        )
        for n, vector in enumerate(vectors)
    ]
    script = script_of([(TEMPLATES, templates)], {"templates": VectorSpace("m", dimensions)})
    url = postgres18.url_of(postgres18.create_database())
    load(postgres18, url, script)
    there = await stored(url, TEMPLATES, {**TIMES, "embedding": "vector_send(embedding)"})
    found = {row[0]: row[9] for row in there}
    assert len(found) == len(templates)
    for row in templates:
        # After the number of dimensions, in the order of bytes that the network has.
        assert np.frombuffer(found[row[0]][4:], ">f4").astype("<f4").tobytes() == row[9]
    read = list(read_script(io.StringIO(script, newline="\n")))
    assert [one.row for one in read if isinstance(one, ScriptRow)] == templates
