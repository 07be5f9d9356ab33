"""The command that makes the vector indexes."""

from typing import Annotated, Literal

import typer

from paracle_meta.cli import output
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Json
from paracle_meta.cli.running import run

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=examples("index", "index templates"))
def index(
    ctx: typer.Context,
    collection: Annotated[
        Literal["templates", "best_practices"] | None,
        typer.Argument(
            metavar="[COLLECTION]", help="templates or best_practices; both if left out."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the index that searches by meaning use anew; searches go on meanwhile.

    A program that runs for long does this by itself. Collections of a few thousand records need no
    index: each record is compared.
    """
    rows = run(ctx, lambda db: db.build_index(collection))
    if as_json:
        output.print_json(rows)
    else:
        output.print_fields({name.replace("_", " "): _said(rows[name]) for name in rows})


def _said(rows: int) -> str:
    if rows == 0:
        return "needs no index"
    return "1 record" if rows == 1 else f"{rows} records"
