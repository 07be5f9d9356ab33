"""Commands for what a generator made."""

from typing import Annotated

import typer

from paracle_meta.cli import inputs, output
from paracle_meta.cli.groups import command_group, examples
from paracle_meta.cli.options import (
    PAGE,
    After,
    File,
    Filter,
    Id,
    Json,
    Limit,
    NewId,
    Score,
    Since,
    Type,
    Until,
)
from paracle_meta.cli.running import run

app = command_group(
    "What a generator made.",
    "generations list --type agent --limit 10",
    "generations add agent.md --type agent --name Reviewer",
    "generations show gen-0199b4c2f3a8... --feedback",
)

COLUMNS = {
    "id": "id",
    "artifact_type": "type",
    "name": "name",
    "created_at": "made on",
}

Name = Annotated[str | None, typer.Option(metavar="NAME", help="What it is called.")]
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="What was asked for.")]
Provider = Annotated[str | None, typer.Option(metavar="NAME", help="Who ran the model.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="The model's name.")]
Tokens = Annotated[
    int | None,
    typer.Option("--tokens", metavar="N", help="Input and output tokens together."),
]
Cost = Annotated[
    float | None, typer.Option(metavar="USD", help="US dollars; leave it out where unknown.")
]
Metadata = Annotated[str | None, typer.Option(metavar="JSON", help="Any JSON object.")]


@app.command(
    "list",
    epilog=examples(
        "generations list --type agent --since 2026-03-01",
        'generations list --filter \'{"quality_score": {"$gte": 8}}\' --json',
    ),
)
def list_(
    ctx: typer.Context,
    limit: Limit = PAGE,
    after: After = None,
    artifact_type: Type = None,
    provider: Provider = None,
    model: Model = None,
    since: Since = None,
    until: Until = None,
    filters: Filter = None,
    as_json: Json = False,
) -> None:
    """List generations, newest first."""
    from paracle_meta.repositories import GenerationRepository

    conditions = inputs.conditions(
        "generations",
        since,
        until,
        filters,
        artifact_type=artifact_type,
        provider=provider,
        model=model,
    )
    records = run(ctx, lambda db: GenerationRepository(db).list(limit, after, **conditions))
    output.print_list(records, COLUMNS, as_json=as_json, limit=limit)


@app.command(epilog=examples("generations count --type workflow --until 2026-04-01"))
def count(
    ctx: typer.Context,
    artifact_type: Type = None,
    provider: Provider = None,
    model: Model = None,
    since: Since = None,
    until: Until = None,
    filters: Filter = None,
    as_json: Json = False,
) -> None:
    """Print how many generations there are."""
    from paracle_meta.repositories import GenerationRepository

    conditions = inputs.conditions(
        "generations",
        since,
        until,
        filters,
        artifact_type=artifact_type,
        provider=provider,
        model=model,
    )
    number = run(ctx, lambda db: GenerationRepository(db).count(**conditions))
    if as_json:
        output.print_json({"count": number})
    else:
        output.print_line(str(number))


@app.command(
    epilog=examples("generations show ID --feedback", "generations show ID --content > agent.md")
)
def show(
    ctx: typer.Context,
    generation_id: Id,
    content: Annotated[bool, typer.Option("--content", help="Print its text only.")] = False,
    feedback: Annotated[bool, typer.Option("--feedback", help="Print its feedback too.")] = False,
    as_json: Json = False,
) -> None:
    """Show one generation."""
    from paracle_meta.repositories import GenerationRepository

    generation, ratings = run(
        ctx, lambda db: GenerationRepository(db).get_with_feedback(generation_id)
    )
    if as_json:
        record = output.plain(generation)
        output.print_json({**record, "feedback": ratings} if feedback else record)
    elif content:
        output.print_text(generation.content)
    else:
        output.print_record(generation, as_json=False, text="content")
        if feedback:
            output.print_line("")
            for rating in ratings:
                output.print_line(f"rating {rating.rating}: {rating.comment or ''}".rstrip(": "))


@app.command(
    epilog=examples(
        "generations add agent.md --type agent --name Reviewer",
        'generations add - --type skill --name "SQL tuning" < tuning.md',
    )
)
def add(
    ctx: typer.Context,
    file: File,
    artifact_type: Annotated[
        str,
        typer.Option("--type", metavar="TYPE", help="Artifact type, such as agent or workflow."),
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="What it is called.")],
    description: Description = None,
    quality_score: Score = None,
    provider: Provider = None,
    model: Model = None,
    tokens_used: Tokens = None,
    cost: Cost = None,
    metadata: Metadata = None,
    generation_id: NewId = None,
    as_json: Json = False,
) -> None:
    """Store a generation and print its id."""
    from paracle_meta.records import GenerationResult
    from paracle_meta.repositories import GenerationRepository

    identity = inputs.identity(generation_id)
    record = GenerationResult(
        **identity,
        artifact_type=artifact_type,
        name=name,
        description=description,
        content=inputs.read_text(file),
        quality_score=quality_score,
        provider=provider,
        model=model,
        tokens_used=tokens_used,
        cost=cost,
        metadata=None if metadata is None else inputs.parse_json(metadata),
    )
    stored = run(ctx, lambda db: GenerationRepository(db).add(record))
    output.print_stored(stored, as_json=as_json)


@app.command(epilog=examples("generations update ID --quality-score 9"))
def update(
    ctx: typer.Context,
    generation_id: Id,
    artifact_type: Type = None,
    name: Name = None,
    description: Description = None,
    content: Annotated[
        str | None, typer.Option(metavar="FILE", help="File with the new text, or - for stdin.")
    ] = None,
    quality_score: Score = None,
    provider: Provider = None,
    model: Model = None,
    tokens_used: Tokens = None,
    cost: Cost = None,
    metadata: Metadata = None,
    as_json: Json = False,
) -> None:
    """Change a generation."""
    from paracle_meta.repositories import GenerationRepository

    changes = inputs.given(
        artifact_type=artifact_type,
        name=name,
        description=description,
        content=None if content is None else inputs.read_text(content),
        quality_score=quality_score,
        provider=provider,
        model=model,
        tokens_used=tokens_used,
        cost=cost,
        metadata=None if metadata is None else inputs.parse_json(metadata),
    )
    stored = run(ctx, lambda db: GenerationRepository(db).update(generation_id, **changes))
    output.print_stored(stored, as_json=as_json)


@app.command(epilog=examples("generations delete ID --cascade"))
def delete(
    ctx: typer.Context,
    generation_id: Id,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Delete its feedback too; else it stays with it.")
    ] = False,
) -> None:
    """Delete a generation."""
    from paracle_meta.repositories import GenerationRepository

    run(ctx, lambda db: GenerationRepository(db).delete(generation_id, cascade=cascade))
    output.note("Deleted.")
