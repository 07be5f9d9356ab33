"""The figures of `benchmarks.transfer` as a page that people can read."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.report import Run, number, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGE: Final = """\
# Exports and copies

Made by `make bench-transfer`, which starts a PostgreSQL server of its own; the figures, with more
digits, are in [transfer.json](transfer.json).

Generations have texts of 200 to 2,000 characters and some JSON, templates have short texts and a
vector of {dimensions:,} numbers. Both are in SQLite files. Each pair is measured {rounds} times in
turns, who begins changing; a figure is the median. Above 1, ours is faster.

## A copy to PostgreSQL, beside COPY

`copy_database(..., verify=False)` into an empty database, beside one `copy_records_to_table` of
asyncpg into the same tables, with the rows ready in memory as asyncpg wants them. Ours also reads
the files, twice, as it looks first for what cannot be kept. For a search by words it makes the
words of each template, and stores them in a table of their own: **with words**, COPY fills that one
too, from memory. No index of vectors is made on either side.

{copies}

## An export as SQL, beside `.dump`

`export_sql` to a file, beside `.dump` of SQLite's own shell for the six files one after the other.
Both write every row once as SQL text; the shell also writes the tables that searches use.

{exports}

## Memory of an export

The most resident memory of a process that exports {memory_rows:,} generations and
{memory_vectors:,} templates with vectors of {memory_width:,} numbers, Python itself included.

{memory}

Load at the end {load:.1f}, the work of the benchmark included; above the number of cores, others
were in the way.
{note}
{started} UTC; {processor}, {cores} cores, {memory_gb} GB, {system}, Python {python};
{versions}.
"""


def write_transfer(run: Run, folder: Path) -> None:
    """Write ``transfer.md`` into the folder.

    Args:
        run: What `benchmarks.transfer` measured.
        folder: Where to.
    """
    names = {"generations": "generations", "templates": "templates with vectors"}
    sizes = ("dimensions", "memory_rows", "memory_vectors", "memory_width", "load")
    page = PAGE.format(
        **{key: run[key] for key in sizes},
        **run["machine"],
        rounds=len(run["copies"]["generations"]["ours"]),
        copies=table(
            ["", "rows", "ours, rows/s", "COPY, rows/s", "**ratio**"],
            [
                row
                for name, one in run["copies"].items()
                for row in (
                    _speed(names[name], one, "bare"),
                    _speed(f"{names[name]}, COPY with words", one, "bare_with_words"),
                )
                if row
            ],
        ),
        exports=table(
            ["", "rows", "ours, rows/s", ".dump, rows/s", "**ratio**", "ours MB", ".dump MB"],
            [
                [
                    *_speed(names[name], one, "dump"),
                    number(one["ours_bytes"] / 1e6),
                    number(one["dump_bytes"] / 1e6),
                ]
                for name, one in run["exports"].items()
            ],
        ),
        memory=table(
            ["format", "peak MB", "seconds", "file MB"],
            [
                [
                    form,
                    f"{one['peak_bytes'] / 1e6:.0f}",
                    number(one["seconds"]),
                    f"{one['file_bytes'] / 1e6:,.0f}",
                ]
                for form, one in run["memory"].items()
            ],
        ),
        note=f"\n{run['note']}\n" if run["note"] else "",
        started=run["started"][:16].replace("T", " "),
        versions=", ".join(f"{name} {version}" for name, version in run["versions"].items()),
    )
    (folder / "transfer.md").write_text(page, encoding="utf-8")


def _speed(name: str, one: Run, other: str) -> list[str]:
    """Return the cells of ours beside another one; none where that was not measured."""
    if other not in one:
        return []
    ours, theirs = _rate(one["rows"], one["ours"]), _rate(one["rows"], one[other])
    return [name, f"{one['rows']:,}", f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f}"]


def _rate(rows: int, seconds: Sequence[float]) -> float:
    return rows / median(seconds)
