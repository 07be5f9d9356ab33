"""What repositories of searchable records can do besides: embed what they store, and find it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from paracle_meta.embedder import Embedder, text_to_embed
from paracle_meta.exceptions import (
    ConfigurationError,
    DatabaseBusyError,
    EmbeddingModelMismatchError,
)
from paracle_meta.records import utc_now
from paracle_meta.repositories.base import Repository
from paracle_meta.validation import check_id
from paracle_meta.values import check_dimensions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.base import Values
    from paracle_meta.embeddings.base import EmbeddingProvider

R = TypeVar("R")

logger = logging.getLogger("paracle_meta")

UPDATE_ATTEMPTS = 10
"""How often a change of text starts over because others changed the record meanwhile."""


class SearchableRepository(Repository[R]):
    """Embeds the text of a record when it is stored and when it changes.

    A record whose text the provider cannot embed just now is stored all the same, without a vector
    and with a warning in the log: what was made must not be lost because a service is away. It is
    not found by meaning until `MetaDatabase.embed_missing` has given it one.
    """

    async def get(self, record_id: str, *, with_embedding: bool = False) -> R | None:
        """Return a record by its id, or None where none has it.

        Args:
            record_id: Which one.
            with_embedding: Read its vector too.

        Raises:
            InvalidValueError: No record can have this id.
        """
        check_id(self.table, record_id)
        with_vector = with_embedding and self._database.settings.enable_vectors
        backend = await self._database.backend()
        record: R | None = await backend.get(self.table, record_id, with_vector=with_vector)
        return record

    async def record_use(self, record_id: str) -> R:
        """Count one use of a record and return it.

        Raises:
            NotFoundError: No record has this id.
        """
        check_id(self.table, record_id)
        backend = await self._database.backend()
        record: R | None = await backend.increment(self.table, record_id, "usage_count")
        if record is None:
            raise self._not_found(record_id)
        return record

    async def _complete(self, rows: list[Values]) -> None:
        if not self._database.settings.enable_vectors:
            for row in rows:
                self._refuse_vector(row)
                row["embedding_model"] = None
            return
        provider = self._database.embeddings()
        for row in rows:
            if row["embedding"] is not None:
                self._check_given(row, provider)
        await self._embed([row for row in rows if row["embedding"] is None], provider)

    def _refuse_vector(self, row: Values) -> None:
        if row["embedding"] is not None:
            raise ConfigurationError(
                f"{self.table.name}.embedding was given, but vectors are switched off; "
                "set enable_vectors: true."
            )

    def _check_given(self, row: Values, provider: EmbeddingProvider) -> None:
        if row["embedding_model"] not in (None, provider.model_id):
            raise EmbeddingModelMismatchError(
                f"The vector of a {self.table.noun} is said to be of {row['embedding_model']!r:.90}"
                f", but {provider.model_id!r} is configured."
            )
        check_dimensions(
            f"{self.table.name}.embedding", row["embedding"], provider.model_id, provider.dimensions
        )
        row["embedding_model"] = provider.model_id

    async def _embed(self, rows: Sequence[Values], provider: EmbeddingProvider) -> None:
        if not rows:
            return
        backend = await self._database.backend()
        keep = self._database.settings.embedding_cache_size
        embedded = await Embedder(provider, backend.collections, keep).embed(
            self.table, [text_to_embed(self.table, row) for row in rows]
        )
        for row, blob in zip(rows, embedded.vectors, strict=True):
            row["embedding"] = blob
            row["embedding_model"] = None if blob is None else provider.model_id
        if embedded.failure is not None:
            logger.warning(
                "%d of %d records are stored in %s without a vector: %s",
                embedded.vectors.count(None),
                len(rows),
                self.table.name,
                embedded.failure,
            )

    async def _change(self, record_id: str, changes: Values) -> R:
        vectors = self._database.settings.enable_vectors
        if "embedding" in changes:
            if vectors and changes["embedding"] is not None:
                given = {**changes, "embedding_model": None}
                self._check_given(given, self._database.embeddings())
                return await super()._change(record_id, given)
            self._refuse_vector(changes)
            return await super()._change(record_id, {**changes, "embedding_model": None})
        if changes.keys().isdisjoint(self.table.embedded):
            return await super()._change(record_id, changes)
        if not vectors:
            # A vector without a model is none: the stored one is of the old text.
            return await super()._change(record_id, {**changes, "embedding_model": None})
        return await self._change_text(record_id, changes)

    async def _change_text(self, record_id: str, changes: Values) -> R:
        backend = await self._database.backend()
        for _ in range(UPDATE_ATTEMPTS):
            current = await backend.get(self.table, record_id)
            if current is None:
                raise self._not_found(record_id)
            row = {name: getattr(current, name) for name in self.table.embedded} | changes
            await self._embed([row], self._database.embeddings())
            vector = {name: row[name] for name in ("embedding", "embedding_model")}
            changed: R | None = await backend.update(
                self.table,
                record_id,
                {**changes, **vector, "updated_at": utc_now()},
                unchanged_since=current.updated_at,
            )
            if changed is not None:
                return changed
        raise DatabaseBusyError(
            f"The {self.table.noun} was changed by others {UPDATE_ATTEMPTS} times while this change"
            " was made; repeat the call."
        )
