"""The command that moves everything from one database to another."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paracle_meta.cli import output
from paracle_meta.cli.errors import FAILURE
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Json
from paracle_meta.cli.progress import Bars
from paracle_meta.cli.running import load, run_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paracle_meta.transfer import CopyReport
    from paracle_meta.transfer.comparing import Comparison, Named
    from paracle_meta.transfer.copying import CopiedTable

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SHOWN_IDS = 5
"""Ids that a line names; --json has more of them."""

SHOWN_DIGITS = 8
"""Digits of two checksums that differ: enough to see that they do."""

_URL = (
    "sqlite:///folder, postgresql://user@host/database, or env:NAME for a URL that stands in the "
    "environment variable NAME; the configured database if left out."
)


@app.command(
    epilog=examples(
        "copy --to postgresql://paracle:env:PGPASSWORD@localhost/paracle_meta",
        "copy --from env:SERVER_URL --to sqlite:///laptop",
    )
)
def copy(
    ctx: typer.Context,
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL", help=f"What to copy: {_URL}")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", metavar="URL", help=f"Where to: {_URL}")
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not compare both sides afterwards.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Copy what the target cannot hold with replacement characters, instead of "
            "refusing it.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy everything to another database, and compare both sides row by row.

    Nothing is changed at the source and nothing deleted at the target. It may be stopped at any
    point; run again, it goes on from there, and later on it copies only what has changed since.
    The exit code is 0 where both sides hold the same rows afterwards, else 1.
    """
    from paracle_meta.exceptions import UnportableError

    if source is None and target is None:
        raise typer.BadParameter("give --from, --to or both: the other one is configured")
    databases = [load(ctx, url).database for url in (source, target)]

    async def work(one: Any, other: Any) -> "CopyReport":
        from paracle_meta.transfer import copy_database

        return await copy_database(
            one, other, verify=not no_verify, replace=replace, progress=bars.show
        )

    try:
        with Bars(sys.stderr) as bars:
            report = run_on(ctx, databases, work)
    except UnportableError as error:
        for value in error.values:
            output.note(value)
        raise
    except KeyboardInterrupt:
        output.note("What was copied so far is kept; the same command goes on from there.")
        raise
    if as_json:
        output.print_json({"equal": report.equal, **output.plain(report)})
    else:
        _print(report)
    if not report.equal:
        raise typer.Exit(FAILURE)


def _print(report: "CopyReport") -> None:
    columns = ["kind", "copied", "updated", "unchanged"]
    rows = [
        [_words(table.table), table.copied, table.updated, table.unchanged]
        for table in report.tables
    ]
    if report.comparison is not None:
        columns += ["at source", "at target", "checksum", "equal"]
        for row, compared in zip(rows, report.comparison, strict=True):
            row += _proof(compared)
    output.print_rows(rows, {name: name for name in columns})
    for line in _named(report):
        output.note(line)
    for value in report.replaced:
        output.note(f"replaced: {value}")
    if report.more_replaced:
        output.note(f"replaced: {report.more_replaced} more")
    if report.comparison is None:
        output.note("Nothing was compared.")
    elif report.equal:
        output.note("Both sides are equal.")
    else:
        output.note("The two sides are not equal.")


def _proof(compared: "Comparison") -> list[Any]:
    one, other = compared.source, compared.target
    if compared.equal:
        return [one.rows, other.rows, one.checksum, "yes"]
    both = f"{one.checksum[:SHOWN_DIGITS]} / {other.checksum[:SHOWN_DIGITS]}"
    return [one.rows, other.rows, both, "no"]


def _named(report: "CopyReport") -> "Iterator[str]":
    """Yield what was left as it was, and why, and what differs beyond that."""
    for table in report.tables:
        yield from _lines(table)
    for table, compared in zip(report.tables, report.comparison or (), strict=False):
        left_out = table.conflicts.total + table.orphans.total
        for what, named, known in (
            ("differ", compared.different, table.changed_at_target.total),
            ("are missing at the target", compared.missing, left_out),
            ("are at the target only", compared.extra, table.only_at_target.total),
        ):
            if named.total != known:
                yield f"{_words(table.table)}: compared afterwards, {_some(named)} {what}"


def _lines(table: "CopiedTable") -> "Iterator[str]":
    for what, named in (
        ("changed at the target since, left as they are there", table.changed_at_target),
        ("left out, as the target has another row under their id or key", table.conflicts),
        ("left out, as what they refer to is not stored", table.orphans),
        ("not at the source, or deleted there; left at the target", table.only_at_target),
    ):
        if named.total:
            yield f"{_words(table.table)}: {_some(named)} {what}"


def _some(named: "Named") -> str:
    shown = ", ".join(map(repr, named.ids[:SHOWN_IDS]))
    more = "" if named.total <= SHOWN_IDS else ", ..."
    return f"{named.total} ({shown}{more})"


def _words(name: str) -> str:
    return name.replace("_", " ")
