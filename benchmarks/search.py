"""Compare search by meaning on SQLite with other embedded stores: ``make bench-search``.

For each size every system is built in a process of its own, one after the other. Then each is
opened in a fresh process and asked once. Then, for each filter, all are asked everything once, and
again in turns, some queries each: so that all have in memory what they read, and what slows the
machine down for a while slows all of them. One thread asks; what threads a system
uses to answer is its own affair.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.report import write_report
from benchmarks.systems import TOP_K, systems
from benchmarks.worker import Failed, Worker
from tests.search.vectors import clustered

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED: Final = 7
BELOW: Final[dict[str, int | None]] = {"all": None, "10%": 100, "1%": 10, "0.1%": 1}
"""How many of 1,000 usage counts a filter leaves."""

WARM_UP: Final = 5
"""Queries of others, of which the first is asked by a fresh process."""

ROUND: Final = 20
"""Queries that one of a few answers before it is the next one's turn."""

LONG_ROUND: Final = 50
"""The same of many systems: what rests for long is slow at first, as others take its caches."""


class Question:
    """A size: the documents in files, the queries, and the true answers."""

    def __init__(self, rows: int, dimensions: int, queries: int, data: Path) -> None:
        self.rows, self.dimensions, self.data = rows, dimensions, data
        vectors = clustered(rows, dimensions, seed=SEED)
        # Each count equally often, so that a filter leaves exactly its share.
        usage = np.random.default_rng(SEED).permutation(rows) * 1000 // rows
        data.mkdir(parents=True, exist_ok=True)
        np.save(data / "vectors.npy", vectors)
        np.save(data / "usage.npy", usage)
        self.queries = clustered(queries, dimensions, seed=SEED, sample=1)
        self.warm_up = clustered(WARM_UP, dimensions, seed=SEED, sample=2)
        self._truth = {
            label: self._nearest(vectors, usage, below) for label, below in BELOW.items()
        }

    def _nearest(
        self, vectors: NDArray[np.float32], usage: NDArray[np.int64], below: int | None
    ) -> list[set[int]]:
        rows = np.arange(self.rows) if below is None else np.flatnonzero(usage < below)
        products = self.queries @ (vectors if below is None else vectors[rows]).T
        order = np.argsort(-products, axis=1)[:, :TOP_K]
        return [set(rows[best].tolist()) for best in order]

    def recall(self, label: str, answers: list[list[int]]) -> float:
        """Return the share of the true answers that was found; a missing row counts as wrong."""
        pairs = zip(self._truth[label], answers, strict=True)
        return float(np.mean([len(truth & set(found)) / len(truth) for truth, found in pairs]))


class Measured:
    """One system at one size."""

    def __init__(self, name: str, question: Question, folder: Path) -> None:
        self._question = question
        self._folder = folder / name
        self._name = name
        kind = systems()[name]
        self.result: dict[str, Any] = {
            "system": name,
            "title": kind.title,
            "version": kind(self._folder, question.dimensions).version,
        }
        self._taken: dict[str, list[float]] = {label: [] for label in BELOW}
        self._answers: dict[str, list[list[int]]] = {label: [] for label in BELOW}
        self._load: dict[str, list[float]] = {label: [] for label in BELOW}

    @property
    def failed(self) -> bool:
        return "failed" in self.result

    def _attempt(self, method: str, *arguments: Any) -> Any:
        if self.failed:
            return None
        try:
            return self._worker.call(method, *arguments)
        except Failed as exc:
            self.result["failed"] = str(exc)
            return None

    def build(self) -> None:
        self._start()
        before = os.getloadavg()[0]
        self.result["build_s"] = self._attempt(
            "build", self._question.data, self._question.warm_up[0]
        )
        self.result["build_load"] = [before, os.getloadavg()[0]]
        self._worker.stop()
        files = [file for file in self._folder.rglob("*") if file.is_file()]
        # What is allotted, as a file may have holes.
        self.result["disk_bytes"] = sum(file.stat().st_blocks * 512 for file in files)

    def open(self) -> None:
        self._start()
        first = self._attempt("first", self._question.warm_up[0])
        if first is not None:
            self.result["fresh_ms"], self.result["first_query_ms"] = first
            self.result["first_load"] = os.getloadavg()[0]

    def _start(self) -> None:
        self._worker = Worker(self._name, self._folder, self._question.dimensions)

    def warm(self, label: str) -> None:
        """Ask everything once: what is measured is a store in use, not the disk."""
        self._attempt("ask", self._question.queries, BELOW[label])

    def ask(self, label: str, start: int) -> None:
        answer = self._attempt(
            "ask", self._question.queries[start : start + LONG_ROUND], BELOW[label]
        )
        if answer is not None:
            self._taken[label] += answer[0]
            self._answers[label] += answer[1]
            self._load[label].append(os.getloadavg()[0])

    def finish(self) -> None:
        memory = self._attempt("grown")
        self._attempt("close")
        self._worker.stop()
        if self.failed:
            return
        self.result["memory_bytes"], self.result["memory_anonymous_bytes"] = memory
        self.result["searches"] = {
            label: {
                "p50_ms": float(np.median(self._taken[label])),
                "p95_ms": float(np.quantile(self._taken[label], 0.95)),
                "recall": self._question.recall(label, self._answers[label]),
                "load": float(np.mean(self._load[label])),
            }
            for label in BELOW
        }


def measure(question: Question, names: list[str], queries: int, folder: Path) -> dict[str, Any]:
    """Measure the systems side by side at one size."""
    started = datetime.now(UTC)
    measured = [Measured(name, question, folder) for name in names]
    for one in measured:
        one.build()
        print(f"  {one.result['title']}: built in {one.result['build_s']} s", flush=True)
    for one in measured:
        one.open()
    for label in BELOW:
        for one in measured:
            one.warm(label)
        for start in range(0, queries, LONG_ROUND):
            for one in measured:
                one.ask(label, start)
        print(f"  asked {label}", flush=True)
    for one in measured:
        one.finish()
    return {
        "rows": question.rows,
        "dimensions": question.dimensions,
        "queries": queries,
        "started": started.isoformat(timespec="seconds"),
        "machine": machine(),
        "systems": [one.result for one in measured],
    }


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the systems."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.search", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 1_536])
    parser.add_argument("--quick", action="store_true", help="1,000 and 10,000 rows only")
    parser.add_argument("--queries", type=int, default=100, help="for each filter")
    parser.add_argument("--without", nargs="+", default=[], choices=list(systems()))
    parser.add_argument("--note", default="", help="what to say of this run on the page")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="a folder")
    arguments = parser.parse_args()
    names = [name for name in systems() if name not in arguments.without]
    sizes = [1_000, 10_000] if arguments.quick else arguments.rows
    file = arguments.output / "search.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    runs = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for rows in sizes:
        for dimensions in arguments.dimensions:
            print(f"{rows:,} x {dimensions:,}", flush=True)
            with tempfile.TemporaryDirectory(prefix="bench-search-") as folder:
                question = Question(rows, dimensions, arguments.queries, Path(folder, "data"))
                run = measure(question, names, arguments.queries, Path(folder))
            run["note"] = arguments.note
            # Written after each size; a size is always of one run, others stay as they were.
            kept = [old for old in runs if (old["rows"], old["dimensions"]) != (rows, dimensions)]
            runs = sorted([*kept, run], key=lambda one: (one["rows"], one["dimensions"]))
            file.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
            write_report(runs, arguments.output)


if __name__ == "__main__":
    main()
