"""The program `paracle` and its group `meta`."""

import sys
from functools import partial
from typing import Annotated, Any, ClassVar

import typer

from paracle_meta.cli.errors import guarded, say_usage_error
from paracle_meta.cli.groups import Group, LazyGroup, examples


class _Program(Group):
    """Turns every error into a line on stderr and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> None:
        """Run the command line and leave Python with the exit code."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except typer.TyperException as error:
            code = say_usage_error(error)
        except typer.Abort:
            code = 1
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> None:
        """Run the command that the context stands for."""
        guarded(partial(super().invoke, ctx), verbose=lambda: bool(ctx.obj and ctx.obj.verbose))


class _Meta(LazyGroup):
    summaries: ClassVar[dict[str, str]] = {
        "generations": "What a generator made: list, show, add, update, delete, count.",
        "templates": "Good texts to start from: list, search, promote, use, ...",
        "feedback": "Ratings of generations: list, add.",
        "costs": "What calls of models cost: list, record, report.",
        "memory": "Session values: set, get, list, delete, purge, clear.",
        "practices": "Best practices: list, show, add, search, load, delete.",
        "search": "Find templates or best practices by meaning.",
        "index": "Make the index that searches by meaning use anew.",
        "embed": "Embed what was stored while the embedding provider was away.",
        "reembed": "Change the embedding model; searches go on meanwhile.",
        "export": "Write what is stored to a file: SQL for psql, or JSON Lines.",
        "import": "Store what such a file says, or one that you wrote.",
        "copy": "Move everything to another database, such as to PostgreSQL.",
        "backup": "Back up the whole database; programs go on writing meanwhile.",
        "restore": "Make the database what a backup holds.",
        "prune": "Delete what is older than so many days.",
        "erase": "Erase one generation or session wherever it left something.",
        "doctor": "Look whether the database is well, and mend what can be mended.",
        "db": "The database itself: path, status, migrate.",
        "config": "The settings: show, validate, init.",
        "demo": "Try everything on a folder of Markdown files.",
    }


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    # Plain help is drawn three times as fast as with rich and can be piped and searched.
    rich_markup_mode=None,
    help="paracle: tools around language models.",
)
meta = typer.Typer(
    cls=_Meta,
    no_args_is_help=True,
    help="""Remember what a language-model generator made, cost and was told; find it again.

    Without configuration everything is kept in SQLite files in your data folder
    (`paracle meta db path` says where). For PostgreSQL, set postgres_url
    (`paracle meta config init`) or PARACLE_META_POSTGRES_URL.""",
    epilog=examples(
        "demo examples",
        "generations add agent.md --type agent --name Reviewer",
        'search templates "security audit agent"',
        "memory set step 3 --session build-7",
        "costs report --period daily",
    )
    + """

Lists and records are printed for people; --json prints them for programs. Data goes to stdout,
everything else to stderr. Exit codes: 0 done, 1 failed (not found, duplicate), 2 usage,
configuration or a value that is not allowed, 3 embedding provider, 4 database, 130 interrupted.""",
)
app.add_typer(meta, name="meta", short_help="Remember what a generator made, cost and was told.")


def _print_version(wanted: bool) -> None:
    if wanted:
        from paracle_meta import __version__

        typer.echo(f"paracle-meta {__version__}")
        raise typer.Exit


@app.callback()
def _paracle(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    del version


@meta.callback()
def _meta(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="YAML file with the settings, instead of .parac/config/meta_agent.yaml here or "
            "in a folder above.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Database to use, whatever the settings say: sqlite:///folder or "
            "postgresql://user:env:NAME@host/database (password from the environment variable "
            "NAME).",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the log, and the traceback of an error.")
    ] = False,
) -> None:
    from paracle_meta.cli.running import Target

    # The root reports errors and so asks for `verbose`; the commands inherit from this one.
    ctx.find_root().obj = ctx.obj = Target(config, url, verbose)
