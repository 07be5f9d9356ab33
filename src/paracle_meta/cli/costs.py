"""Commands for what calls of models cost."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from paracle_meta.cli import inputs, output
from paracle_meta.cli.groups import command_group, examples
from paracle_meta.cli.options import PAGE, After, Filter, Json, Limit, Period, Since, Until
from paracle_meta.cli.running import run

if TYPE_CHECKING:
    from paracle_meta.records import CostBreakdown, CostReport

app = command_group(
    "What calls of models cost.",
    "costs record anthropic claude-sonnet-4-5 --cost 0.015",
    "costs report --period daily --on 2026-03-01",
)

COLUMNS = {
    "id": "id",
    "provider": "provider",
    "model": "model",
    "cost": "USD",
    "period_start": "day",
}


@app.command(
    "list",
    epilog=examples(
        "costs list --provider anthropic",
        'costs list --filter \'{"period_start": "2026-03-01"}\' --json',
    ),
)
def list_(
    ctx: typer.Context,
    limit: Limit = PAGE,
    after: After = None,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Only this one.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only this one.")] = None,
    since: Since = None,
    until: Until = None,
    filters: Filter = None,
    as_json: Json = False,
) -> None:
    """List recorded calls, newest first."""
    from paracle_meta.repositories import CostRepository

    conditions = inputs.conditions("costs", since, until, filters, provider=provider, model=model)
    records = run(ctx, lambda db: CostRepository(db).list(limit, after, **conditions))
    output.print_list(records, COLUMNS, as_json=as_json, limit=limit)


@app.command(
    epilog=examples(
        "costs record openai gpt-5 --input-tokens 900 --output-tokens 500 --cost 0.0061"
    )
)
def record(
    ctx: typer.Context,
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="Who was paid.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model that was called.")],
    input_tokens: Annotated[int | None, typer.Option(metavar="N", help="Tokens sent.")] = None,
    output_tokens: Annotated[int | None, typer.Option(metavar="N", help="Tokens received.")] = None,
    cost: Annotated[
        float | None, typer.Option(metavar="USD", help="US dollars; leave it out where unknown.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When the call was made; now unless given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Record what one call cost and print its id."""
    from paracle_meta.repositories import CostRepository

    moment = inputs.parse_time(at)
    stored = run(
        ctx,
        lambda db: CostRepository(db).record(
            provider, model, input_tokens, output_tokens, cost, created_at=moment
        ),
    )
    output.print_stored(stored, as_json=as_json)


@app.command(epilog=examples("costs report", "costs report --period daily --on 2026-03-01 --json"))
def report(
    ctx: typer.Context,
    period: Period = "monthly",
    on: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Any day of the period; today unless given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Report what a day or month cost.

    In all, by provider, by model and by day. Calls without a known price are counted apart.
    """
    from paracle_meta.repositories import CostRepository

    day = inputs.parse_day(on)
    result = run(ctx, lambda db: CostRepository(db).get_report(period, day))
    if as_json:
        output.print_json(result)
    else:
        _print_report(result)


def _print_report(report: "CostReport") -> None:
    headers = ("", "USD", "calls", "without price", "input tokens", "output tokens")
    days = f"{report.start}" if report.start == report.end else f"{report.start} to {report.end}"
    output.print_section(f"Costs, {days}", [_line("in all", report)], headers)
    for title, lines in (
        ("By provider", report.by_provider),
        ("By model", report.by_model),
        ("By day", report.by_day),
    ):
        if lines:
            rows = [_line(str(name), breakdown) for name, breakdown in lines.items()]
            output.print_section(title, rows, headers)


def _line(name: str, sums: "CostBreakdown") -> list[Any]:
    return [
        name,
        output.money(None if sums.calls == sums.unpriced_calls != 0 else sums.total),
        sums.calls,
        sums.unpriced_calls,
        sums.input_tokens,
        sums.output_tokens,
    ]
