"""From the texts of a collection to vectors, each text once: what is known is not asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.embeddings.local import LocalEmbeddings
from paracle_meta.exceptions import DatabaseError, EmbeddingBatchError, EmbeddingProviderError
from paracle_meta.turns import in_turns
from paracle_meta.values import check_dimensions, check_vector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from paracle_meta.backends.collections import Collections
    from paracle_meta.embeddings.base import EmbeddingProvider
    from paracle_meta.schema import Table

logger = logging.getLogger("paracle_meta")

EMBEDDED_CHARACTERS: Final = 2_000
"""How much of a text stands for it.

What it is about stands at its beginning, the rest dilutes a mean, and the small models take no more
than some 500 words.
"""

HASH_BYTES: Final = 16
"""Bytes of a text's hash: among 10**12 texts two of 128 bits agree with a chance below 10**-14."""


def text_to_embed(table: Table[Any], values: Mapping[str, Any]) -> str:
    """Return the text that stands for a record in a search by meaning.

    Args:
        table: A collection.
        values: A value for each column in `table.embedded`.
    """
    title, *others = (values[name] for name in table.embedded)
    about = next(filter(None, others), "")
    # A title said twice outweighs what the text is about.
    text = about if _begins_with(about, title) else f"{title}: {about}"
    return text[:EMBEDDED_CHARACTERS]


def _begins_with(text: str, title: str) -> bool:
    """Whether a text begins with the words of a title."""
    end = len(title)
    return text[:end].casefold() == title.casefold() and not text[end : end + 1].isalnum()


def text_hash(text: str) -> bytes:
    """Return what tells a text from others, in few bytes."""
    return blake2b(text.encode(), digest_size=HASH_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Embedded:
    """What became of some texts.

    Attributes:
        vectors: One a text, in their order, as little-endian float32; None where there is none.
        failure: Why some have none; None where each has one.
    """

    vectors: list[bytes | None]
    failure: EmbeddingBatchError | EmbeddingProviderError | None


class Embedder:
    """Asks the cache of a collection first, then the provider, and tells the cache.

    The model inside the installation is faster than the cache, so it is asked straight away.
    """

    def __init__(self, provider: EmbeddingProvider, collections: Collections, keep: int) -> None:
        """Remember whom to ask; nothing is asked yet.

        Args:
            provider: What makes the vectors.
            collections: The open database, which has the cache.
            keep: How many vectors the cache of a collection holds; 0 switches it off.
        """
        self._provider = provider
        self._collections = collections
        self._keep = 0 if isinstance(provider, LocalEmbeddings) else keep

    async def embed(self, table: Table[Any], texts: Sequence[str]) -> Embedded:
        """Return a vector for each text; equal texts are embedded once.

        Args:
            table: Whose cache to use.
            texts: As from `text_to_embed`.

        Raises:
            ConfigurationError: A package or a setting is missing.
            InvalidValueError: The provider made something that is no vector of its model.
        """
        hashes = await in_turns(text_hash, texts)
        by_hash = dict(zip(hashes, texts, strict=True))
        known = await self._cached(table, by_hash)
        missing = [key for key in by_hash if key not in known]
        made, failure = await self._ask([by_hash[key] for key in missing])
        new = {key: blob for key, blob in zip(missing, made, strict=True) if blob is not None}
        await self._cache(table, new)
        found = {**known, **new}
        return Embedded([found.get(key) for key in hashes], failure)

    async def _cached(self, table: Table[Any], hashes: Iterable[bytes]) -> Mapping[bytes, bytes]:
        if not self._keep:
            return {}
        model = self._provider.model_id
        return await self._collections.cached_vectors(table, model, list(hashes))

    async def _ask(
        self, texts: Sequence[str]
    ) -> tuple[list[bytes | None], EmbeddingBatchError | EmbeddingProviderError | None]:
        if not texts:
            return [], None
        vectors: Sequence[Sequence[float] | None]
        failure: EmbeddingBatchError | EmbeddingProviderError | None = None
        try:
            vectors = await self._provider.embed_many(texts)
        except EmbeddingBatchError as error:
            vectors, failure = error.embeddings, error
        except EmbeddingProviderError as error:
            vectors, failure = [None] * len(texts), error
        return await in_turns(self._checked, vectors), failure

    def _checked(self, vector: Sequence[float] | None) -> bytes | None:
        if vector is None:
            return None
        blob = check_vector("embedding", vector)
        check_dimensions("embedding", blob, self._provider.model_id, self._provider.dimensions)
        return blob

    async def _cache(self, table: Table[Any], vectors: Mapping[bytes, bytes]) -> None:
        if not self._keep or not vectors:
            return
        try:
            await self._collections.cache_vectors(
                table, self._provider.model_id, vectors, keep=self._keep
            )
        except DatabaseError as error:
            # The vectors are paid for, and whoever asked for them can go on without the cache.
            logger.warning(
                "%d new vectors are not in the cache of %s: %s", len(vectors), table.name, error
            )
