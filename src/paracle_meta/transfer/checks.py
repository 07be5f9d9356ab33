"""What is asked of a database before anything of it goes elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.bulk import EVER
from paracle_meta.exceptions import TransferError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.bulk import Period, Snapshot
    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.schema import Table

MOST_NAMED: Final = 10_000
"""Values that are named one by one; of more of them, whoever reads it mends the cause."""


async def vector_spaces(snapshot: Snapshot, tables: Sequence[Table[Any]]) -> dict[str, VectorSpace]:
    """Return the model and width of the vectors of each collection that has some, by its name.

    Raises:
        TransferError: One has vectors of several models.
    """
    found = {}
    for table in tables:
        spaces = await snapshot.vector_spaces(table)
        if len(spaces) > 1:
            models = ", ".join(f"{space.model} ({space.dimensions:,})" for space in spaces)
            raise TransferError(
                f"{table.name} holds vectors that cannot be compared: {models}. Make them anew "
                f"first: paracle meta reembed {table.name}."
            )
        if spaces:
            found[table.name] = spaces[0]
    return found


async def unportable_values(
    snapshot: Snapshot, tables: Sequence[Table[Any]], period: Period = EVER
) -> tuple[list[str], int]:
    """Return what no other database can hold, a text each, and how much more of it there is."""
    named: list[str] = []
    more = 0
    for table in tables:
        async for value in snapshot.unportable(table, period):
            if len(named) < MOST_NAMED:
                named.append(f"{value.table} {value.record_id}, {value.column}: {value.reason}")
            else:
                more += 1
    return named, more
