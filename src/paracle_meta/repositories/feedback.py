"""What people thought of a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta import schema
from paracle_meta.records import Feedback
from paracle_meta.repositories.base import DEFAULT_PAGE, Repository
from paracle_meta.validation import MAX_PAGE

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping
    from datetime import datetime


class FeedbackRepository(Repository[Feedback]):
    """Stores feedback; `add` raises NotFoundError where the generation is not stored."""

    table = schema.FEEDBACK

    async def list(
        self,
        limit: int = DEFAULT_PAGE,
        after: str | None = None,
        *,
        generation_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> list[Feedback]:
        """Return a page of feedback, newest first.

        Args:
            limit: How many at most, 1 to 10,000.
            after: The id of the last feedback of the page before.
            generation_id: Only about this generation.
            since: Only given at this time or later.
            until: Only given before this time.
            filters: Further conditions, such as ``{"rating": {"$gte": 4}}``.

        Raises:
            InvalidValueError: An argument is outside what is allowed.
            NotFoundError: No feedback has the id `after`.
        """
        conditions = self._conditions(since, until, filters, generation_id=generation_id)
        return await self._page(limit, after, conditions)

    async def get_for_generation(
        self,
        generation_id: str,
        limit: int = MAX_PAGE,
    ) -> builtins.list[Feedback]:
        """Return the feedback about a generation, newest first; none if it is not stored."""
        return await self.list(limit, generation_id=generation_id)

    async def count(
        self,
        *,
        generation_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Return how much feedback `list` would return in all."""
        return await self._count(
            self._conditions(since, until, filters, generation_id=generation_id)
        )
