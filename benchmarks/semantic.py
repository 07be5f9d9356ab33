"""Storing documents with their vectors and finding them by meaning, beside other stores.

Every store has the same documents and the same vectors, which are ready: where one insists on
asking a model, it looks them up.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from abc import ABC, abstractmethod
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.bare_sqlite import connected
from benchmarks.search import SEED
from benchmarks.systems import TOP_K, GivenVectors, name_of, text_of
from benchmarks.turns import comparison
from paracle_meta import DatabaseSettings, MetaDatabase, Template, TemplateRepository
from tests.search.vectors import clustered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.turns import Comparison
    from tests.postgres import PostgresServer

BATCH: Final = 1_000
"""Documents stored in one call."""

SINGLE: Final = 50
"""Documents that are stored one at a time, after the others."""

NAMESPACE: Final = ("documents",)


class Documents:
    """What is stored and asked."""

    def __init__(self, rows: int, dimensions: int, queries: int) -> None:
        self.rows = rows
        self.vectors = clustered(rows + SINGLE, dimensions, seed=SEED)
        self.queries = clustered(queries, dimensions, seed=SEED, sample=1)
        order = np.argsort(-(self.queries @ self.vectors.T), axis=1)[:, :TOP_K]
        self._nearest = [set(best.tolist()) for best in order]

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])

    def recall(self, answers: Sequence[Sequence[int]]) -> float:
        pairs = zip(self._nearest, answers, strict=True)
        return float(np.mean([len(truth & set(found)) / TOP_K for truth, found in pairs]))

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Look up the vectors of texts, as a function that LangGraph takes for a model."""
        return [self._of(text).tolist() for text in texts]

    def _of(self, text: str) -> Any:
        # Not only at the start: a store may embed the JSON of a text.
        found = re.search(r"(query|document) (\d+)", text)
        assert found is not None
        return (self.queries if found[1] == "query" else self.vectors)[int(found[2])]

    def text(self, n: int) -> str:
        """Return the text of a document, which says its number first."""
        return f"document {n} {text_of(n)}"

    def save(self, folder: Path) -> None:
        """Write everything for another process."""
        folder.mkdir()
        np.save(folder / "vectors.npy", self.vectors)
        np.save(folder / "queries.npy", self.queries)
        texts = [self.text(n) for n in range(len(self.vectors))]
        (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")


class Store(ABC):
    """One of those compared. Each way returns its milliseconds."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents

    async def timed_add(self, span: range) -> float:
        began = time.perf_counter()
        await self.add(span)
        return 1000 * (time.perf_counter() - began)

    async def timed_search(self, n: int) -> tuple[float, list[int]]:
        began = time.perf_counter()
        found = await self.search(n)
        return 1000 * (time.perf_counter() - began), found

    @abstractmethod
    async def add(self, span: range) -> None:
        """Store documents in one call."""

    @abstractmethod
    async def search(self, n: int) -> list[int]:
        """Return the nearest documents of a query, read with their texts."""


class Ours(Store):
    """Templates with ready vectors; as few as these are compared one by one, without an index."""

    def __init__(self, documents: Documents, database: MetaDatabase) -> None:
        super().__init__(documents)
        self._database = database
        self._templates = TemplateRepository(database)

    async def add(self, span: range) -> None:
        await self._templates.add_many(
            [
                Template(
                    id=f"tpl-{n}",
                    artifact_type="document",
                    name=name_of(n),
                    content=self.documents.text(n),
                    embedding=self.documents.vectors[n],
                )
                for n in span
            ]
        )

    async def search(self, n: int) -> list[int]:
        vector = self.documents.queries[n]
        found = await self._database.vector_search("templates", vector=vector, top_k=TOP_K)
        return [int(match.id.removeprefix("tpl-")) for match in found]


class LangGraph(Store):
    """One of LangGraph's stores."""

    def __init__(self, documents: Documents, store: Any) -> None:
        super().__init__(documents)
        self._store = store

    async def add(self, span: range) -> None:
        from langgraph.store.base import PutOp

        await self._store.abatch(
            [PutOp(NAMESPACE, str(n), {"text": self.documents.text(n)}) for n in span]
        )

    async def search(self, n: int) -> list[int]:
        found = await self._store.asearch(NAMESPACE, query=f"query {n}", limit=TOP_K)
        return [int(item.key) for item in found]


class Chroma(Store):
    """Chroma in this process, on files."""

    def __init__(self, documents: Documents, folder: Path) -> None:
        super().__init__(documents)
        import chromadb
        from chromadb.config import Settings

        client = chromadb.PersistentClient(
            str(folder), settings=Settings(anonymized_telemetry=False)
        )
        self._collection = client.create_collection(
            "documents", embedding_function=None, configuration={"hnsw": {"space": "ip"}}
        )

    async def add(self, span: range) -> None:
        self._collection.add(
            ids=[str(n) for n in span],
            embeddings=self.documents.vectors[span.start : span.stop],
            documents=[self.documents.text(n) for n in span],
        )

    async def search(self, n: int) -> list[int]:
        found = self._collection.query(
            query_embeddings=[self.documents.queries[n]],
            n_results=TOP_K,
            include=["documents", "distances"],
        )
        return [int(number) for number in found["ids"][0]]


class LangChain(Store):
    """langchain-postgres, in a process that takes the time itself."""

    def __init__(self, documents: Documents, process: Any) -> None:
        super().__init__(documents)
        self._process = process

    async def _call(self, *message: Any) -> Any:
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()
        return await self._answer()

    async def _answer(self) -> Any:
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("The process of langchain-postgres ended; see above.")
        return json.loads(line)

    async def timed_add(self, span: range) -> float:
        return float(await self._call("add", span.start, span.stop))

    async def timed_search(self, n: int) -> tuple[float, list[int]]:
        taken, found = await self._call("search", n, TOP_K)
        return taken, found

    async def add(self, span: range) -> None:
        await self.timed_add(span)

    async def search(self, n: int) -> list[int]:
        return (await self.timed_search(n))[1]

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, python: Path, documents: Documents, url: str, folder: Path
    ) -> AsyncIterator[tuple[LangChain, str]]:
        """Start the process; yield the store and the version of langchain-postgres."""
        documents.save(folder)
        script = Path(__file__).with_name("langchain_peer.py")
        address = url.replace("postgresql://", "postgresql+asyncpg://", 1)
        process = await create_subprocess_exec(
            python, script, address, folder, stdin=PIPE, stdout=PIPE
        )
        try:
            store = cls(documents, process)
            yield store, await store._answer()
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


