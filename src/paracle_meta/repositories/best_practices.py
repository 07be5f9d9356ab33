"""Advice to build the next thing by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta import schema
from paracle_meta.filters import Condition, Operator, where
from paracle_meta.records import BestPractice, BestPracticeMatch
from paracle_meta.repositories.base import DEFAULT_PAGE
from paracle_meta.repositories.searchable import SearchableRepository

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from paracle_meta.records import SearchMode


class BestPracticeRepository(SearchableRepository[BestPractice]):
    """Stores best practices, lists them by category and tags, and finds them by meaning."""

    table = schema.BEST_PRACTICES

    async def list(
        self,
        limit: int = DEFAULT_PAGE,
        after: str | None = None,
        *,
        category: str | None = None,
        tags: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> list[BestPractice]:
        """Return a page of best practices, newest first.

        Args:
            limit: How many at most, 1 to 10,000.
            after: The id of the last best practice of the page before.
            category: Only of this category.
            tags: Only those that have all of these tags.
            since: Only made at this time or later.
            until: Only made before this time.
            filters: Further conditions, as for `MetaDatabase.vector_search`.

        Raises:
            InvalidValueError: An argument is outside what is allowed.
            NotFoundError: No best practice has the id `after`.
        """
        conditions = self._conditions(since, until, filters, category=category)
        return await self._page(limit, after, [*conditions, *self._tagged(tags)])

    async def count(
        self,
        *,
        category: str | None = None,
        tags: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Return how many best practices `list` would return in all."""
        conditions = self._conditions(since, until, filters, category=category)
        return await self._count([*conditions, *self._tagged(tags)])

    async def find_similar(
        self,
        description: str,
        top_k: int = 10,
        *,
        category: str | None = None,
        filters: Mapping[str, Any] | None = None,
        min_similarity: float | None = None,
        mode: SearchMode = "vector",
    ) -> builtins.list[BestPracticeMatch]:
        """Return the best practices that fit a description best, best first.

        Args:
            description: What advice is wanted about.
            top_k: How many at most, 1 to 10,000.
            category: Only of this category.
            filters: Further conditions, as for `MetaDatabase.vector_search`.
            min_similarity: Leave out what is less similar, -1 to 1; not in mode ``text``.
            mode: Compare meanings (``vector``), words (``text``: no provider is asked) or both
                (``hybrid``); see `MetaDatabase.vector_search`.

        Raises:
            InvalidValueError: An argument is outside what is allowed.
            ConfigurationError: `enable_vectors` is off, and the mode is not ``text``.
            EmbeddingProviderError: The description could not be embedded; mode ``text`` works
                without.
            EmbeddingModelMismatchError: The stored vectors were made by another model.
        """
        if category is not None:
            filters = {**(filters or {}), "category": category}
        return await self._database.vector_search(
            "best_practices",
            description,
            top_k,
            mode=mode,
            filters=filters,
            min_similarity=min_similarity,
        )

    def _tagged(self, tags: Sequence[str]) -> tuple[Condition, ...]:
        if not tags:
            return ()
        return (where(self.table, "tags", Operator.CONTAINS_ALL, tags),)
