"""Finds what no other database can hold: batch by batch, and only in a bad batch value by value.

Looking at each value by itself takes ten times as long as reading it. So a batch is first tested as
a whole; where that leaves a doubt, its rows are read and tested column by column; and where that
leaves one too, each value is looked at.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from paracle_meta.backends.bulk import BATCH_ROWS, Unportable
from paracle_meta.backends.portable_tests import looks_good
from paracle_meta.backends.sqlite.batches import BatchTest
from paracle_meta.backends.sqlite.mended import AsMended
from paracle_meta.backends.sqlite.mending import mend_row
from paracle_meta.backends.sqlite.reading import AsStored, fetch, is_no_text

if TYPE_CHECKING:
    from datetime import datetime

    from paracle_meta.backends.statements import Query
    from paracle_meta.schema import Table


BATCHES: Final = 8
"""Looked at without a word to the event loop, which costs as much as some 50 rows; 20 ms in all, so
that whoever is cancelled need not wait for long."""


class Place(NamedTuple):
    """The id of the last row that was looked at, as it is stored; None before the first."""

    storage: str | None = None
    raw: Any = None


class Look(NamedTuple):
    """What was found in some rows, and where they end; None at the end of the table."""

    found: list[Unportable]
    end: Place | None


class Search:
    """Goes through the rows of a table."""

    def __init__(self, table: Table[Any], where: Query, moment: datetime) -> None:
        """Prepare.

        Args:
            table: Whose rows.
            where: Which of them.
            moment: See `mending.mend`.
        """
        self._table = table
        self._test, self._parameters = where
        self._moment = moment
        self._batches = BatchTest(table)

    def look(self, after: Place, connection: Any) -> Look:
        """Look at the next rows, until something is found or for some batches.

        Args:
            after: The end of the last look.
            connection: One that a snapshot reads with.
        """
        look = Look([], after)
        for _ in range(BATCHES):
            if look.found or look.end is None:
                break
            look = self._look(look.end, connection)
        return look

    def _look(self, after: Place, connection: Any) -> Look:
        test, parameters = self._test, self._parameters
        if after.storage is not None:
            # Also what is no text may be compared.
            test = f"({test}) AND id > " + ("CAST(? AS TEXT)" if after.storage == "text" else "?")
            parameters = [*parameters, after.raw]
        batch = self._batches.next_rows((test, parameters), connection)
        if batch.last is None:
            return Look([], None)
        if batch.is_good:
            return Look([], Place("text", batch.last))
        rest = f"FROM {self._table.name} WHERE {test} ORDER BY id"
        return self._closer_look(after, (rest, parameters), connection)

    def _closer_look(self, after: Place, rest: Query, connection: Any) -> Look:
        table, columns = self._table, self._table.columns
        statement, parameters = rest
        form = AsStored()
        number = BATCH_ROWS
        try:
            cursor = connection.execute(
                f"SELECT {form.outputs(table, columns)} {statement}", parameters
            )
            rows = fetch(cursor)
            number = len(rows)
            if looks_good(table, rows):
                return Look([], Place("text", rows[-1][0].encode()))
        except Exception as error:
            if not is_no_text(error):
                raise
        outputs = AsMended(self._moment).outputs(table, columns)
        found: list[Unportable] = []
        end = after
        # One by one, as they may be large.
        for stored in connection.execute(
            f"SELECT {outputs} {statement} LIMIT {number}", parameters
        ):
            end = Place(*stored[:2])
            reasons = mend_row(table, columns, stored, self._moment).reasons
            found += [
                Unportable(table.name, shown(*end), column, reason)
                for column, reason in reasons.items()
            ]
        return Look(found, end)


def shown(storage: str | None, raw: Any) -> str:
    """Return an id in a form that can be printed."""
    if storage == "text":
        with contextlib.suppress(UnicodeDecodeError):
            text = raw.decode()[:90]
            return text if text.isprintable() else f"{text!a}"
    return f"{raw!r:.90}"