@contextlib.asynccontextmanager
async def stores(
    documents: Documents, folder: Path, server: PostgresServer, langchain: Path
) -> AsyncIterator[tuple[dict[str, Store], str]]:
    """Open all stores, empty; yield them by name, and the version of langchain-postgres."""
    from langgraph.store.postgres import AsyncPostgresStore
    from langgraph.store.sqlite import AsyncSqliteStore

    def database() -> str:
        return server.url_of(server.create_database())

    index: Any = {"dims": documents.dimensions, "embed": documents.embed, "fields": ["text"]}
    embeddings = GivenVectors(documents.dimensions)
    on_files = DatabaseSettings(sqlite_dir=folder / "ours", index_in_background=False)
    on_server = DatabaseSettings(postgres_url=database())
    vectors = database()
    async with (
        MetaDatabase(on_files, embeddings=embeddings) as one,
        MetaDatabase(on_server, embeddings=embeddings) as other,
        connected(folder / "langgraph.db") as connection,
        AsyncSqliteStore(connection, index=index) as sqlite_store,
        AsyncPostgresStore.from_conn_string(database(), index=index) as postgres_store,
        LangChain.opened(langchain, documents, vectors, folder / "data") as (chain, version),
    ):
        await sqlite_store.setup()
        await postgres_store.setup()
        yield (
            {
                "paracle-sqlite": Ours(documents, one),
                "paracle-postgresql": Ours(documents, other),
                "langgraph-sqlite": LangGraph(documents, sqlite_store),
                "langgraph-postgresql": LangGraph(documents, postgres_store),
                "chroma": Chroma(documents, folder / "chroma"),
                "langchain": chain,
            },
            version,
        )


async def measure(systems: dict[str, Store], documents: Documents) -> list[Comparison]:
    """Store and ask in turns, another one beginning each time.

    Returns:
        Storing all documents in batches (one figure each, the sum of its batches), storing one
        more, searching, and storing all with all searches together.
    """
    names = list(systems)
    turns = 0

    def order() -> list[str]:
        nonlocal turns
        turns += 1
        shift = turns % len(names)
        return names[shift:] + names[:shift]

    spans = [
        range(start, min(start + BATCH, documents.rows))
        for start in range(0, documents.rows, BATCH)
    ]
    stored = dict.fromkeys(names, 0.0)
    for span in spans:
        for name in order():
            stored[name] += await systems[name].timed_add(span)
    single: dict[str, list[float]] = {name: [] for name in names}
    for n in range(documents.rows, documents.rows + SINGLE):
        for name in order():
            single[name].append(await systems[name].timed_add(range(n, n + 1)))
    searched: dict[str, list[float]] = {name: [] for name in names}
    answers: dict[str, list[list[int]]] = {name: [] for name in names}
    for name in names:  # What is read or planned at first is no search.
        await systems[name].timed_search(0)
    for n in range(len(documents.queries)):
        for name in order():
            taken, found = await systems[name].timed_search(n)
            searched[name].append(taken)
            answers[name].append(found)
    rows = documents.rows
    return [
        comparison("store-all", {name: [stored[name]] for name in names}, rows=rows),
        comparison("store-one", single, rows=rows),
        comparison(
            "search",
            searched,
            rows=rows,
            recall={name: documents.recall(answers[name]) for name in names},
        ),
        comparison(
            "store-and-search",
            {name: [stored[name] + sum(searched[name])] for name in names},
            rows=rows,
        ),
    ]
