"""The command that looks whether the database is well."""

from typing import TYPE_CHECKING, Annotated

import typer

from paracle_meta.cli import output
from paracle_meta.cli.errors import FAILURE
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Json
from paracle_meta.cli.running import run

if TYPE_CHECKING:
    from paracle_meta.health import Finding, HealthReport

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=examples("doctor", "doctor --fix", "doctor --json"))
def doctor(
    ctx: typer.Context,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Mend what needs no decision: migrations, indexes, missing vectors, rights of "
            "files. Feedback on generations that are gone is moved into a file here.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Look whether the database is well, and say what to do where it is not.

    Nothing is changed without --fix. All of it is read once, which takes a while where there is
    much. The exit code is 0 only when all is well.
    """
    from paracle_meta.health import examine

    report = run(ctx, lambda db: examine(db, fix=fix))
    if as_json:
        output.print_json(
            {"healthy": report.healthy, "findings": [*map(_described, report.findings)]}
        )
    else:
        for finding in report.findings:
            _print(finding)
        output.note(_summary(report, fix=fix))
    if not report.healthy:
        raise typer.Exit(FAILURE)


def _described(finding: "Finding") -> dict[str, object]:
    described: dict[str, object] = output.plain(finding)
    del described["remedy"]
    return {**described, "fixable": finding.fixable}


def _print(finding: "Finding") -> None:
    kind = "fixed" if finding.fixed else finding.severity
    output.print_line(f"{kind}: {finding.name} ({finding.where}): {finding.what}")
    if finding.result is not None:
        output.print_line(f"  --fix: {finding.result}")
    if not finding.fixed:
        output.print_line(f"  to do: {finding.repair}")


def _summary(report: "HealthReport", *, fix: bool) -> str:
    left = [finding for finding in report.findings if not finding.fixed]
    if not left:
        return "All is well."
    found = "1 thing is" if len(left) == 1 else f"{len(left)} things are"
    fixable = sum(finding.fixable for finding in left)
    if fix or not fixable:
        return f"{found} not well; what to do stands above."
    return f"{found} not well; `paracle meta doctor --fix` mends {fixable} of them."
