"""The figures of `benchmarks.search` as a page and a plot that people can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from benchmarks.systems import systems

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Run = Mapping[str, Any]

OURS: Final = "paracle"
NOT_A_STORE: Final = "numpy"
SIZES: Final = list(product((1_000, 10_000, 100_000), (384, 1_536)))
"""What is to be measured: rows and dimensions."""

RECALL: Final = 0.99
"""What a search of ours is to find at least."""

COLOURS: Final = {
    # Of Okabe and Ito, which those tell apart too who do not see red and green.
    "paracle": "#d55e00",
    "zvec": "#0072b2",
    "chroma": "#009e73",
    "lancedb": "#cc79a7",
    "lancedb-flat": "#e69f00",
    "sqlite-vec": "#56b4e9",
    "numpy": "#777777",
}

PAGE: Final = """\
# Search on SQLite beside other embedded stores

Made by `make bench-search`; the figures, with more digits, are in [search.json](search.json).

![Median time of a search by number of documents, for each filter and number of dimensions](\
search.svg)

## How it was measured

- Each system holds the same documents: a vector, a name, 200 characters of text and a number from
  0 to 999. A search returns the nearest ten **with their texts**. A filter on the number leaves
  10%, 1% or 0.1% of the documents; where it leaves fewer than ten, as many come back.
- The vectors are made, not real: clusters of different size that differ in 48 directions, and
  noise (`clustered` in `tests/search/vectors.py`). The queries are others of the same clusters.
  With other vectors the times and the recall of a graph are others: compare within this page.
- Ours is asked through `MetaDatabase.vector_search` with a ready vector, after
  `MetaDatabase.build_index`. The others have their makers' defaults, the inner product as their
  measure, and an index on the number where they offer one. They are not tuned, neither for speed
  nor for recall, so read both together. The bare product of a NumPy matrix in memory is not a store
  and is in no ratio.
- Each system is built in a process of its own, one after the other. Then each is opened in a fresh
  process. For each filter all are then asked everything once, which does not count, and again in
  turns of 50 queries: so all have in memory what they read, and what slows the machine down slows
  all of them. One thread asks; what threads a system uses to answer is its own affair.
- **Build** is from the first document to the first answer, **fresh process** from before its
  import to the first answer, both with the import of the library and its files in the page cache.
  **Disk** is what its files are allotted, **memory** what the asking process has in memory beyond a
  bare Python with NumPy when all queries are answered, mapped files that were read included;
  both are KB a document, so at few documents they are the fixed costs.
- **Load** is the average of the last minute, the system's own work included. Above the number of
  cores, others were in the way.

Repeat it with `make bench-search` (add `BENCH_OPTIONS=--quick` for 1,000 and 10,000 documents), or
`python -m benchmarks.search --help` in an environment with the group `bench`. A size is always
measured in one run; measuring one again leaves the others on this page as they are.

## Beside the fastest store

Median time of ours divided by that of the fastest other store, whatever that one's recall; below 1
ours is faster. Last, the same for building, beside Chroma.

{ratios}

{missing}
{sizes}"""


def write_report(runs: Sequence[Run], folder: Path) -> None:
    """Write ``search.md`` and ``search.svg`` into the folder.

    Args:
        runs: What `benchmarks.search` measured, one for each size, smallest first.
        folder: Where to.
    """
    page = PAGE.format(
        ratios=_ratios(runs),
        missing=_missing(runs),
        sizes="\n".join(_size(run) for run in runs),
    )
    (folder / "search.md").write_text(page, encoding="utf-8")
    _plot(runs, folder / "search.svg")


POSTGRESQL_PAGE: Final = """\
# Search on PostgreSQL beside bare SQL

Made by `python -m benchmarks.postgresql`, which starts a server of its own; the figures, with more
digits, are in [postgresql.json](postgresql.json).

