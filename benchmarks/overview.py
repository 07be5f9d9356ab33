"""Write ``docs/benchmarks.md`` from what was measured: ``python -m benchmarks.overview``.

Nothing is measured here. The figures are those of the JSON files in ``docs/benchmarks``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import TYPE_CHECKING, Any, Final

from benchmarks.records_report import reach_table, reaches
from benchmarks.report import NOT_A_STORE, OURS, RECALL, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE: Final = """\
# Benchmarks

Each figure is a ratio: the median time of ours divided by that of a bare driver, or of another
store, that did the same work on the same machine in the same run, in turns. Below 1 ours is faster;
what misses its reach is in bold. How each was measured, and every figure, is on the page that
stands beside it.

{pages}

`make bench` measures everything anew, which takes some hours for itself on the machine, and
`make bench-search`, `make bench-transfer` and `make bench-records` a part of it. Bare drivers and
peers are in the dependency groups `bench` and `bench-langchain` and nowhere else. This page is
written by `python -m benchmarks.overview` from the JSON files in [{folder}]({folder}).

{sections}"""

PAGES: Final = {
    "records": "Records, costs and memory beside bare drivers and LangGraph's stores, on both "
    "databases, from a thousand rows to a million; starting programs; opening a database.",
    "search": "Search by meaning on SQLite beside zvec, Chroma, LanceDB and sqlite-vec.",
    "postgresql": "Search by meaning on PostgreSQL beside bare SQL.",
    "retrieval": "How well searches find what was asked for, by meaning, by words and by both.",
    "event-loop": "How long work on SQLite holds the event loop.",
    "transfer": "Exports and copies beside COPY and `.dump`, and their memory.",
}
"""What each page is about, the main ones first."""

WIDTH: Final = 100
"""Characters of a line."""

POSTGRESQL_MOST: Final = 1.3
"""How many times what bare SQL takes a search may take on PostgreSQL."""

TRANSFER_MOST: Final = 2
"""How many times what COPY or `.dump` takes."""


def _records(run: Any) -> Iterator[str]:
    found = list(reaches(run))
    reached = sum(one.reached for one in found)
    yield f"{reached} of {len(found)} are reached."
    yield reach_table(found)


def _search(runs: Any) -> Iterator[str]:
    labels = list(runs[0]["systems"][0]["searches"])
    rows = []
    for run in runs:
        systems = {one["system"]: one for one in run["systems"] if "failed" not in one}
        ours = systems.pop(OURS)
        systems.pop(NOT_A_STORE, None)
        cells = []
        for label in labels:
            found = ours["searches"][label]
            fastest = min(one["searches"][label]["p50_ms"] for one in systems.values())
            times = found["p50_ms"] / fastest
            cells.append(_judged(times, most=1, enough=found["recall"] >= RECALL))
        rows.append([f"{run['rows']:,} x {run['dimensions']:,}", *cells])
    yield (
        "Beside the fastest other store, whatever that one's recall. The reach is below 1, with a\n"
        f"recall of at least {RECALL:.0%}. A column is how much of the documents a filter leaves."
    )
    yield table(["documents x dimensions", *labels], rows)


def _postgresql(run: Any) -> Iterator[str]:
    ours, *bare = run["systems"]
    cells = []
    for label, found in ours["searches"].items():
        others = [one["searches"][label] for one in bare if label in one["searches"]]
        fastest = min(other["p50_ms"] for other in others if other["recall"] >= RECALL)
        times = found["p50_ms"] / fastest
        cells.append(_judged(times, most=POSTGRESQL_MOST, enough=found["recall"] >= RECALL))
    yield (
        f"Beside the fastest SQL that finds as much. The reach is {POSTGRESQL_MOST}, with a\n"
        f"recall of at least {RECALL:.0%}."
    )
    size = f"{run['rows']:,} x {run['dimensions']:,}"
    yield table(["documents x dimensions", *ours["searches"]], [[size, *cells]])


def _transfer(run: Any) -> Iterator[str]:
    rows = []
    for title, part, other in (
        ("copy, beside COPY", "copies", "bare"),
        ("export, beside .dump", "exports", "dump"),
    ):
        for name, one in run[part].items():
            times = median(one["ours"]) / median(one[other])
            # Vectors become text that `.dump` does not write.
            apart = (part, name) == ("exports", "templates")
            said = f"{times:.2f}" if apart else _judged(times, most=TRANSFER_MOST)
            rows.append([f"{title}: {name}", f"{one['rows']:,}", said])
    yield (
        "Beside what copies or writes the same rows and looks at none of them. The reach is "
        f"{TRANSFER_MOST};\nan export of vectors, which `.dump` writes as they are, has none."
    )
    yield table(["", "rows", "ratio"], rows)


def _judged(times: float, *, most: float, enough: bool = True) -> str:
    return f"{times:.2f}" if times <= most and enough else f"**{times:.2f}**"


SECTIONS: Final[dict[str, tuple[str, Callable[[Any], Iterator[str]]]]] = {
    "records": ("Records, costs, memory and starts", _records),
    "search": ("Search on SQLite", _search),
    "postgresql": ("Search on PostgreSQL", _postgresql),
    "transfer": ("Exports and copies", _transfer),
}


def overview(folder: Path) -> str:
    """Return the page about the files in a folder.

    Args:
        folder: Where the JSON files and the pages are; what was not measured yet is left out.
    """
    pages = [
        fill(f"- [{name}]({folder.name}/{name}.md): {said}", WIDTH, subsequent_indent="  ")
        for name, said in PAGES.items()
        if (folder / f"{name}.md").exists()
    ]
    sections = []
    for name, (title, tables) in SECTIONS.items():
        file = folder / f"{name}.json"
        if not file.exists():
            continue
        measured = json.loads(file.read_text(encoding="utf-8"))
        parts = [*tables(measured), _when(measured)]
        if (folder / f"{name}.svg").exists():
            page = f"{folder.name}/{name}"
            parts.append(f"[![Median times; the figures are on the page]({page}.svg)]({page}.md)")
        sections.append("\n\n".join([f"## {title}", *parts]) + "\n")
    return PAGE.format(pages="\n".join(pages), sections="\n".join(sections), folder=folder.name)


def _when(measured: Any) -> str:
    """Return when and where it was measured; of several runs, the last one."""
    runs = measured if isinstance(measured, list) else [measured]
    run = max(runs, key=lambda one: str(one["started"]))
    machine = run["machine"]
    return (
        f"{run['started'][:10]}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB,\n{machine['system']}, Python {machine['python']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.overview", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"))
    folder = parser.parse_args().folder
    file = folder.with_suffix(".md")
    file.write_text(overview(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
