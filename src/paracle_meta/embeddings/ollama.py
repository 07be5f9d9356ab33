"""Embeddings from a model that an Ollama server runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from paracle_meta.embeddings.http import (
    Advice,
    HTTPEmbeddings,
    checked_dimensions,
    checked_url,
    failed_connection,
    failed_status,
    unreadable,
    uses_proxy,
)

if TYPE_CHECKING:
    from ollama import AsyncClient

    from paracle_meta.config import DatabaseSettings
    from paracle_meta.embeddings.base import Failure

# https://ollama.com/search?c=embedding. A tag that is listed has another length than its model.
KNOWN_DIMENSIONS = {
    "nomic-embed-text": 768,
    "mxbai-embed-large": 1024,
    "all-minilm": 384,
    "bge-m3": 1024,
    "snowflake-arctic-embed": 1024,
    "snowflake-arctic-embed:22m": 384,
    "snowflake-arctic-embed:33m": 384,
    "snowflake-arctic-embed:110m": 768,
    "snowflake-arctic-embed:137m": 768,
    "embeddinggemma": 768,
}


def own_dimensions(model: str) -> int | None:
    """The length of a model's vectors, with or without its tag; None where it is not known here."""
    name = model.removesuffix(":latest")
    return KNOWN_DIMENSIONS.get(name) or KNOWN_DIMENSIONS.get(name.partition(":")[0])


class OllamaEmbeddings(HTTPEmbeddings["AsyncClient"]):
    """Embeddings over the official `ollama` package (``pip install 'paracle-meta[ollama]'``).

    The address is the one given here, whatever `OLLAMA_HOST` says. A text longer than the model
    takes is an error that names it; nothing is cut off, as Ollama would do unasked.

    Args:
        model: the model's name, with or without its tag.
        base_url: the address of the server.
        dimensions: the length of the vectors. Needed for a model that is not known here; for others
            it may be shorter than their own.
        timeout: seconds that one call may take. The first one loads the model from disk, which is
            why this is more than OpenAI's.
        max_retries: how often a call is repeated after 408, 429, 5xx, a time-out or a lost
            connection.
        batch_size: how many texts go into one call.
        backoff: seconds before the first retry, doubled for each further one.

    Raises:
        ConfigurationError: an unknown length of vectors, or a value out of range.
    """

    _package = "ollama"

    def __init__(
        self,
        model: str = "nomic-embed-text",
        base_url: str = "http://localhost:11434",
        *,
        dimensions: int | None = None,
        timeout: float = 60.0,
        max_retries: int = 3,
        batch_size: int = 64,
        backoff: float = 0.5,
    ) -> None:
        name = model.removesuffix(":latest")  # what a name without a tag means
        length, shorter = checked_dimensions(
            model, own_dimensions(model), dimensions, shortenable=True
        )
        super().__init__(
            f"ollama/{name}@{length}" if shorter else f"ollama/{name}",
            length,
            timeout=timeout,
            max_retries=max_retries,
            batch_size=batch_size,
            backoff=backoff,
        )
        self._model = model
        self._url = checked_url(base_url, "ollama_url")
        self._shorter = shorter
        self._advice = Advice(
            address="ollama_url",
            denied="the server wants a key: set OLLAMA_API_KEY, or look at ollama_url",
            missing=f"fetch the model with `ollama pull {name}`, or look at ollama_url",
        )

    @classmethod
    def from_settings(cls, settings: DatabaseSettings) -> OllamaEmbeddings:
        """The provider that the configuration describes."""
        return cls(
            settings.ollama_model,
            settings.ollama_url,
            dimensions=settings.embedding_dimensions,
            timeout=settings.embedding_timeout,
            max_retries=settings.embedding_max_retries,
            batch_size=settings.embedding_batch_size,
        )

    def _new_client(self) -> AsyncClient:
        import ollama

        # This client has no retries; its time-out is off by default, see BaseEmbeddings for both.
        return ollama.AsyncClient(
            self._url, follow_redirects=False, trust_env=uses_proxy(self._url)
        )

    async def _request(self, texts: list[str]) -> list[list[float]] | Failure:
        client = await self._client()
        import httpx  # the client's own, whose errors it lets through
        import ollama

        try:
            answer = await client.embed(
                self._model,
                texts,
                truncate=False,
                dimensions=self._dimensions if self._shorter else None,
            )
        except (ollama.ResponseError, AttributeError) as exc:
            # Headers are only on the error that the client makes its own from, in which it trips
            # (AttributeError) over a body that is JSON and no object.
            source = exc.__context__
            if not isinstance(source, httpx.HTTPStatusError):
                raise
            refused = source.response
            return failed_status(refused.status_code, refused.headers, self._url, self._advice)
        except (ConnectionError, httpx.RequestError) as exc:
            return failed_connection(exc, self._url, self._advice)
        except (TypeError, ValueError) as exc:
            # No JSON at all, or (pydantic's ValueError, TypeError) JSON of another shape.
            return unreadable(self._url, self._advice, retry=isinstance(exc, json.JSONDecodeError))
        return [list(vector) for vector in answer.embeddings]
