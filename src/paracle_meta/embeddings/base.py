"""What an embedding provider is, and what all of them share.

A provider says how to ask its model once (`BaseEmbeddings._request`). The rest is done here, once
for all: refusing texts that have no meaning, batching, the time-out, retries, checking every
vector, and finding the one text for which a server refuses a whole batch.

A failed call is a value (`Failure`), not an exception: it becomes one of ours outside of any
``except``. So the client's own error, whose words come from the server and may repeat the text or
the key, is in no chain of ours.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from paracle_meta.exceptions import (
    ConfigurationError,
    EmbeddingBatchError,
    EmbeddingProviderError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("paracle_meta")

# A back-off longer than this only keeps the caller waiting: a server that is still away after half
# a minute is down, not busy.
MAX_BACKOFF = 30.0
# A server that asks for more than this (Retry-After) is not asked again: the caller is told
# instead, as nobody wants a call to sit still for longer.
MAX_RETRY_AFTER = 60.0
# Asked alone when a batch was refused: whether this is taken tells a bad text from a bad request.
# One common word, so that every model takes it.
PROBE = "text"


class EmbeddingProvider(Protocol):
    """Turns texts into vectors whose cosine says how near their meanings are."""

    @property
    def model_id(self) -> str:
        """Provider and model, e.g. ``"openai/text-embedding-3-small"``.

        Vectors under different ids are not comparable. A number of dimensions that is not the
        model's own is part of it: ``"openai/text-embedding-3-small@512"``.
        """

    @property
    def dimensions(self) -> int:
        """The length of every vector."""

    async def embed(self, text: str) -> list[float]:
        """Embed one text.

        Returns:
            `dimensions` numbers, each exactly a float32: what is returned is what is stored.

        Raises:
            EmbeddingProviderError: the text has no vector, or the provider is away or refuses.
            ConfigurationError: a package or a setting is missing.
        """

    async def embed_many(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed several texts, in the order given.

        Returns:
            One vector a text; see `embed`.

        Raises:
            EmbeddingBatchError: some texts failed, or the provider went away after some were done;
                the error holds the vectors of the others.
            EmbeddingProviderError: the provider is away or refuses, and nothing was embedded.
            ConfigurationError: a package or a setting is missing.
        """

    async def close(self) -> None:
        """Let go of connections and memory. Safe to repeat; a later call opens anew."""


@dataclass(frozen=True)
class Failure:
    """Why a call or a text failed, in our own words.

    Attributes:
        message: what happened and what to do; holds no text, key or word of the server.
        about_text: the text may be the cause, so others may still succeed.
        retry: the same call may succeed a little later.
        retry_after: seconds that the server asks to wait before that.
        cause: an error of the operating system (refused, unknown host, TLS), safe to show.
    """

    message: str
    about_text: bool = False
    retry: bool = False
    retry_after: float | None = None
    cause: OSError | None = None


# One item a text: its vector, or why it has none.
Outcome = list[float] | Failure


