"""Makes records of rows, many a search and page, so at the least cost a record."""

from __future__ import annotations

from collections import deque
from dataclasses import MISSING, fields
from itertools import chain, repeat
from operator import call
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

R = TypeVar("R")


class RecordBuilder(Generic[R]):
    """Makes records of one type of the values of these fields, in their order.

    The records are frozen and have slots, so their own constructor sets each field by way of
    `object.__setattr__`. What comes from the database was checked when it was stored, and the slots
    are filled directly here, in a third of the time.
    """

    def __init__(self, record: type[R], names: Sequence[str]) -> None:
        """Prepare.

        Args:
            record: A frozen dataclass with slots, without a `__post_init__`.
            names: The fields that rows have values for; the others get their defaults, which must
                be plain values.
        """
        self._record = record
        others = [
            field
            for field in fields(record)  # type: ignore[arg-type]
            if field.name not in names and field.default is not MISSING
        ]
        self._defaults = [field.default for field in others]
        self._setters: list[Callable[[R, Any], None]] = [
            getattr(record, name).__set__ for name in [*names, *(field.name for field in others)]
        ]

    def __call__(self, values: Sequence[Any]) -> R:
        """Return the record of these values, one a name."""
        record = object.__new__(self._record)
        # A loop without a step of Python's own, in half of the time of one with.
        deque(map(call, self._setters, repeat(record), chain(values, self._defaults)), maxlen=0)
        return record
