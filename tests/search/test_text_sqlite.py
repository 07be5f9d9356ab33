"""Search by words in SQLite, where it differs from PostgreSQL; what both do is in the contract."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Not the standard library's: two copies of SQLite in one process undo each other's locks
# (sqlite.org/howtocorrupt.html, section 2.2).
from pysqlite3 import dbapi2 as sqlite3

from paracle_meta import (
    BestPractice,
    BestPracticeRepository,
    DatabaseSettings,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.backends.terms import INDEXED_BYTES, document_terms, query_terms
from paracle_meta.testing import FakeEmbeddings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from sqlalchemy import Connection

INSERT = (
    "INSERT INTO templates (id, artifact_type, name, pattern, content) VALUES (?, 'a', ?, NULL, ?)"
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[MetaDatabase]:
    async with opened(tmp_path) as database:
        yield database


@pytest.fixture
def templates(database: MetaDatabase) -> TemplateRepository:
    return TemplateRepository(database)


def opened(folder: Path, **more: Any) -> MetaDatabase:
    # No index in the background: what is tested here does not depend on one.
    return MetaDatabase(
        DatabaseSettings(sqlite_dir=folder / "db", index_in_background=False, **more),
        embeddings=FakeEmbeddings(),
    )


def template(record_id: str, content: str, *, kind: str = "agent") -> Template:
    return Template(id=record_id, artifact_type=kind, name=f"name {record_id}", content=content)


async def found(database: MetaDatabase, query: str, **more: Any) -> list[str]:
    matches = await database.vector_search("templates", query, mode="text", **more)
    return [match.id for match in matches]


def shell(database: MetaDatabase, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """Run statements as somebody with plain SQLite would, in the file alone."""
    file = database.settings.sqlite_folder / "templates.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        for sql, parameters in statements:
            connection.execute(sql, parameters)


def unread(database: MetaDatabase) -> list[str]:
    file = database.settings.sqlite_folder / "templates.db"
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM templates_unread")]


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", ".", *sys.path])},
    )


# --- What others write ----------------------------------------------------------------------------


async def test_what_a_shell_writes_is_found_and_what_it_deletes_is_not(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    await templates.add(template("kept", "walrus"))
    await templates.add(template("deleted", "walrus"))
    shell(
        database,
        (INSERT, ("new", "n", "a walrus")),
        ("DELETE FROM templates WHERE id = 'deleted'", ()),
    )
    assert set(await found(database, "walrus")) == {"kept", "new"}
    shell(
        database,
        ("UPDATE templates SET content = 'a penguin' WHERE id = 'new'", ()),
        ("UPDATE templates SET id = 'renamed' WHERE id = 'kept'", ()),
    )
    assert await found(database, "walrus") == ["renamed"]
    assert await found(database, "penguin") == ["new"]
    assert unread(database) == []


async def test_what_a_session_writes_is_found_when_it_is_committed(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    await templates.add(template("t", "walrus"))
    async with database.session(write=True) as session:
        await session.execute("UPDATE templates SET content = 'penguin'")
        await session.rollback()
    assert await found(database, "walrus") == ["t"]
    async with database.session(write=True) as session:
        await session.execute("UPDATE templates SET content = 'penguin'")
    assert await found(database, "walrus") == []
    assert await found(database, "penguin") == ["t"]


@pytest.mark.parametrize("conflict", ["REPLACE", "IGNORE", "ABORT"])
async def test_the_conflict_rule_of_a_statement_does_not_hide_it(
    database: MetaDatabase, templates: TemplateRepository, conflict: str
) -> None:
    await templates.add(template("old", "walrus"))
    shell(
        database,
        # Noted already when it is changed again.
        ("UPDATE templates SET content = 'seal' WHERE id = 'old'", ()),
        (f"UPDATE OR {conflict} templates SET content = 'penguin' WHERE id = 'old'", ()),
        (INSERT.replace("INSERT", f"INSERT OR {conflict}"), ("new", "n", "penguin")),
    )
    assert set(await found(database, "penguin")) == {"old", "new"}
    assert await found(database, "walrus seal") == []


async def test_a_row_that_holds_no_text_does_not_stop_the_search_for_others(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    shell(
        database,
        (INSERT, ("blob", "n", b"\xff walrus")),
        (INSERT, ("number", "n", 7)),
        (INSERT, ("nul", "n", "seal \x00 penguin")),
    )
    with closing(sqlite3.connect(database.settings.sqlite_folder / "best_practices.db")) as file:
        file.executemany(
            "INSERT INTO best_practices (id, category, title, content, tags)"
            " VALUES (?, 'c', 't', 'x', ?)",
            [("no-json", "walrus"), ("object", '{"a": "walrus"}'), ("escaped", '["w\\u0061lrus"]')],
        )
        file.commit()
    await templates.add(template("good", "walrus"))
    assert "good" in await found(database, "walrus", filters={"id": "good"})
    assert await found(database, "penguin", filters={"id": "nul"}) == ["nul"]
    matches = await database.vector_search(
        "best_practices", "walrus", mode="text", filters={"id": "escaped"}
    )
    assert [match.id for match in matches] == ["escaped"]


async def test_rows_from_before_the_words_were_kept_are_found(tmp_path: Path) -> None:
    from paracle_meta.backends.sqlite.files import SCHEMAS
    from paracle_meta.migrations.runner import downgrade

    async with opened(tmp_path) as database:
        await TemplateRepository(database).add_many(
            template(f"t{number}", f"walrus number{number}") for number in range(2_500)
        )

        def older(connection: Connection) -> list[str]:
            return downgrade(connection, SCHEMAS, "0002")

        backend: Any = await database.backend()
        assert "0003" in await backend._session_factory().run(older)

    async with opened(tmp_path) as database:  # Which migrates.
        assert await found(database, "number1234", top_k=1) == ["t1234"]
        assert len(await found(database, "walrus", top_k=10_000)) == 2_500
        assert unread(database) == []


async def test_a_vacuum_leaves_words_and_records_together(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    await templates.add_many(template(f"t{n}", f"number{n}") for n in range(200))
    # It numbers the rows of a table anew whose key is a text.
    shell(database, ("DELETE FROM templates WHERE id < 't150'", ()))
    with closing(sqlite3.connect(database.settings.sqlite_folder / "templates.db")) as connection:
        connection.execute("VACUUM")
    for number in (175, 199, 50):
        assert await found(database, f"number{number}", top_k=1) == [f"t{number}"]
    assert "t120" not in await found(database, "number120", top_k=1_000)


READER = """
    import asyncio, sys
    from pathlib import Path
    from paracle_meta import DatabaseSettings, MetaDatabase, StorageError
    from tests.faults.workers import _give_up_capabilities

    async def main():
        _give_up_capabilities()  # Else the superuser would write all the same.
        settings = DatabaseSettings(
            sqlite_dir=Path(sys.argv[1]), enable_vectors=False, journal_mode="truncate"
        )
        async with MetaDatabase(settings) as database:
            try:
                for match in await database.vector_search("templates", "walrus", mode="text"):
                    print(match.id)
            except StorageError as error:
                print(error)

    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="rights are another matter on Windows")
