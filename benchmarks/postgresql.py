"""Compare search by meaning on PostgreSQL with bare SQL: ``python -m benchmarks.postgresql``.

The same server answers both in turns, some queries each: `MetaDatabase.vector_search`, and two
prepared statements on a connection of asyncpg that return the same columns. One goes through the
index, the other compares every row that the filter lets through; the better one for a filter is
known beforehand to those who wrote the SQL, while a search of ours finds out once a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import numpy as np
from pgvector.asyncpg import register_vector

from benchmarks.report import write_postgresql
from benchmarks.search import ROUND, SEED, WARM_UP, machine
from benchmarks.systems import TOP_K, GivenVectors, name_of, text_of
from paracle_meta import DatabaseSettings, MetaDatabase, Template, TemplateRepository
from tests.postgres import PostgresServer
from tests.search.vectors import clustered

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS: Final = (
    "id, artifact_type, name, pattern, content, quality_score, usage_count, source, created_at,"
    " updated_at, embedding_model"
)

KINDS: Final[dict[str, tuple[str, range] | None]] = {
    "all": None,
    "10%": ("tenth", range(11, 111)),
    "1%": ("hundredth", range(1, 11)),
    "0.1%": ("thousandth", range(1)),
}
"""The artifact types that a filter asks for, of which usage counts: a column that has an index."""

MARGIN: Final = 5
"""Candidates that the bare SQL puts in order beyond those wanted."""


def kind_of(usage: int) -> str:
    """Return the artifact type of a document."""
    kinds = (kind for kind in KINDS.values() if kind is not None)
    return next((name for name, counts in kinds if usage in counts), "other")


def bare_sql(*, filtered: bool, index: bool) -> str:
    """Return the statement that finds the nearest, its vector as $1 and the kind as $2."""
    where = "embedding IS NOT NULL" + (" AND artifact_type = $2" if filtered else "")
    distance = "embedding <=> $1"
    rows = f"SELECT {COLUMNS}, {distance} AS distance FROM templates WHERE {where}"
    if not index:
        return f"{rows} ORDER BY 0 + ({distance}), id LIMIT {TOP_K}"
    near = f"{rows} ORDER BY {distance} LIMIT {TOP_K + MARGIN}"
    return f"SELECT * FROM ({near}) AS near ORDER BY distance, id LIMIT {TOP_K}"


class Asked:
    """What one way of asking took and found, for each filter."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.taken: dict[str, list[float]] = {label: [] for label in KINDS}
        self.answers: dict[str, list[list[int]]] = {label: [] for label in KINDS}

    def result(self, truth: Truth) -> dict[str, Any]:
        return {
            "title": self.title,
            "searches": {
                label: {
                    "p50_ms": float(np.median(self.taken[label])),
                    "p95_ms": float(np.quantile(self.taken[label], 0.95)),
                    "recall": truth.recall(label, self.answers[label]),
                }
                for label in KINDS
                if self.taken[label]
            },
        }


class Truth:
    """The documents, the queries and the true answers."""

    def __init__(self, rows: int, dimensions: int, queries: int) -> None:
        self.vectors = clustered(rows, dimensions, seed=SEED)
        self.usage = np.random.default_rng(SEED).permutation(rows) * 1000 // rows
        self.queries = clustered(queries, dimensions, seed=SEED, sample=1)
        self.warm_up = clustered(WARM_UP, dimensions, seed=SEED, sample=2)
        self._nearest = {label: self._of(kind) for label, kind in KINDS.items()}

    def _of(self, kind: tuple[str, range] | None) -> list[set[int]]:
        rows = np.arange(len(self.usage))
        if kind is not None:
            rows = np.flatnonzero(np.isin(self.usage, kind[1]))
        order = np.argsort(-(self.queries @ self.vectors[rows].T), axis=1)[:, :TOP_K]
        return [set(rows[best].tolist()) for best in order]

    def recall(self, label: str, answers: list[list[int]]) -> float:
        """Return the share of the true answers that was found; a missing row counts as wrong."""
        pairs = zip(self._nearest[label], answers, strict=True)
        return float(np.mean([len(truth & set(found)) / len(truth) for truth, found in pairs]))


