"""Which of the six kinds of records are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta.exceptions import InvalidValueError
from paracle_meta.schema import BY_NAME, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paracle_meta.schema import Table


def tables_of(kinds: Iterable[str] | None) -> tuple[Table[Any], ...]:
    """Return the tables of some kinds, or all for None, in the order in which they can be loaded.

    Raises:
        InvalidValueError: There is no such kind, or none is named.
    """
    if kinds is None:
        return TABLES
    wanted = {kinds} if isinstance(kinds, str) else set(kinds)
    for kind in wanted:
        if kind not in BY_NAME:
            raise InvalidValueError(
                f"{kind!r:.60} is no kind of record; there are {', '.join(BY_NAME)}."
            )
    if not wanted:
        raise InvalidValueError("kinds is empty; leave it out for all of them.")
    return tuple(table for table in TABLES if table.name in wanted)
