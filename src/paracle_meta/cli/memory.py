"""Commands for what is remembered between the steps of a session."""

import json
from typing import Annotated

import typer

from paracle_meta.cli import inputs, output
from paracle_meta.cli.groups import command_group, examples
from paracle_meta.cli.options import PAGE, After, DryRun, Filter, Json, Limit, Since, Until
from paracle_meta.cli.running import run

app = command_group(
    "Session values: any JSON value under a key, unique in its scope and session.",
    "memory set step 3 --session build-7 --ttl 3600",
    "memory get step --session build-7",
    "memory list --session build-7",
)

COLUMNS = {
    "id": "id",
    "scope": "scope",
    "session_id": "session",
    "key": "key",
    "value": "value",
}

Key = Annotated[str, typer.Argument(metavar="KEY", help="The name of the value.")]
Session = Annotated[
    str | None,
    typer.Option("--session", metavar="ID", help="The session; none unless given."),
]
Scope = Annotated[str, typer.Option(metavar="WORD", help="The scope.")]
AnySession = Annotated[
    str | None, typer.Option("--session", metavar="ID", help="Only of this session.")
]
AnyScope = Annotated[
    str | None, typer.Option("--scope", metavar="WORD", help="Only of this scope.")
]


@app.command(
    "set",
    epilog=examples(
        "memory set step 3 --session build-7",
        "memory set zip 01234 --text",
        "memory set result - --ttl 3600 < answer.json",
    ),
)
def set_(
    ctx: typer.Context,
    key: Key,
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE",
            help="A JSON value, or text where it is no JSON; - reads it from stdin.",
        ),
    ],
    text: Annotated[
        bool, typer.Option("--text", help='Take it as text even if it is JSON: "3" and not 3.')
    ] = False,
    session_id: Session = None,
    scope: Scope = "session",
    ttl_seconds: Annotated[
        float | None, typer.Option("--ttl", metavar="SECONDS", help="How long to keep it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Remember a value, replacing the one under its key.

    VALUE is stored with its JSON type: 3 is a number, true a boolean, '{"a": [1, 2]}' an object.
    What is no JSON is stored as text. With --text everything is text.
    """
    from paracle_meta.repositories import MemoryRepository

    given = inputs.text_or_stdin(value)
    item = run(
        ctx,
        lambda db: MemoryRepository(db).set(
            key,
            given if text else inputs.json_or_text(given),
            session_id=session_id,
            scope=scope,
            ttl_seconds=ttl_seconds,
        ),
    )
    if as_json:
        output.print_json(item)


@app.command(epilog=examples("memory get step --session build-7"))
def get(
    ctx: typer.Context,
    key: Key,
    session_id: Session = None,
    scope: Scope = "session",
    as_json: Json = False,
) -> None:
    """Print the value under a key.

    A text is printed as it is, anything else as JSON. --json prints the whole item, whose `value`
    tells the text "3" from the number 3.
    """
    from paracle_meta.exceptions import NotFoundError
    from paracle_meta.repositories import MemoryRepository

    item = run(ctx, lambda db: MemoryRepository(db).get(key, session_id=session_id, scope=scope))
    if item is None:
        raise NotFoundError(
            f"Nothing is remembered under the key {key!r:.90}; see `paracle meta memory list`."
        )
    if as_json:
        output.print_json(item)
    elif isinstance(item.value, str):
        output.print_text(item.value)
    else:
        output.print_line(json.dumps(item.value, ensure_ascii=False))


@app.command("list", epilog=examples("memory list --session build-7 --json"))
def list_(
    ctx: typer.Context,
    limit: Limit = PAGE,
    after: After = None,
    session_id: AnySession = None,
    scope: AnyScope = None,
    since: Since = None,
    until: Until = None,
    filters: Filter = None,
    as_json: Json = False,
) -> None:
    """List what is remembered, newest first.

    Values whose time is over are not listed, whether purged or not.
    """
    from paracle_meta.repositories import MemoryRepository

    conditions = inputs.conditions(
        "memory", since, until, filters, session_id=session_id, scope=scope
    )
    records = run(ctx, lambda db: MemoryRepository(db).list(limit, after, **conditions))
    output.print_list(records, COLUMNS, as_json=as_json, limit=limit)


@app.command(epilog=examples("memory delete step --session build-7"))
def delete(
    ctx: typer.Context, key: Key, session_id: Session = None, scope: Scope = "session"
) -> None:
    """Forget the value under a key."""
    from paracle_meta.repositories import MemoryRepository

    run(ctx, lambda db: MemoryRepository(db).delete(key, session_id=session_id, scope=scope))
    output.note("Forgotten.")


@app.command(epilog=examples("memory purge --dry-run", "memory purge"))
def purge(ctx: typer.Context, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Delete values whose time is over and print how many."""
    from paracle_meta.repositories import MemoryRepository

    number = run(ctx, lambda db: MemoryRepository(db).purge(dry_run=dry_run))
    if dry_run:
        output.note("Nothing was changed.")
    _print_deleted(number, as_json=as_json)


@app.command(epilog=examples("memory clear --session build-7"))
def clear(
    ctx: typer.Context,
    session_id: AnySession = None,
    scope: AnyScope = None,
    as_json: Json = False,
) -> None:
    """Forget a session or scope and print how many values."""
    from paracle_meta.repositories import MemoryRepository

    if session_id is None and scope is None:
        raise typer.BadParameter("give --session or --scope, so that not everything is forgotten")
    number = run(ctx, lambda db: MemoryRepository(db).clear(session_id=session_id, scope=scope))
    _print_deleted(number, as_json=as_json)


def _print_deleted(number: int, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"deleted": number})
    else:
        output.print_line(str(number))
