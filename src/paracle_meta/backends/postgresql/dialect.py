"""How PostgreSQL spells statements and stores values."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from paracle_meta.backends.portable_tests import may_have_exponents
from paracle_meta.schema import Column, Kind
from paracle_meta.values import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MAYBE_LARGE = re.compile(r"[0-9][eE]\+?[0-9]")

# A text, or a number with a positive exponent.
_LARGE_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?[eE]\+?\d+')


def encode_jsonb(value: Any) -> str:
    """Return JSON text that JSONB gives back with the same types."""
    return jsonb_text(encode_json(value))


def jsonb_text(text: str) -> str:
    """Return JSON text, whoever wrote it, so that JSONB gives back values of the same types.

    JSONB keeps numbers as decimals: 1e+16 would come back as the whole number 10000000000000000.
    Written out with a decimal point it stays a float.
    """
    if _MAYBE_LARGE.search(text) is None:
        return text
    return _LARGE_FLOAT.sub(_write_out, text)


def jsonb_texts(texts: Sequence[str | None]) -> Sequence[str | None]:
    """Do the same with many; a missing one stays missing."""
    if not may_have_exponents("".join(filter(None, texts)).encode()):
        return texts
    return [None if text is None else jsonb_text(text) for text in texts]


def _write_out(found: re.Match[str]) -> str:
    token = found.group()
    return token if token.startswith('"') else f"{float(token):.1f}"


class PostgresDialect:
    """Dollar parameters; vectors go in as `codec` takes them and come out as arrays."""

    vector_output = "embedding::float4[]"
    dollars = "sum(total)::float8"

    def parameter(self, position: int) -> str:
        """See `dialect.Dialect`."""
        return f"${position}"

    def value(self, column: Column, position: int) -> str:
        """See `dialect.Dialect`."""
        match column.kind:
            case Kind.INTEGER:
                # So that comparing with a number beyond the column's own width is no error.
                return f"${position}::bigint"
            case _:
                return f"${position}"

    def one_of(self, column: Column, position: int) -> str:
        """See `dialect.Dialect`."""
        cast = "::bigint[]" if column.kind is Kind.INTEGER else ""
        return f"{column.name} = ANY(${position}{cast})"

    def contains_all(self, column: Column, position: int) -> str:
        """See `dialect.Dialect`."""
        return f"{column.name} @> ${position}::text[]"

    def distinct(self, column: Column, position: int) -> str:
        """See `dialect.Dialect`."""
        return f"{column.name} IS DISTINCT FROM {self.value(column, position)}"

    def encoder(self, column: Column) -> Callable[[Any], Any] | None:
        """See `dialect.Dialect`."""
        match column.kind:
            case Kind.JSON:
                return encode_jsonb
            case Kind.JSON_TEXT:
                return encode_json
            case _:
                return None

    def encode_many(self, column: Column, values: list[Any]) -> Any:
        """See `dialect.Dialect`."""
        encode = self.encoder(column)
        return values if encode is None else [encode(value) for value in values]

    def decoder(self, column: Column) -> Callable[[Any], Any] | None:
        """See `dialect.Dialect`."""
        match column.kind:
            case Kind.JSON | Kind.JSON_TEXT:
                return json.loads
            case _:
                return None