class BaseEmbeddings(ABC):
    """Everything of an `EmbeddingProvider` but the call of the model itself.

    Args:
        model_id: see `EmbeddingProvider.model_id`.
        dimensions: the length that every vector must have.
        timeout: seconds that one call may take in all, from connecting to the last byte; None where
            nothing is waited for.
        max_retries: how often a call is repeated after a failure that may pass.
        batch_size: how many texts go into one call.
        backoff: seconds before the first retry; doubled for each further one, less up to half by
            chance, so that clients which failed together do not come back together.

    Raises:
        ConfigurationError: one of the numbers is out of range.
    """

    def __init__(
        self,
        model_id: str,
        dimensions: int,
        *,
        timeout: float | None,
        max_retries: int,
        batch_size: int,
        backoff: float = 0.5,
    ) -> None:
        for setting, allowed, rule in (
            ("embedding_dimensions", dimensions > 0, "at least 1"),
            ("embedding_timeout", timeout is None or timeout > 0, "more than 0 seconds"),
            ("embedding_max_retries", max_retries >= 0, "0 or more"),
            ("embedding_batch_size", batch_size > 0, "at least 1"),
            ("backoff", backoff >= 0, "0 seconds or more"),
        ):
            if not allowed:
                raise ConfigurationError(f"{setting} must be {rule}.")
        self._model_id = model_id
        self._dimensions = dimensions
        self._timeout = timeout
        self._max_retries = max_retries
        self._batch_size = batch_size
        self._backoff = backoff

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._model_id}, {self._dimensions} dimensions>"

    @property
    def model_id(self) -> str:
        """See `EmbeddingProvider.model_id`."""
        return self._model_id

    @property
    def dimensions(self) -> int:
        """See `EmbeddingProvider.dimensions`."""
        return self._dimensions

    async def embed(self, text: str) -> list[float]:
        """See `EmbeddingProvider.embed`."""
        if (refusal := _refusal(text)) is not None:
            raise EmbeddingProviderError(f"The text cannot be embedded: {refusal}.")
        [outcome] = await self._embed_batch([text])
        if isinstance(outcome, Failure):
            raise self._error(outcome) from outcome.cause
        return outcome

    async def embed_many(self, texts: Sequence[str]) -> list[list[float]]:
        """See `EmbeddingProvider.embed_many`."""
        if isinstance(texts, str):
            raise EmbeddingProviderError(
                "embed_many takes a list of texts and got a single one: use embed for that."
            )
        refusals = [_refusal(text) for text in texts]
        sound = [index for index, refusal in enumerate(refusals) if refusal is None]
        outcomes: list[Outcome] = [Failure(refusal or "not tried") for refusal in refusals]
        stopped: Failure | None = None
        for start in range(0, len(sound), self._batch_size):
            batch = sound[start : start + self._batch_size]
            answers = await self._embed_batch([texts[index] for index in batch])
            for index, answer in zip(batch, answers, strict=True):
                outcomes[index] = answer
            if (stopped := _provider_failure(answers)) is not None:
                break

        vectors = [None if isinstance(outcome, Failure) else outcome for outcome in outcomes]
        cause = None if stopped is None else stopped.cause
        if stopped is not None and not any(vectors):
            raise self._error(stopped) from cause
        failures = {
            index: outcome.message
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, Failure)
        }
        if failures:
            raise EmbeddingBatchError(vectors, failures) from cause
        return [vector for vector in vectors if vector is not None]

    @abstractmethod
    async def close(self) -> None:
        """See `EmbeddingProvider.close`."""

    @abstractmethod
    async def _request(self, texts: list[str]) -> list[list[float]] | Failure:
        """Ask the model once, with no retry, no time-out and no check of the vectors.

        Args:
            texts: one batch, each text neither blank nor with characters that cannot be sent.

        Returns:
            One vector a text, in their order, as they came; or why there is none.
        """

    def _error(self, failure: Failure) -> EmbeddingProviderError:
        return EmbeddingProviderError(f"No embedding from {self._model_id}: {failure.message}.")

    async def _embed_batch(self, texts: list[str], *, probed: bool = False) -> list[Outcome]:
        """Embed one batch; where the server refuses it for one text, halve it until that is alone.

        Halving also serves where each text is fine and all together are too much for one request.
        """
        answer = await self._request_with_retries(texts)
        if not isinstance(answer, Failure):
            return answer
        # A wrong model or option makes the server refuse every text, and halving would then send
        # twice as many requests as there are texts, all in vain.
        if answer.about_text and not probed:
            probe = await self._request_once([PROBE])
            answer = replace(answer, about_text=not isinstance(probe, Failure))
        if not answer.about_text or len(texts) == 1:
            return [answer] * len(texts)
        middle = len(texts) // 2
        left = await self._embed_batch(texts[:middle], probed=True)
        if (failure := _provider_failure(left)) is not None:
            return [*left, *[failure] * (len(texts) - middle)]
        return left + await self._embed_batch(texts[middle:], probed=True)

    async def _request_with_retries(self, texts: list[str]) -> list[Outcome] | Failure:
        for attempt in range(self._max_retries + 1):
            answer = await self._request_once(texts)
            if not isinstance(answer, Failure) or not answer.retry or attempt == self._max_retries:
                break
            if answer.retry_after is not None and answer.retry_after > MAX_RETRY_AFTER:
                return replace(
                    answer,
                    message=f"{answer.message}; the server asks to wait {answer.retry_after:.0f} s",
                )
            ceiling = min(self._backoff * 2**attempt, MAX_BACKOFF)
            # No secret hangs on this chance.
            delay = max(ceiling * random.uniform(0.5, 1.0), answer.retry_after or 0.0)  # noqa: S311
            logger.info(
                "%s: %s; retry %d of %d in %.1f s",
                self._model_id,
                answer.message,
                attempt + 1,
                self._max_retries,
                delay,
            )
            await asyncio.sleep(delay)
        return answer

    async def _request_once(self, texts: list[str]) -> list[Outcome] | Failure:
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._request(texts)
        except TimeoutError:
            return Failure(
                f"no answer within {self._timeout} s; where the server is only slow, raise "
                "embedding_timeout or lower embedding_batch_size",
                retry=True,
            )
        return answer if isinstance(answer, Failure) else self._checked(answer, len(texts))

    def _checked(self, vectors: list[list[float]], count: int) -> list[Outcome] | Failure:
        """Each vector as float32 numbers, or why it is none."""
        if len(vectors) != count:
            return Failure(f"it answered {len(vectors)} vectors for {count} texts")
        # Where no vector has the length, the model is another one and no text is to blame.
        if all(len(vector) != self._dimensions for vector in vectors):
            return self._wrong_length(vectors[0])
        return [self._checked_vector(vector) for vector in vectors]

    def _wrong_length(self, vector: list[float], *, about_text: bool = False) -> Failure:
        return Failure(
            f"its vector has {len(vector)} dimensions instead of {self._dimensions}; set "
            "embedding_dimensions to the number of the model",
            about_text=about_text,
        )

    def _checked_vector(self, vector: list[float]) -> Outcome:
        import numpy as np

        if len(vector) != self._dimensions:
            return self._wrong_length(vector, about_text=True)
        # Too large for a float32 becomes infinite, too small zero: found below, so no warning.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            numbers = np.asarray(vector, dtype=np.float32)
            squares = np.sum(numbers * numbers, dtype=np.float32)
        # The databases compute the cosine from this sum.
        if not np.isfinite(squares):
            return Failure("its vector holds NaN, infinite or too large numbers", about_text=True)
        if squares < np.finfo(np.float32).tiny:
            return Failure("its vector is zero, so it has no direction to compare", about_text=True)
        result: list[float] = numbers.tolist()
        return result


def _refusal(text: object) -> str | None:
    """Why no provider is asked for this text, or None if it is."""
    if not isinstance(text, str):
        return f"it is {type(text).__name__}, not str"
    if not text.strip():
        return "it is empty or only white space"
    # The same rule as for the text of records: what cannot be stored is not searched for either,
    # and servers differ in what they make of a NUL (some stop there).
    if "\0" in text:
        return f"it holds a NUL character at position {text.index(chr(0))}"
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        return f"it holds a lone surrogate, which is no character, at position {exc.start}"
    return None


def _provider_failure(outcomes: list[Outcome]) -> Failure | None:
    """The failure that all further texts would meet too, if there is one."""
    for outcome in outcomes:
        if isinstance(outcome, Failure) and not outcome.about_text:
            return outcome
    return None
