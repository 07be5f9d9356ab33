"""Vectors for records that are stored already: of another model, or where there are none yet."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

from paracle_meta.backends.collections import NewVector, VectorSpace
from paracle_meta.backends.rows import check_models
from paracle_meta.embedder import Embedder, text_hash, text_to_embed
from paracle_meta.embeddings import get_embedding_provider
from paracle_meta.embeddings.base import PROBE
from paracle_meta.exceptions import (
    DatabaseBusyError,
    EmbeddingBatchError,
    EmbeddingProviderError,
)
from paracle_meta.records import EmbeddingReport
from paracle_meta.values import check_vector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from paracle_meta.backends.base import Backend
    from paracle_meta.backends.collections import ChangeOfModel
    from paracle_meta.config import DatabaseSettings
    from paracle_meta.embeddings.base import EmbeddingProvider
    from paracle_meta.schema import Table

logger = logging.getLogger("paracle_meta")

Progress: TypeAlias = "Callable[[str, int, int], None]"
"""Told the collection, how many of its records are done, and how many there are to do."""


@contextlib.asynccontextmanager
async def provider_of(
    settings: DatabaseSettings, model: str | None, configured: EmbeddingProvider
) -> AsyncIterator[EmbeddingProvider]:
    """Give the provider of a model, closed afterwards, or the configured one for None.

    Raises:
        ConfigurationError: There is no such model, or a setting of its provider is missing.
    """
    if model is None or model == configured.model_id:
        yield configured
        return
    from paracle_meta.embeddings.registry import settings_for_model

    provider = get_embedding_provider(settings_for_model(settings, model))
    try:
        yield provider
    finally:
        await provider.close()


class Reembedding:
    """Makes vectors of stored records, a batch at a time, each kept as soon as it is made."""

    def __init__(
        self,
        backend: Backend,
        provider: EmbeddingProvider,
        settings: DatabaseSettings,
        progress: Progress | None,
    ) -> None:
        """Remember what to work with.

        Args:
            backend: The open database.
            provider: What makes the vectors.
            settings: How large a batch is, and the cache.
            progress: Told after each batch.
        """
        self._backend = backend
        self._provider = provider
        self._embedder = Embedder(provider, backend.collections, settings.embedding_cache_size)
        self._batch = settings.embedding_batch_size
        self._progress = progress

    async def change_model(self, table: Table[Any]) -> EmbeddingReport:
        """Give each record a vector of the provider's model in place of the one that it has.

        Raises:
            EmbeddingProviderError: The provider is away; what was embedded is kept.
            DatabaseBusyError: Another process is at it.
        """
        model = self._provider.model_id
        status = (await self._backend.status()).vectors[table.name]
        is_of_model = status.models == (model,) or not status.embedded + status.missing
        # One to another model that was begun is given up by going on with it to this one.
        if is_of_model and status.changing_to is None:
            # A run that was killed behind the switch has not done that.
            await self._index(table)
            return EmbeddingReport(model=model, embedded=0, failed=0)
        collections = self._backend.collections
        space = VectorSpace(model, self._provider.dimensions)
        async with collections.change_of_model(table, space) as change:
            batches = _Batches(table, self._progress, await change.remaining())
            switched = False
            while not switched:
                await self._catch_up(change, batches)
                await change.prepare()
                # Others write meanwhile: one of those records may lack its new vector by now.
                switched = await change.switch(without=batches.refused.keys())
        await self._index(table)
        return EmbeddingReport(model=model, embedded=batches.embedded, failed=len(batches.refused))

    async def fill(self, table: Table[Any]) -> EmbeddingReport:
        """Give each record without a vector one.

        Raises:
            EmbeddingModelMismatchError: The collection holds vectors of another model.
            EmbeddingProviderError: The provider is away; what was embedded is kept.
        """
        model = self._provider.model_id
        status = (await self._backend.status()).vectors[table.name]
        # Before the provider is paid for vectors that cannot be stored.
        check_models(table, model, status.models)
        collections = self._backend.collections
        batches = _Batches(table, self._progress, status.missing)

        async def store(vectors: Sequence[NewVector]) -> int:
            return await collections.store_vectors(table, vectors, model=model)

        after = None
        while records := await collections.without_vector(table, limit=self._batch, after=after):
            after = records[-1].id
            await self._embed(batches, records, store)
        return EmbeddingReport(model=model, embedded=batches.embedded, failed=len(batches.refused))

    async def _catch_up(self, change: ChangeOfModel[Any], batches: _Batches) -> None:
        """Embed what has no new vector, until a pass over all records finds nothing more."""

        async def store(vectors: Sequence[NewVector]) -> int:
            await change.store(vectors)
            return len(vectors)

        found = True
        while found:
            found = False
            after = None
            while page := await change.pending(limit=self._batch, after=after):
                after = page[-1].id
                records = [record for record in page if not batches.is_refused(record)]
                if records:
                    found = True
                    await self._embed(batches, records, store)

    async def _embed(
        self,
        batches: _Batches,
        records: Sequence[Any],
        store: Callable[[Sequence[NewVector]], Awaitable[int]],
    ) -> None:
        table = batches.table
        texts = [_text(table, record) for record in records]
        embedded = await self._embedder.embed(table, texts)
        vectors = [
            NewVector.of(table, record, blob)
            for record, blob in zip(records, embedded.vectors, strict=True)
            if blob is not None
        ]
        # Also when the provider has gone away by now: these are paid for.
        if vectors:
            batches.made(vectors, await store(vectors))
        if isinstance(embedded.failure, EmbeddingProviderError):
            raise self._stopped(embedded.failure) from embedded.failure
        if isinstance(embedded.failure, EmbeddingBatchError):
            for record, text, blob in zip(records, texts, embedded.vectors, strict=True):
                if blob is None:
                    await self._embed_alone(batches, record, text, store)

    async def _embed_alone(
        self,
        batches: _Batches,
        record: Any,
        text: str,
        store: Callable[[Sequence[NewVector]], Awaitable[int]],
    ) -> None:
        """Embed a text that failed among others: for its own sake, or as the provider went away."""
        try:
            vector = await self._provider.embed(text)
        except EmbeddingProviderError as refusal:
            try:
                await self._provider.embed(PROBE)
            except EmbeddingProviderError as away:
                raise self._stopped(away) from away
            batches.refuse(record, text, refusal)
            return
        vectors = [NewVector.of(batches.table, record, check_vector("embedding", vector))]
        batches.made(vectors, await store(vectors))

    def _stopped(self, error: EmbeddingProviderError) -> EmbeddingProviderError:
        return EmbeddingProviderError(
            f"{error} What was embedded so far is kept: run it again, and it goes on from there."
        )

    async def _index(self, table: Table[Any]) -> None:
        """Index the vectors of a model that is new, where `prepare` has not done so."""
        if (await self._backend.status()).vectors[table.name].index is not None:
            return
        # Busy: whoever searches has begun to make it.
        with contextlib.suppress(DatabaseBusyError):
            await self._backend.collections.build_index(table)


def _text(table: Table[Any], record: Any) -> str:
    return text_to_embed(table, {name: getattr(record, name) for name in table.embedded})


class _Batches:
    """How far the work on a collection is."""

    def __init__(self, table: Table[Any], progress: Progress | None, total: int) -> None:
        self.table = table
        self.embedded = 0
        self.refused: dict[str, bytes] = {}
        """Records whose text the provider refuses, and the hash of that."""
        self._progress = progress
        self._total = total
        self._done = 0
        self._tell()

    def is_refused(self, record: Any) -> bool:
        """Whether the text of a record, as it is now, was refused."""
        refused = self.refused.get(record.id)
        return refused is not None and refused == text_hash(_text(self.table, record))

    def made(self, vectors: Sequence[NewVector], stored: int) -> None:
        """Take note of vectors, of which so many did not come too late for their record."""
        for vector in vectors:
            # Its text was another one when it was refused.
            self.refused.pop(vector.record_id, None)
        self.embedded += stored
        self._done += len(vectors)
        self._tell()

    def refuse(self, record: Any, text: str, why: EmbeddingProviderError) -> None:
        """Take note of a record that stays without a vector."""
        self.refused[record.id] = text_hash(text)
        self._done += 1
        logger.warning("The %s %s has no vector: %s", self.table.noun, record.id, why)
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            # Records that were added or changed meanwhile come on top.
            self._total = max(self._total, self._done)
            self._progress(self.table.name, self._done, self._total)
