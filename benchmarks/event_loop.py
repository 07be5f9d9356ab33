"""How long work on SQLite holds the event loop, and whether searches run side by side.

``python -m benchmarks.event_loop``. A task asks the loop to wake it every millisecond; what comes
later than that is a hold. Two searches begun together are timed beside one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import Run, number, table
from benchmarks.search import SEED, machine
from benchmarks.systems import GivenVectors, name_of, text_of
from paracle_meta import MetaDatabase, Template, TemplateRepository
from tests.search.vectors import clustered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

STEP: Final = 0.001
"""Seconds between two looks at the clock."""

SEARCHES: Final = 40
"""Of each kind."""

PAGE: Final = """\
# What work on SQLite does to the event loop

Made by `python -m benchmarks.event_loop`; the figures, with more digits, are in
[event-loop.json](event-loop.json).

{rows:,} documents of {dimensions:,} numbers, as in [search.md](search.md). While each of these
goes on, another task asks to be woken every millisecond. **Longest hold** is by how much it came
too late at worst, **usual hold** the median.

{hold_table}

Two searches begun together, beside the same two one after the other, median of {searches}: 1 would
be no gain, 0.5 that each has a core of its own. Small searches are made in the event loop's own
thread, one after the other.

{pair_table}

Load at the end {load:.1f}.

{started} UTC; {processor}, {cores} cores, {memory_gb} GB, {system}, Python {python}.
"""


class Holds:
    """Measures what comes too late in the event loop."""

    def __init__(self) -> None:
        self._late: list[float] = []

    @contextlib.asynccontextmanager
    async def _watching(self) -> Any:
        task = asyncio.create_task(self._watch())
        await asyncio.sleep(10 * STEP)
        self._late.clear()
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def of(self, work: Callable[[], Awaitable[Any]]) -> dict[str, float]:
        """Return how long the work took and held the loop, in ms."""
        async with self._watching():
            begun = time.perf_counter()
            await work()
            seconds = time.perf_counter() - begun
        return {
            "seconds": seconds,
            "longest_ms": 1000 * max(self._late, default=0.0),
            "usual_ms": 1000 * median(self._late or [0.0]),
        }

    async def _watch(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(STEP)
            self._late.append(time.perf_counter() - begun - STEP)


def templates(vectors: NDArray[np.float32], first: int) -> Iterator[Template]:
    for n, vector in enumerate(vectors, first):
        yield Template(
            id=f"t-{n}",
            artifact_type="other",
            name=name_of(n),
            content=text_of(n),
            usage_count=n % 1_000,
            embedding=vector,
        )


async def paired(search: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    """Return the median ms of two searches one after the other, and begun together."""
    apart, together = [], []
    for _ in range(SEARCHES):
        begun = time.perf_counter()
        await search()
        await search()
        middle = time.perf_counter()
        await asyncio.gather(search(), search())
        apart.append(1000 * (middle - begun))
        together.append(1000 * (time.perf_counter() - middle))
    return {"apart_ms": median(apart), "together_ms": median(together)}


async def measure(rows: int, dimensions: int, folder: Path) -> dict[str, Any]:
    vectors = clustered(rows + 10_000, dimensions, seed=SEED, sample=0)
    query = clustered(1, dimensions, seed=SEED, sample=1)[0]
    holds, pairs = {}, {}
    provider = GivenVectors(dimensions)
    async with MetaDatabase(f"sqlite:///{folder}/db", embeddings=provider) as db:
        repository = TemplateRepository(db)
        for first in range(0, rows, 10_000):
            await repository.add_many(templates(vectors[first : first + 10_000], first))
        watch = Holds()

        async def search(**options: Any) -> None:
            await db.vector_search("templates", vector=query, **options)

        async def searches(**options: Any) -> None:
            for _ in range(SEARCHES):
                await search(**options)

        await search()
        holds["exact searches, before there is an index"] = await watch.of(searches)
        pairs["exact, before there is an index"] = await paired(search)
        holds["making the index"] = await watch.of(lambda: db.build_index("templates"))
        await search()
        holds["searches by the index"] = await watch.of(searches)
        pairs["by the index"] = await paired(search)
        broad = {"filters": {"usage_count": {"$lt": 500}}}
        holds["searches with a filter that half of them meet"] = await watch.of(
            lambda: searches(**broad)
        )
        more = list(templates(vectors[rows:], rows))
        holds["`add_many` of 10,000 with vectors"] = await watch.of(
            lambda: repository.add_many(more)
        )
    return {
        "rows": rows,
        "dimensions": dimensions,
        "holds": holds,
        "pairs": pairs,
        "load": os.getloadavg()[0],
    }


def write(run: Run, file: Path) -> None:
    holds = [
        [what, number(one["seconds"]), number(one["usual_ms"]), number(one["longest_ms"])]
        for what, one in run["holds"].items()
    ]
    pairs = [
        [
            what,
            number(one["apart_ms"]),
            number(one["together_ms"]),
            f"{one['together_ms'] / one['apart_ms']:.2f}",
        ]
        for what, one in run["pairs"].items()
    ]
    page = PAGE.format(
        **run,
        searches=SEARCHES,
        hold_table=table(["", "took s", "usual hold ms", "longest hold ms"], holds),
        pair_table=table(["", "one after the other ms", "together ms", "ratio"], pairs),
    )
    file.write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.event_loop", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="a folder")
    arguments = parser.parse_args()
    started = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="bench-loop-") as folder:
        run = asyncio.run(measure(arguments.rows, arguments.dimensions, Path(folder)))
    run |= {**machine(), "started": f"{started:%Y-%m-%d %H:%M}"}
    arguments.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(run, indent=1)
    (arguments.output / "event-loop.json").write_text(f"{text}\n", encoding="utf-8")
    write(run, arguments.output / "event-loop.md")


if __name__ == "__main__":
    main()
