"""Whether the sums of costs by day are those of the rows, and making them anew.

Triggers keep them (migration 0006), also for other programs. What they do not hear of is a program
that writes with triggers switched off, or writes the sums themselves.
"""

from __future__ import annotations

from typing import Any, Final

_KEY: Final = "period_start, period_type, provider, model"
_NUMBERS: Final = ("calls", "priced", "total", "input_tokens", "output_tokens")

_SUMS: Final = f"""
SELECT {_KEY}, count(*) AS calls, count(cost) AS priced,
    COALESCE(sum(cost::numeric), 0) AS total, COALESCE(sum(input_tokens), 0) AS input_tokens,
    COALESCE(sum(output_tokens), 0) AS output_tokens
FROM costs GROUP BY {_KEY}
"""

_COUNT_WRONG: Final = f"""
SELECT count(*) FROM (
    SELECT 1 FROM (
        SELECT {_KEY}, {", ".join(_NUMBERS)} FROM cost_days
        UNION ALL
        SELECT {_KEY}, {", ".join(f"-{name}" for name in _NUMBERS)} FROM ({_SUMS}) rows
    ) both_ways
    GROUP BY {_KEY} HAVING {" OR ".join(f"sum({name}) <> 0" for name in _NUMBERS)}
) wrong
"""


async def count_wrong(connection: Any) -> int:
    """Return how many groups of costs have other sums than their rows."""
    return int(await connection.fetchval(_COUNT_WRONG))


async def make_anew(connection: Any) -> None:
    """Add up all rows; whoever writes costs waits so long."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE costs IN SHARE ROW EXCLUSIVE MODE")
        await connection.execute("DELETE FROM cost_days")
        await connection.execute(f"INSERT INTO cost_days ({_KEY}, {', '.join(_NUMBERS)}) {_SUMS}")
