"""Texts good enough to start the next one from."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from paracle_meta import schema
from paracle_meta.exceptions import DuplicateError, NotFoundError
from paracle_meta.filters import Operator, where
from paracle_meta.records import Promotion, Template, TemplateMatch
from paracle_meta.repositories.base import DEFAULT_PAGE
from paracle_meta.repositories.searchable import SearchableRepository
from paracle_meta.validation import check_id

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from paracle_meta.backends.base import RatedGeneration
    from paracle_meta.records import GenerationResult, SearchMode

PROMOTED = uuid.UUID("5f0e8ad4-7f0c-4b53-9d8a-3a3f4f4f5d11")
"""Namespace of the ids of promoted templates (UUID version 5 of the generation's id).

Two processes that promote one generation at the same time make the same id, so one template.
"""

BATCH = 500
"""Templates that are asked for at once: few round trips, and no large answer."""


class TemplateRepository(SearchableRepository[Template]):
    """Stores templates, finds them by meaning and makes them of good generations."""

    table = schema.TEMPLATES

    async def list(
        self,
        limit: int = DEFAULT_PAGE,
        after: str | None = None,
        *,
        artifact_type: str | None = None,
        source: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> list[Template]:
        """Return a page of templates, newest first.

        Args:
            limit: How many at most, 1 to 10,000.
            after: The id of the last template of the page before.
            artifact_type: Only of this type.
            source: Only from here, such as ``generation:gen-123``.
            since: Only made at this time or later.
            until: Only made before this time.
            filters: Further conditions, as for `MetaDatabase.vector_search`.

        Raises:
            InvalidValueError: An argument is outside what is allowed.
            NotFoundError: No template has the id `after`.
        """
        conditions = self._conditions(
            since, until, filters, artifact_type=artifact_type, source=source
        )
        return await self._page(limit, after, conditions)

    async def count(
        self,
        *,
        artifact_type: str | None = None,
        source: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Return how many templates `list` would return in all."""
        return await self._count(
            self._conditions(since, until, filters, artifact_type=artifact_type, source=source)
        )

    async def find_similar(
        self,
        description: str,
        top_k: int = 10,
        *,
        artifact_type: str | None = None,
        filters: Mapping[str, Any] | None = None,
        min_similarity: float | None = None,
        mode: SearchMode = "vector",
    ) -> builtins.list[TemplateMatch]:
        """Return the templates that fit a description best, best first.

        Args:
            description: What is wanted.
            top_k: How many at most, 1 to 10,000.
            artifact_type: Only of this type.
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
        if artifact_type is not None:
            filters = {**(filters or {}), "artifact_type": artifact_type}
        return await self._database.vector_search(
            "templates",
            description,
            top_k,
            mode=mode,
            filters=filters,
            min_similarity=min_similarity,
        )

    async def promote_from_generation(self, generation_id: str) -> Template:
        """Make a template of a generation and return it.

        Its `source` says where it came from, and its `pattern` is what was asked for. Promoting the
        same generation again returns the same template, as it is by then.

        Raises:
            NotFoundError: No generation has this id.
        """
        return (await self._promote(generation_id))[0]

    async def promote_qualified(self) -> builtins.list[Promotion]:
        """Promote every generation that people or its score found good enough.

        That is one with `promotion_min_ratings` ratings averaging `promotion_min_average`, or a
        quality score of `promotion_min_quality` (settings; 3, 4.0 and 8.0 unless changed).

        Returns:
            One entry a generation that qualifies, oldest first, with the reason; also those that
            were promoted before.
        """
        settings = self._database.settings
        backend = await self._database.backend()
        qualified = await backend.qualified_generations(
            min_ratings=settings.promotion_min_ratings,
            min_average=settings.promotion_min_average,
            min_quality=settings.promotion_min_quality,
        )
        promoted = await self._by_id([promoted_id(rated.id) for rated in qualified])
        promotions = []
        for rated in qualified:
            template, created = promoted.get(promoted_id(rated.id)), False
            if template is None:
                try:
                    template, created = await self._promote(rated.id)
                except NotFoundError:
                    continue  # It was deleted since it was found.
            promotions.append(
                Promotion(
                    generation_id=rated.id,
                    template=template,
                    reason=self._reason(rated),
                    created=created,
                )
            )
        return promotions

    async def _by_id(self, ids: Sequence[str]) -> dict[str, Template]:
        """Return the templates that have these ids, by their id."""
        backend = await self._database.backend()
        found: dict[str, Template] = {}
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            has_one = where(self.table, "id", Operator.IN, batch)
            templates = await backend.select(self.table, (has_one,), limit=len(batch))
            found |= {template.id: template for template in templates}
        return found

    async def _promote(self, generation_id: str) -> tuple[Template, bool]:
        template_id = promoted_id(generation_id)
        backend = await self._database.backend()
        existing = await self.get(template_id)
        if existing is not None:
            return existing, False
        generation = await backend.get(schema.GENERATIONS, generation_id)
        if generation is None:
            raise NotFoundError(f"There is no generation with the id {generation_id!r:.90}.")
        template = _template(template_id, generation)
        try:
            stored = await self._store([self._checked(template)])
        except DuplicateError:
            # Another process promoted it and changed the template meanwhile.
            return (await self.get(template_id) or template), False
        # Where another process was faster, it is the one that has made the template.
        return stored.records[0], stored.new == 1

    def _reason(self, rated: RatedGeneration) -> str:
        settings = self._database.settings
        reasons = []
        if (
            rated.average is not None
            and rated.ratings >= settings.promotion_min_ratings
            and rated.average >= settings.promotion_min_average
        ):
            reasons.append(f"{rated.ratings} ratings averaging {rated.average:.1f}")
        if (
            rated.quality_score is not None
            and rated.quality_score >= settings.promotion_min_quality
        ):
            reasons.append(f"quality score {rated.quality_score:g}")
        return " and ".join(reasons)


def promoted_id(generation_id: str) -> str:
    """Return the id of the template that a generation is promoted to."""
    return f"tpl-{uuid.uuid5(PROMOTED, check_id(schema.GENERATIONS, generation_id)).hex}"


def origin(generation_id: str) -> str:
    """Return what such a template has as its `source`."""
    return f"generation:{generation_id}"


def _template(template_id: str, generation: GenerationResult) -> Template:
    return Template(
        id=template_id,
        artifact_type=generation.artifact_type,
        name=generation.name,
        pattern=generation.description,
        content=generation.content,
        quality_score=generation.quality_score,
        source=origin(generation.id),
    )
