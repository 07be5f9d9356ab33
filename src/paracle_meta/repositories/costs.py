"""What calls of models cost."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta
from math import fsum
from typing import TYPE_CHECKING, Any

from paracle_meta import schema
from paracle_meta.filters import Condition, Operator, where
from paracle_meta.records import CostBreakdown, CostRecord, CostReport, utc_now
from paracle_meta.repositories.base import DEFAULT_PAGE, Repository, check_period
from paracle_meta.values import check_date, check_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from paracle_meta.backends.base import CostGroup

DECIMALS = 9
"""Sums are rounded to a billionth of a dollar.

That is finer than any price and coarser than what the order of a floating-point sum changes.
"""


class CostRepository(Repository[CostRecord]):
    """Stores one row a call and reports days and months.

    A day begins and ends in the configured `time_zone`, and a call belongs to the day that it was
    recorded on, whatever the zone is set to later.
    """

    table = schema.COSTS

    async def record(
        self,
        provider: str,
        model: str,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost: float | None = None,
        *,
        created_at: datetime | None = None,
    ) -> CostRecord:
        """Store what one call cost, and return the row.

        Args:
            provider: Who was paid.
            model: The model that was called.
            input_tokens: Tokens sent.
            output_tokens: Tokens received.
            cost: US dollars; None where the price is unknown, which is not 0.
            created_at: When the call was made; now unless given.

        Raises:
            InvalidValueError: A value is outside what its column allows.
        """
        moment = utc_now() if created_at is None else check_time("created_at", created_at)
        return await self.add(
            CostRecord(
                provider=provider,
                model=model,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                cost=cost,
                period_start=self._day(moment),
                created_at=moment,
            )
        )

    async def list(
        self,
        limit: int = DEFAULT_PAGE,
        after: str | None = None,
        *,
        provider: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> list[CostRecord]:
        """Return a page of costs, newest first.

        Args:
            limit: How many at most, 1 to 10,000.
            after: The id of the last cost of the page before.
            provider: Only paid to this provider.
            model: Only of this model.
            since: Only of calls at this time or later.
            until: Only of calls before this time.
            filters: Further conditions, as for `MetaDatabase.vector_search`.

        Raises:
            InvalidValueError: An argument is outside what is allowed.
            NotFoundError: No cost has the id `after`.
        """
        conditions = self._conditions(since, until, filters, provider=provider, model=model)
        return await self._page(limit, after, conditions)

    async def count(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Return how many costs `list` would return in all."""
        return await self._count(
            self._conditions(since, until, filters, provider=provider, model=model)
        )

    async def get_period_cost(self, period: str = "daily", on: date | None = None) -> float:
        """Return what a day or month cost, in US dollars; calls without a price count nothing.

        Args:
            period: ``daily`` or ``monthly``.
            on: Any day of the period; today unless given.

        Raises:
            InvalidValueError: `period` is neither, or `on` is no date.
        """
        return (await self.get_report(period, on)).total

    async def get_report(self, period: str = "monthly", on: date | None = None) -> CostReport:
        """Return what a day or month cost, in all and by provider, model and day.

        Args:
            period: ``daily`` or ``monthly``.
            on: Any day of the period; today unless given.

        Raises:
            InvalidValueError: `period` is neither, or `on` is no date.
        """
        check_period(period)
        day = self._day(utc_now()) if on is None else check_date("on", on)
        start, end = (day, day) if period == "daily" else _month(day)
        backend = await self._database.backend()
        groups = await backend.cost_groups(self._within(period, start, end))
        by_provider: defaultdict[str, list[CostGroup]] = defaultdict(list)
        by_model: defaultdict[str, list[CostGroup]] = defaultdict(list)
        by_day: defaultdict[date, list[CostGroup]] = defaultdict(list)
        for group in groups:
            by_provider[group.provider].append(group)
            by_model[group.model].append(group)
            by_day[group.period_start].append(group)
        return CostReport(
            period=period,
            start=start,
            end=end,
            by_provider=_most_expensive_first(by_provider),
            by_model=_most_expensive_first(by_model),
            by_day={day: CostBreakdown(**_sum(by_day[day])) for day in sorted(by_day)},
            **_sum(groups),
        )

    def _within(self, period: str, start: date, end: date) -> tuple[Condition, ...]:
        if period == "daily":
            return (
                where(self.table, "period_type", Operator.EQ, "daily"),
                where(self.table, "period_start", Operator.EQ, start),
            )
        return (
            where(self.table, "period_start", Operator.GTE, start),
            where(self.table, "period_start", Operator.LTE, end),
        )

    def _day(self, moment: datetime) -> date:
        return moment.astimezone(self._database.settings.zone).date()


def _month(day: date) -> tuple[date, date]:
    start = day.replace(day=1)
    # December of year 9999 has no month after it.
    if (start.year, start.month) == (date.max.year, date.max.month):
        return start, date.max
    return start, (start + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def _sum(groups: Iterable[CostGroup]) -> dict[str, Any]:
    # By columns, which takes a fourth of the time where a month has thousands of groups.
    columns = list(zip(*groups, strict=True)) or [()] * 8
    _, _, _, calls, unpriced, totals, sent, received = columns
    return {
        "total": round(fsum(totals), DECIMALS),
        "input_tokens": sum(sent),
        "output_tokens": sum(received),
        "calls": sum(calls),
        "unpriced_calls": sum(unpriced),
    }


def _most_expensive_first(groups: Mapping[str, Iterable[CostGroup]]) -> dict[str, CostBreakdown]:
    lines = {name: CostBreakdown(**_sum(members)) for name, members in groups.items()}
    return dict(sorted(lines.items(), key=lambda line: (-line[1].total, line[0])))
