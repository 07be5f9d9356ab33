"""Hostile arguments of every kind, as many as ten thousand: each is refused, or it is only data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st

from paracle_meta import (
    BestPracticeRepository,
    FeedbackRepository,
    GenerationRepository,
    InvalidValueError,
    MemoryRepository,
    MetaDatabase,
    NotFoundError,
    TemplateRepository,
)
from paracle_meta.schema import COLLECTIONS
from paracle_meta.transfer import export_jsonl
from tests.cli.conftest import Cli
from tests.contract.test_hostile_filters import filters, finds, repositories
from tests.faults.hostile_stock import STORED, Stores, hostile
from tests.faults.places import Place

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from tests.faults.figures import Faults
    from tests.postgres import PostgresServer

REFUSED = "refused"
TEXTS = {
    "generations": ("id", "name", "artifact_type", "description", "provider"),
    "templates": ("id", "name", "artifact_type", "source"),
    "feedback": ("id", "generation_id", "comment"),
    "costs": ("id", "provider", "model"),
    "best_practices": ("id", "category", "title"),
}
"""Columns of text that can be filtered by."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer) -> Iterator[Stores]:
    """All tests share them, as each sees that they are what they were."""
    database = server.create_database()
    stores = Stores(
        Place(settings={"sqlite_dir": str(tmp_path_factory.mktemp("hostile") / "files")}),
        Place(settings={"postgres_url": server.url_of(database)}, server=server, database=database),
    )
    yield stores
    stores.close()


def noted(faults: Faults, stores: Stores, what: str, times: int) -> None:
    assert stores.done >= times * 0.9  # Of few possible ones hypothesis finds no more.
    faults.note(
        f"Hostile {what}, with every other row and table watched",
        where="both",
        times=f"{stores.done:,} on each",
        lost="0 rows reached or changed that were not asked for",
        seen=f"{stores.refused:,} refused as no value at all, the others taken as data",
    )


