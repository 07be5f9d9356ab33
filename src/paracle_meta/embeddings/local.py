"""Embeddings from a small model inside the installation: no server, no key, no network."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paracle_meta.embeddings.base import BaseEmbeddings, Failure
from paracle_meta.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paracle_meta.config import DatabaseSettings

DIMENSIONS = 256  # of the one model that lies in the wheel of wordllama
# The tokenizer holds the interpreter's lock while it works: 16 Ki characters take it about 10 ms,
# so the event loop runs on beside a text of megabytes, and memory stays small.
PIECE = 16_384


class LocalEmbeddings(BaseEmbeddings):
    """Embeddings from WordLlama (https://github.com/dleemiller/WordLlama): 256 dimensions.

    The mean of the vectors of all tokens of a text, at unit length. The vector of a text depends on
    the text alone, to the last bit, not on the batch it came in; texts may have any length.

    The model (32 MB) is loaded at the first use, once, and both loading and embedding run in a
    thread beside the event loop.
    """

    def __init__(self) -> None:
        # A batch is what one visit to the thread embeds: enough that going there costs nothing,
        # little enough that a cancelled call leaves little work behind.
        super().__init__(
            f"local/wordllama-{DIMENSIONS}", DIMENSIONS, timeout=None, max_retries=0, batch_size=256
        )
        self._model: _Model | None = None
        self._loading = threading.Lock()

    @classmethod
    def from_settings(cls, settings: DatabaseSettings) -> LocalEmbeddings:
        """The provider that the configuration describes.

        Raises:
            ConfigurationError: another number of dimensions is asked for.
        """
        if settings.embedding_dimensions not in {None, DIMENSIONS}:
            raise ConfigurationError(
                f"embedding_dimensions cannot be {settings.embedding_dimensions}: the vectors of "
                f"the local model have {DIMENSIONS}. Leave it out, or choose another "
                "embedding_provider."
            )
        return cls()

    async def close(self) -> None:
        """See `EmbeddingProvider.close`."""
        self._model = None

    async def _request(self, texts: list[str]) -> list[list[float]] | Failure:
        return await asyncio.to_thread(self._embed_here, texts)

    def _embed_here(self, texts: list[str]) -> list[list[float]]:
        model = self._loaded_model()
        return [_mean_vector(model, text) for text in texts]

    def _loaded_model(self) -> _Model:
        with self._loading:
            if self._model is None:
                self._model = _load_model()
            return self._model


@dataclass(slots=True)
class _Model:
    """What lies in the wheel of wordllama."""

    tokenizer: Any
    embedding: Any
    """One vector a token, shape (32,000, DIMENSIONS), float32."""


def _load_model() -> _Model:
    # The files are read and wordllama itself is not imported: its code exists for fewer versions of
    # Python than its files do, and it takes over the log and brings an HTTP client with it.
    spec = find_spec("wordllama")
    try:
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError("wordllama")
        folder = Path(spec.submodule_search_locations[0])
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        try:
            weights = load_file(folder / "weights" / f"l2_supercat_{DIMENSIONS}.safetensors")
            text = (folder / "tokenizers" / "l2_supercat_tokenizer_config.json").read_text("utf-8")
        except SafetensorError as exc:
            raise OSError(str(exc)) from exc
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return _Model(tokenizer, weights["embedding.weight"].astype("float32"))
    except (ImportError, OSError, KeyError) as exc:
        raise ConfigurationError(
            "The local embedding model is missing or damaged: "
            "pip install --force-reinstall wordllama"
        ) from exc


def _mean_vector(model: _Model, text: str) -> list[float]:
    """The mean of the token vectors at unit length; all zero where it has no direction.

    WordLlama's own `embed` computes the same mean, but pads a batch to its longest text and holds
    every token's vector: a text of 8 MiB would take gigabytes. Counting the tokens first needs one
    row a different token.
    """
    import numpy as np

    ids = np.concatenate(
        [
            np.asarray(model.tokenizer.encode(piece, add_special_tokens=False).ids, dtype=np.intp)
            for piece in _pieces(text)
        ]
    )
    tokens, counts = np.unique(ids, return_counts=True)
    # Not as a matrix product: a BLAS may add up in another order on another day.
    rows = model.embedding[tokens] * counts[:, np.newaxis]
    total = rows.sum(axis=0, dtype=np.float64)
    length = float(np.sqrt((total * total).sum()))
    vector: list[float] = (total / (length or 1.0)).tolist()
    return vector


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text, at spaces where it has some: the tokenizer starts each piece with one."""
    start = 0
    while len(text) - start > PIECE:
        end = text.rfind(" ", start + 1, start + PIECE)
        if end < 0:
            end = start + PIECE
            yield text[start:end]
            start = end
        else:
            yield text[start:end]
            start = end + 1
    yield text[start:]
