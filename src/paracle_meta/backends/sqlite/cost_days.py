"""Whether the sums of costs by day are those of the rows, and making them anew.

Triggers keep them (migration 0006), also for other programs. What they do not hear of is a program
that replaces a row by INSERT OR REPLACE without recursive_triggers, or writes the sums themselves.
"""

from __future__ import annotations

from typing import Any, Final

from paracle_meta.backends.sqlite.files import lock, transaction
from paracle_meta.schema import COSTS, MAX_COST, MAX_COUNT

_KEY: Final = "period_start, period_type, provider, model"
_COUNTS: Final = ("calls", "priced", "input_tokens", "output_tokens")

_PARTS: Final = 2**30
"""Whole dollars and so many parts of a dollar are added as integers, which loses nothing.

SQLite's own sum of floats drifts before 3.43.
"""

_PAID: Final = f"CASE WHEN cost BETWEEN 0 AND {MAX_COST:g} THEN cost ELSE 0.0 END"

_PARTS_PAID: Final = f"((paid - CAST(paid AS INTEGER)) * {_PARTS})"


def _tokens(name: str) -> str:
    return (
        f"sum(CASE WHEN typeof({name}) = 'integer' AND {name} BETWEEN 0 AND {MAX_COUNT}"
        f" THEN {name} ELSE 0 END) AS {name}"
    )


_SUMS: Final = f"""
SELECT {_KEY}, calls, priced, whole + part AS total,
    (whole - ((whole + part) - ((whole + part) - whole))) + (part - ((whole + part) - whole)) + rest
    AS lost, input_tokens, output_tokens
FROM (
    SELECT {_KEY}, count(*) AS calls, count(cost) AS priced,
        CAST(sum(CAST(paid AS INTEGER)) AS REAL) AS whole,
        sum(CAST({_PARTS_PAID} AS INTEGER)) / {_PARTS}.0 AS part,
        sum({_PARTS_PAID} - CAST({_PARTS_PAID} AS INTEGER)) / {_PARTS}.0 AS rest,
        {_tokens("input_tokens")}, {_tokens("output_tokens")}
    FROM (SELECT *, {_PAID} AS paid FROM costs) GROUP BY {_KEY}
)
"""
"""What the rows come to, as ``cost_days`` has it: what rounding took from a total is beside it."""

_COUNT_WRONG: Final = f"""
SELECT count(*) FROM (
    SELECT 1 FROM (
        SELECT {_KEY}, calls, priced, total, lost, input_tokens, output_tokens FROM cost_days
        UNION ALL
        SELECT {_KEY}, -calls, -priced, -total, -lost, -input_tokens, -output_tokens FROM ({_SUMS})
    )
    GROUP BY {_KEY}
    HAVING {" OR ".join(f"sum({name}) <> 0" for name in _COUNTS)}
    OR abs(sum(total) + sum(lost)) > 5e-10
)
"""
"""A total is wrong by more than what a report rounds away."""


def count_wrong(connection: Any) -> int:
    """Return how many groups of costs have other sums than their rows."""
    (wrong,) = connection.execute(_COUNT_WRONG).fetchone()
    return int(wrong)


def make_anew(connection: Any) -> None:
    """Add up all rows."""
    with transaction(connection):
        lock(connection, COSTS)
        connection.execute("DELETE FROM cost_days")
        connection.execute(
            f"INSERT INTO cost_days ({_KEY}, calls, priced, total, lost, input_tokens,"
            f" output_tokens) {_SUMS}"
        )
