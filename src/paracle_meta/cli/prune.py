"""The command that deletes what is old."""

from typing import TYPE_CHECKING, Annotated

import typer

from paracle_meta.cli import inputs, output
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import DryRun, Json, Yes
from paracle_meta.cli.running import run

if TYPE_CHECKING:
    from paracle_meta.retention import PruneReport

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=examples(
        "prune generations costs --older-than 90d --dry-run",
        "prune memory --older-than 2w --yes",
        "prune feedback --before 2026-01-01",
    )
)
def prune(
    ctx: typer.Context,
    kinds: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND",
            help="generations, templates, feedback, costs, memory, best_practices: some of them.",
        ),
    ],
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN", help="How old: a number with w, d, h, m or s, such as 90d or 12h."
        ),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="What is older than this (ISO 8601; UTC unless it names an offset).",
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete what is old, and print how many records of each kind.

    Generations, feedback and costs are as old as they were made. Templates and best practices age
    from their last change or use, memory from when a value was last set. The feedback about a
    generation goes with it; a template that was made of it stays. Reports of costs lack what was
    pruned. It asks before; where nobody can be asked, give --yes.
    """
    if (older_than is None) == (before is None):
        raise typer.BadParameter("give --older-than or --before, to say how old")
    span = None if older_than is None else inputs.parse_duration(older_than)
    moment = inputs.parse_time(before)

    def pruned(*, dry_run: bool) -> "PruneReport":
        from paracle_meta.retention import prune as prune_old

        return run(
            ctx, lambda db: prune_old(db, kinds, older_than=span, before=moment, dry_run=dry_run)
        )

    if not dry_run:
        inputs.agree(lambda: _question(pruned(dry_run=True)), yes=yes)
    report = pruned(dry_run=dry_run)
    if as_json:
        output.print_json(report)
        return
    output.print_fields({name.replace("_", " "): number for name, number in report.rows.items()})
    if dry_run:
        output.note("Nothing was changed.")


def _question(report: "PruneReport") -> str:
    found = ", ".join(f"{name.replace('_', ' ')}: {n}" for name, n in report.rows.items())
    return f"Delete what is older than {report.before:%Y-%m-%d %H:%M} UTC ({found})?"
