"""The command that shows everything at once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paracle_meta.cli import output
from paracle_meta.cli.errors import FAILURE, say_error
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Json
from paracle_meta.cli.progress import Progress
from paracle_meta.cli.running import run

if TYPE_CHECKING:
    from paracle_meta.demo import DemoReport
    from paracle_meta.loading import Recorded
    from paracle_meta.records import CostReport

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=examples(
        "demo examples",
        '--url sqlite:///./try demo ~/notes --question "how do we deploy"',
        "demo examples --json",
    )
)
def demo(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of Markdown files.")
    ] = Path("examples"),
    question: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help='What to search for; "security audit agent" if left out.'
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Try everything on a folder of Markdown files; running it again duplicates nothing.

    Records each file as a generation with its cost and ratings, promotes the good ones to
    templates, loads best_practices.yaml, finds templates and practices by meaning, remembers a few
    values and adds up what was spent. It needs no configuration, no key and no network.
    """
    from paracle_meta.demo import QUESTION, run_demo

    with Progress(sys.stderr) as progress:
        report = run(
            ctx,
            lambda db: run_demo(db, folder, question=question or QUESTION, progress=progress.step),
        )
    if as_json:
        output.print_json(_document(report))
    else:
        _print(report)
        output.note("See more: paracle meta templates list, paracle meta costs report, ...")
    for problem in report.problems:
        say_error(f"{problem.file} was not taken: {problem.reason}")
    if report.problems:
        raise typer.Exit(FAILURE)


def _document(report: "DemoReport") -> dict[str, Any]:
    """Return the report without the texts, which make it unreadable and are in the database."""
    document: dict[str, Any] = output.plain(report)
    for entry in document["generations"]:
        del entry["generation"]["content"]
    for promotion in document["promotions"]:
        del promotion["template"]["content"]
    for match in [*document["similar_templates"], *document["similar_practices"]]:
        del match["content"]
    document["practices"] = {
        name: [{"id": p["id"], "category": p["category"], "title": p["title"]} for p in practices]
        for name, practices in document["practices"].items()
    }
    return document


def _print(report: "DemoReport") -> None:
    new = sum(item.created for item in report.generations)
    known = len(report.generations) - new
    output.print_section(
        f"Generations recorded from {report.folder}: {new} new, {known} already there",
        [_generation(item) for item in report.generations],
        ("type", "name", "model", "tokens", "USD", "score", "ratings"),
    )
    output.print_section(
        "Good enough to be templates",
        [
            [
                promotion.template.name,
                promotion.reason,
                "new" if promotion.created else "already there",
            ]
            for promotion in report.promotions
        ],
        ("name", "because", ""),
        empty="none yet; a generation needs good ratings or a high score",
    )
    loaded = report.practices
    output.print_section(
        f"Best practices: {len(loaded.added)} new, {len(loaded.updated)} updated, "
        f"{len(loaded.unchanged)} already there",
        [],
        (),
        empty=", ".join(
            sorted({p.category for p in [*loaded.added, *loaded.updated, *loaded.unchanged]})
        )
        or "none; they would be in best_practices.yaml",
    )
    output.print_section(
        f"Templates similar to “{report.question}”",
        [[f"{t.similarity:.2f}", t.name, t.artifact_type] for t in report.similar_templates],
        ("similarity", "name", "type"),
    )
    output.print_section(
        f"Best practices similar to “{report.question}”",
        [[f"{p.similarity:.2f}", p.title, p.category] for p in report.similar_practices],
        ("similarity", "title", "category"),
    )
    output.print_section(
        "Remembered in the session “demo”",
        [[item.key, item.value] for item in report.memory],
        ("key", "value"),
    )
    output.print_section(
        "Spent",
        [_spent("today", report.today), _spent("this month", report.month)],
        ("", "USD", "calls", "without price", "tokens"),
    )


def _generation(item: "Recorded") -> list[Any]:
    made = item.generation
    ratings = [feedback.rating for feedback in item.feedback]
    average = f"{sum(ratings) / len(ratings):.1f} of {len(ratings)}" if ratings else ""
    cost = output.money(made.cost) if item.cost or made.cost is not None else None
    return [
        made.artifact_type,
        made.name,
        made.model,
        made.tokens_used,
        cost,
        None if made.quality_score is None else f"{made.quality_score:.1f}",
        average,
    ]


def _spent(name: str, report: "CostReport") -> list[Any]:
    return [
        name,
        output.money(report.total),
        report.calls,
        report.unpriced_calls,
        report.tokens,
    ]
