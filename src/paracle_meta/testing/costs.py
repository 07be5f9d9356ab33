"""The contract of costs: one row a call, days in a time zone, sums that are right to the cent."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from paracle_meta import CostRecord, CostRepository, DuplicateError, InvalidValueError
from paracle_meta.testing.base import Contract, OpenDatabase, at, ids

MARCH = date(2026, 3, 1)


def cost(record_id: str = "cst-1", **values: Any) -> CostRecord:
    """Return the cost of a call on the first of March."""
    values = {
        "provider": "anthropic",
        "model": "claude",
        "period_start": MARCH,
        "created_at": at(0),
        **values,
    }
    return CostRecord(id=record_id, **values)


class CostContract(Contract):
    """Recording what calls cost, and the reports of days and months."""

    async def test_what_was_recorded_today_is_in_the_reports(self, costs: CostRepository) -> None:
        recorded = await costs.record(
            provider="anthropic",
            model="claude-sonnet-4-20250514",
            input_tokens=1000,
            output_tokens=500,
            cost=0.015,
        )
        # Not simply "today", which may have ended between two calls.
        today = recorded.period_start
        assert today == recorded.created_at.date()
        assert recorded.period_type == "daily"
        assert await costs.get(recorded.id) == recorded
        assert await costs.get_period_cost("daily", today) == 0.015
        assert await costs.get_period_cost("monthly", today) == 0.015
        report = await costs.get_report("monthly", today)
        assert (report.total, report.tokens, report.calls) == (0.015, 1500, 1)
        before = datetime.now(UTC).date()
        start = (await costs.get_report("daily")).start
        assert before <= start <= datetime.now(UTC).date()
        assert (await costs.get_report()).period == "monthly"
        assert isinstance(await costs.get_period_cost(), float)

    async def test_nothing_was_recorded(self, costs: CostRepository) -> None:
        report = await costs.get_report("monthly", MARCH)
        assert (report.total, report.calls, report.unpriced_calls, report.tokens) == (0.0, 0, 0, 0)
        assert (report.by_provider, report.by_model, report.by_day) == ({}, {}, {})
        assert await costs.get_period_cost("daily", MARCH) == 0.0

    async def test_a_day_begins_in_the_configured_zone(self, open_database: OpenDatabase) -> None:
        # The last moment of January in Auckland (UTC+13 in summer) and the first of February.
        last = datetime(2026, 1, 31, 10, 59, 59, 999999, tzinfo=UTC)
        first = last + timedelta(microseconds=1)
        auckland = CostRepository(open_database(time_zone="Pacific/Auckland"))
        january = await auckland.record("p", "m", cost=1, created_at=last)
        february = await auckland.record("p", "m", cost=2, created_at=first)
        assert january.period_start == date(2026, 1, 31)
        assert february.period_start == date(2026, 2, 1)
        assert february.created_at == first
        assert await auckland.get_period_cost("monthly", date(2026, 1, 15)) == 1
        assert await auckland.get_period_cost("daily", date(2026, 2, 1)) == 2
        # A day stays what it was when it was cut, whatever the zone is set to later.
        utc = CostRepository(open_database(time_zone="UTC"))
        assert await utc.get_period_cost("monthly", date(2026, 2, 28)) == 2
        assert (await utc.record("p", "m", cost=4, created_at=first)).period_start.month == 1

    async def test_hours_that_a_clock_change_repeats_or_leaves_out(
        self, open_database: OpenDatabase
    ) -> None:
        berlin = CostRepository(open_database(time_zone="Europe/Berlin"))
        for moment, day in (
            (datetime(2026, 3, 28, 22, 59, 59, tzinfo=UTC), date(2026, 3, 28)),
            (datetime(2026, 3, 28, 23, 0, tzinfo=UTC), date(2026, 3, 29)),
            (datetime(2026, 3, 29, 21, 59, 59, tzinfo=UTC), date(2026, 3, 29)),
            (datetime(2026, 3, 29, 22, 0, tzinfo=UTC), date(2026, 3, 30)),
            (datetime(2026, 10, 25, 22, 59, 59, tzinfo=UTC), date(2026, 10, 25)),
            (datetime(2026, 10, 25, 23, 0, tzinfo=UTC), date(2026, 10, 26)),
        ):
            assert (await berlin.record("p", "m", created_at=moment)).period_start == day

    async def test_months_have_their_own_length(self, costs: CostRepository) -> None:
        for day, first, last in (
            (date(2026, 2, 10), date(2026, 2, 1), date(2026, 2, 28)),
            (date(2028, 2, 29), date(2028, 2, 1), date(2028, 2, 29)),
            (date(2026, 12, 31), date(2026, 12, 1), date(2026, 12, 31)),
            (date(2026, 4, 1), date(2026, 4, 1), date(2026, 4, 30)),
            (date(9999, 12, 1), date(9999, 12, 1), date(9999, 12, 31)),
            (date(1, 1, 1), date(1, 1, 1), date(1, 1, 31)),
        ):
            outside = []
            if first != date.min:
                outside.append(first - timedelta(days=1))
            if last != date.max:
                outside.append(last + timedelta(days=1))
            for n, start in enumerate([first, last, *outside]):
                await costs.add(cost(f"{day}-{n}", period_start=start, cost=1))
            report = await costs.get_report("monthly", day)
            assert (report.start, report.end) == (first, last)
            assert (report.total, report.calls) == (2.0, 2)
            assert list(report.by_day) == [first, last]
            daily = await costs.get_report("daily", last)
            assert (daily.start, daily.end, daily.calls) == (last, last, 1)

    async def test_the_sum_is_right_to_the_cent(self, costs: CostRepository) -> None:
        await costs.add_many(cost(f"cent-{n}", cost=0.01) for n in range(1000))
        assert await costs.get_period_cost("daily", MARCH) == 10.0
        await costs.add_many(
            cost(f"tenth-{n}", cost=0.1, period_start=date(2026, 3, 2)) for n in range(3)
        )
        assert await costs.get_period_cost("daily", date(2026, 3, 2)) == 0.3
        await costs.add_many(
            cost(f"tiny-{n}", cost=0.0000015, provider=f"p{n % 7}", period_start=date(2026, 4, 1))
            for n in range(700)
        )
        report = await costs.get_report("monthly", date(2026, 4, 30))
        assert report.total == 0.00105
        assert {line.total for line in report.by_provider.values()} == {0.00015}

    async def test_unpriced_calls_are_counted_and_cost_nothing(self, costs: CostRepository) -> None:
        await costs.add_many(
            [
                cost("cst-1", cost=0.5, input_tokens=10),
                cost("cst-2", cost=None, output_tokens=7),
                cost("cst-3", cost=0, model="free"),
                cost("cst-4", cost=None, model="unknown"),
            ]
        )
        report = await costs.get_report("daily", MARCH)
        assert (report.total, report.calls, report.unpriced_calls) == (0.5, 4, 2)
        assert (report.input_tokens, report.output_tokens, report.tokens) == (10, 7, 17)
        assert report.by_model["unknown"].unpriced_calls == 1
        assert report.by_model["free"].unpriced_calls == 0
        stored = await costs.get("cst-2")
        assert stored is not None
        assert (stored.cost, stored.input_tokens) == (None, None)

    async def test_lines_by_provider_model_and_day(self, costs: CostRepository) -> None:
        await costs.add_many(
            cost(
                f"cst-{n}",
                provider=("b", "a", "c")[n % 3],
                model=("x", "y")[n % 2],
                cost=(1, 1, 5)[n % 3],
                input_tokens=n,
                output_tokens=2 * n,
                period_start=date(2026, 3, 31 - n),
            )
            for n in range(6)
        )
        report = await costs.get_report("monthly", MARCH)
        assert report.period == "monthly"
        # Most expensive first, ties by name.
        assert list(report.by_provider) == ["c", "a", "b"]
        assert list(report.by_model) == ["x", "y"]
        assert list(report.by_day) == [date(2026, 3, 26 + n) for n in range(6)]
        assert report.by_provider["c"].total == 10.0
        assert report.by_provider["c"].tokens == 3 * (2 + 5)
        for lines in (report.by_provider, report.by_model, report.by_day):
            breakdowns: Any = lines.values()
            assert sum(line.total for line in breakdowns) == report.total == 14.0
            assert sum(line.calls for line in breakdowns) == report.calls == 6
            assert sum(line.input_tokens for line in breakdowns) == report.input_tokens == 15

    async def test_days_folded_into_a_month_count_once(self, costs: CostRepository) -> None:
        await costs.add_many(
            [
                cost("folded", period_type="monthly", cost=100, input_tokens=5),
                cost("first", cost=1),
                cost("later", cost=2, period_start=date(2026, 3, 20)),
            ]
        )
        month = await costs.get_report("monthly", date(2026, 3, 31))
        assert (month.total, month.calls) == (103.0, 3)
        assert month.by_day[MARCH].total == 101.0
        assert await costs.get_period_cost("daily", MARCH) == 1.0
        assert await costs.get_period_cost("monthly", date(2026, 4, 1)) == 0.0

    async def test_sums_beyond_32_bits(self, costs: CostRepository) -> None:
        most = 2**31 - 1
        await costs.add_many(
            cost(f"cst-{n}", input_tokens=most, output_tokens=most) for n in range(3)
        )
        report = await costs.get_report("daily", MARCH)
        assert (report.input_tokens, report.tokens) == (3 * most, 6 * most)
        assert type(report.input_tokens) is int

    async def test_list_count_update_delete(self, costs: CostRepository) -> None:
        await costs.add_many(
            cost(f"cst-{n}", created_at=at(n), provider=("a", "b")[n % 2], model=f"m{n % 3}")
            for n in range(6)
        )
        for arguments, expected in (
            ({"provider": "a"}, [4, 2, 0]),
            ({"model": "m2"}, [5, 2]),
            ({"provider": "b", "model": "m0"}, [3]),
            ({"since": at(4)}, [5, 4]),
            ({"until": at(1)}, [0]),
            ({"filters": {"cost": None, "period_type": "daily"}}, [5, 4, 3, 2, 1, 0]),
        ):
            chosen: dict[str, Any] = arguments
            assert ids(await costs.list(**chosen)) == [f"cst-{n}" for n in expected]
            assert await costs.count(**chosen) == len(expected)
        assert ids(await costs.list(limit=2, after="cst-4")) == ["cst-3", "cst-2"]
        assert (await costs.update("cst-1", cost=0.25)).cost == 0.25
        assert await costs.get_period_cost("daily", MARCH) == 0.25
        await costs.delete("cst-1")
        assert await costs.get_period_cost("daily", MARCH) == 0.0

    async def test_recording_the_same_row_again_counts_once(self, costs: CostRepository) -> None:
        row = cost(cost=0.5)
        await costs.add(row)
        await costs.add(row)
        assert await costs.get_period_cost("daily", MARCH) == 0.5
        with pytest.raises(DuplicateError):
            await costs.add(cost(cost=0.6))

    async def test_bad_values(self, costs: CostRepository) -> None:
        bad: tuple[dict[str, Any], ...] = (
            {"input_tokens": -1},
            {"output_tokens": 2**31},
            {"input_tokens": True},
            {"output_tokens": 1.5},
            {"cost": -0.01},
            {"cost": float("nan")},
            {"cost": 1.1e9},
            {"cost": float("inf")},
            {"cost": True},
            {"cost": "1"},
            {"provider": ""},
            {"model": " "},
            {"provider": "a\0"},
            {"created_at": at(0).replace(tzinfo=None)},
        )
        for values in bad:
            with pytest.raises(InvalidValueError):
                await costs.record(**{"provider": "p", "model": "m", **values})
            with pytest.raises(InvalidValueError):
                await costs.add(cost(**values))
        more: tuple[dict[str, Any], ...] = (
            {"period_type": "weekly"},
            {"period_type": None},
            {"period_start": at(0)},
            {"period_start": "2026-03-01"},
            {"period_start": None},
        )
        for values in more:
            with pytest.raises(InvalidValueError):
                await costs.add(cost(**values))
        assert await costs.count() == 0
        periods: tuple[Any, ...] = ("weekly", "", None, 1, ["daily"])
        for period in periods:
            with pytest.raises(InvalidValueError, match="period"):
                await costs.get_period_cost(period)
        days: tuple[Any, ...] = ("2026-03-01", at(0), 1)
        for day in days:
            with pytest.raises(InvalidValueError, match="on must be a date"):
                await costs.get_report("daily", day)
