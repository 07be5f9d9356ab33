"""The command that searches a collection by meaning."""

from typing import Annotated, Literal

import typer

from paracle_meta.cli import inputs, output
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Filter, Json, MinSimilarity, Query, TopK
from paracle_meta.cli.running import run

app = typer.Typer(rich_markup_mode=None, add_completion=False)

COLUMNS = {
    "templates": {"similarity": "similarity", "id": "id", "artifact_type": "type", "name": "name"},
    "best_practices": {
        "similarity": "similarity",
        "id": "id",
        "category": "category",
        "title": "title",
    },
}


@app.command(
    epilog=examples(
        'search templates "security audit agent" --top-k 5',
        'search templates "find bugs" --filter \'{"artifact_type": "agent"}\' --json',
        'search best_practices "flaky tests" --min-similarity 0.3',
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
    filters: Filter = None,
    min_similarity: MinSimilarity = None,
    as_json: Json = False,
) -> None:
    """Find the templates or best practices closest in meaning, most similar first."""
    conditions = inputs.parse_filter(collection, filters)
    matches = run(
        ctx,
        lambda db: db.vector_search(
            collection,
            inputs.text_or_stdin(query),
            top_k,
            filters=conditions,
            min_similarity=min_similarity,
        ),
    )
    output.print_matches(matches, COLUMNS[collection], as_json=as_json)
