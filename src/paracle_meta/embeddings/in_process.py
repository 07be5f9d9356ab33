"""What the models inside the installation share: loading once, and working beside the loop."""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from paracle_meta.embeddings.base import BaseEmbeddings, Failure
from paracle_meta.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paracle_meta.config import DatabaseSettings

ModelT = TypeVar("ModelT")


class InProcessEmbeddings(BaseEmbeddings, Generic[ModelT]):
    """A provider whose model runs in this process: no server, no key, no network.

    The model is loaded at the first use, once. Loading and embedding run in a thread beside the
    event loop, and belong to none: a provider may serve several loops.

    Args:
        model_id: see `EmbeddingProvider.model_id`.
        dimensions: the length of the model's vectors.
        batch_size: how many texts one visit to the thread embeds: enough that going there costs
            nothing beside the work, little enough that a cancelled call leaves little work behind.
    """

    def __init__(self, model_id: str, dimensions: int, *, batch_size: int) -> None:
        super().__init__(model_id, dimensions, timeout=None, max_retries=0, batch_size=batch_size)
        self._model: ModelT | None = None
        self._loading = threading.Lock()

    @abstractmethod
    def _load(self) -> ModelT:
        """Read the model.

        Raises:
            ConfigurationError: a package or file is missing or another than it should be.
        """

    @abstractmethod
    def _vector(self, model: ModelT, text: str) -> list[float]:
        """The vector of one text; all zero where it has no direction."""

    async def close(self) -> None:
        """See `EmbeddingProvider.close`."""
        self._model = None

    async def _request(self, texts: list[str]) -> list[list[float]] | Failure:
        return await asyncio.to_thread(self._embed_here, texts)

    def _embed_here(self, texts: list[str]) -> list[list[float]]:
        model = self._loaded_model()
        return [self._vector(model, text) for text in texts]

    def _loaded_model(self) -> ModelT:
        with self._loading:
            if self._model is None:
                self._model = self._load()
            return self._model


def refuse_other_dimensions(settings: DatabaseSettings, own: int) -> None:
    """Check that no other length of vectors is configured than the model's own.

    Raises:
        ConfigurationError: another one is.
    """
    if settings.embedding_dimensions not in {None, own}:
        raise ConfigurationError(
            f"embedding_dimensions cannot be {settings.embedding_dimensions}: the vectors of the "
            f"local model {settings.local_model} have {own}. Leave it out, or choose another "
            "local_model or embedding_provider."
        )


def pieces(text: str, size: int) -> Iterator[str]:
    """Cut a long text, at spaces where it has some: tokenizers start a word behind each.

    Args:
        text: any text.
        size: the most characters of a piece.
    """
    start = 0
    while len(text) - start > size:
        end = text.rfind(" ", start + 1, start + size)
        if end < 0:
            end = start + size
            yield text[start:end]
            start = end
        else:
            yield text[start:end]
            start = end + 1
    yield text[start:]
