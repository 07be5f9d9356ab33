"""Reading from SQLite with every value mended that no other database can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from paracle_meta.backends.sqlite.mending import cut, mend, mend_row
from paracle_meta.backends.sqlite.reading import AsStored, counted_value
from paracle_meta.schema import BY_NAME, MAX_LABEL_BYTES, Column, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from paracle_meta.backends.portable import Row
    from paracle_meta.backends.statements import Query

NUMBER_BYTES: Final = 12
"""Of an id, kept free for what tells it from another that became the same."""


class Stored(NamedTuple):
    """An id as it is stored."""

    storage: str
    raw: Any


class AsMended:
    """Values with replacements, see `mending`. See `reading.Form`.

    What becomes of an id is remembered, so that no two rows get the same one and whoever refers to
    a row still does.
    """

    def __init__(self, moment: datetime) -> None:
        """Prepare.

        Args:
            moment: See `mending.mend`.
        """
        self._moment = moment
        self._ids: dict[str, dict[Stored, str]] = {}

    def outputs(self, table: Table[Any], columns: Sequence[Column]) -> str:
        """See `reading.Form`."""
        return ", ".join(stored_form(counted_value(table, column)) for column in columns)

    def rows(
        self, table: Table[Any], columns: Sequence[Column], found: list[Row], connection: Any
    ) -> list[Row]:
        """See `reading.Form`."""
        return [self._row(table, columns, stored, connection) for stored in found]

    def _row(
        self, table: Table[Any], columns: Sequence[Column], stored: Row, connection: Any
    ) -> Row:
        row = list(mend_row(table, columns, stored, self._moment).row)
        for n, column in enumerate(columns):
            owner = table.name if column.name == "id" else column.references
            if owner is not None:
                place = Stored(*stored[2 * n : 2 * n + 2])
                row[n] = self._mended_ids(owner, connection).get(place, row[n])
        return tuple(row)

    def with_ids(self, table: Table[Any], ids: Sequence[str], connection: Any) -> Query:
        """See `reading.Form`."""
        test, parameters = AsStored().with_ids(table, ids, connection)
        wanted = set(ids)
        for stored, mended in self._mended_ids(table.name, connection).items():
            if mended in wanted:
                test += " OR id = CAST(? AS TEXT)" if stored.storage == "text" else " OR id = ?"
                parameters.append(stored.raw)
        return test, parameters

    def _mended_ids(self, name: str, connection: Any) -> dict[Stored, str]:
        """Return what becomes of those ids of a table that cannot be held elsewhere."""
        if name not in self._ids:
            table = BY_NAME[name]
            mended: dict[Stored, str] = {}
            used: set[str] = set()
            for stored, text in self._broken_ids(table, connection):
                new = self._unused(name, text, used, connection)
                used.add(new)
                mended[stored] = new
            self._ids[name] = mended
        return self._ids[name]

    def _broken_ids(self, table: Table[Any], connection: Any) -> Iterator[tuple[Stored, str]]:
        column = table.columns[0]
        rows = connection.execute(f"SELECT {stored_form('id')} FROM {table.name} ORDER BY id")
        for storage, raw in rows:
            text, reason = mend(table, column, storage, raw, self._moment)
            if reason is not None:
                yield Stored(storage, raw), text

    def _unused(self, name: str, text: str, used: set[str], connection: Any) -> str:
        """Return an id that no other row has: the text, or the text with a number."""
        new, number = text, 1
        while (
            new in used
            or connection.execute(f"SELECT 1 FROM {name} WHERE id = ?", (new,)).fetchone()
        ):
            number += 1
            new = f"{cut(text, MAX_LABEL_BYTES - NUMBER_BYTES)}-{number}"
        return new


def stored_form(expression: str) -> str:
    """Return the two outputs of a query that `mend_row` reads a value from."""
    return (
        f"typeof({expression}),"
        f" CASE typeof({expression}) WHEN 'text' THEN CAST({expression} AS BLOB)"
        f" ELSE {expression} END"
    )
