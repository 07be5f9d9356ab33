"""Commands for best practices."""

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
    Tag,
    TopK,
    Until,
)
from paracle_meta.cli.running import run

app = command_group(
    "Advice to build the next thing by.",
    "practices load best_practices.yaml",
    'practices search "how do I keep secrets out of prompts"',
    "practices list --category security --tag api-keys",
)

COLUMNS = {"id": "id", "category": "category", "title": "title", "tags": "tags"}
MATCH_COLUMNS = {"id": "id", "category": "category", "title": "title"}

Category = Annotated[str | None, typer.Option(metavar="WORD", help="Only of this category.")]


@app.command(
    "list",
    epilog=examples(
        "practices list --category testing", "practices list --tag ci --tag flaky --json"
    ),
)
def list_(
    ctx: typer.Context,
    limit: Limit = PAGE,
    after: After = None,
    category: Category = None,
    tags: Tag = [],  # noqa: B006 - typer makes a new one
    since: Since = None,
    until: Until = None,
    filters: Filter = None,
    as_json: Json = False,
) -> None:
    """List best practices, newest first.

    With several tags, those that have all of them.
    """
    from paracle_meta.repositories import BestPracticeRepository

    conditions = inputs.conditions(
        "best_practices", since, until, filters, category=category, tags=tags
    )
    records = run(ctx, lambda db: BestPracticeRepository(db).list(limit, after, **conditions))
    output.print_list(records, COLUMNS, as_json=as_json, limit=limit)


@app.command(epilog=examples("practices show ID"))
def show(ctx: typer.Context, practice_id: Id, as_json: Json = False) -> None:
    """Show one best practice."""
    from paracle_meta.repositories import BestPracticeRepository

    practice = run(ctx, lambda db: BestPracticeRepository(db).get(practice_id))
    if practice is None:
        raise output.missing("best practice", practice_id, "practices")
    output.print_record(practice, as_json=as_json, text="content")


@app.command(
    epilog=examples('practices add advice.md --category testing --title "Use a real database"')
)
def add(
    ctx: typer.Context,
    file: File,
    category: Annotated[str, typer.Option(metavar="WORD", help="What it is about.")],
    title: Annotated[str, typer.Option(metavar="TEXT", help="The advice in a line.")],
    tags: Tag = [],  # noqa: B006 - typer makes a new one
    quality_score: Score = None,
    practice_id: NewId = None,
    as_json: Json = False,
) -> None:
    """Store a best practice and print its id."""
    from paracle_meta.records import BestPractice
    from paracle_meta.repositories import BestPracticeRepository

    identity = inputs.identity(practice_id)
    practice = BestPractice(
        **identity,
        category=category,
        title=title,
        content=inputs.read_text(file),
        tags=tags,
        quality_score=quality_score,
    )
    stored = run(ctx, lambda db: BestPracticeRepository(db).add(practice))
    output.print_stored(stored, as_json=as_json)


@app.command(epilog=examples('practices search "keep secrets out of prompts" --category security'))
def search(
    ctx: typer.Context,
    query: Query,
    top_k: TopK = 10,
    mode: Mode = "vector",
    category: Category = None,
    filters: Filter = None,
    min_similarity: MinSimilarity = None,
    as_json: Json = False,
) -> None:
    """Find the best practices that fit a text best.

    The default compares the meaning, --mode text the words, and --mode hybrid both.
    """
    from paracle_meta.repositories import BestPracticeRepository

    conditions = inputs.parse_filter("best_practices", filters)
    matches = run(
        ctx,
        lambda db: BestPracticeRepository(db).find_similar(
            inputs.text_or_stdin(query),
            top_k,
            mode=mode,
            category=category,
            filters=conditions,
            min_similarity=min_similarity,
        ),
    )
    output.print_matches(matches, MATCH_COLUMNS, mode=mode, as_json=as_json)


@app.command(epilog=examples("practices load best_practices.yaml"))
def load(ctx: typer.Context, file: File, as_json: Json = False) -> None:
    """Load best practices from a YAML file, all or none.

    The file is a list; each entry has category, title, content and, optionally, tags and
    quality_score. Loading it again changes nothing but what was edited: a practice is recognised
    by its category and title.
    """
    from paracle_meta.loading import load_practices
    from paracle_meta.specs import parse_practices

    practices = parse_practices(inputs.read_text(file), file)
    loaded = run(ctx, lambda db: load_practices(db, practices))
    if as_json:
        output.print_json(loaded)
    else:
        output.note(
            f"{len(loaded.added)} added, {len(loaded.updated)} updated, "
            f"{len(loaded.unchanged)} unchanged."
        )


@app.command(epilog=examples("practices delete ID"))
def delete(ctx: typer.Context, practice_id: Id) -> None:
    """Delete a best practice."""
    from paracle_meta.repositories import BestPracticeRepository

    run(ctx, lambda db: BestPracticeRepository(db).delete(practice_id))
    output.note("Deleted.")
