"""What is printed: data on stdout, everything else on stderr.

On a terminal, lists are tables; elsewhere they are lines of tab-separated values without a header,
nothing cut off, for `cut`, `sort` and the like. JSON is one document.
"""

import dataclasses
import json
import re
import sys
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but tab and line feed: a stored text must not steer the terminal."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d")

_NUMBER = re.compile(r"(?:\$?[\d,.-]+|unknown)?")
"""A cell that is right-aligned in a column of such cells; an amount may be missing or unknown."""

READING_WIDTH = 120
"""Columns of a table that is read in a file or a log."""


def note(message: str) -> None:
    """Tell the person something on stderr."""
    print(message, file=sys.stderr)  # noqa: T201 - a command line prints


def ask(question: str) -> None:
    """Ask the person something on stderr; the answer is to be read from stdin."""
    print(question, end="", file=sys.stderr, flush=True)  # noqa: T201


def print_line(text: str) -> None:
    """Print a line of data."""
    print(shown(text))  # noqa: T201 - a command line prints


def print_text(text: str) -> None:
    """Print a stored text as it is, ended by a line feed."""
    sys.stdout.write(shown(text) if text.endswith("\n") else f"{shown(text)}\n")


def shown(text: str) -> str:
    """Return a text as it may be written to stdout: harmless on a terminal, as it is elsewhere."""
    return harmless(text) if sys.stdout.isatty() else text


def harmless(text: str) -> str:
    """Return a text without the control characters that could steer a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def print_json(value: Any) -> None:
    """Print a value as one JSON document; times are ISO 8601 in UTC."""
    ascii_only = sys.stdout.encoding.lower() not in ("utf-8", "utf8")
    print(json.dumps(plain(value), indent=2, ensure_ascii=ascii_only))  # noqa: T201


def plain(value: Any) -> Any:
    """Return a value made of what JSON knows.

    Args:
        value: Records, mappings, sequences, times, days and JSON values. The vector of a record is
            left out where it was not read.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if fields.get("embedding", ()) is None:
            del fields["embedding"]
        return plain(fields)
    if isinstance(value, datetime):
        return _iso(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _key(key: Any) -> str:
    return key.isoformat() if isinstance(key, date) else str(key)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def print_list(
    records: "Sequence[Any]", columns: "Mapping[str, str]", *, as_json: bool, limit: int
) -> None:
    """Print records.

    Args:
        records: One line or JSON object each.
        columns: The fields to print, each with what a table calls it. JSON has all fields.
        as_json: Print one JSON array.
        limit: How many were asked for: a full page may have another one behind it.
    """
    if as_json:
        print_json(records)
    elif not records:
        note("Nothing found.")
    else:
        print_rows([[getattr(record, name) for name in columns] for record in records], columns)
    if records and len(records) == limit and not as_json:
        note(f"For what comes after these, add --after {records[-1].id}")


def print_matches(
    matches: "Sequence[Any]", columns: "Mapping[str, str]", *, mode: str, as_json: bool
) -> None:
    """Print what a search found, after what it was ranked by; see `print_list`.

    In mode ``hybrid`` that are two columns: a record without a vector has no similarity.
    """
    first = {
        "vector": {"similarity": "similarity"},
        "text": {"score": "score"},
        "hybrid": {"score": "score", "similarity": "similarity"},
    }
    print_list(matches, {**first[mode], **columns}, as_json=as_json, limit=sys.maxsize)


def print_rows(rows: "Sequence[Sequence[Any]]", columns: "Mapping[str, str]") -> None:
    """Print rows as a table on a terminal, else as lines of tab-separated values."""
    if sys.stdout.isatty():
        _console().print(_table(rows, list(columns.values())))
        return
    for row in rows:
        print("\t".join(_one_line(_cell(value, exact=True)) for value in row))  # noqa: T201


def print_section(
    title: str, rows: "Sequence[Sequence[Any]]", headers: "Sequence[str]", empty: str = "none"
) -> None:
    """Print a titled table for reading, also where stdout is no terminal."""
    console = _console()
    console.print(harmless(title), style="bold cyan", highlight=False, markup=False)
    console.print(_table(rows, headers) if rows else f"  {empty}", highlight=False, markup=False)
    console.print()


def print_fields(fields: "Mapping[str, Any]", text: str | None = None) -> None:
    """Print a record: a line a field that has a value, and its text after an empty line."""
    width = max(map(len, fields)) + 2
    for name, value in fields.items():
        if value is not None:
            print_line(f"{name + ':':<{width}}{_one_line(_cell(value, exact=True))}")
    if text is not None:
        print_line("")
        print_text(text)


def print_record(record: Any, *, as_json: bool, text: str) -> None:
    """Print one record; `text` names its field with the long text."""
    if as_json:
        print_json(record)
        return
    fields = plain(record)
    print_fields({name: fields[name] for name in fields if name != text}, fields[text])


def money(dollars: float | None) -> str:
    """Return US dollars as people read them, to a hundredth of a cent."""
    return "unknown" if dollars is None else f"${dollars:,.4f}"


def _cell(value: Any, *, exact: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return _iso(value) if exact else f"{value.astimezone(UTC):%Y-%m-%d}"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return str(value) if exact else f"{value:.4g}"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(plain(value), ensure_ascii=False)


def _one_line(text: str) -> str:
    return re.sub(r"[\t\r\n]+", " ", text)


def _console() -> "Console":
    from rich.console import Console

    # A file or a log has no width of its own, for which rich would take 80.
    return Console(width=None if sys.stdout.isatty() else READING_WIDTH)


def _table(rows: "Sequence[Sequence[Any]]", headers: "Sequence[str]") -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    cells = [[_one_line(harmless(_cell(value, exact=False))) for value in row] for row in rows]
    for header, *column in zip(headers, *cells, strict=True):
        numeric = all(map(_NUMBER.fullmatch, column))
        # An id that is wrapped cannot be copied.
        table.add_column(
            header,
            justify="right" if numeric else "left",
            no_wrap=header == "id" or numeric or all(map(_DAY.fullmatch, column)),
            overflow="fold",
        )
    for row_cells in cells:
        table.add_row(*map(Text, row_cells))
    return table


def print_stored(record: Any, *, as_json: bool) -> None:
    """Print what was stored: its id, for the next command, or all of it as JSON."""
    if as_json:
        print_json(record)
    else:
        print_line(record.id)


def missing(noun: str, record_id: str, group: str) -> Exception:
    """Return the error that no record has an id."""
    from paracle_meta.exceptions import NotFoundError

    return NotFoundError(
        f"There is no {noun} with the id {record_id!r:.90}; see `paracle meta {group} list`."
    )
