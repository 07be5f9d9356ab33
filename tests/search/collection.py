"""A collection of templates whose nearest neighbours are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from paracle_meta import MetaDatabase, Template, TemplateRepository
from paracle_meta.testing import FakeEmbeddings
from tests.search.vectors import clustered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DIMENSIONS = 32
ROWS = 8_000
"""A little more than where a search begins to ask the graph: indexing begins at fewer."""


class Collection:
    """Templates in a database, and the same vectors in memory to compare with."""

    def __init__(self, database: MetaDatabase) -> None:
        self.database = database
        self.templates = TemplateRepository(database)
        self.vectors: dict[str, NDArray[np.float32]] = {}

    async def fill(self) -> None:
        vectors = clustered(ROWS, DIMENSIONS, seed=1)
        await self.add([template(n, vector) for n, vector in enumerate(vectors)])

    async def add(self, templates: Sequence[Template]) -> None:
        await self.templates.add_many(templates)
        for one in templates:
            assert one.embedding is not None
            self.vectors[one.id] = np.asarray(one.embedding, dtype=np.float32)

    async def delete(self, record_id: str) -> None:
        await self.templates.delete(record_id)
        del self.vectors[record_id]

    async def move(self, record_id: str, vector: NDArray[np.float32]) -> None:
        await self.templates.update(record_id, embedding=vector)
        self.vectors[record_id] = vector

    def nearest(self, query: NDArray[np.float32], count: int = 10) -> list[str]:
        """The true answer."""
        ids = sorted(self.vectors)
        products = np.array([self.vectors[record_id] for record_id in ids]) @ query
        return [ids[n] for n in np.argsort(-products, kind="stable")[:count]]

    async def recall(self, *, sample: int = 9, queries: int = 40, **search: Any) -> float:
        """The share of the true answers that the search finds."""
        found = 0
        for query in clustered(queries, DIMENSIONS, seed=1, sample=sample):
            matches = await self.database.vector_search("templates", vector=query, **search)
            assert len(matches) == min(10, len(self.vectors))
            found += len({match.id for match in matches} & set(self.nearest(query)))
        return found / (queries * min(10, len(self.vectors)))

    def reopened(self) -> Collection:
        """The same collection as another process would see it."""
        again = Collection(
            MetaDatabase(self.database.settings, embeddings=FakeEmbeddings(DIMENSIONS))
        )
        again.vectors = dict(self.vectors)
        return again

    @property
    def index_folder(self) -> Path:
        (folder,) = (self.database.settings.sqlite_folder / ".index" / "templates").glob("idx-*")
        return folder


def template(n: int, vector: NDArray[np.float32], **more: Any) -> Template:
    base = Template(
        id=f"tpl-{n:05}",
        artifact_type=f"type-{n % 100}",
        name=f"Template {n}",
        content="What it says.",
        quality_score=float(n % 10),
        embedding=vector,
    )
    return replace(base, **more)
