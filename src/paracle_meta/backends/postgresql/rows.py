"""Portable rows as asyncpg takes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from paracle_meta.backends import portable
from paracle_meta.backends.postgresql.dialect import jsonb_text
from paracle_meta.schema import Column, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from paracle_meta.backends.portable import Row
    from paracle_meta.schema import Table


def records(
    table: Table[Any], columns: Sequence[Column], rows: Sequence[Row]
) -> Iterator[tuple[Any, ...]]:
    """Yield rows of a table with the values of some of its columns, in the driver's form."""
    values: dict[Column, Sequence[Any]] = dict(
        zip(table.columns, zip(*rows, strict=True), strict=True)
    )
    return zip(*(_encoded(column, values[column]) for column in columns), strict=True)


def _encoded(column: Column, values: Sequence[Any]) -> Sequence[Any]:
    encode = _encoder(column)
    if encode is None:
        return values
    return [None if value is None else encode(value) for value in values]


def _encoder(column: Column) -> Callable[[Any], Any] | None:
    match column.kind:
        case Kind.JSON:
            return jsonb_text
        case Kind.JSON_TEXT | Kind.FLOAT:
            return None
        case Kind.TAGS:
            return json.loads
        case _:
            return portable.decoder(column)