{rows:,} documents of {dimensions:,} numbers, made as for [search.md](search.md). A filter asks for
an artifact type that 10%, 1% or 0.1% of them have. `MetaDatabase.vector_search` and two prepared
statements on a connection of asyncpg, with the same settings of the server, the same columns and
vectors passed by pgvector's own codec, are asked in turns of 20 queries. One statement goes through
the index, the other compares every row that the filter lets through. Whoever writes bare SQL for
one filter knows which is the better one; a search of ours finds out once a minute.

p50 ms / p95 ms / recall@10 of {queries} queries for each filter; **ratio** is the median of ours
divided by that of the faster statement which finds 99% or more.

{table}

The index was made in {build_s:.0f} s and has {index_mb:.0f} MB. Load at the end {load:.1f}.
{note}
{started} UTC; {processor}, {cores} cores, {memory_gb} GB, {system}, Python {python};
{versions}.
"""


def write_postgresql(run: Run, folder: Path) -> None:
    """Write ``postgresql.backend.md`` into the folder.

    Args:
        run: What `benchmarks.postgresql` measured.
        folder: Where to.
    """
    ours, *bare = run["systems"]
    labels = list(ours["searches"])
    rows = [[one["title"], *[_cell(one, label) for label in labels]] for one in (ours, *bare)]
    rows.append(["**ratio**", *[_beside_bare(ours, bare, label) for label in labels]])
    page = POSTGRESQL_PAGE.format(
        **{key: run[key] for key in ("rows", "dimensions", "queries", "build_s", "load")},
        **run["machine"],
        table=table(["", *labels], rows),
        index_mb=run["index_bytes"] / 1e6,
        note=f"\n{run['note']}\n" if run["note"] else "",
        started=run["started"][:16].replace("T", " "),
        versions=", ".join(f"{name} {version}" for name, version in run["versions"].items()),
    )
    (folder / "postgresql.md").write_text(page, encoding="utf-8")


def _cell(one: Run, label: str) -> str:
    found = one["searches"].get(label)
    if found is None:
        return ""
    return f"{number(found['p50_ms'])} / {number(found['p95_ms'])} / {found['recall']:.3f}"


def _beside_bare(ours: Run, bare: Sequence[Run], label: str) -> str:
    searches = [one["searches"][label] for one in bare if label in one["searches"]]
    enough = [found["p50_ms"] for found in searches if found["recall"] >= RECALL]
    return f"{ours['searches'][label]['p50_ms'] / min(enough):.2f}" if enough else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:" for _ in head[1:]]], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Three digits that count, as many as these figures are worth."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def _measured(run: Run) -> dict[str, Any]:
    return {one["system"]: one for one in run["systems"] if "failed" not in one}


def _labels(run: Run) -> list[str]:
    return list(next(iter(_measured(run).values()))["searches"])


def _ratios(runs: Sequence[Run]) -> str:
    labels = _labels(runs[0])
    rows = []
    for run in runs:
        systems = _measured(run)
        ours = systems[OURS]
        others = {name: one for name, one in systems.items() if name not in (OURS, NOT_A_STORE)}
        cells = []
        for label in labels:
            best = min(others.values(), key=_median(label))
            found = ours["searches"][label]
            ratio = found["p50_ms"] / best["searches"][label]["p50_ms"]
            low = "" if found["recall"] >= RECALL else f", recall {found['recall']:.3f}"
            cells.append(f"{ratio:.2f} ({best['title']}{low})")
        chroma = others.get("chroma")
        cells.append(f"{ours['build_s'] / chroma['build_s']:.2f}" if chroma else "not measured")
        rows.append([f"{run['rows']:,} x {run['dimensions']:,}", *cells])
    return table(["Documents x dimensions", *labels, "build"], rows)


def _median(label: str) -> Callable[[Run], float]:
    return lambda one: float(one["searches"][label]["p50_ms"])


def _missing(runs: Sequence[Run]) -> str:
    done = {(run["rows"], run["dimensions"]) for run in runs}
    missing = [f"{n:,} x {d:,}" for n, d in SIZES if (n, d) not in done]
    return f"Not measured yet: {', '.join(missing)}.\n" if missing else ""


def _size(run: Run) -> str:
    labels = _labels(run)
    rows = [_row(one, labels, run["rows"]) for one in run["systems"]]
    loads = [
        [one["searches"][label]["load"] for one in _measured(run).values()] for label in labels
    ]
    rows.append(["load while asked", *[span(load) for load in loads], "", "", "", ""])
    note = f"\n{run['note']}\n" if run["note"] else ""
    machine = run["machine"]
    versions = {systems()[one["system"]].package: one["version"] for one in run["systems"]}
    return f"""\
