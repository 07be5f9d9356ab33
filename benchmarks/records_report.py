"""The figures of `benchmarks.records` as a page that people can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.records_page import PAGE
from benchmarks.records_plot import plot
from benchmarks.report import Run, number, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.turns import Comparison

TITLES: Final = {
    "get": "get one by id",
    "add": "add one, acknowledged",
    "add_many": "add_many",
    "mixed": "16 tasks, 80% reads, pool of 10",
    "cost": "record a cost",
    "report": "report of the month",
    "recent": "list_recent(10)",
    "feedback": "get_with_feedback",
    "set": "memory set",
    "memory-get": "memory get",
    "store-all": "store all, in batches of 1,000",
    "store-one": "store one more",
    "search": "search by meaning, nearest 10",
    "store-and-search": "store all, and make all searches",
    "import": "`import paracle_meta`",
    "help": "`paracle meta --help`",
    "cli-get": "`paracle meta memory get k`",
    "open": "open an up-to-date database",
    "open-first": "the same, first in a process, imports included",
}

DATABASES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "": ""}

BESIDE: Final = {
    "bare": "bare driver",
    "cursor": "bare aiosqlite by a cursor",
    "small": "ours with 1,000 rows",
    "daily": "table of days",
    "langgraph": "LangGraph's store",
    "langgraph-sqlite": "LangGraph's AsyncSqliteStore",
    "langgraph-postgresql": "LangGraph's AsyncPostgresStore",
    "chroma": "Chroma",
    "langchain": "langchain-postgres",
    "python": "bare interpreter",
    "sqlite-utils": "`sqlite-utils --help`",
}

OURS: Final = "paracle"


@dataclass(frozen=True)
class Reach:
    """What is to be reached, and what was.

    Attributes:
        title: The work.
        database: As it is written for people.
        beside: What it is compared with.
        wanted: The reach, such as ``<= 1.5x``.
        measured: What was measured, in the same unit.
        reached: Whether that is enough.
    """

    title: str
    database: str
    beside: str
    wanted: str
    measured: str
    reached: bool


class Figures:
    """The comparisons of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._comparisons: Sequence[Comparison] = run["comparisons"]

    def of(self, work: str, database: str | None = None) -> list[Comparison]:
        """Return the comparisons of a kind of work, smallest first."""
        found = [
            one
            for one in self._comparisons
            if one["work"] == work and database in (None, one["database"])
        ]
        return sorted(found, key=lambda one: int(one["rows"]))

    def last(self, work: str, database: str = "") -> Comparison | None:
        """Return the comparison with the most rows."""
        found = self.of(work, database)
        return found[-1] if found else None


def p50(one: Comparison, system: str = OURS) -> float:
    return float(one["systems"][system]["p50_ms"])


def ratio(one: Comparison, other: str, ours: str = OURS) -> float:
    return p50(one, ours) / p50(one, other)


MOST: Final[dict[tuple[str, str], float]] = {
    ("get", "sqlite"): 1.2,
    ("get", "postgresql"): 1.5,
    ("add", "sqlite"): 1.5,
    ("add", "postgresql"): 1.5,
    ("add_many", "sqlite"): 2,
    ("add_many", "postgresql"): 3,
}
"""How many times what a bare driver takes."""

THROUGHPUT: Final = 0.6
"""Of that of a bare pool."""

REPORT_MS: Final = 50
"""Of a report of the month, whatever the number of calls."""

GROWTH: Final = 1.5
"""How many times what it takes with a thousand rows."""

IMPORT_MS: Final = 60
OPEN_MS: Final = 30
"""More than what is bare."""

HELP: Final = 0.5
CLI: Final = 1.0
"""How many times what `sqlite-utils --help` takes."""

STORES: Final = {
    "paracle-sqlite": ("langgraph-sqlite", "chroma"),
    "paracle-postgresql": ("langgraph-postgresql", "langchain"),
}
"""Others that keep their data where ours does."""


def reaches(run: Run) -> Iterator[Reach]:
    """Yield all that is to be reached, as far as it was measured."""
    figures = Figures(run)
    for (work, database), most in MOST.items():
        if one := figures.last(work, database):
            yield _at_most(one, "bare", most)
    if one := figures.last("mixed", "postgresql"):
        share = p50(one, "bare") / p50(one)
        yield _reach(
            one,
            "bare",
            f">= {THROUGHPUT:.0%} of its throughput",
            f"{share:.0%}",
            share >= THROUGHPUT,
        )
    for database in ("sqlite", "postgresql"):
        if one := figures.last("report", database):
            taken = p50(one)
            yield _reach(one, "", f"< {REPORT_MS} ms", f"{number(taken)} ms", taken < REPORT_MS)
        same = [s["same_to_the_cent"] for s in run["sums"] if s["database"] == database]
        if one and same:
            said = "the same" if all(same) else "not the same"
            yield _reach(one, "the sum of all rows", "the same to the cent", said, all(same))
        for work in ("recent", "feedback"):
            if one := figures.last(work, database):
                yield _at_most(one, "small", GROWTH)
        for work in ("set", "memory-get"):
            if one := figures.last(work, database):
                yield _faster(one, OURS, "langgraph")
    for work in ("store-and-search", "store-all", "store-one", "search"):
        if one := figures.last(work):
            for ours, others in STORES.items():
                fastest = min(others, key=lambda other: p50(one, other))
                yield _faster(one, ours, fastest)
    yield from _starts(figures)


