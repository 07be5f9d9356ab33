"""What `embed` and `reembed` have in common: both take long, and can be stopped and run again."""

import sys
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from paracle_meta.cli import output
from paracle_meta.cli.progress import Bars
from paracle_meta.cli.running import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from paracle_meta.database import MetaDatabase
    from paracle_meta.records import EmbeddingReport

    Reports: TypeAlias = Mapping[str, EmbeddingReport]
    """One a collection."""

Collection = Annotated[
    Literal["templates", "best_practices"] | None,
    typer.Argument(metavar="[COLLECTION]", help="templates or best_practices; both if left out."),
]


def run_with_bars(
    ctx: typer.Context,
    work: "Callable[[MetaDatabase, Callable[[str, int, int], None]], Awaitable[Reports]]",
    *,
    as_json: bool,
) -> None:
    """Do the work, show how far it is, and print what was done."""
    try:
        with Bars(sys.stderr) as bars:
            reports = run(ctx, lambda db: work(db, bars.show))
    except KeyboardInterrupt:
        output.note("What was embedded so far is kept; the same command goes on from there.")
        raise
    if as_json:
        output.print_json(reports)
    else:
        output.print_fields({name.replace("_", " "): _said(reports[name]) for name in reports})


def _said(report: "EmbeddingReport") -> str:
    if not report.embedded and not report.failed:
        return "nothing to do"
    records = "1 record" if report.embedded == 1 else f"{report.embedded} records"
    said = f"{records} embedded with {report.model}"
    return f"{said}, {report.failed} refused" if report.failed else said
