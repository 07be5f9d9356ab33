"""A plot of how the figures of `benchmarks.records` grow with the number of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.turns import Comparison

# Of Okabe and Ito, which those tell apart too who do not see red and green.
STYLES: Final = {
    "paracle": ("ours", "#d55e00"),
    "bare": ("bare driver", "#0072b2"),
    "cursor": ("bare aiosqlite by a cursor", "#56b4e9"),
    "daily": ("table of days", "#009e73"),
    "small": ("ours, always with 1,000 rows", "#e69f00"),
    "langgraph": ("LangGraph's store", "#cc79a7"),
}

PANELS: Final = {
    "get": "get one by id",
    "add": "add one, acknowledged",
    "recent": "list_recent(10)",
    "feedback": "get_with_feedback",
    "set": "memory set",
    "memory-get": "memory get",
    "cost": "record a cost",
    "report": "report of the month",
}

COLUMNS: Final = 4

LEAST_SPAN: Final = 10
"""How many times its lowest mark the highest one of a panel is at least."""


def plot(grown: Mapping[str, Sequence[Comparison]], file: Path) -> None:
    """Write one panel for each kind of work and database.

    Args:
        grown: Comparisons at several sizes, by the kind of work.
        file: Where to.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    works = [work for work in PANELS if work in grown]
    if not works:
        return
    databases = [("sqlite", "SQLite"), ("postgresql", "PostgreSQL")]
    # The same run makes the same file, and its text stays text.
    mpl.rcParams.update({"svg.hashsalt": "records", "svg.fonttype": "none", "font.size": 9})
    lines = -(-len(works) // COLUMNS)
    figure = Figure(figsize=(13, 1 + 5 * lines), layout="constrained")
    panels = figure.subplots(2 * lines, COLUMNS, sharex=True, squeeze=False)
    for panel in panels.flat:
        panel.set_visible(False)
    labels: dict[str, Any] = {}
    for n, work in enumerate(works):
        for below, (database, title) in enumerate(databases):
            panel = panels[2 * (n // COLUMNS) + below][n % COLUMNS]
            found = [one for one in grown[work] if one["database"] == database]
            labels |= _lines(panel, found)
            panel.set_title(f"{PANELS[work]}, {title}", fontsize=9)
    for row in panels:
        row[0].set_ylabel("median ms (log scale)")
    for panel in panels[-1]:
        panel.set_xlabel("rows (log scale)")
    figure.legend(
        list(labels.values()),
        list(labels),
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
    )
    sizes = [one["rows"] for found in grown.values() for one in found]
    title = f"From {min(sizes):,} rows to {max(sizes):,}; lower is faster"
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, metadata={"Date": None})


def _lines(panel: Any, found: Sequence[Comparison]) -> dict[str, Any]:
    from matplotlib.ticker import LogLocator

    labels = {}
    for name, (label, colour) in STYLES.items():
        points = [
            (one["rows"], one["systems"][name]["p50_ms"]) for one in found if name in one["systems"]
        ]
        if points:
            ours = name == "paracle"
            (labels[label],) = panel.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=6 if ours else 4,
                linewidth=2.5 if ours else 1.2,
                color=colour,
                zorder=3 if ours else 2,
            )
    panel.set_visible(True)
    panel.set_xscale("log")
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    # Drawn larger, what is noise would look like growth.
    wider = max(1, (LEAST_SPAN * low / high) ** 0.5)
    panel.set_ylim(low / wider, high * wider)
    # Some panels span less than a power of ten, and would have no mark at all.
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.minorticks_off()
    panel.xaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    panel.yaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    panel.grid(visible=True, linewidth=0.4, alpha=0.6)
    return labels
