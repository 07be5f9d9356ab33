"""Commands that erase something from everywhere it left traces."""

from typing import TYPE_CHECKING, Annotated

import typer

from paracle_meta.cli import inputs, output
from paracle_meta.cli.groups import command_group, examples
from paracle_meta.cli.options import DryRun, Id, Json, Yes
from paracle_meta.cli.running import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from paracle_meta.database import MetaDatabase
    from paracle_meta.retention import EraseReport

    Erase = Callable[[MetaDatabase, bool], Awaitable[EraseReport]]

app = command_group(
    "Erase a session or a generation from everywhere it left something, down to the bytes.",
    "erase session build-7 --dry-run",
    "erase generation gen-0123 --templates --yes",
)


@app.command(epilog=examples("erase session build-7 --dry-run", "erase session build-7 --yes"))
def session(
    ctx: typer.Context,
    session_id: Annotated[
        str, typer.Argument(metavar="ID", help="The session, as `memory list` shows it.")
    ],
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase what is remembered of a session.

    Only memory knows of sessions; erase generations by their ids. The memory is written anew, so
    that nothing of it is left in the files. It may be repeated. Backups are not touched.
    """

    async def work(db: "MetaDatabase", dry_run: bool) -> "EraseReport":
        from paracle_meta.retention import erase_session

        return await erase_session(db, session_id, dry_run=dry_run)

    _erase(ctx, work, dry_run=dry_run, yes=yes, as_json=as_json)


@app.command(
    epilog=examples(
        "erase generation gen-0123 --dry-run", "erase generation gen-0123 --templates --yes"
    )
)
def generation(
    ctx: typer.Context,
    generation_id: Id,
    templates: Annotated[
        bool, typer.Option("--templates", help="Erase the templates made of it too.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase a generation and what tells of it.

    That is the feedback about it, and what searches and caches have made of it. A template that
    was made of it is kept and named, unless --templates is given: it holds the same text.
    Generations, feedback and templates are written anew with their indexes, so that nothing of it
    is left in the files. It may be repeated. Backups are not touched.
    """

    async def work(db: "MetaDatabase", dry_run: bool) -> "EraseReport":
        from paracle_meta.retention import erase_generation

        return await erase_generation(db, generation_id, templates=templates, dry_run=dry_run)

    _erase(ctx, work, dry_run=dry_run, yes=yes, as_json=as_json)


def _erase(ctx: typer.Context, work: "Erase", *, dry_run: bool, yes: bool, as_json: bool) -> None:
    if not dry_run:
        inputs.agree(lambda: _question(run(ctx, lambda db: work(db, True))), yes=yes)
    report = run(ctx, lambda db: work(db, dry_run))
    if as_json:
        output.print_json(report)
    else:
        output.print_fields({**report.rows, "cached vectors": report.cached_vectors})
    for template_id in report.kept:
        output.note(f"kept: template {template_id}, which holds its text; see --templates")
    for place in report.out_of_reach:
        output.note(f"not reached: {place}")
    if dry_run:
        output.note("Nothing was changed.")


def _question(report: "EraseReport") -> str:
    found = ", ".join(f"{name}: {number}" for name, number in report.rows.items())
    return f"Erase for good ({found})?"
