"""A change of embedding model as the tests make it: step by step on what the backends offer."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Any
from zlib import crc32

from paracle_meta import DatabaseSettings, MetaDatabase, Template
from paracle_meta.backends.collections import NewVector, VectorSpace
from paracle_meta.schema import TEMPLATES
from paracle_meta.testing import FakeEmbeddings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from paracle_meta.backends.collections import ChangeOfModel, Collections


class Model(FakeEmbeddings):
    """A fake whose vectors differ from those of others of the same width, as real ones do."""

    def __init__(self, dimensions: int, name: str) -> None:
        super().__init__(dimensions, name=name)
        self._turn = crc32(name.encode()) % dimensions

    def _vector(self, text: str) -> list[float]:
        vector = super()._vector(text)
        return vector[self._turn :] + vector[: self._turn]


OLD = Model(48, "old")
NEW = Model(24, "new")
SAME_WIDTH = Model(48, "same width")

WORDS = ["apples", "bridges", "copper", "dolphins", "engines", "flutes", "gardens", "harbours"]


def template(number: int, **more: Any) -> Template:
    given: dict[str, Any] = {
        "id": f"tpl-{number:04}",
        "artifact_type": "agent",
        "name": f"{WORDS[number % len(WORDS)]} {number}",
        "content": "What it says.",
    }
    return Template(**{**given, **more})


def database(settings: dict[str, Any], embeddings: FakeEmbeddings) -> MetaDatabase:
    return MetaDatabase(DatabaseSettings(**settings), embeddings=embeddings)


async def collections(db: MetaDatabase) -> Collections:
    return (await db.backend()).collections


@contextlib.asynccontextmanager
async def changing(
    db: MetaDatabase, embeddings: FakeEmbeddings
) -> AsyncIterator[ChangeOfModel[Template]]:
    space = VectorSpace(embeddings.model_id, embeddings.dimensions)
    async with (await collections(db)).change_of_model(TEMPLATES, space) as change:
        yield change


async def vectors_of(records: Sequence[Template], embeddings: FakeEmbeddings) -> list[NewVector]:
    vectors = await embeddings.embed_many([text(record) for record in records])
    return [
        NewVector.of(TEMPLATES, record, packed(vector))
        for record, vector in zip(records, vectors, strict=True)
    ]


def text(record: Template) -> str:
    return f"{record.name}: {record.pattern or record.content}"


def packed(vector: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)


async def make(
    change: ChangeOfModel[Template],
    embeddings: FakeEmbeddings,
    *,
    batch: int = 16,
    but: Iterable[str] = (),
) -> list[str]:
    """Make all new vectors that are missing, but some, and return of which records."""
    made: list[str] = []
    after = None
    while records := await change.pending(limit=batch, after=after):
        after = records[-1].id
        wanted = [record for record in records if record.id not in but]
        await change.store(await vectors_of(wanted, embeddings))
        made += [record.id for record in wanted]
    return made


async def change_all(db: MetaDatabase, embeddings: FakeEmbeddings) -> None:
    async with changing(db, embeddings) as change:
        await make(change, embeddings)
        await change.prepare()
        assert await change.switch(())
