"""The command that writes what is stored to a file or to stdout."""

import io
import sys
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from paracle_meta.cli import inputs, output
from paracle_meta.cli.groups import examples
from paracle_meta.cli.options import Kinds, Since, Until
from paracle_meta.cli.progress import Bars
from paracle_meta.cli.running import run

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from paracle_meta.database import MetaDatabase
    from paracle_meta.transfer import ExportReport

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=examples(
        "export --format sql > backup.sql",
        "export --output backup.jsonl.gz",
        "export --output records/ --kind generations --kind feedback --since 2026-01-01",
    )
)
def export(
    ctx: typer.Context,
    form: Annotated[
        Literal["sql", "jsonl"] | None,
        typer.Option(
            "--format",
            help="A script for psql, or JSON Lines. By the name of --output if left out, else "
            "jsonl.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="PATH",
            help="File to write, compressed where it ends with .gz; or, for jsonl, a folder that "
            "gets one file a kind. stdout if left out.",
        ),
    ] = None,
    kinds: Kinds = [],  # noqa: B006 - typer makes a new one
    since: Since = None,
    until: Until = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Write a replacement character for each that no other database can hold, instead "
            "of refusing.",
        ),
    ] = False,
) -> None:
    """Write what is stored to a file, for a backup or for another database.

    It is all at one moment, while programs go on writing. `psql DATABASE < backup.sql` loads the
    SQL into PostgreSQL; `paracle meta import` reads both forms. A file has its name only when it
    is whole.
    """
    from paracle_meta.exceptions import UnportableError

    period = {"since": inputs.parse_time(since), "until": inputs.parse_time(until)}

    async def work(db: "MetaDatabase") -> "ExportReport":
        from paracle_meta.transfer import export_jsonl, export_sql

        write = export_sql if _is_sql(form, target) else export_jsonl
        return await write(
            db,
            _stdout() if target is None else target,
            kinds=kinds or None,
            **period,
            replace=replace,
            progress=bars.show,
        )

    try:
        with Bars(sys.stderr) as bars:
            report = run(ctx, work)
    except UnportableError as error:
        for value in error.values:
            output.note(value)
        raise
    for value in report.replaced:
        output.note(f"replaced: {value}")
    if report.more_replaced:
        output.note(f"replaced: {report.more_replaced} more")
    for name, number in report.rows.items():
        output.note(f"{name.replace('_', ' ')}: {number} exported")


def _is_sql(form: str | None, target: str | None) -> bool:
    if form is None:
        return target is not None and target.removesuffix(".gz").endswith(".sql")
    return form == "sql"


def _stdout() -> IO[bytes]:
    return _Terminal() if sys.stdout.isatty() else sys.stdout.buffer


class _Terminal(io.BytesIO):
    """A terminal to write lines to, which no record can steer."""

    def write(self, data: "Buffer") -> int:
        sys.stdout.write(output.harmless(bytes(data).decode()))
        return memoryview(data).nbytes

    def flush(self) -> None:
        sys.stdout.flush()
