"""The contract of a database's life: opening, migrating, status, closing, loops, processes."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    BestPracticeRepository,
    DatabaseSettings,
    GenerationRepository,
    MetaDatabase,
    MigrationError,
    TemplateRepository,
    get_meta_database,
)
from paracle_meta.migrations import VERSION_TABLE
from paracle_meta.testing.base import Contract, changed, generation, ids, practice, template
from paracle_meta.testing.embeddings import FakeEmbeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

NOTHING = {
    "generations": 0,
    "templates": 0,
    "feedback": 0,
    "costs": 0,
    "memory": 0,
    "best_practices": 0,
}

CHILD_SECONDS = 60
"""How long a forked child may take: it must end, even if it hangs."""


class LifeContract(Contract):
    """From a database without anything to its end; it needs the fixture ``empty_settings``."""

    async def test_the_first_call_opens_and_migrates(
        self, empty_settings: DatabaseSettings
    ) -> None:
        database = MetaDatabase(empty_settings, embeddings=FakeEmbeddings())
        await GenerationRepository(database).add(generation())
        await database.close()
        async with MetaDatabase(empty_settings, embeddings=FakeEmbeddings()) as again:
            assert ids(await GenerationRepository(again).list()) == ["gen-1"]

    async def test_status_changes_nothing(self, empty_settings: DatabaseSettings) -> None:
        database = MetaDatabase(empty_settings, embeddings=FakeEmbeddings())
        for _ in range(2):
            before = await database.status()
            assert before.revision is None
            assert before.counts == {}
            assert before.vectors == {}
            assert before.backend == empty_settings.backend
        await TemplateRepository(database).add(template())
        after = await database.status()
        assert after.revision == after.head == before.head
        assert after.counts == {**NOTHING, "templates": 1}
        assert after.vectors["templates"].embedded == 1
        assert after.vectors["best_practices"].embedded == 0
        assert after.version
        assert after.location
        await database.close()
        assert await database.status() == after
        await database.close()

    async def test_migrate_applies_what_is_missing_once(
        self, empty_settings: DatabaseSettings
    ) -> None:
        database = MetaDatabase(empty_settings, embeddings=FakeEmbeddings())
        applied = await database.migrate()
        status = await database.status()
        assert applied
        assert applied[-1] == status.head == status.revision
        assert status.counts == NOTHING
        assert await database.migrate() == []
        await GenerationRepository(database).add(generation())
        assert await database.migrate() == []
        assert await GenerationRepository(database).count() == 1
        await database.close()

    async def test_without_auto_migrate_it_is_said_what_to_run(
        self, empty_settings: DatabaseSettings
    ) -> None:
        manual = changed(empty_settings, auto_migrate=False)
        database = MetaDatabase(manual, embeddings=FakeEmbeddings())
        with pytest.raises(MigrationError, match="paracle meta db migrate"):
            await GenerationRepository(database).count()
        assert (await database.status()).revision is None
        await database.migrate()
        assert await GenerationRepository(database).count() == 0
        await database.close()

    async def test_a_newer_schema_is_refused(self, empty_settings: DatabaseSettings) -> None:
        async with MetaDatabase(empty_settings, embeddings=FakeEmbeddings()) as database:
            await GenerationRepository(database).add(generation())
            async with database.session() as session:
                await session.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")  # noqa: S608
        newer = MetaDatabase(empty_settings, embeddings=FakeEmbeddings())
        with pytest.raises(MigrationError):
            await newer.open()
        with pytest.raises(MigrationError):
            await newer.migrate()
        await newer.close()

    async def test_many_open_an_empty_database_at_once(
        self, empty_settings: DatabaseSettings
    ) -> None:
        databases = [MetaDatabase(empty_settings, embeddings=FakeEmbeddings()) for _ in range(4)]
        await asyncio.gather(
            *(
                GenerationRepository(database).add(generation(f"gen-{n}"))
                for n, database in enumerate(databases)
            )
        )
        counts = [await GenerationRepository(database).count() for database in databases]
        assert counts == [4] * 4
        await asyncio.gather(*(database.close() for database in databases))

    async def test_one_database_used_first_by_many_tasks_opens_once(
        self, empty_settings: DatabaseSettings
    ) -> None:
        async with MetaDatabase(empty_settings, embeddings=FakeEmbeddings()) as database:
            repository = GenerationRepository(database)
            await asyncio.gather(*(repository.add(generation(f"gen-{n}")) for n in range(10)))
            assert await repository.count() == 10

    async def test_closing_is_safe_to_repeat_and_the_next_call_opens_again(
        self, settings: DatabaseSettings
    ) -> None:
        database = MetaDatabase(settings, embeddings=FakeEmbeddings())
        await database.close()
        for n in range(3):
            await TemplateRepository(database).add(template(f"tpl-{n}"))
            async with database.session() as session:
                assert await session.scalar("SELECT count(*) FROM templates") == n + 1
            await database.close()
            await database.close()
        async with database:
            assert len(await TemplateRepository(database).find_similar("security")) == 3
        await database.close()

    async def test_an_open_database_sees_what_another_writes(
        self, settings: DatabaseSettings
    ) -> None:
        first = MetaDatabase(settings, embeddings=FakeEmbeddings())
        second = MetaDatabase(settings, embeddings=FakeEmbeddings())
        one, two = BestPracticeRepository(first), BestPracticeRepository(second)
        await one.add(practice("bpr-1"))
        await two.add(practice("bpr-2"))
        assert await one.count() == await two.count() == 2
        assert len(await one.find_similar("least")) == 2
        await first.close()
        assert await two.count() == 2
        await second.close()

    async def test_one_database_for_each_settings(self, settings: DatabaseSettings) -> None:
        without = changed(settings, enable_vectors=False)
        database = get_meta_database(without)
        assert get_meta_database(changed(without)) is database
        assert get_meta_database(changed(without, pool_size=3)) is not database
        assert await GenerationRepository(database).count() == 0
        await database.close()

    def test_two_event_loops_use_one_database(self, settings: DatabaseSettings) -> None:
        database = MetaDatabase(settings, embeddings=FakeEmbeddings())
        repository = GenerationRepository(database)
        both_inside = threading.Barrier(2, timeout=CHILD_SECONDS)
        errors: list[BaseException] = []

        async def work(name: str) -> None:
            await repository.add(generation(f"{name}-0"))
            await asyncio.to_thread(both_inside.wait)
            await asyncio.gather(*(repository.add(generation(f"{name}-{n}")) for n in range(1, 5)))
            await asyncio.to_thread(both_inside.wait)
            if await repository.count() != 10:
                raise AssertionError(name)
            await database.close()

        def run(name: str) -> None:
            try:
                asyncio.run(work(name))
            except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
                errors.append(error)
                both_inside.abort()

        threads = [threading.Thread(target=run, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    def test_one_event_loop_after_another(self, settings: DatabaseSettings) -> None:
        database = MetaDatabase(settings, embeddings=FakeEmbeddings())

        async def work(n: int) -> int:
            await GenerationRepository(database).add(generation(f"gen-{n}"))
            count = await GenerationRepository(database).count()
            await database.close()
            return count

        assert [asyncio.run(work(n)) for n in range(3)] == [1, 2, 3]

    @pytest.mark.skipif(sys.platform == "win32", reason="this platform cannot fork")
    def test_a_forked_process_opens_anew(self, settings: DatabaseSettings) -> None:
        database = MetaDatabase(settings, embeddings=FakeEmbeddings())
        repository = GenerationRepository(database)

        async def add(name: str) -> list[str]:
            await asyncio.gather(*(repository.add(generation(f"{name}-{n}")) for n in range(3)))
            return sorted(ids(await repository.list()))

        with asyncio.Runner() as parent:
            parent.run(add("parent"))
            status = in_child(lambda: add("child"), database)
            assert status == 0
            # The parent's own connections still serve it.
            names = parent.run(add("after"))
            parent.run(database.close())
        assert names == [f"{name}-{n}" for name in ("after", "child", "parent") for n in range(3)]


def in_child(work: Callable[[], Coroutine[Any, Any, Any]], database: MetaDatabase) -> int:
    """Run work in an event loop of a forked process and return its exit status, 0 for success."""

    async def work_and_close() -> None:
        await work()
        await database.close()

    with warnings.catch_warnings():
        # Python 3.12 warns of forking with threads; that it works here is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(CHILD_SECONDS)
            asyncio.run(work_and_close())
            status = 0
        finally:
            # Not the parent's exit handlers, nor the rest of its tests.
            os._exit(status)
    _, result = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(result)
