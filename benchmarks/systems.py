"""What is compared: each stores the same documents and returns them for a vector.

Every system has the defaults that its makers chose, the inner product as its measure (of unit
vectors, where all measures give the same order) and, where it offers one, an index on the column
that is filtered by.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

BATCH: Final = 1000
"""Documents added in one call; zvec takes 1,024 at most."""

TOP_K: Final = 10


@dataclass(frozen=True)
class Documents:
    """What is stored: row n of `vectors` belongs to document n, which was used `usage[n]` times."""

    vectors: NDArray[np.float32]
    usage: NDArray[np.int64]

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])

    def batches(self, size: int = BATCH) -> Iterator[range]:
        for start in range(0, len(self.usage), size):
            yield range(start, min(start + size, len(self.usage)))


def name_of(n: int) -> str:
    return f"Document {n}"


def text_of(n: int) -> str:
    """Return a text of 200 characters, about that of a short template."""
    return f"What document {n} says. ".ljust(200, "x")


class System(ABC):
    """One of those compared, in a process of its own."""

    title: str
    package: str

    def __init__(self, folder: Path, dimensions: int) -> None:
        self.folder = folder
        self.dimensions = dimensions

    @property
    def version(self) -> str:
        return version(self.package)

    @abstractmethod
    def build(self, documents: Documents) -> None:
        """Store the documents, make the index, and leave the system open."""

    @abstractmethod
    def open(self) -> None:
        """Open what was built."""

    @abstractmethod
    def search(self, query: NDArray[np.float32], below: int | None) -> list[int]:
        """Read the nearest documents, of those used less than `below` times where given.

        Returns:
            Their numbers.
        """

    def ask(
        self, queries: NDArray[np.float32], below: int | None
    ) -> tuple[list[float], list[list[int]]]:
        """Ask one query after another; return the milliseconds and the answer of each."""
        taken, answers = [], []
        for query in queries:
            started = time.perf_counter()
            answers.append(self.search(query, below))
            taken.append((time.perf_counter() - started) * 1000)
        return taken, answers

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of the files."""


class GivenVectors:
    """Stands where a model would; vectors are given, so it is never asked."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.model_id = f"given/{dimensions}"

    async def embed(self, text: str) -> Any:
        raise NotImplementedError

    async def embed_many(self, texts: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        pass


class Paracle(System):
    """This project on SQLite, through its public API."""

    title = "paracle_meta"
    package = "paracle-meta"

    def open(self) -> None:
        from paracle_meta import DatabaseSettings, MetaDatabase

        # In the background it would be made while others are measured.
        settings = DatabaseSettings(sqlite_dir=self.folder, index_in_background=False)
        self._database = MetaDatabase(settings, embeddings=GivenVectors(self.dimensions))
        self._runner = asyncio.Runner()
        self._runner.run(self._database.open())

    def build(self, documents: Documents) -> None:
        self.open()
        self._runner.run(self._build(documents))

    async def _build(self, documents: Documents) -> None:
        from paracle_meta import Template, TemplateRepository

        repository = TemplateRepository(self._database)
        for batch in documents.batches(10_000):
            await repository.add_many(
                [
                    Template(
                        id=f"tpl-{n}",
                        artifact_type="document",
                        name=name_of(n),
                        content=text_of(n),
                        usage_count=int(documents.usage[n]),
                        embedding=documents.vectors[n],
                    )
                    for n in batch
                ]
            )
        await self._database.build_index("templates")

    def search(self, query: NDArray[np.float32], below: int | None) -> list[int]:
        return self._runner.run(self._search(query, below))

    async def _search(self, query: NDArray[np.float32], below: int | None) -> list[int]:
        filters = None if below is None else {"usage_count": {"$lt": below}}
        found = await self._database.vector_search(
            "templates", vector=query, top_k=TOP_K, filters=filters
        )
        return [int(match.id.removeprefix("tpl-")) for match in found]

    def ask(
        self, queries: NDArray[np.float32], below: int | None
    ) -> tuple[list[float], list[list[int]]]:
        """As a program does that has its event loop running."""
        return self._runner.run(self._ask(queries, below))

    async def _ask(
        self, queries: NDArray[np.float32], below: int | None
    ) -> tuple[list[float], list[list[int]]]:
        taken, answers = [], []
        for query in queries:
            started = time.perf_counter()
            answers.append(await self._search(query, below))
            taken.append((time.perf_counter() - started) * 1000)
        return taken, answers

    def close(self) -> None:
        self._runner.run(self._database.close())
        self._runner.close()


class Product(System):
    """A matrix in memory times the query: not a database, but what any of them costs beyond it."""

    title = "bare NumPy product"
    package = "numpy"

    def open(self) -> None:
        self._vectors = np.load(self.folder / "vectors.npy")
        self._usage = np.load(self.folder / "usage.npy")
        self._texts = [text_of(n) for n in range(len(self._usage))]

    def build(self, documents: Documents) -> None:
        self.folder.mkdir()
        np.save(self.folder / "vectors.npy", documents.vectors)
        np.save(self.folder / "usage.npy", documents.usage)
        self.open()

    def search(self, query: NDArray[np.float32], below: int | None) -> list[int]:
        if below is None:
            products, rows = self._vectors @ query, None
        else:
            rows = np.flatnonzero(self._usage < below)
            products = self._vectors[rows] @ query
        count = min(TOP_K, len(products))
        best = np.argpartition(-products, count - 1)[:count]
        best = best[np.argsort(-products[best])]
        found = [int(n) for n in (best if rows is None else rows[best])]
        documents = [(n, self._texts[n]) for n in found]
        return [n for n, _text in documents]


def systems() -> dict[str, type[System]]:
    """Return the systems by the name that the command line takes."""
    from benchmarks import peers

    return {
        "paracle": Paracle,
        "zvec": peers.Zvec,
        "chroma": peers.Chroma,
        "lancedb": peers.LanceDB,
        "lancedb-flat": peers.LanceDBFlat,
        "sqlite-vec": peers.SqliteVec,
        "numpy": Product,
    }
