"""An embedding provider that needs no model: equal texts have equal vectors, others differ."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class TinyEmbeddings:
    """Makes a vector of the bytes of a text's hash, so that every process makes the same.

    Args:
        dimensions: Numbers a vector, 1 to 64.
    """

    def __init__(self, dimensions: int = 8) -> None:
        self.dimensions = dimensions
        self.model_id = f"tests/tiny@{dimensions}"

    async def embed(self, text: str) -> list[float]:
        digest = hashlib.sha512(text.encode()).digest()
        return [float(byte) + 1.0 for byte in digest[: self.dimensions]]

    async def embed_many(self, texts: Sequence[str]) -> list[list[float]]:
        return [await self.embed(text) for text in texts]

    async def close(self) -> None:
        """Hold nothing, so close nothing."""
