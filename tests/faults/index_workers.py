"""What the processes do that share a folder with a vector index; started as `workers` are.

They never make a vector: they and whoever tells them what to do make the same ones from a number.
"""

from __future__ import annotations

from typing import Any

from paracle_meta import DatabaseBusyError, DatabaseSettings, MetaDatabase, TemplateRepository
from tests.faults.vectors import TinyEmbeddings
from tests.faults.workers import heard, main, say
from tests.search.collection import DIMENSIONS, template
from tests.search.vectors import clustered


async def search_and_write(settings: dict[str, Any]) -> None:
    """Do what comes, one after another, and say so when it was acknowledged."""
    async with MetaDatabase(
        DatabaseSettings(**settings), embeddings=TinyEmbeddings(DIMENSIONS)
    ) as db:
        templates = TemplateRepository(db)
        say("ready")
        for what in heard():
            match what:
                case ["add", ids, sample]:
                    vectors = clustered(len(ids), DIMENSIONS, seed=1, sample=sample)
                    await templates.add_many(
                        [template(0, v, id=i) for i, v in zip(ids, vectors, strict=True)]
                    )
                    say("added")
                case ["move", record_id, sample]:
                    (vector,) = clustered(1, DIMENSIONS, seed=1, sample=sample)
                    await templates.update(record_id, embedding=vector)
                    say("moved")
                case ["delete", record_id]:
                    await templates.delete(record_id)
                    say("deleted")
                case ["search", vector]:
                    matches = await db.vector_search("templates", vector=vector)
                    say([match.id for match in matches])
                case ["build"]:
                    try:
                        await db.build_index("templates")
                        say("built")
                    except DatabaseBusyError:
                        say("another builds it")


if __name__ == "__main__":
    main(globals())
