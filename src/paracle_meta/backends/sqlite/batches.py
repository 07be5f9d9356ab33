"""Whether many rows of SQLite can be held everywhere, told without making a Python value of each.

A batch becomes one row: some tests are made by SQLite, and its texts, times and JSON come as one
value each, which Python tests in one go. That takes half as long as to read the rows. A test may be
wrong about rows that are good, never about others: which one it is, others look for.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from paracle_meta.backends.portable_tests import (
    are_days,
    are_moments,
    are_vectors,
    may_have_exponents,
)
from paracle_meta.backends.sqlite.driver import load_driver
from paracle_meta.backends.sqlite.reading import counted_value
from paracle_meta.schema import MAX_COUNT, MAX_JSON_DEPTH, MAX_LABEL_BYTES, Column, Kind, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from paracle_meta.backends.statements import Query

ROWS: Final = 500
"""Rows a batch: beginning one costs as much as some ten rows."""

LONG: Final = 16 * 1024
"""Bytes of a text from which on its batch is looked at otherwise: a batch has a few megabytes."""

SHORT_LABEL: Final = MAX_LABEL_BYTES // 4
"""Characters that are never too many bytes."""

SEPARATOR: Final = "\x1e"
"""Between values. JSON has no such character, only an escape for it."""

_LONG_KINDS: Final = (Kind.STRING, Kind.TEXT, Kind.JSON, Kind.JSON_TEXT, Kind.TAGS)

_OCTET_LENGTH_SINCE: Final = (3, 43)
"""The first SQLite that says how long a text is without reading it."""

DIGITS: Final = 300
"""Of a whole number that may be beyond all floats."""

_MANY_DIGITS: Final = re.compile(f"[0-9]{{{DIGITS}}}")


class Batch(NamedTuple):
    """The next rows of a table.

    Attributes:
        rows: How many there are.
        last: The id of the last one, in UTF-8.
        is_good: Whether all of them can be held everywhere; False also where that is not sure.
    """

    rows: int
    last: bytes | None
    is_good: bool


class BatchTest:
    """Tests the rows of one table."""

    def __init__(self, table: Table[Any]) -> None:
        """Prepare.

        Args:
            table: Whose rows.
        """
        self._tests = list(_tests(table))
        self._name = table.name
        bad = " OR ".join(filter(None, map(_bad, table.columns)))
        vectors = "NULL, NULL, NULL"
        if table.has_vector:
            vectors = (
                "min(length(embedding)), max(length(embedding)),"
                " CAST(group_concat(embedding, '') AS BLOB)"
            )
        joined = ", ".join(f"CAST({output} AS BLOB)" for output, _ in self._tests)
        self._outputs = (
            f"count(*), CAST(max(id) AS BLOB), max(size > {LONG} OR {bad}), {vectors}, {joined}"
        )
        values = ", ".join(
            f"{counted_value(table, column)} AS {column.name}" for column in table.columns
        )
        quick = load_driver().sqlite_version_info >= _OCTET_LENGTH_SINCE
        size = "octet_length({})" if quick else "length(CAST({} AS BLOB))"
        sizes = [
            f"ifnull({size.format(column.name)}, 0)"
            for column in table.columns
            if column.kind in _LONG_KINDS
        ]
        self._values = f"{values}, {' + '.join(sizes) or '0'} AS size"

    def next_rows(self, where: Query, connection: Any) -> Batch:
        """Look at the next rows.

        Args:
            where: Which rows; the first of them, by their ids, are the next ones.
            connection: Reads.
        """
        test, parameters = where
        rows, last, is_bad, least, most, vectors, *joined = connection.execute(
            f"SELECT {self._outputs} FROM (SELECT {self._values} FROM {self._name}"
            f" WHERE {test} ORDER BY id LIMIT {ROWS})",
            parameters,
        ).fetchone()
        is_good = (
            not is_bad
            and least == most
            and (vectors is None or are_vectors(vectors, least))
            and all(
                value is None or good(value)
                for value, (_, good) in zip(joined, self._tests, strict=True)
            )
        )
        return Batch(rows, last, is_good)


def _tests(table: Table[Any]) -> Iterator[tuple[str, Callable[[bytes], bool]]]:
    """Yield outputs of many values as one, and the test of each."""
    tests = {
        Kind.LABEL: _are_texts,
        Kind.STRING: _are_texts,
        Kind.TEXT: _are_texts,
        Kind.TIMESTAMP: _are_moments,
        Kind.DATE: _are_days,
        Kind.JSON: _are_objects,
        Kind.JSON_TEXT: _are_json,
        Kind.TAGS: _are_labels,
    }
    for column in table.columns:
        if column.kind in tests:
            yield (
                (
                    f"group_concat(CASE WHEN size <= {LONG} THEN {column.name} END,"
                    f" char({ord(SEPARATOR)}))"
                ),
                tests[column.kind],
            )


def _bad(column: Column) -> str:
    """Return the test that is true of a value which may not be held everywhere."""
    name = column.name
    match column.kind:
        case Kind.INTEGER | Kind.FLOAT:
            least = -MAX_COUNT if column.minimum is None else column.minimum
            most = MAX_COUNT if column.maximum is None else column.maximum
            # Of texts and BLOBs too, which are greater than any number.
            test = f"{name} NOT BETWEEN {least} AND {most}"
            return (
                test
                if column.kind is Kind.FLOAT
                else f"{test} OR {name} <> CAST({name} AS INTEGER)"
            )
        case Kind.VECTOR:
            return f"typeof({name}) NOT IN ('blob', 'null')"
        case Kind.LABEL:
            choices = ", ".join(f"'{choice}'" for choice in column.choices)
            chosen = f" OR {name} NOT IN ({choices})" if choices else ""
            return f"{name} >= x'' OR length({name}) > {SHORT_LABEL}{chosen}"
        case Kind.JSON | Kind.JSON_TEXT | Kind.TAGS:
            # Numbers are less than any text, BLOBs are not; of them json_valid may say yes.
            return f"{name} < '' OR {name} >= x'' OR NOT json_valid({name})"
        case Kind.TIMESTAMP | Kind.DATE:
            return f"{name} < '' OR {name} >= x''"
        case _:
            return f"{name} >= x''"


def _are_texts(joined: bytes) -> bool:
    try:
        joined.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in joined


def _are_moments(joined: bytes) -> bool:
    try:
        return are_moments(joined.decode().split(SEPARATOR))
    except UnicodeDecodeError:
        return False


def _are_days(joined: bytes) -> bool:
    try:
        return are_days(joined.decode().split(SEPARATOR))
    except UnicodeDecodeError:
        return False


def _are_json(joined: bytes) -> bool:
    return _values(joined) is not None


def _are_objects(joined: bytes) -> bool:
    values = _values(joined)
    return values is not None and all(value.startswith("{") for value in values)


def _are_labels(joined: bytes) -> bool:
    values = _values(joined)
    if values is None:
        return False
    # Of what `json_valid` has passed, the parts are parsed as one.
    lists = json.loads(f"[{','.join(values)}]")
    return all(
        isinstance(labels, list)
        and all(isinstance(label, str) and len(label) <= SHORT_LABEL for label in labels)
        for labels in lists
    )


def _values(joined: bytes) -> list[str] | None:
    """Return JSON texts that `json_valid` has passed, or None for a closer look."""
    # An escape may be of a NUL or a surrogate.
    if b"\\u" in joined or may_have_exponents(joined):
        return None
    try:
        values = joined.decode().split(SEPARATOR)
    except UnicodeDecodeError:
        return None
    for value in values:
        if len(value) > MAX_JSON_DEPTH and (
            value.count("[") + value.count("{") > MAX_JSON_DEPTH
            or (len(value) > DIGITS and _MANY_DIGITS.search(value))
        ):
            return None
    return values
