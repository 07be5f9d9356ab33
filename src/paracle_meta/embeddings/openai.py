"""Embeddings from OpenAI, or from a server that speaks its protocol."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from paracle_meta.embeddings.base import Failure
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
from paracle_meta.exceptions import ConfigurationError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from pydantic import SecretStr

    from paracle_meta.config import DatabaseSettings

DEFAULT_URL = "https://api.openai.com/v1"

# https://platform.openai.com/docs/guides/embeddings
KNOWN_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
# Those that can be asked for shorter vectors.
SHORTENABLE = frozenset({"text-embedding-3-small", "text-embedding-3-large"})

ADVICE = Advice(
    address="openai_base_url",
    denied="set a valid key: openai_api_key or OPENAI_API_KEY",
    missing="check openai_model, and openai_base_url where it is set",
)


def own_dimensions(model: str) -> int | None:
    """The length of a model's vectors; None where it is not known here."""
    return KNOWN_DIMENSIONS.get(model)


class OpenAIEmbeddings(HTTPEmbeddings["AsyncOpenAI"]):
    """Embeddings over the official `openai` package (``pip install 'paracle-meta[openai]'``).

    The address is the one given here, whatever `OPENAI_BASE_URL` says. `OPENAI_ORG_ID` and
    `OPENAI_PROJECT_ID` count as the client documents: they belong to the key and send no text
    elsewhere. A text longer than the model takes is an error that names it; nothing is cut off.

    Args:
        api_key: the key; `OPENAI_API_KEY` if None.
        model: the model's name.
        base_url: the address up to and with ``/v1``; OpenAI's own if None.
        dimensions: the length of the vectors. Needed for a model that is not known here; for the
            text-embedding-3 models it may be shorter than their own.
        timeout: seconds that one call may take.
        max_retries: how often a call is repeated after 408, 429, 5xx, a time-out or a lost
            connection.
        batch_size: how many texts go into one call.
        backoff: seconds before the first retry, doubled for each further one.

    Raises:
        ConfigurationError: no key, an unknown length of vectors, or a value out of range.
    """

    _package = "openai"

    def __init__(
        self,
        api_key: str | SecretStr | None = None,
        model: str = "text-embedding-3-small",
        *,
        base_url: str | None = None,
        dimensions: int | None = None,
        timeout: float = 30.0,
        max_retries: int = 3,
        batch_size: int = 64,
        backoff: float = 0.5,
    ) -> None:
        length, shorter = checked_dimensions(
            model, own_dimensions(model), dimensions, shortenable=model in SHORTENABLE
        )
        super().__init__(
            f"openai/{model}@{length}" if shorter else f"openai/{model}",
            length,
            timeout=timeout,
            max_retries=max_retries,
            batch_size=batch_size,
            backoff=backoff,
        )
        self._api_key = _checked_key(api_key)
        self._model = model
        self._url = checked_url(DEFAULT_URL if base_url is None else base_url, ADVICE.address)
        self._shorter = shorter

    @classmethod
    def from_settings(cls, settings: DatabaseSettings) -> OpenAIEmbeddings:
        """The provider that the configuration describes."""
        return cls(
            settings.openai_api_key,
            settings.openai_model,
            base_url=settings.openai_base_url,
            dimensions=settings.embedding_dimensions,
            timeout=settings.embedding_timeout,
            max_retries=settings.embedding_max_retries,
            batch_size=settings.embedding_batch_size,
        )

    def _new_client(self) -> AsyncOpenAI:
        import openai

        return openai.AsyncOpenAI(
            api_key=self._api_key.get_secret_value(),
            base_url=self._url,
            # Both are done by BaseEmbeddings, with the same rules for every provider; done here as
            # well they would multiply.
            max_retries=0,
            timeout=None,
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False, trust_env=uses_proxy(self._url), timeout=None
            ),
        )

    async def _request(self, texts: list[str]) -> list[list[float]] | Failure:
        client = await self._client()
        import openai

        try:
            # The raw answer, since the client does not check the parsed one. As "float", since not
            # every server that speaks the protocol knows base64.
            answer = await client.embeddings.with_raw_response.create(
                input=texts,
                model=self._model,
                encoding_format="float",
                dimensions=self._dimensions if self._shorter else openai.omit,
            )
        except openai.APIStatusError as exc:
            # Also a 429, and no waiting helps.
            if exc.code == "insufficient_quota":
                return Failure("the quota of this key is used up; look at its plan and billing")
            return failed_status(exc.status_code, exc.response.headers, self._url, ADVICE)
        except openai.APIConnectionError as exc:
            return failed_connection(exc, self._url, ADVICE)
        try:
            # An int of any length would have no float; a float of any length is at worst infinite.
            body = json.loads(answer.content, parse_int=float)
        except ValueError:
            return unreadable(self._url, ADVICE, retry=True)
        vectors = _vectors(body)
        return unreadable(self._url, ADVICE) if vectors is None else vectors


def _checked_key(api_key: str | SecretStr | None) -> SecretStr:
    from pydantic import SecretStr

    if api_key is None:
        api_key = os.environ.get("OPENAI_API_KEY", "")
    key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
    if not key:
        raise ConfigurationError("OpenAI needs a key: set openai_api_key or OPENAI_API_KEY.")
    # Such a key cannot be sent in a header, and the client's error would quote it.
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            "The OpenAI key (openai_api_key or OPENAI_API_KEY) holds a space, a line break or "
            "another character that no key has."
        )
    return SecretStr(key)


def _vectors(body: Any) -> list[list[float]] | None:
    """The vectors of an answer in the order of the texts, or None if it is no such answer."""
    if not isinstance(body, dict) or not isinstance(body.get("data"), list):
        return None
    items = body["data"]
    if not all(isinstance(item, dict) and _is_vector(item.get("embedding")) for item in items):
        return None
    # The order is promised by `index` only. Servers that leave it out answer in order.
    if all("index" not in item for item in items):
        return [item["embedding"] for item in items]
    by_index = {
        item["index"]: item["embedding"] for item in items if isinstance(item.get("index"), float)
    }
    if len(by_index) != len(items) or set(by_index) != set(range(len(items))):
        return None
    return [by_index[index] for index in range(len(items))]


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(number, float) for number in value)
