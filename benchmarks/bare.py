"""What the bare drivers do: the same tables, the same rows, and nothing around them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol

from benchmarks import stock
from paracle_meta.schema import COSTS, GENERATIONS, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.portable import Row
    from paracle_meta.schema import Column, Table

DAILY_COLUMNS: Final = "day, provider, model, calls, input_tokens, output_tokens, cost"
"""Of the table that whoever records a cost keeps up, so that a report adds up days, not calls."""


class Bare(Protocol):
    """One database through its driver. Ways take the number of the call."""

    async def fill(self, table: Table[Any], rows: Sequence[Row]) -> None:
        """Store rows."""

    async def fill_daily(self) -> None:
        """Make the table of days from the costs that are stored."""

    async def settle(self) -> None:
        """Bring the planner's statistics up to date."""

    def prepare(self, kind: str, numbers: range) -> None:
        """Make the parameters of what is to be stored, before anything is timed."""

    async def get(self, n: int) -> Any:
        """Read one generation by its id."""

    async def add(self, n: int) -> Any:
        """Store one generation."""

    async def record(self, n: int) -> Any:
        """Store one cost."""

    async def record_daily(self, n: int) -> Any:
        """Store one cost, and add it to its day in the same transaction."""

    async def report(self, n: int) -> float:
        """Add up the costs of the month by provider, model and day."""

    async def report_daily(self, n: int) -> float:
        """Add up the days of the month by provider, model and day."""


def column_names(table: Table[Any]) -> str:
    return ", ".join(column.name for column in table.columns)


def report_sql(table: str, day: str, calls: str) -> str:
    """Return the query of a report; the first and the last day are its parameters."""
    return (
        f"SELECT provider, model, {day}, {calls}, sum(cost), sum(input_tokens), sum(output_tokens)"
        f" FROM {table} WHERE {day} >= $1 AND {day} <= $2 GROUP BY provider, model, {day}"
    )


def upsert_daily(values: str) -> str:
    """Return the statement that adds calls to their day."""
    grown = ", ".join(
        f"{name} = daily.{name} + excluded.{name}"
        for name in ("calls", "input_tokens", "output_tokens", "cost")
    )
    return (
        f"INSERT INTO daily ({DAILY_COLUMNS}) {values}"
        f" ON CONFLICT (day, provider, model) DO UPDATE SET {grown}"
    )


FROM_COSTS: Final = (
    "SELECT period_start, provider, model, count(*), sum(input_tokens), sum(output_tokens),"
    " sum(cost) FROM costs WHERE true GROUP BY period_start, provider, model"
)


class Prepared:
    """Parameters that were made before they are needed."""

    def __init__(self, time: Any, day: Any) -> None:
        self._time, self._day = time, day
        self.generations: dict[int, tuple[Any, ...]] = {}
        self.costs: dict[int, tuple[Any, ...]] = {}

    def make(self, kind: str, numbers: range) -> None:
        """Make those of new rows."""
        self.generations = {n: self.of(GENERATIONS, stock.new_generation(kind, n)) for n in numbers}
        self.costs = {n: self.of(COSTS, stock.new_cost(kind, n)) for n in numbers}

    def of(self, table: Table[Any], record: Any) -> tuple[Any, ...]:
        """Return a record as the driver takes it."""
        return tuple(self._value(column, getattr(record, column.name)) for column in table.columns)

    def _value(self, column: Column, value: Any) -> Any:
        match column.kind:
            case _ if value is None:
                return None
            case Kind.TIMESTAMP:
                return self._time(value)
            case Kind.DATE:
                return self._day(value)
            case Kind.JSON:
                return json.dumps(value)
            case _:
                return value


def daily_of(cost: Sequence[Any]) -> tuple[Any, ...]:
    """Return what a cost adds to its day, in the order of DAILY_COLUMNS."""
    _id, provider, model, sent, received, paid, _type, day, *_times = cost
    return day, provider, model, 1, sent, received, paid
