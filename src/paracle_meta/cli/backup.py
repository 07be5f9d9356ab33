"""The command that backs a database up."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from paracle_meta.cli import output
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Json
from paracle_meta.cli.progress import Bars
from paracle_meta.cli.running import run

app = typer.Typer(rich_markup_mode=None, add_completion=False)

PgBin: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--pg-bin",
        metavar="FOLDER",
        help="Where pg_dump and pg_restore are; looked for in PATH if left out.",
    ),
]


@app.command(epilog=examples("backup backups/2026-01-31", "backup /mnt/backup/today --json"))
def backup(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to; it must not exist, or be empty.")
    ],
    pg_bin: PgBin = None,
    as_json: Json = False,
) -> None:
    """Back up the whole database into a new folder, while others go on writing.

    It is a copy of one moment and is checked before it gets its name. On PostgreSQL it is made by
    pg_dump, which must not be older than the server.
    """
    from paracle_meta.transfer import back_up

    with Bars(sys.stderr) as bars:
        report = run(ctx, lambda db: back_up(db, folder, pg_bin=pg_bin, progress=bars.show))
    if as_json:
        output.print_json({**dataclasses.asdict(report), "folder": str(report.folder)})
    else:
        output.print_fields(
            {
                "backup": str(report.folder),
                "of": report.created_at,
                "bytes": report.size,
                **{name.replace("_", " "): rows for name, rows in report.counts.items()},
            }
        )
