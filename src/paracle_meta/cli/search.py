"""The command that searches a collection."""

from typing import Annotated, Literal

import typer

from paracle_meta.cli import inputs, output
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Filter, Json, MinSimilarity, Mode, Query, TopK
from paracle_meta.cli.running import run

app = typer.Typer(rich_markup_mode=None, add_completion=False)

COLUMNS = {
    "templates": {"id": "id", "artifact_type": "type", "name": "name"},
    "best_practices": {"id": "id", "category": "category", "title": "title"},
}


@app.command(
    epilog=examples(
        'search templates "security audit agent" --top-k 5',
        'search templates "find bugs" --filter \'{"artifact_type": "agent"}\' --json',
        'search best_practices "flaky tests" --min-similarity 0.3',
        "search templates pytest-xdist --mode hybrid",
    )
)
def search(
    ctx: typer.Context,
    collection: Annotated[
        Literal["templates", "best_practices"],
        typer.Argument(metavar="COLLECTION", help="templates or best_practices."),
    ],
    query: Query,
    top_k: TopK = 10,
    mode: Mode = "vector",
    filters: Filter = None,
    min_similarity: MinSimilarity = None,
    as_json: Json = False,
) -> None:
    """Find the templates or best practices that fit a text best, best first.

    The default compares the meaning. --mode text finds exact names, and needs no embedding provider
    and no vectors; --mode hybrid compares both.
    """
    conditions = inputs.parse_filter(collection, filters)
    matches = run(
        ctx,
        lambda db: db.vector_search(
            collection,
            inputs.text_or_stdin(query),
            top_k,
            mode=mode,
            filters=conditions,
            min_similarity=min_similarity,
        ),
    )
    output.print_matches(matches, COLUMNS[collection], mode=mode, as_json=as_json)
