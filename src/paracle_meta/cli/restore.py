"""The command that restores a backup."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from paracle_meta.cli import output
from paracle_meta.cli.backup import PgBin
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Json
from paracle_meta.cli.progress import Bars
from paracle_meta.cli.running import run

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=examples("restore backups/2026-01-31", "restore backups/today --replace"))
def restore(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `backup` has written.")],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Put it in the place of the records that are there."),
    ] = False,
    pg_bin: PgBin = None,
    as_json: Json = False,
) -> None:
    """Make the database what a backup of the same kind holds.

    Records that are there are replaced only with --replace. Of SQLite files they are kept then, as
    a backup in a folder beside; of a PostgreSQL database, make a backup before.
    """
    from paracle_meta.transfer import restore as restore_into

    with Bars(sys.stderr) as bars:
        report = run(
            ctx,
            lambda db: restore_into(db, folder, replace=replace, pg_bin=pg_bin, progress=bars.show),
        )
    if as_json:
        kept = None if report.kept is None else str(report.kept)
        output.print_json({**dataclasses.asdict(report), "kept": kept})
        return
    output.print_fields(
        {
            "restored": report.location,
            "as of": report.created_at,
            **{name.replace("_", " "): rows for name, rows in report.counts.items()},
        }
    )
    if report.kept is not None:
        output.note(f"What was there before is kept in {report.kept}")
