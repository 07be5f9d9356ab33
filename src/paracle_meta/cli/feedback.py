"""Commands for what people thought of generations."""

from typing import Annotated

import typer

from paracle_meta.cli import inputs, output
from paracle_meta.cli.groups import command_group, examples
from paracle_meta.cli.options import PAGE, After, Filter, Json, Limit, NewId, Since, Until
from paracle_meta.cli.running import run

app = command_group(
    "Ratings of generations.",
    'feedback add gen-0199b4c2f3a8... 5 --comment "Works as it stands."',
    "feedback list --generation gen-0199b4c2f3a8...",
)

COLUMNS = {
    "id": "id",
    "generation_id": "generation",
    "rating": "rating",
    "comment": "comment",
    "created_at": "given on",
}


@app.command(
    "list",
    epilog=examples(
        "feedback list --generation gen-0199b4c2f3a8...",
        'feedback list --filter \'{"rating": {"$lte": 2}}\' --json',
    ),
)
def list_(
    ctx: typer.Context,
    limit: Limit = PAGE,
    after: After = None,
    generation_id: Annotated[
        str | None,
        typer.Option("--generation", metavar="ID", help="Only about this generation."),
    ] = None,
    since: Since = None,
    until: Until = None,
    filters: Filter = None,
    as_json: Json = False,
) -> None:
    """List feedback, newest first."""
    from paracle_meta.repositories import FeedbackRepository

    conditions = inputs.conditions("feedback", since, until, filters, generation_id=generation_id)
    records = run(ctx, lambda db: FeedbackRepository(db).list(limit, after, **conditions))
    output.print_list(records, COLUMNS, as_json=as_json, limit=limit)


@app.command(
    epilog=examples('feedback add gen-0199b4c2f3a8... 4 --comment "Misses the edge cases."')
)
def add(
    ctx: typer.Context,
    generation_id: Annotated[
        str, typer.Argument(metavar="GENERATION", help="The id of the generation.")
    ],
    rating: Annotated[int, typer.Argument(metavar="RATING", help="1 (bad) to 5 (excellent).")],
    comment: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; - reads it from stdin.")
    ] = None,
    feedback_id: NewId = None,
    as_json: Json = False,
) -> None:
    """Rate a generation and print the id of the feedback."""
    from paracle_meta.records import Feedback
    from paracle_meta.repositories import FeedbackRepository

    identity = inputs.identity(feedback_id)
    record = Feedback(
        **identity,
        generation_id=generation_id,
        rating=rating,
        comment=None if comment is None else inputs.text_or_stdin(comment),
    )
    output.print_stored(run(ctx, lambda db: FeedbackRepository(db).add(record)), as_json=as_json)
