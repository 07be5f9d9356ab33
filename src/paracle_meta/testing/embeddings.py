"""Embeddings for tests: no model, no network, the same vector for the same text everywhere."""

from __future__ import annotations

from zlib import crc32

from paracle_meta.embeddings.base import BaseEmbeddings, Failure

GRAM = 3
"""Characters a gram: words that share a stem share some, and unrelated ones rarely do."""


class FakeEmbeddings(BaseEmbeddings):
    """An `EmbeddingProvider` that counts the character trigrams of a text, hashed to dimensions.

    Texts with the same words get similar vectors, whatever the upper and lower case. With many
    dimensions unrelated texts are nearly orthogonal; with few, everything is rather similar. It
    refuses what every provider refuses: blank texts, NUL characters, lone surrogates.

    Attributes:
        down: Set it to True and every call fails as if the provider were away.
        refused: Texts that hold one of these are refused, and the others are not.
        embedded: Every text that was embedded, in order.

    Example:
        ```python
        embeddings = FakeEmbeddings(dimensions=64)
        database = MetaDatabase("sqlite:///./test", embeddings=embeddings)
        embeddings.down = True  # from here on, records are stored without a vector
        ```
    """

    def __init__(self, dimensions: int = 64, *, name: str = "trigrams") -> None:
        """Make a provider.

        Args:
            dimensions: Numbers a vector, 1 or more.
            name: Vectors of fakes with another name count as those of another model.
        """
        super().__init__(
            f"fake/{name}@{dimensions}", dimensions, timeout=None, max_retries=0, batch_size=256
        )
        self.down = False
        self.refused: set[str] = set()
        self.embedded: list[str] = []

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    async def _request(self, texts: list[str]) -> list[list[float]] | Failure:
        if self.down:
            return Failure("the fake was told to be down")
        if any(word in text for word in self.refused for text in texts):
            return Failure("the fake was told to refuse this text", about_text=True)
        self.embedded += texts
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        # Spaces around it, so that the beginning and the end of a text are grams too.
        padded = f" {' '.join(text.casefold().split())} "
        # Counts are never negative, so no sum is zero, not even in one dimension.
        vector = [0.0] * self.dimensions
        for start in range(len(padded) - GRAM + 1):
            gram = padded[start : start + GRAM]
            # crc32, as Python's own hash of a text differs from process to process.
            vector[crc32(gram.encode()) % self.dimensions] += 1.0
        return vector
