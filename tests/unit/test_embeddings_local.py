from __future__ import annotations

import asyncio
import logging
import math
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from paracle_meta.embeddings import LocalEmbeddings
from paracle_meta.exceptions import EmbeddingBatchError, EmbeddingProviderError


@pytest.fixture(scope="module")
def local() -> LocalEmbeddings:
    return LocalEmbeddings()  # one for all tests here: loading takes half a second


def cosine(a: list[float], b: list[float]) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


async def test_vector_has_256_dimensions_and_unit_length(local: LocalEmbeddings) -> None:
    vector = await local.embed("Hello world")
    assert local.model_id == "local/wordllama-256-sqrt"
    assert len(vector) == local.dimensions == 256
    assert all(type(number) is float for number in vector)
    assert math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-6)


async def test_nearer_in_meaning_is_nearer_as_vector(local: LocalEmbeddings) -> None:
    query, near, far = await local.embed_many(
        [
            "security audit agent",
            "Reviews source code for vulnerabilities and leaked passwords.",
            "Plans meals for the week and writes the shopping list.",
        ]
    )
    assert cosine(query, near) > cosine(query, far) + 0.1


async def test_vector_is_the_same_bits_in_any_batch(local: LocalEmbeddings) -> None:
    texts = [
        "hi",
        "hello world " * 500,
        "A security review agent.",
        "漢字 😀 é",
        "x" * 40_000,
        "tabs\tand\nlines",
    ]
    alone = [await local.embed(text) for text in texts]
    assert await local.embed_many(texts) == alone
    assert await local.embed_many(texts[::-1]) == alone[::-1]
    assert await local.embed_many(texts * 60) == alone * 60  # more than one batch
    assert await LocalEmbeddings().embed_many(texts) == alone


async def test_vector_is_that_of_wordllama_itself_each_token_damped(local: LocalEmbeddings) -> None:
    texts = ["A security review agent.", "hello world " * 500, "漢字 😀 é"]
    vectors = await local.embed_many(texts)
    # Importing wordllama would take over the log.
    logging.getLogger().addHandler(guard := logging.NullHandler())
    import wordllama

    logging.getLogger().removeHandler(guard)
    model = wordllama.WordLlama.load(
        cache_dir=Path(wordllama.__file__).parent, dim=256, disable_download=True
    )
    model.tokenizer.no_padding()
    model.tokenizer.no_truncation()
    plain = np.asarray(model.embedding, dtype=np.float64)
    for text, vector in zip(texts, vectors, strict=True):
        tokens = plain[model.tokenizer.encode(text, add_special_tokens=False).ids]
        damped = tokens / np.sqrt(np.linalg.norm(tokens, axis=1, keepdims=True))
        expected = damped.sum(axis=0) / np.linalg.norm(damped.sum(axis=0))
        np.testing.assert_allclose(vector, expected, atol=1e-6)
        # The mean that wordllama makes is another vector, by far more than what is allowed above.
        assert np.abs(expected - model.embed([text], norm=True)[0]).max() > 1e-4


async def test_long_text_is_embedded_whole_while_the_loop_runs_on(local: LocalEmbeddings) -> None:
    await local.embed("load the model first")
    text = "a review of the security of passwords " * 50_000  # 1.9 MB
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    vector = await local.embed(text)
    ticking.cancel()
    assert ticks > 10
    # The tokens of a repeated text are those of one repetition, so is their mean. A few differ
    # where the text is cut.
    assert cosine(vector, await local.embed("a review of the security of passwords")) > 0.9999


async def test_the_end_of_a_long_text_counts(local: LocalEmbeddings) -> None:
    start = "recipes for bread and cake " * 2_000
    same, other = await local.embed_many([start, start + "network security " * 2_000])
    assert cosine(same, other) < 0.95


async def test_long_text_without_any_space(local: LocalEmbeddings) -> None:
    assert len(await local.embed("漢字" * 30_000)) == 256


async def test_no_network_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the local provider went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert len(await LocalEmbeddings().embed("nothing leaves this machine")) == 256


async def test_model_is_loaded_once_for_concurrent_first_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads = []
    load = safetensors.numpy.load_file

    def counted(path: Path) -> object:
        loads.append(threading.current_thread())
        return load(path)

    monkeypatch.setattr(safetensors.numpy, "load_file", counted)
    provider = LocalEmbeddings()
    vectors = await asyncio.gather(*(provider.embed("the same text") for _ in range(20)))
    assert len(loads) == 1
    assert loads[0] is not threading.main_thread()
    assert all(vector == vectors[0] for vector in vectors)


async def test_text_without_a_token_is_refused_and_the_others_kept(
    local: LocalEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tokenizer falls back to bytes and so knows every text; one that does not is made here by
    # a model whose row for the letter is zero.
    model = local._loaded_model()
    token = model.tokenizer.encode("q", add_special_tokens=False).ids
    blank = model.embedding.copy()
    blank[token] = 0.0
    monkeypatch.setattr(model, "embedding", blank)
    with pytest.raises(EmbeddingProviderError, match="zero"):
        await local.embed("q")
    with pytest.raises(EmbeddingBatchError) as caught:
        await local.embed_many(["good", "q"])
    assert list(caught.value.failures) == [1]
    assert caught.value.embeddings == [await local.embed("good"), None]


async def test_close_may_be_repeated_and_the_provider_used_again() -> None:
    provider = LocalEmbeddings()
    before = await provider.embed("once")
    await provider.close()
    await provider.close()
    assert await provider.embed("once") == before


async def test_missing_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from paracle_meta.exceptions import ConfigurationError

    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(ConfigurationError, match="pip install --force-reinstall wordllama"):
        await LocalEmbeddings().embed("text")
    assert not [h for h in logging.getLogger().handlers if type(h) is logging.NullHandler]


def test_the_log_of_the_program_is_left_alone() -> None:
    # In a process of its own, since wordllama does it when it is first imported.
    program = """
import asyncio, logging
from paracle_meta.embeddings import LocalEmbeddings
asyncio.run(LocalEmbeddings().embed("text"))
root = logging.getLogger()
assert root.handlers == [] and root.level == logging.WARNING, (root.handlers, root.level)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
