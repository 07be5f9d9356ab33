"""The command that embeds what has no vector."""

import typer

from paracle_meta.cli.embedding import Collection, run_with_bars
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Json

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=examples("embed", "embed templates"))
def embed(ctx: typer.Context, collection: Collection = None, as_json: Json = False) -> None:
    """Embed the records that were stored without a vector, as the provider was away.

    `paracle meta db status` says how many there are. It may be stopped at any point; run again, it
    goes on from there.
    """
    run_with_bars(
        ctx, lambda db, show: db.embed_missing(collection, progress=show), as_json=as_json
    )
