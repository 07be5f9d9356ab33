"""SQL of what is counted over many rows, spelled for each database by its `Dialect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.dialect import Dialect


def cost_groups(dialect: Dialect, tests: Sequence[str]) -> str:
    """Return the statement for costs by provider, model and day.

    Read from ``cost_days``, which triggers keep (migration 0006). Several of its rows may be of one
    group, and a group of which nothing is left may have some yet.

    Args:
        dialect: Spells the sum of dollars.
        tests: On the days, and which kind of period they are.
    """
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    # PostgreSQL's sum of 64-bit integers is a decimal.
    calls, unpriced, sent, received = (
        f"CAST(sum({numbers}) AS BIGINT)"
        for numbers in ("calls", "calls - priced", "input_tokens", "output_tokens")
    )
    return (
        f"SELECT provider, model, period_start, {calls}, {unpriced}, {dialect.dollars}, {sent},"
        f" {received} FROM cost_days{where}"
        " GROUP BY period_start, provider, model HAVING sum(calls) <> 0"
        " ORDER BY period_start, provider, model"
    )


def qualified_generations(dialect: Dialect) -> str:
    """Return the statement for generations with enough good ratings or a high score.

    Its parameters are the least number of ratings, their least average, and the least score.
    """
    ratings, average, quality = (dialect.parameter(n) for n in (1, 2, 3))
    return (
        "SELECT g.id, g.quality_score, COALESCE(f.ratings, 0), f.average FROM generations g"
        " LEFT JOIN (SELECT generation_id, count(*) AS ratings,"
        " CAST(sum(rating) AS FLOAT) / count(*) AS average FROM feedback"
        " GROUP BY generation_id) f"
        " ON f.generation_id = g.id"
        f" WHERE (f.ratings >= {ratings} AND f.average >= {average})"
        f" OR g.quality_score >= {quality}"
        " ORDER BY g.created_at, g.id"
    )
