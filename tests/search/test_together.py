"""Searches that are begun together have the answers that each has by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from paracle_meta import DatabaseSettings, MetaDatabase
from paracle_meta.testing import FakeEmbeddings
from tests.search.collection import Collection, template
from tests.search.vectors import clustered

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DIMENSIONS = 800
"""So many that it is worth looking in the graph for several at once."""


async def test_searches_begun_together_answer_as_each_by_itself(tmp_path: Path) -> None:
    settings = DatabaseSettings(sqlite_dir=tmp_path / "db", index_in_background=False)
    async with MetaDatabase(settings, embeddings=FakeEmbeddings(DIMENSIONS)) as database:
        collection = Collection(database)
        vectors = clustered(8_000, DIMENSIONS, seed=1)
        await collection.add([template(n, vector) for n, vector in enumerate(vectors)])
        await database.build_index("templates")
        queries = clustered(12, DIMENSIONS, seed=1, sample=2)

        async def search(query: NDArray[Any], **options: Any) -> list[tuple[str, float]]:
            matches = await database.vector_search("templates", vector=query, **options)
            return [(match.id, match.similarity) for match in matches]

        options: list[dict[str, Any]] = [{}, {"top_k": 3}, {"filters": {"quality_score": 3}}] * 4
        apart = [await search(q, **o) for q, o in zip(queries, options, strict=True)]
        pairs = zip(queries, options, strict=True)
        together = await asyncio.gather(*(search(q, **o) for q, o in pairs))
        assert together == apart
        exact = [collection.nearest(query) for query in queries[::3]]
        found = [[record_id for record_id, _ in answer] for answer in together[::3]]
        assert sum(len({*a} & {*b}) for a, b in zip(exact, found, strict=True)) >= 39

        # Another writer has been here: what is begun together is not finished on what was before.
        nearest = vectors[0] + queries[0]
        await collection.add([template(9_000, queries[0]), template(9_001, nearest)])
        first = await asyncio.gather(*(search(query) for query in [queries[0]] * 3))
        assert {answer[0][0] for answer in first} == {"tpl-09000"}
