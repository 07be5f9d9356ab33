"""The contract of what reports add up: always what the rows come to, whatever has written them."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import asyncio
from datetime import date
from math import fsum
from typing import Any

import pytest

from paracle_meta import CostRecord, CostRepository, MetaDatabase, NotFoundError
from paracle_meta.retention import prune
from paracle_meta.testing.base import Contract, OpenDatabase, at
from paracle_meta.testing.costs import MARCH, cost


async def assert_sums_are_those_of_the_rows(costs: CostRepository, day: date = MARCH) -> None:
    """See that the reports of a month and of its days say what adding up all rows comes to."""
    rows: list[CostRecord] = []
    while page := await costs.list(10_000, after=rows[-1].id if rows else None):
        rows += page
    month = [row for row in rows if row.period_start.replace(day=1) == day.replace(day=1)]
    report = await costs.get_report("monthly", day)
    assert said(report) == expected(month)
    for lines, name in (
        (report.by_provider, "provider"),
        (report.by_model, "model"),
        (report.by_day, "period_start"),
    ):
        found: Any = lines
        values = {getattr(row, name) for row in month}
        assert {value: said(line) for value, line in found.items()} == {
            value: expected([row for row in month if getattr(row, name) == value])
            for value in values
        }
    for start in report.by_day:
        of_day = [row for row in month if row.period_start == start and row.period_type == "daily"]
        assert said(await costs.get_report("daily", start)) == expected(of_day)


def said(report: Any) -> tuple[Any, ...]:
    """Return the numbers of a report or of one of its lines."""
    return (
        report.total,
        report.calls,
        report.unpriced_calls,
        report.input_tokens,
        report.output_tokens,
    )


def expected(rows: list[CostRecord]) -> tuple[Any, ...]:
    """Return what they should be."""
    return (
        round(fsum(row.cost or 0.0 for row in rows), 9),
        len(rows),
        sum(row.cost is None for row in rows),
        sum(row.input_tokens or 0 for row in rows),
        sum(row.output_tokens or 0 for row in rows),
    )


class CostSumContract(Contract):
    """Reports after all kinds of writes, by many at once, and of amounts that came and went."""

    async def test_reports_follow_whatever_writes(
        self, database: MetaDatabase, costs: CostRepository
    ) -> None:
        rows = [
            cost(
                f"cst-{n:03}",
                provider=f"p{n % 3}",
                model=f"m{n % 2}",
                cost=(None, 0.1, 0.2, n * 0.0000137, 0, n / 7)[n % 6],
                input_tokens=(None, n)[n % 2],
                output_tokens=(n, None, 2**31 - 1)[n % 3],
                period_type=("daily", "daily", "monthly")[n % 3],
                period_start=date(2026, 3, 1 + n % 4),
                created_at=at(n),
            )
            for n in range(240)
        ]
        await costs.add_many(rows[:200])
        for row in rows[200:]:
            await costs.add(row)
        # Once more: none is stored, so none counts.
        await costs.add_many(rows[:200])
        await assert_sums_are_those_of_the_rows(costs)

        await costs.update("cst-007", cost=17.25, input_tokens=3)
        await costs.update("cst-008", provider="other", cost=None)
        await costs.update("cst-010", period_start=date(2026, 3, 20), output_tokens=None)
        await costs.update("cst-011", period_start=date(2026, 4, 1), period_type="monthly")
        await costs.update("cst-012", model="m1")
        await costs.delete("cst-001")
        with pytest.raises(NotFoundError):
            await costs.delete("cst-001")
        await assert_sums_are_those_of_the_rows(costs)
        await assert_sums_are_those_of_the_rows(costs, date(2026, 4, 1))

        for statement in (
            "UPDATE costs SET cost = 0.3, input_tokens = NULL WHERE provider = 'p1'",
            "UPDATE costs SET cost = NULL WHERE id < 'cst-040'",
            "UPDATE costs SET provider = 'moved', model = provider WHERE id < 'cst-030'",
            "UPDATE costs SET cost = cost, updated_at = created_at",
            "UPDATE costs SET period_type = 'daily' WHERE period_type = 'monthly'",
            "DELETE FROM costs WHERE id > 'cst-230'",
            "INSERT INTO costs (id, provider, model, cost, period_start)"
            " VALUES ('sql-1', 'p', 'm', 0.7, '2026-03-02'), ('sql-2', 'p', 'm', 0, '2026-03-02')",
            "INSERT INTO costs (id, provider, model, cost, period_start)"
            " SELECT 'more-' || id, provider, model, cost, period_start FROM costs",
            "INSERT INTO costs (id, provider, model, cost)"
            " VALUES ('sql-1', 'p', 'm', 0.8), ('sql-3', 'p', 'm', 0.9)"
            " ON CONFLICT (id) DO UPDATE SET cost = excluded.cost",
        ):
            async with database.session(write=True) as session:
                await session.execute(statement)
            await assert_sums_are_those_of_the_rows(costs)
        async with database.session() as session:
            await session.execute("DELETE FROM costs")
            await session.rollback()
        await assert_sums_are_those_of_the_rows(costs)

        report = await prune(database, ["costs"], before=at(150))
        assert report.rows["costs"] > 0
        await assert_sums_are_those_of_the_rows(costs)
        async with database.session(write=True) as session:
            await session.execute("DELETE FROM costs")
        report_of_nothing = await costs.get_report("monthly", MARCH)
        assert (report_of_nothing.calls, report_of_nothing.by_provider) == (0, {})

    async def test_many_record_at_once(self, open_database: OpenDatabase) -> None:
        """Also by two connections to the same database, in the same group and in others."""
        both = [CostRepository(open_database()) for _ in range(2)]

        async def record(task: int) -> None:
            for n in range(12):
                await both[task % 2].add(
                    cost(f"cst-{task}-{n}", model=f"m{n % 3}", cost=0.1, input_tokens=task)
                )
                if n % 4 == 3:
                    await both[task % 2].delete(f"cst-{task}-{n}")

        await asyncio.gather(*(record(task) for task in range(16)))
        await assert_sums_are_those_of_the_rows(both[0])
        assert (await both[1].get_report("monthly", MARCH)).total == 14.4

    async def test_a_total_does_not_drift(self, costs: CostRepository) -> None:
        """What comes and goes leaves nothing behind, however large it was."""
        small = [cost(f"small-{n}", cost=0.1) for n in range(3)]
        large = [cost(f"large-{n}", cost=1e9 - n / 3) for n in range(300)]
        await costs.add_many([*large[:150], *small, *large[150:]])
        for row in large:
            await costs.delete(row.id)
        assert await costs.get_period_cost("monthly", MARCH) == 0.3