## {run["rows"]:,} documents, {run["dimensions"]:,} dimensions

p50 ms / p95 ms / recall@10 of {run["queries"]} queries for each filter.

{table(["", *labels, "build s (load)", "fresh process ms (load)", "disk KB", "memory KB"], rows)}
{note}
{run["started"][:16].replace("T", " ")} UTC; {machine["processor"]}, {machine["cores"]} cores,
{machine["memory_gb"]} GB, {machine["system"]}, Python {machine["python"]};
{", ".join(f"{package} {version}" for package, version in versions.items())}.
"""


def span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def _row(one: Run, labels: Sequence[str], rows: int) -> list[str]:
    title = f"**{one['title']}**" if one["system"] == OURS else one["title"]
    if "failed" in one:
        return [title, f"failed: {one['failed'].splitlines()[0][:80]}", *[""] * (len(labels) + 3)]
    cells = [
        f"{number(found['p50_ms'])} / {number(found['p95_ms'])} / {found['recall']:.3f}"
        for found in (one["searches"][label] for label in labels)
    ]
    return [
        title,
        *cells,
        f"{number(one['build_s'])} ({one['build_load'][1]:.1f})",
        f"{number(one['fresh_ms'])} ({one['first_load']:.1f})",
        number(one["disk_bytes"] / rows / 1000),
        number(one["memory_bytes"] / rows / 1000),
    ]


def _plot(runs: Sequence[Run], file: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    labels = _labels(runs[0])
    dimensions = sorted({run["dimensions"] for run in runs})
    # The same runs make the same file, and its text stays text.
    mpl.rcParams.update({"svg.hashsalt": "search", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(11, 1.2 + 2.9 * len(dimensions)), layout="constrained")
    panels = figure.subplots(len(dimensions), len(labels), sharex=True, sharey=True, squeeze=False)
    for row, size in zip(panels, dimensions, strict=True):
        for panel, label in zip(row, labels, strict=True):
            _lines(panel, [run for run in runs if run["dimensions"] == size], label)
            share = "all documents" if label == "all" else f"filtered to {label}"
            panel.set_title(f"{size:,} dimensions, {share}", fontsize=9)
        row[0].set_ylabel("median ms (log scale)")
    for panel in panels[-1]:
        panel.set_xlabel("documents (log scale)")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle("Nearest 10 of n documents, with their texts; lower is faster", fontsize=11)
    figure.savefig(file, metadata={"Date": None})


def _lines(panel: Any, runs: Sequence[Run], label: str) -> None:
    for name, colour in COLOURS.items():
        points = [
            (run["rows"], one["searches"][label]["p50_ms"], one["title"])
            for run in runs
            if (one := _measured(run).get(name)) is not None
        ]
        if points:
            rows, taken, titles = zip(*points, strict=True)
            ours, bare = name == OURS, name == NOT_A_STORE
            panel.plot(
                rows,
                taken,
                marker="o",
                markersize=6 if ours else 4,
                linewidth=2.5 if ours else 1.2,
                linestyle=":" if bare else "-",
                color=colour,
                label=titles[0],
                zorder=3 if ours else 2,
            )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(700, 145_000)
    panel.set_xticks([1_000, 10_000, 100_000], ["1,000", "10,000", "100,000"])
    panel.minorticks_off()
    panel.yaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    panel.grid(visible=True, linewidth=0.4, alpha=0.6)