def _starts(figures: Figures) -> Iterator[Reach]:
    if one := figures.last("import"):
        yield _more(one, IMPORT_MS, "python")
    for work, most in (("help", HELP), ("cli-get", CLI)):
        if one := figures.last(work):
            yield _at_most(one, "sqlite-utils", most)
    for database in ("sqlite", "postgresql"):
        if one := figures.last("open", database):
            yield _more(one, OPEN_MS, "bare")
            imported = "alembic" in one["imported"]
            yield _reach(
                one, "", "no import of Alembic", "one" if imported else "none", not imported
            )


def _reach(
    one: Comparison, beside: str, wanted: str, measured: str, reached: bool, database: str = ""
) -> Reach:
    rows = f", {one['rows']:,} rows" if one["rows"] else ""
    return Reach(
        f"{TITLES[one['work']]}{rows}",
        DATABASES[database or one["database"]],
        BESIDE.get(beside, beside),
        wanted,
        measured,
        reached,
    )


def _at_most(one: Comparison, other: str, most: float) -> Reach:
    times = ratio(one, other)
    return _reach(one, other, f"<= {most:g}x", f"{times:.2f}x", times <= most)


def _faster(one: Comparison, ours: str, other: str) -> Reach:
    times = ratio(one, other, ours)
    database = ours.removeprefix(OURS).removeprefix("-")
    return _reach(one, other, "< 1x", f"{times:.2f}x", times < 1, database)


def _more(one: Comparison, most: float, other: str) -> Reach:
    more = p50(one) - p50(one, other)
    return _reach(one, other, f"<= {most} ms more", f"{more:.1f} ms more", more <= most)


def reach_table(found: Sequence[Reach]) -> str:
    """Return the table of what is to be reached; what is missed is in bold."""
    rows = [
        [
            one.title,
            one.database,
            one.beside,
            one.wanted,
            one.measured if one.reached else f"**{one.measured}**",
        ]
        for one in found
    ]
    return table(["work", "database", "beside", "reach", "measured"], rows)


def details(run: Run) -> str:
    """Return every figure in a table of its own kind."""
    parts = []
    for work, title in TITLES.items():
        found = Figures(run).of(work)
        if not found:
            continue
        names = list(dict.fromkeys(name for one in found for name in one["systems"]))
        rows = [
            [
                f"{DATABASES[one['database']]} {one['rows']:,}"
                if one["rows"]
                else DATABASES[one["database"]],
                *[_cell(one, name) for name in names],
                f"{one['load']:.1f}",
            ]
            for one in sorted(found, key=lambda one: one["database"], reverse=True)
        ]
        head = ["rows", *[_title(name) for name in names], "load"]
        parts.append(f"### {title}\n\n{table(head, rows)}\n{_recall(found[-1])}")
    return "\n".join(parts)


def _place(one: Comparison) -> str:
    rows = f"{one['rows']:,}" if one["rows"] else ""
    return f"{DATABASES[one['database']]} {rows}".strip()


def _title(name: str) -> str:
    if name.startswith(OURS):
        return f"**ours{' on ' + DATABASES[name.removeprefix(OURS + '-')] if '-' in name else ''}**"
    return BESIDE[name]


def _cell(one: Comparison, name: str) -> str:
    found = one["systems"].get(name)
    if found is None:
        return ""
    if found["calls"] == 1:
        return number(found["p50_ms"])
    return f"{number(found['p50_ms'])} / {number(found['p95_ms'])}"


def _recall(one: Comparison) -> str:
    if "recall" not in one:
        return ""
    found = ", ".join(f"{_title(name)} {value:.3f}" for name, value in one["recall"].items())
    return f"\nRecall@10: {found}.\n"


def _sums(run: Run) -> str:
    rows = [
        [
            f"{DATABASES[one['database']]} {one['rows']:,}",
            f"{one['report']:,.6f}",
            f"{one['exact']:,.6f}",
            f"{abs(one['daily_differs']):.1e}",
        ]
        for one in run["sums"]
    ]
    return table(["rows", "report, $", "sum of all rows, $", "table of days is off by, $"], rows)


def write_records(run: Run, folder: Path) -> None:
    """Write ``records.md`` and ``records.svg`` into the folder.

    Args:
        run: What `benchmarks.records` measured.
        folder: Where to.
    """
    page = PAGE.format(
        **run["machine"],
        reaches=reach_table(list(reaches(run))),
        details=details(run),
        sums=_sums(run) if run["sums"] else "Not measured in this run.",
        documents=run["documents"],
        dimensions=run["dimensions"],
        minutes=run["minutes"],
        load=run["load"],
        note=f"\n{run['note']}\n" if run["note"] else "",
        started=run["started"][:16].replace("T", " "),
        versions=", ".join(f"{name} {version}" for name, version in run["versions"].items()),
    )
    (folder / "records.md").write_text(page, encoding="utf-8")
    figures = Figures(run)
    grown: dict[str, list[Any]] = {work: figures.of(work) for work in TITLES}
    plot({work: found for work, found in grown.items() if len(found) > 2}, folder / "records.svg")
