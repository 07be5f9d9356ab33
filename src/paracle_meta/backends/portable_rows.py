"""What both databases ask of portable rows before they store them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from paracle_meta.schema import MEMORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.portable import Row
    from paracle_meta.schema import Table


def position(table: Table[Any], name: str) -> int:
    """Return where a column stands in a row."""
    return next(n for n, column in enumerate(table.columns) if column.name == name)


def parent_of(table: Table[Any]) -> int | None:
    """Return where a row names the row that it refers to, or None where it refers to none."""
    return next((n for n, column in enumerate(table.columns) if column.references), None)


_KEY: Final = [position(MEMORY, name) for name in ("scope", "session_id", "key")]


def memory_key(row: Row) -> tuple[str, str, str]:
    """Return what no two rows of ``memory`` have in common: scope, session or nothing, key."""
    scope, session, key = (row[n] for n in _KEY)
    return scope, session or "", key


def with_whole_vectors(table: Table[Any], rows: Sequence[Row]) -> list[Row]:
    """Return the rows with a vector and its model, or neither: one alone would never be mended."""
    if not table.has_vector:
        return list(rows)
    vector, model = position(table, "embedding"), position(table, "embedding_model")
    return [
        row if (row[vector] is None) == (row[model] is None) else _without(row, vector, model)
        for row in rows
    ]


def _without(row: Row, *places: int) -> Row:
    return tuple(None if n in places else value for n, value in enumerate(row))