async def test_whoever_may_not_write_is_told_where_words_are_missing(tmp_path: Path) -> None:
    async with opened(tmp_path, journal_mode="truncate") as database:
        await TemplateRepository(database).add(template("t", "walrus"))
        folder = database.settings.sqlite_folder

    def answer() -> str:
        folder.joinpath("templates.db").chmod(0o400)
        try:
            process = python(READER, str(folder))
            return process.communicate()[0].strip()
        finally:
            folder.joinpath("templates.db").chmod(0o600)

    assert await asyncio.to_thread(answer) == "t"
    shell(database, (INSERT, ("new", "n", "walrus")))
    assert "cannot be written" in await asyncio.to_thread(answer)
    async with opened(tmp_path, journal_mode="truncate") as database:
        assert set(await found(database, "walrus")) == {"t", "new"}
    assert set((await asyncio.to_thread(answer)).split()) == {"t", "new"}


async def test_a_deleted_record_leaves_no_words(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    await templates.add_many([template("kept", "seal"), template("deleted", "walrus")])
    await templates.delete("deleted")
    file = database.settings.sqlite_folder / "templates.db"
    with closing(sqlite3.connect(file)) as connection:
        (terms,) = connection.execute("SELECT group_concat(terms) FROM templates_terms").fetchone()
    assert "seal" in terms
    assert "walrus" not in terms
    assert unread(database) == []


# --- Several writers ------------------------------------------------------------------------------

WRITER = """
    import asyncio, sys
    from pathlib import Path
    from paracle_meta import DatabaseSettings, MetaDatabase, Template, TemplateRepository

    async def main():
        settings = DatabaseSettings(sqlite_dir=Path(sys.argv[1]), enable_vectors=False)
        async with MetaDatabase(settings) as database:
            templates = TemplateRepository(database)
            for number in range(int(sys.argv[3])):
                name = f"{sys.argv[2]}x{number}"
                await templates.add(
                    Template(id=name, artifact_type="a", name="n", content=f"walrus {name}")
                )
                print(name, flush=True)

    asyncio.run(main())
"""


def writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    return python(WRITER, str(folder), name, str(count))


async def test_what_other_processes_have_added_is_found_at_once(database: MetaDatabase) -> None:
    folder = database.settings.sqlite_folder
    await database.open()
    processes = [writer(folder, name, 40) for name in ("one", "two")]
    try:
        for _ in range(40):
            for process in processes:
                assert process.stdout is not None
                name = (await asyncio.to_thread(process.stdout.readline)).strip()
                assert await found(database, name, top_k=1) == [name]
    finally:
        for process in processes:
            process.communicate()
    assert len(await found(database, "walrus", top_k=100)) == 80
    assert unread(database) == []


async def test_a_row_committed_before_the_writer_was_killed_is_found(
    database: MetaDatabase,
) -> None:
    folder = database.settings.sqlite_folder
    await database.open()
    committed: list[str] = []
    for run in range(3):
        process = writer(folder, f"run{run}", 10_000)
        assert process.stdout is not None
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(10 + 7 * run)]
        committed += [line.strip() for line in lines]
        process.kill()
        process.communicate()
    answers = await found(database, "walrus", top_k=10_000)
    assert set(committed) <= set(answers)
    assert len(answers) == await TemplateRepository(database).count()


