"""The command that stores what a file says."""

import itertools
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paracle_meta.cli import output
from paracle_meta.cli.errors import FAILURE
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Json, Kinds
from paracle_meta.cli.progress import Bars
from paracle_meta.cli.running import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paracle_meta.database import MetaDatabase
    from paracle_meta.transfer import ImportReport

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SHOWN_LINES = 20
"""Bad lines that are named: as many as a person reads; --json has more of them."""


@app.command(
    epilog=examples(
        "import backup.jsonl.gz",
        "import records/ --kind best_practices",
        "import - --strict < backup.sql",
    )
)
def import_(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="JSON Lines, SQL of an export, or a folder; - for stdin."
        ),
    ],
    kinds: Kinds = [],  # noqa: B006 - typer makes a new one
    strict: Annotated[
        bool, typer.Option("--strict", help="Store nothing unless every line can be stored.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Store what a file says: of an export, or JSON Lines that somebody else wrote.

    What is stored already stays as it is, so a file may be imported again. A line that cannot be
    stored is named with its reason, and the others are stored; the exit code is 1 then.
    """
    from paracle_meta.exceptions import RejectedLinesError

    async def work(db: "MetaDatabase") -> "ImportReport":
        from paracle_meta.transfer import import_file

        return await import_file(
            db,
            sys.stdin.buffer if source == "-" else source,
            kinds=kinds or None,
            strict=strict,
            progress=lambda name, done, total: bars.show(name, done, total or done),
        )

    try:
        with Bars(sys.stderr) as bars:
            report = run(ctx, work)
    except RejectedLinesError as error:
        _name(error.lines, 0)
        raise
    if as_json:
        output.print_json(report)
    else:
        _print(report)
        _name(report.rejected, report.more_rejected)
    if report.rejected:
        raise typer.Exit(FAILURE)


def _print(report: "ImportReport") -> None:
    names = [*report.added, *(name for name in report.unchanged if name not in report.added)]
    for name in names:
        said = [f"{report.added[name]} added"] if name in report.added else []
        if name in report.unchanged:
            said.append(f"{report.unchanged[name]} already there")
        output.print_line(f"{name.replace('_', ' ')}: {', '.join(said)}")
    if not names and not report.rejected:
        output.note("Nothing to import.")
    for name, number in report.without_vector.items():
        output.note(
            f"{number} {name.replace('_', ' ')} have no vector; `paracle meta embed` makes them."
        )


def _name(rejected: "Mapping[Any, str]", more: int) -> None:
    for place, reason in itertools.islice(rejected.items(), SHOWN_LINES):
        output.note(output.harmless(f"line {place}: {reason}"))
    more += max(0, len(rejected) - SHOWN_LINES)
    if more:
        output.note(f"... and {more} more lines")