async def answer_of(call: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await call
    except InvalidValueError:
        return REFUSED


def ids_of(records: list[Any]) -> list[str]:
    return sorted(record.id for record in records)


def test_hostile_filters(stores: Stores, faults: Faults) -> None:
    times = faults.times(80, 4_000)

    async def check(database: MetaDatabase, argument: tuple[Any, str]) -> Any:
        wanted, table = argument
        repository = repositories(database)[table]
        found = await answer_of(repository.list(filters=wanted, limit=1_000))
        counted = await answer_of(repository.count(filters=wanted))
        if found == REFUSED:
            assert counted == REFUSED
            return REFUSED
        expected = ids_of([record for record in stores.records[table] if finds(record, wanted)])
        assert ids_of(found) == expected
        assert counted == len(expected)
        if table in COLLECTIONS:
            matches = await database.vector_search(table, "agent", 1_000, filters=wanted)
            assert ids_of(matches) == expected
        return expected

    # Most with a column that exists and a text, so that not nearly all are refused.
    def asked(table: str) -> st.SearchStrategy[tuple[Any, str]]:
        condition = st.one_of(
            hostile,
            st.dictionaries(st.sampled_from(["$eq", "$ne", "$gt", "$lte"]), hostile, max_size=2),
            st.fixed_dictionaries({"$in": st.lists(hostile, max_size=3)}),
        )
        plain = st.dictionaries(st.sampled_from(TEXTS[table]), condition, max_size=2)
        return st.tuples(st.one_of(filters, *[plain] * 6), st.just(table))

    stores.each(times, st.sampled_from(list(stores.records)).flatmap(asked), check)
    noted(faults, stores, "filters", times)


def test_hostile_ids(stores: Stores, faults: Faults) -> None:
    times = faults.times(60, 1_500)

    async def check(database: MetaDatabase, text: str) -> Any:
        known = text in STORED
        every = repositories(database)
        said = []
        for table, repository in every.items():
            found = await answer_of(repository.get(text))
            if found != REFUSED and table != "memory":
                assert (found.id if found else None) == (text if known else None)
            said.append(found == REFUSED)
        ratings = await answer_of(FeedbackRepository(database).get_for_generation(text))
        assert ratings == REFUSED or ids_of(ratings) == ([text] if known else [])
        if known:
            after = ids_of(await every["costs"].list(after=text, limit=1_000))
            assert after == sorted(STORED[: STORED.index(text)])
            return said
        for call in (
            every["generations"].list(after=text),
            every["generations"].update(text, name="changed"),
            GenerationRepository(database).delete(text, cascade=True),
            every["costs"].delete(text),
            TemplateRepository(database).record_use(text),
            TemplateRepository(database).promote_from_generation(text),
        ):
            try:
                answer = await call
            except (InvalidValueError, NotFoundError) as error:
                said.append(type(error).__name__)
            else:
                assert not answer
        return REFUSED if all(word in {True, "InvalidValueError"} for word in said) else said

    stores.each(times, hostile, check)
    noted(faults, stores, "ids", times)


def test_hostile_session_ids_keys_and_scopes(stores: Stores, faults: Faults) -> None:
    times = faults.times(60, 1_500)

    async def check(database: MetaDatabase, argument: tuple[str, str, str]) -> Any:
        session, key, scope = argument
        memory = MemoryRepository(database)
        if session in STORED:
            (kept,) = await memory.list(session_id=session)
            assert (kept.key, kept.value, kept.session_id) == (session, session, session)
            return session
        stored = await answer_of(memory.set(key, [session, key], session_id=session, scope=scope))
        if stored == REFUSED:
            for call in (
                memory.get(key, session_id=session, scope=scope),
                memory.list(session_id=session, scope=scope),
                memory.clear(session_id=session, scope=scope),
                memory.delete(key, session_id=session, scope=scope),
            ):
                assert await answer_of(call) in (REFUSED, [], 0, None, False)
            return REFUSED
        # It is found under just this name, and taken away again with nothing else.
        found = await memory.get(key, session_id=session, scope=scope)
        assert found is not None
        assert (found.value, found.scope) == ([session, key], scope)
        assert await memory.count(session_id=session) == 1
        for other in STORED:
            assert await memory.get(key, session_id=other, scope=scope) is None
        assert await memory.clear(session_id=session) == 1
        return [session, key]

    stores.each(times, st.tuples(hostile, hostile, st.one_of(st.just("session"), hostile)), check)
    noted(faults, stores, "session ids, keys and scopes of memory", times)


def test_hostile_tags(stores: Stores, faults: Faults) -> None:
    times = faults.times(60, 1_000)

    async def check(database: MetaDatabase, tags: list[str]) -> Any:
        found = await answer_of(BestPracticeRepository(database).list(tags=tags, limit=1_000))
        if found == REFUSED:
            return REFUSED
        expected = [
            record for record in stores.records["best_practices"] if set(tags) <= set(record.tags)
        ]
        assert ids_of(found) == ids_of(expected)
        return ids_of(found)

    tag = st.one_of(hostile, st.just("shared"), st.sampled_from(STORED))
    stores.each(times, st.lists(tag, min_size=1, max_size=2), check)
    noted(faults, stores, "tags", times)


def test_hostile_names_of_collections(stores: Stores, faults: Faults) -> None:
    times = faults.times(60, 500)

    async def check(database: MetaDatabase, name: Any) -> Any:
        calls = (
            database.vector_search(name, "agent"),
            database.vector_search(name, "agent", mode="text"),
            database.build_index(name),
            database.embed_missing(name),
            database.reembed(name),
        )
        for call in calls:
            if name in COLLECTIONS:
                call.close()
                continue
            assert await answer_of(call) == REFUSED
        with pytest.raises(Exception, match=r"no kind|is none|There is no|there are|kinds"):
            await export_jsonl(database, "/dev/null", kinds=[name])
        return REFUSED

    names = st.one_of(hostile, st.integers(), st.tuples(hostile), st.binary(max_size=5))
    stores.each(times, names.filter(lambda name: name not in stores.records), check)
    noted(faults, stores, "names of collections", times)


def test_hostile_search_texts(stores: Stores, faults: Faults) -> None:
    times = faults.times(60, 1_500)

    async def check(database: MetaDatabase, argument: tuple[str, Any]) -> Any:
        text, mode = argument
        wanted = {"artifact_type": "a"}
        allowed = ids_of([r for r in stores.records["templates"] if r.artifact_type == "a"])
        search = database.vector_search("templates", text, 1_000, mode=mode, filters=wanted)
        found = await answer_of(search)
        if found == REFUSED:
            return REFUSED
        assert set(ids_of(found)) <= set(allowed)
        if mode == "vector":
            assert ids_of(found) == allowed
        return [match.id for match in found]

    stores.each(times, st.tuples(hostile, st.sampled_from(["text", "vector", "hybrid"])), check)
    noted(faults, stores, "search texts", times)


@pytest.mark.parametrize("text", ["'; DROP TABLE memory; --", "%", "-x", "$(reboot)", "\u202e"])
def test_hostile_arguments_of_the_command_line(sqlite: Place, text: str) -> None:
    cli = Cli(f"sqlite:///{sqlite.folder}")
    cli.ok("memory", "set", "--session", "other", "key", "kept")
    cli.ok("memory", "set", f"--session={text}", "--", text, text)
    assert cli.ok("memory", "get", f"--session={text}", "--", text) == text
    assert "No" in cli.run("templates", "search", "--", text).output
    cli.ok("memory", "clear", f"--session={text}")
    assert cli.ok("memory", "get", "--session", "other", "key") == "kept"
