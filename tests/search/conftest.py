from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from paracle_meta import DatabaseSettings, MetaDatabase
from paracle_meta.testing import FakeEmbeddings
from tests.search.collection import DIMENSIONS, Collection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def collection(tmp_path: Path) -> AsyncIterator[Collection]:
    """Enough templates that an index is worth it, not indexed yet."""
    settings = DatabaseSettings(sqlite_dir=tmp_path / "db", index_in_background=False)
    async with MetaDatabase(settings, embeddings=FakeEmbeddings(DIMENSIONS)) as database:
        collection = Collection(database)
        await collection.fill()
        yield collection