async def test_searches_and_writers_in_one_process(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    async def write(number: int) -> None:
        record_id = f"t{number}"
        await templates.add(template(record_id, f"seal{number}"))
        assert await found(database, f"seal{number}", top_k=1) == [record_id]
        await templates.update(record_id, content=f"penguin{number}")
        assert record_id not in await found(database, f"seal{number}x")
        assert await found(database, f"penguin{number}", top_k=1) == [record_id]
        if number % 2:
            await templates.delete(record_id)
            assert record_id not in await found(database, f"penguin{number}")

    await asyncio.gather(*(write(number) for number in range(40)))
    # By their first letters.
    expected = {f"t{number}" for number in range(0, 40, 2)}
    assert set(await found(database, "penguin", top_k=100)) == expected


# --- The texts ------------------------------------------------------------------------------------

HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\"'()*^:+-{}[]\\,.;%_?$&|!<>~ \n\t"),
        st.characters(exclude_characters="\x00", exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=40,
)


async def test_no_text_breaks_the_syntax(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    await templates.add(template("t", "walrus AND penguin OR NEAR(seal)"))
    texts: list[str] = ['"', "a OR", "NOT", "AND", "NEAR(", "terms:x", "^a", "a*", "-a", "'; DROP"]

    @settings(
        max_examples=3_000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(HOSTILE)
    def collect(text: str) -> None:
        if text.strip():
            texts.append(text)

    collect()
    assert len(texts) > 2_000
    document = document_terms("name t\nwalrus AND penguin OR NEAR(seal)").keys()
    for text in texts:
        # Found exactly where a term is shared, whatever signs stand around it.
        expected = ["t"] if document & set(query_terms(text)) else []
        assert await found(database, text) == expected


async def test_texts_without_a_word_find_nothing(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    await templates.add(template("t", "??? !!!"))
    assert await found(database, "???") == []
    assert await found(database, "name") == ["t"]


async def test_long_texts_hold_the_event_loop_no_longer_than_a_moment(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    word = "wörd{} "
    text = "".join(word.format(number) for number in range(INDEXED_BYTES // 10))
    await templates.add(template("first", "seal"))
    await found(database, "seal")
    longest, running = 0.0, True
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        nonlocal longest
        while running:
            before = loop.time()
            await asyncio.sleep(0.001)
            longest = max(longest, loop.time() - before)

    watching = asyncio.create_task(watch())
    await templates.add_many(template(f"t{number}", text) for number in range(10))
    assert await found(database, text, top_k=1) == ["t0"]
    running = False
    await watching
    # Tens of ms; more only where the machine is busy with other things.
    assert longest < 0.2


async def test_filters_are_applied_after_scoring(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    await templates.add_many(
        template(f"t{number:03}", "walrus", kind=f"kind{number % 7}") for number in range(210)
    )
    everything = await database.vector_search("templates", "walrus", 210, mode="text")
    some = await database.vector_search(
        "templates", "walrus", 210, mode="text", filters={"artifact_type": "kind3"}
    )
    assert some == [match for match in everything if match.artifact_type == "kind3"]
    assert len(some) == 30


async def test_ties_that_cross_the_last_place_are_broken_by_id(
    database: MetaDatabase, templates: TemplateRepository
) -> None:
    await templates.add_many(template_like(f"t{n:02}") for n in reversed(range(50)))
    assert await found(database, "walrus", top_k=7) == [f"t{n:02}" for n in range(7)]


def template_like(record_id: str) -> Template:
    return Template(id=record_id, artifact_type="a", name="n", content="walrus")


async def test_tags_are_searched(database: MetaDatabase) -> None:
    practices = BestPracticeRepository(database)
    tags: Iterable[str] = ["walrus care", "ice"]
    await practices.add(BestPractice(id="b", category="c", title="t", content="x", tags=list(tags)))
    for word in ("walrus", "care", "ice"):
        matches = await database.vector_search("best_practices", word, mode="text")
        assert [match.id for match in matches] == ["b"]
