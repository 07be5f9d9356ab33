"""From the text of an argument to a value."""

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from paracle_meta.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def read_text(source: str) -> str:
    """Return the text of a file, or of stdin for ``-``.

    Raises:
        typer.BadParameter: It cannot be read, or is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "no such name can exist"
        raise typer.BadParameter(f"{source} cannot be read ({reason})") from exc
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    # Not "from exc": that error holds the whole text.
    raise typer.BadParameter(f"{'stdin' if source == '-' else source} is not UTF-8 text")


def text_or_stdin(text: str) -> str:
    """Return the text itself, or what stdin holds for ``-``."""
    return read_text("-") if text == "-" else text


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        typer.BadParameter: It is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    raise typer.BadParameter('it is not JSON; quote it for the shell: \'{"name": "value"}\'')


def json_or_text(text: str) -> Any:
    """Return the value of a JSON text, or the text itself where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def conditions(
    table_name: str, since: str | None, until: str | None, filters: str | None, **equal: Any
) -> dict[str, Any]:
    """Return the arguments of a repository's `list` or `count`.

    Raises:
        typer.BadParameter: A time or the filter cannot be read.
    """
    return {
        **equal,
        "since": parse_time(since),
        "until": parse_time(until),
        "filters": parse_filter(table_name, filters),
    }


def identity(record_id: str | None) -> dict[str, Any]:
    """Return the arguments that give a record this id, or none for an id of its own making."""
    return {} if record_id is None else {"id": record_id}


def parse_filter(table_name: str, text: str | None) -> dict[str, Any] | None:
    """Return the filter that a JSON object states, its times and days read from ISO 8601 texts.

    Raises:
        typer.BadParameter: It is no JSON object, or a time or day cannot be read.
    """
    if text is None:
        return None
    from paracle_meta import schema

    wanted = parse_json(text)
    if not isinstance(wanted, dict):
        raise typer.BadParameter("a filter is a JSON object: column names with values")
    table = schema.BY_NAME[table_name]
    readers = {schema.Kind.TIMESTAMP: parse_time, schema.Kind.DATE: parse_day}
    for name in wanted:
        column = table.column(name)
        if column is not None and column.kind in readers:
            wanted[name] = _converted(wanted[name], readers[column.kind])
    return wanted


def _converted(value: Any, read: Any) -> Any:
    if isinstance(value, dict):
        return {operator: _converted(item, read) for operator, item in value.items()}
    if isinstance(value, list):
        return [_converted(item, read) for item in value]
    return read(value) if isinstance(value, str) else value


def parse_time(text: str | None) -> datetime | None:
    """Return the moment that an ISO 8601 text names; UTC where it names no zone.

    Raises:
        typer.BadParameter: It is no such text.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise typer.BadParameter(
            f"{text!r:.40} is no time; write it like 2026-03-01 or 2026-03-01T09:30:00+01:00"
        ) from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_day(text: str | None) -> date | None:
    """Return the day that an ISO 8601 text names.

    Raises:
        typer.BadParameter: It is no such text.
    """
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r:.40} is no day; write it like 2026-03-01") from exc


def parse_duration(text: str) -> timedelta:
    """Return the time that a number with a unit says: 90d, 12h, 30m, 45s or 8w.

    Raises:
        typer.BadParameter: It says none.
    """
    number, unit = text[:-1], _UNITS.get(text[-1:])
    try:
        if unit is not None and number.isascii() and number.isdigit():
            return timedelta(**{unit: int(number)})
    except OverflowError:
        pass
    raise typer.BadParameter(f"{text!r:.40} is no time span; write it like 90d, 12h, 30m or 8w")


def agree(question: "Callable[[], str]", *, yes: bool) -> None:
    """Ask a person whether to go on.

    Args:
        question: Makes the question; called only where somebody is asked.
        yes: It was said already.

    Raises:
        typer.BadParameter: Nobody can be asked.
        typer.Abort: The answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here: look with --dry-run, then add --yes")
    # Not typer's own question, of which a part goes to stdout.
    output.ask(f"{question()} [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise typer.Abort


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given.

    Raises:
        typer.BadParameter: None was.
    """
    changes = {name: value for name, value in options.items() if value is not None}
    if not changes:
        raise typer.BadParameter("no change was given; see the options in --help")
    return changes
