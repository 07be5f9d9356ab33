"""The command that changes the embedding model."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from paracle_meta.cli import output
from paracle_meta.cli.embedding import Collection, run_with_bars
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Json
from paracle_meta.cli.running import load

if TYPE_CHECKING:
    from paracle_meta.config import DatabaseSettings

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=examples("reembed", "reembed --to ollama/nomic-embed-text"))
def reembed(
    ctx: typer.Context,
    collection: Collection = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="PROVIDER/MODEL",
            help="The model, as `db status` shows it; the configured one if left out.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the vectors anew with another embedding model; searches go on meanwhile.

    They answer from the old vectors until each record has a new one, and then all are exchanged at
    once. It may be stopped at any point; run again, it goes on from there.
    """
    run_with_bars(
        ctx, lambda db, show: db.reembed(collection, to=to, progress=show), as_json=as_json
    )
    if to is not None:
        _say_what_to_configure(load(ctx).database, to, collection)


def _say_what_to_configure(
    settings: "DatabaseSettings", model: str, collection: str | None
) -> None:
    from paracle_meta.embeddings.registry import settings_for_model
    from paracle_meta.schema import COLLECTIONS

    wanted = dict(settings_for_model(settings, model))
    lines = [
        f"  {name}: {json.dumps(wanted[name])}" for name, value in settings if value != wanted[name]
    ]
    if lines:
        output.note("From now on, configure this model:\n")
        output.note("\n".join(["database:", *lines]))
        # One setting says which model all collections are searched with.
        for other in COLLECTIONS.keys() - {collection} if collection else ():
            output.note(
                f"\nThen {other} has to be changed too, or cannot be searched by meaning:"
                f"\n  paracle meta reembed {other}"
            )
