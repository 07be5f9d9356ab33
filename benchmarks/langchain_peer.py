"""langchain-postgres, in a process and an environment of its own.

It wants a version of pgvector's package that is too old for this project. Nothing of this project
is imported here; commands come as lines of JSON, and each is answered with one::

    python benchmarks/langchain_peer.py postgresql+asyncpg://postgres@127.0.0.1:5432/name FOLDER
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_postgres import PGEngine, PGVectorStore

TABLE = "documents"


class GivenEmbeddings(Embeddings):  # type: ignore[misc]
    """Stands where a model would; vectors are given, so it is never asked."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


class Peer:
    """A vector store with its makers' defaults; documents are known by their numbers."""

    def __init__(self, store: Any, folder: Path) -> None:
        self._store = store
        self._vectors = np.load(folder / "vectors.npy")
        self._queries = np.load(folder / "queries.npy")
        self._texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))

    async def add(self, start: int, stop: int) -> float:
        """Store documents; return the milliseconds."""
        vectors = [vector.tolist() for vector in self._vectors[start:stop]]
        ids = [str(n) for n in range(start, stop)]
        metadatas = [{"number": n} for n in range(start, stop)]
        began = time.perf_counter()
        await self._store.aadd_embeddings(self._texts[start:stop], vectors, metadatas, ids)
        return 1000 * (time.perf_counter() - began)

    async def search(self, n: int, top_k: int) -> tuple[float, list[int]]:
        """Return the milliseconds and the nearest documents of a query."""
        query = self._queries[n].tolist()
        began = time.perf_counter()
        found = await self._store.asimilarity_search_with_score_by_vector(query, k=top_k)
        taken = 1000 * (time.perf_counter() - began)
        return taken, [document.metadata["number"] for document, _ in found]


async def serve(url: str, folder: Path) -> None:
    engine = PGEngine.from_connection_string(url)
    dimensions = int(np.load(folder / "vectors.npy", mmap_mode="r").shape[1])
    # Their table names its rows by UUID unless told otherwise.
    from langchain_postgres import Column

    await engine.ainit_vectorstore_table(
        TABLE, dimensions, id_column=Column("langchain_id", "TEXT", nullable=False)
    )
    store = await PGVectorStore.create(engine, GivenEmbeddings(), TABLE)
    peer = Peer(store, folder)
    print(json.dumps(version("langchain-postgres")), flush=True)
    # One command at a time, and nothing else to do meanwhile.
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        print(json.dumps(await getattr(peer, method)(*arguments)), flush=True)
    await engine.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
