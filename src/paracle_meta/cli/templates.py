"""Commands for texts good enough to start the next one from."""

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
    MinSimilarity,
    Mode,
    NewId,
    Query,
    Score,
    Since,
    TopK,
    Type,
    Until,
)
from paracle_meta.cli.running import run

app = command_group(
    "Texts good enough to start the next one from.",
    'templates search "security audit agent" --type agent',
    "templates promote --qualified",
    "templates use ID > agent.md",
)

COLUMNS = {
    "id": "id",
    "artifact_type": "type",
    "name": "name",
    "quality_score": "score",
    "usage_count": "used",
}
MATCH_COLUMNS = {"id": "id", "artifact_type": "type", "name": "name"}

Source = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Where it came from, as generation:ID.")
]
Pattern = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What it is good for, in words; searches compare this."),
]


@app.command(
    "list", epilog=examples("templates list --type agent", "templates list --limit 10 --json")
)
def list_(
    ctx: typer.Context,
    limit: Limit = PAGE,
    after: After = None,
    artifact_type: Type = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    filters: Filter = None,
    as_json: Json = False,
) -> None:
    """List templates, newest first."""
    from paracle_meta.repositories import TemplateRepository

    conditions = inputs.conditions(
        "templates", since, until, filters, artifact_type=artifact_type, source=source
    )
    records = run(ctx, lambda db: TemplateRepository(db).list(limit, after, **conditions))
    output.print_list(records, COLUMNS, as_json=as_json, limit=limit)


@app.command(epilog=examples("templates show ID", "templates show ID --content > agent.md"))
def show(
    ctx: typer.Context,
    template_id: Id,
    content: Annotated[bool, typer.Option("--content", help="Print its text only.")] = False,
    embedding: Annotated[
        bool, typer.Option("--embedding", help="With --json: its vector too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show one template; nothing is counted as a use."""
    from paracle_meta.repositories import TemplateRepository

    template = run(
        ctx, lambda db: TemplateRepository(db).get(template_id, with_embedding=embedding)
    )
    if template is None:
        raise output.missing("template", template_id, "templates")
    if content and not as_json:
        output.print_text(template.content)
    else:
        output.print_record(template, as_json=as_json, text="content")


@app.command(
    epilog=examples(
        'templates add agent.md --type agent --name Reviewer --pattern "Reviews code changes."'
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
    pattern: Pattern = None,
    quality_score: Score = None,
    source: Source = None,
    template_id: NewId = None,
    as_json: Json = False,
) -> None:
    """Store a template and print its id."""
    from paracle_meta.records import Template
    from paracle_meta.repositories import TemplateRepository

    identity = inputs.identity(template_id)
    template = Template(
        **identity,
        artifact_type=artifact_type,
        name=name,
        pattern=pattern,
        content=inputs.read_text(file),
        quality_score=quality_score,
        source=source,
    )
    stored = run(ctx, lambda db: TemplateRepository(db).add(template))
    output.print_stored(stored, as_json=as_json)


@app.command(
    epilog=examples(
        'templates search "security audit agent" --top-k 3',
        'templates search "find bugs" --type agent --json',
    )
)
def search(
    ctx: typer.Context,
    query: Query,
    top_k: TopK = 10,
    mode: Mode = "vector",
    artifact_type: Type = None,
    filters: Filter = None,
    min_similarity: MinSimilarity = None,
    as_json: Json = False,
) -> None:
    """Find the templates that fit a text best.

    The default compares the meaning, --mode text the words, and --mode hybrid both.
    """
    from paracle_meta.repositories import TemplateRepository

    conditions = inputs.parse_filter("templates", filters)
    matches = run(
        ctx,
        lambda db: TemplateRepository(db).find_similar(
            inputs.text_or_stdin(query),
            top_k,
            mode=mode,
            artifact_type=artifact_type,
            filters=conditions,
            min_similarity=min_similarity,
        ),
    )
    output.print_matches(matches, MATCH_COLUMNS, mode=mode, as_json=as_json)


@app.command(
    epilog=examples("templates promote gen-0199b4c2f3a8...", "templates promote --qualified")
)
def promote(
    ctx: typer.Context,
    generation_id: Annotated[
        str | None, typer.Argument(metavar="GENERATION", help="The id of the generation.")
    ] = None,
    qualified: Annotated[
        bool,
        typer.Option("--qualified", help="Every generation with enough good ratings or score."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make templates of good generations.

    Promoting a generation again gives the template that it became. Good enough is what the
    settings promotion_min_ratings, promotion_min_average and promotion_min_quality say: 3 ratings
    averaging 4.0, or a quality score of 8.0, unless changed.
    """
    from paracle_meta.repositories import TemplateRepository

    if (generation_id is None) != qualified:
        raise typer.BadParameter("give either the id of a generation or --qualified")
    if generation_id is not None:
        wanted = generation_id
        template = run(ctx, lambda db: TemplateRepository(db).promote_from_generation(wanted))
        output.print_stored(template, as_json=as_json)
        return
    promotions = run(ctx, lambda db: TemplateRepository(db).promote_qualified())
    if as_json:
        output.print_json(promotions)
    elif not promotions:
        output.note("No generation is good enough yet.")
    else:
        output.print_rows(
            [
                [p.template.id, p.template.name, p.reason, "new" if p.created else "already there"]
                for p in promotions
            ],
            {"id": "id", "name": "name", "reason": "reason", "created": ""},
        )


@app.command(epilog=examples("templates use ID > agent.md"))
def use(ctx: typer.Context, template_id: Id, as_json: Json = False) -> None:
    """Print the text of a template and count one use of it."""
    from paracle_meta.repositories import TemplateRepository

    template = run(ctx, lambda db: TemplateRepository(db).record_use(template_id))
    if as_json:
        output.print_json(template)
    else:
        output.print_text(template.content)


@app.command(epilog=examples('templates update ID --pattern "Reviews SQL migrations."'))
def update(
    ctx: typer.Context,
    template_id: Id,
    artifact_type: Type = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What it is called.")] = None,
    pattern: Pattern = None,
    content: Annotated[
        str | None, typer.Option(metavar="FILE", help="File with the new text, or - for stdin.")
    ] = None,
    quality_score: Score = None,
    as_json: Json = False,
) -> None:
    """Change a template.

    Searches by meaning find it by its new text at once.
    """
    from paracle_meta.repositories import TemplateRepository

    changes = inputs.given(
        artifact_type=artifact_type,
        name=name,
        pattern=pattern,
        content=None if content is None else inputs.read_text(content),
        quality_score=quality_score,
    )
    stored = run(ctx, lambda db: TemplateRepository(db).update(template_id, **changes))
    output.print_stored(stored, as_json=as_json)


@app.command(epilog=examples("templates delete ID"))
def delete(ctx: typer.Context, template_id: Id) -> None:
    """Delete a template."""
    from paracle_meta.repositories import TemplateRepository

    run(ctx, lambda db: TemplateRepository(db).delete(template_id))
    output.note("Deleted.")
