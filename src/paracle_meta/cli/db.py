"""Commands for the database itself."""

from typing import TYPE_CHECKING, Annotated

import typer

from paracle_meta.cli import output
from paracle_meta.cli.groups import command_group, examples
from paracle_meta.cli.options import Json
from paracle_meta.cli.running import load, run

if TYPE_CHECKING:
    from paracle_meta.backends.base import DatabaseStatus

app = command_group(
    "The database itself: where it is and what state it is in.",
    "db path",
    "db status",
    "--url postgresql://paracle:env:PGPASSWORD@localhost/paracle_meta db migrate",
)


@app.command(epilog=examples("db path"))
def path(ctx: typer.Context, as_json: Json = False) -> None:
    """Print where the database is.

    That is the folder of the SQLite files, or the PostgreSQL URL without its password.
    """
    settings = load(ctx).database
    url = settings.describe()["postgres_url"]
    place = str(settings.sqlite_folder) if url is None else str(url)
    if as_json:
        output.print_json({"backend": settings.backend, "path": place})
    else:
        output.print_line(place)


@app.command(epilog=examples("db status", "db status --json"))
def status(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the state of the database; nothing is changed."""
    state = run(ctx, lambda db: db.status())
    if as_json:
        output.print_json(state)
    else:
        _print_status(state)


def _print_status(state: "DatabaseStatus") -> None:
    if state.revision is None:
        revision = "no tables yet; they are made at the first use, or by `paracle meta db migrate`"
    elif state.revision == state.head:
        revision = f"{state.revision} (current)"
    else:
        revision = f"{state.revision} (this version needs {state.head})"
    output.print_fields(
        {"database": state.version, "place": state.location, "revision": revision}
        | {name.replace("_", " "): rows for name, rows in state.counts.items()}
    )
    for name, vectors in state.vectors.items():
        search = f"index {vectors.index}" if vectors.index else "exact search"
        models = ", ".join(vectors.models) or "no vectors yet"
        output.print_line(
            f"vectors of {name.replace('_', ' ')}: {vectors.embedded} stored, "
            f"{vectors.missing} missing; {models}; {search}"
        )
        if vectors.changing_to is not None:
            output.print_line(
                f"  a change to {vectors.changing_to} has begun: {vectors.changed} made; "
                "`paracle meta reembed` goes on with it"
            )


@app.command(epilog=examples("db migrate", "db migrate --sql > schema.sql"))
def migrate(
    ctx: typer.Context,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL for a DBA instead; nothing is changed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the tables up to date and print what was applied.

    The first use does so too, unless the setting auto_migrate is off.
    """
    from paracle_meta.database import MetaDatabase

    if sql:
        script = MetaDatabase(load(ctx).database).migration_sql()
        if as_json:
            output.print_json({"sql": script})
        else:
            output.print_text(script)
        return
    applied = run(ctx, lambda db: db.migrate())
    if as_json:
        output.print_json({"applied": applied})
    elif applied:
        for revision in applied:
            output.print_line(revision)
    else:
        output.note("Nothing to do: the tables are up to date.")
