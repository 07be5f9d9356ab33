"""Portable rows as asyncpg takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta.backends import portable
from paracle_meta.backends.postgresql.dialect import jsonb_texts
from paracle_meta.schema import Column, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    match column.kind:
        case Kind.JSON:
            return jsonb_texts(values)
        case Kind.JSON_TEXT | Kind.FLOAT:
            return values
        case Kind.TIMESTAMP if None not in values:
            return portable.decode_times(values)
    decode = portable.decoder(column)
    if decode is None:
        return values
    return [None if value is None else decode(value) for value in values]
