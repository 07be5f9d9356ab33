"""What all contract classes share: the database under test, its repositories, records to store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest

from paracle_meta import (
    BestPractice,
    BestPracticeRepository,
    CostRepository,
    DatabaseSettings,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.testing.embeddings import FakeEmbeddings

OpenDatabase: TypeAlias = Callable[..., MetaDatabase]
"""Makes one more `MetaDatabase` on the database under test, see `Contract.open_database`."""

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
"""The time of the records that tests store, so that their order does not depend on the clock."""


class Contract:
    """Base of the contract classes: each is a subject, each method a promise.

    They are written for pytest with pytest-asyncio in auto mode (``asyncio_mode = "auto"``). To
    hold them against a database of your own, subclass each class once, in a test module, and give
    them these fixtures, in the same module or a ``conftest.py``:

    - ``settings``: the `DatabaseSettings` of a database without any record; its tables may exist.
    - ``empty_settings`` (for `LifeContract` only): those of a database without anything.

    Both are asked for once a test. Where settings do not say everything, override ``database`` (a
    `MetaDatabase` with `embeddings`) and ``open_database`` in the subclass instead.

    Example:
        ```python
        @pytest.fixture
        def settings(tmp_path):
            return DatabaseSettings(sqlite_dir=tmp_path)

        class TestGenerations(GenerationContract): ...
        ```
    """

    @pytest.fixture
    def embeddings(self) -> FakeEmbeddings:
        """What embeds in these tests."""
        return FakeEmbeddings()

    @pytest.fixture
    async def open_database(
        self, settings: DatabaseSettings, embeddings: FakeEmbeddings
    ) -> AsyncIterator[OpenDatabase]:
        """Make further databases on the same data, with other settings or embeddings.

        All of them are closed after the test.
        """
        async with AsyncExitStack() as stack:

            def make(*, embeddings: FakeEmbeddings = embeddings, **changes: Any) -> MetaDatabase:
                database = MetaDatabase(changed(settings, **changes), embeddings=embeddings)
                stack.push_async_callback(database.close)
                return database

            yield make

    @pytest.fixture
    async def database(self, open_database: OpenDatabase) -> MetaDatabase:
        """The database under test, not opened yet and without a record."""
        return open_database()

    @pytest.fixture
    def generations(self, database: MetaDatabase) -> GenerationRepository:
        """The repository of the database under test."""
        return GenerationRepository(database)

    @pytest.fixture
    def templates(self, database: MetaDatabase) -> TemplateRepository:
        """The repository of the database under test."""
        return TemplateRepository(database)

    @pytest.fixture
    def feedback(self, database: MetaDatabase) -> FeedbackRepository:
        """The repository of the database under test."""
        return FeedbackRepository(database)

    @pytest.fixture
    def costs(self, database: MetaDatabase) -> CostRepository:
        """The repository of the database under test."""
        return CostRepository(database)

    @pytest.fixture
    def memory(self, database: MetaDatabase) -> MemoryRepository:
        """The repository of the database under test."""
        return MemoryRepository(database)

    @pytest.fixture
    def practices(self, database: MetaDatabase) -> BestPracticeRepository:
        """The repository of the database under test."""
        return BestPracticeRepository(database)


def changed(settings: DatabaseSettings, **changes: Any) -> DatabaseSettings:
    """Return the settings with some of them changed."""
    return DatabaseSettings(**{**dict(settings), **changes})


def at(seconds: float) -> datetime:
    """Return a time that many seconds after START."""
    return START + timedelta(seconds=seconds)


def generation(record_id: str = "gen-1", **values: Any) -> GenerationResult:
    """Return a generation with everything that it needs, made at START."""
    values = {
        "artifact_type": "agent",
        "name": "Security reviewer",
        "content": "You review code for vulnerabilities.",
        "created_at": START,
        **values,
    }
    return GenerationResult(id=record_id, **values)


def template(record_id: str = "tpl-1", **values: Any) -> Template:
    """Return a template with everything that it needs, made at START."""
    values = {
        "artifact_type": "agent",
        "name": "Security reviewer",
        "content": "You review code for vulnerabilities.",
        "created_at": START,
        **values,
    }
    return Template(id=record_id, **values)


def practice(record_id: str = "bpr-1", **values: Any) -> BestPractice:
    """Return a best practice with everything that it needs, made at START."""
    values = {
        "category": "security",
        "title": "Ask for the least that is needed",
        "content": "Give an agent no tool that its task does not need.",
        "created_at": START,
        **values,
    }
    return BestPractice(id=record_id, **values)


def rating(record_id: str = "fbk-1", stars: Any = 5, **values: Any) -> Feedback:
    """Return feedback about ``gen-1``, given at START."""
    values = {"generation_id": "gen-1", "created_at": START, **values}
    return Feedback(id=record_id, rating=stars, **values)


def ids(records: Any) -> list[str]:
    """Return the ids of records, in their order."""
    return [record.id for record in records]
