"""What a generator made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta import schema
from paracle_meta.filters import Operator, where
from paracle_meta.records import Feedback, GenerationResult
from paracle_meta.repositories.base import DEFAULT_PAGE, Repository
from paracle_meta.validation import MAX_PAGE, check_id

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping
    from datetime import datetime


class GenerationRepository(Repository[GenerationResult]):
    """Stores generations and returns them, newest first."""

    table = schema.GENERATIONS

    async def list(
        self,
        limit: int = DEFAULT_PAGE,
        after: str | None = None,
        *,
        artifact_type: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> list[GenerationResult]:
        """Return a page of generations, newest first.

        Args:
            limit: How many at most, 1 to 10,000.
            after: The id of the last generation of the page before. Rows that are added meanwhile
                do not move the pages.
            artifact_type: Only of this type.
            provider: Only by this provider.
            model: Only by this model.
            since: Only made at this time or later.
            until: Only made before this time.
            filters: Further conditions, as for `MetaDatabase.vector_search`.

        Raises:
            InvalidValueError: An argument is outside what is allowed.
            NotFoundError: No generation has the id `after`.
        """
        conditions = self._conditions(
            since, until, filters, artifact_type=artifact_type, provider=provider, model=model
        )
        return await self._page(limit, after, conditions)

    async def list_recent(self, limit: int = 10) -> builtins.list[GenerationResult]:
        """Return the newest generations, newest first."""
        return await self._page(limit, None, ())

    async def count(
        self,
        *,
        artifact_type: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Return how many generations `list` would return in all."""
        return await self._count(
            self._conditions(
                since, until, filters, artifact_type=artifact_type, provider=provider, model=model
            )
        )

    async def get_with_feedback(
        self,
        record_id: str,
    ) -> tuple[GenerationResult, builtins.list[Feedback]]:
        """Return a generation with its feedback, newest first.

        Raises:
            NotFoundError: No generation has this id.
        """
        generation = await self.get(record_id)
        if generation is None:
            raise self._not_found(record_id)
        backend = await self._database.backend()
        about = where(schema.FEEDBACK, "generation_id", Operator.EQ, record_id)
        return generation, await backend.select(schema.FEEDBACK, (about,), limit=MAX_PAGE)

    async def delete(self, record_id: str, *, cascade: bool = False) -> None:
        """Delete a generation.

        Args:
            record_id: Which one.
            cascade: Delete its feedback too. Without it, a generation that has feedback stays.

        Raises:
            InUseError: It has feedback and `cascade` is off.
            NotFoundError: No generation has this id.
        """
        backend = await self._database.backend()
        check_id(self.table, record_id)
        if not await backend.delete(self.table, record_id, cascade=cascade):
            raise self._not_found(record_id)