class Comparison:
    """Ours and bare SQL on one database."""

    def __init__(self, url: str, truth: Truth) -> None:
        self._settings = DatabaseSettings(postgres_url=url)
        self._url = url
        self._truth = truth
        self.ours = Asked("paracle_meta")
        self.index = Asked("bare SQL through the index")
        self.exact = Asked("bare SQL, every row compared")

    async def run(self) -> dict[str, Any]:
        embeddings = GivenVectors(self._truth.vectors.shape[1])
        settings = self._settings.model_copy(update={"vector_index": "none"})
        async with MetaDatabase(settings, embeddings=embeddings) as database:
            await self._fill(TemplateRepository(database))
        started = time.perf_counter()
        async with MetaDatabase(self._settings, embeddings=embeddings) as database:
            build_s = time.perf_counter() - started
            async with database.session() as session:
                shown = "hnsw.ef_search", "hnsw.iterative_scan", "jit"
                server_settings = {
                    name: str(await session.scalar(f"SHOW {name}")) for name in shown
                }
            bare = await asyncpg.connect(self._url, server_settings=server_settings)
            # pgvector's own way of passing a vector: binary, in no time.
            await register_vector(bare)
            await bare.execute("VACUUM ANALYZE templates")
            for label in KINDS:
                await self._ask(label, database, bare)
            size = await bare.fetchval("SELECT pg_relation_size('templates_embedding_idx')")
            await bare.close()
        asked = [self.ours, self.index, self.exact]
        return {
            "build_s": build_s,
            "index_bytes": size,
            "systems": [one.result(self._truth) for one in asked],
        }

    async def _fill(self, repository: TemplateRepository) -> None:
        vectors, usage = self._truth.vectors, self._truth.usage
        for start in range(0, len(vectors), 10_000):
            await repository.add_many(
                [
                    Template(
                        id=f"tpl-{n}",
                        artifact_type=kind_of(int(usage[n])),
                        name=name_of(n),
                        content=text_of(n),
                        usage_count=int(usage[n]),
                        embedding=vectors[n],
                    )
                    for n in range(start, min(start + 10_000, len(vectors)))
                ]
            )

    async def _ask(self, label: str, database: MetaDatabase, bare: Any) -> None:
        kind = KINDS[label]
        filters = None if kind is None else {"artifact_type": kind[0]}
        filtered = kind is not None
        ways = {self.index: bare_sql(filtered=filtered, index=True)}
        if filtered:
            ways[self.exact] = bare_sql(filtered=True, index=False)
        prepared = {asked: await bare.prepare(sql) for asked, sql in ways.items()}
        parameters = [] if kind is None else [kind[0]]

        async def ours(query: NDArray[np.float32]) -> list[str]:
            found = await database.vector_search(
                "templates", vector=query, top_k=TOP_K, filters=filters
            )
            return [match.id for match in found]

        async def theirs(asked: Asked, query: NDArray[np.float32]) -> list[str]:
            rows = await prepared[asked].fetch(query, *parameters)
            return [row["id"] for row in rows]

        for query in self._truth.warm_up:
            await ours(query)
            for asked in prepared:
                await theirs(asked, query)
        # Who asks a query first, or after every row was read, finds fewer of its pages in the
        # server's memory: each way stands in each place, after each of the others, equally often.
        orders = itertools.cycle(itertools.permutations([self.ours, *prepared]))
        for start in range(0, len(self._truth.queries), ROUND):
            for asked in next(orders):
                for query in self._truth.queries[start : start + ROUND]:
                    began = time.perf_counter()
                    ids = await (ours(query) if asked is self.ours else theirs(asked, query))
                    asked.taken[label].append((time.perf_counter() - began) * 1000)
                    asked.answers[label].append([int(one.removeprefix("tpl-")) for one in ids])


def measure(rows: int, dimensions: int, queries: int, folder: Path) -> dict[str, Any]:
    """Measure one size on a server of its own."""
    folder.chmod(0o755)  # The server may run as another user.
    truth = Truth(rows, dimensions, queries)
    started = datetime.now(UTC)
    with PostgresServer(18, folder / "server") as server:
        measured = asyncio.run(Comparison(server.url, truth).run())
        server_version = server.sql("SHOW server_version").split()[0]
        pgvector = server.sql("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    return {
        "rows": rows,
        "dimensions": dimensions,
        "queries": queries,
        "started": started.isoformat(timespec="seconds"),
        "load": os.getloadavg()[0],
        "machine": machine(),
        "versions": {
            "PostgreSQL": server_version,
            "pgvector": pgvector,
            "asyncpg": version("asyncpg"),
        },
        **measured,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.postgresql", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=240, help="for each filter")
    parser.add_argument("--note", default="", help="what to say of this run on the page")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="a folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-pg-") as folder:
        run = measure(arguments.rows, arguments.dimensions, arguments.queries, Path(folder))
    run["note"] = arguments.note
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "postgresql.json"
    file.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    write_postgresql(run, arguments.output)


if __name__ == "__main__":
    main()
