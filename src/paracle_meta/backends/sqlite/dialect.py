"""How SQLite spells statements; values are stored in their portable form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends import portable
from paracle_meta.schema import Column, Kind
from paracle_meta.values import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable


_KINDS_AS_JSON: Final = frozenset(
    {Kind.LABEL, Kind.STRING, Kind.TEXT, Kind.INTEGER, Kind.FLOAT, Kind.TAGS}
)
"""Kinds of which several values, or the labels of tags, are JSON as they are."""


class SqliteDialect:
    """Numbered question marks; times, dates, JSON and tags as text; vectors as bytes."""

    vector_output = "embedding"
    dollars = "sum(total + lost)"

    def parameter(self, position: int) -> str:
        """See `dialect.Dialect`."""
        return f"?{position}"

    def value(self, column: Column, position: int) -> str:  # noqa: ARG002
        """See `dialect.Dialect`."""
        return f"?{position}"

    def one_of(self, column: Column, position: int) -> str:
        """See `dialect.Dialect`."""
        return f"{column.name} IN (SELECT value FROM json_each(?{position}))"

    def contains_all(self, column: Column, position: int) -> str:
        """See `dialect.Dialect`."""
        return (
            f"NOT EXISTS (SELECT 1 FROM json_each(?{position}) wanted WHERE wanted.value NOT IN"
            f" (SELECT value FROM json_each(COALESCE({column.name}, '[]'))))"
        )

    def distinct(self, column: Column, position: int) -> str:
        """See `dialect.Dialect`."""
        return f"{column.name} IS NOT ?{position}"

    def encoder(self, column: Column) -> Callable[[Any], Any] | None:
        """See `dialect.Dialect`."""
        return portable.encoder(column)

    def encode_many(self, column: Column, values: list[Any]) -> Any:
        """See `dialect.Dialect`."""
        if column.kind in _KINDS_AS_JSON:
            return encode_json(values)
        return encode_json([portable.encode(column, value) for value in values])

    def decoder(self, column: Column) -> Callable[[Any], Any] | None:
        """See `dialect.Dialect`."""
        return portable.decoder(column)
