"""Options that several commands share."""

from typing import Annotated, Literal

import typer

from paracle_meta.records import SearchMode

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would be deleted; change nothing.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Delete without asking.")]
Limit = Annotated[int, typer.Option(metavar="N", help="At most so many, 1 to 10000.")]
After = Annotated[
    str | None,
    typer.Option(metavar="ID", help="The next page: what comes after the one with this id."),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Only from this time on (ISO 8601; UTC unless it names an offset)."
    ),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only before this time.")]
Kinds = Annotated[
    list[str],
    typer.Option(
        "--kind",
        metavar="KIND",
        help="Only generations, templates, feedback, costs, memory or best_practices; may be "
        "repeated.",
    ),
]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="JSON",
        help='Further conditions on columns: \'{"quality_score": {"$gte": 8}}\' with $eq $ne $gt '
        "$gte $lt $lte $in.",
    ),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The id, as the lists show it.")]
NewId = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="The id to store it under; made unless given."),
]
File = Annotated[str, typer.Argument(metavar="FILE", help="File with the text, or - for stdin.")]
Query = Annotated[str, typer.Argument(metavar="QUERY", help="What is wanted, in words.")]
TopK = Annotated[int, typer.Option(metavar="N", help="At most so many, 1 to 10000.")]
MinSimilarity = Annotated[
    float | None,
    typer.Option(metavar="X", help="Leave out what is less similar, -1 to 1."),
]
Mode = Annotated[
    SearchMode,
    typer.Option(help="Compare the meaning, the words (text), or both (hybrid)."),
]
Score = Annotated[
    float | None, typer.Option("--quality-score", metavar="X", help="Quality, 0 to 10.")
]
Type = Annotated[
    str | None,
    typer.Option("--type", metavar="TYPE", help="Artifact type, such as agent or workflow."),
]
Tag = Annotated[list[str], typer.Option("--tag", metavar="TAG", help="A tag; may be repeated.")]
Period = Annotated[Literal["daily", "monthly"], typer.Option(help="A day or a month.")]

PAGE = 50
"""Records a list shows unless told otherwise: what a person looks through."""
