"""What the providers behind a server have in common, each test for both."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import socket
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta.embeddings import OllamaEmbeddings, OpenAIEmbeddings
from paracle_meta.exceptions import (
    ConfigurationError,
    EmbeddingBatchError,
    EmbeddingError,
    EmbeddingProviderError,
)
from tests.embedding_server import Answer, EmbeddingServer, vector_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    Make = Callable[..., OpenAIEmbeddings | OllamaEmbeddings]

KEY = "sk-a-key-that-nobody-may-see"
SECRET = "a prompt that nobody may see"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


@pytest.fixture(params=["openai", "ollama"])
async def make(request: pytest.FixtureRequest, server: EmbeddingServer) -> AsyncIterator[Make]:
    """Makes providers of 64 dimensions whose retries do not wait."""
    made: list[OpenAIEmbeddings | OllamaEmbeddings] = []

    def provider(**arguments: Any) -> OpenAIEmbeddings | OllamaEmbeddings:
        given: dict[str, Any] = {"model": "test-model", "dimensions": 64, "backoff": 0.0}
        given |= arguments
        url = given.pop("url", server.url)
        if request.param == "openai":
            made.append(OpenAIEmbeddings(KEY, base_url=f"{url}/v1", **given))
        else:
            made.append(OllamaEmbeddings(base_url=url, **given))
        return made[-1]

    yield provider
    for one in made:
        await one.close()


async def failure(provider: OpenAIEmbeddings | OllamaEmbeddings, text: str = SECRET) -> str:
    """The message of the error that a text meets; nothing secret may be anywhere in its chain."""
    with pytest.raises(EmbeddingProviderError) as caught:
        await provider.embed(text)
    assert_nothing_secret(caught.value)
    return str(caught.value)


def assert_nothing_secret(error: BaseException) -> None:
    shown = "".join(traceback.format_exception(error))
    assert KEY not in shown
    assert SECRET not in shown


def vectors_in(document: dict[str, Any]) -> list[list[Any]]:
    """The vectors of an answer of either protocol, to be changed in place."""
    if "embeddings" in document:
        return document["embeddings"]  # type: ignore[no-any-return]
    return [item["embedding"] for item in document["data"]]


def close_to(vector: list[float]) -> Any:
    return pytest.approx(vector, abs=1e-6)


# --- good answers ---


async def test_embed_gives_the_vector_of_the_server(make: Make) -> None:
    vector = await make().embed("Hello world")
    assert vector == close_to(vector_of("Hello world", 64))
    assert all(type(number) is float for number in vector)


async def test_embed_many_keeps_the_order_over_batches(make: Make, server: EmbeddingServer) -> None:
    texts = [f"text number {number}" for number in range(25)]
    vectors = await make(batch_size=10).embed_many(texts)
    assert vectors == [close_to(vector_of(text, 64)) for text in texts]
    assert server.texts == [texts[:10], texts[10:20], texts[20:]]


async def test_embed_many_of_nothing_asks_nobody(make: Make, server: EmbeddingServer) -> None:
    assert await make().embed_many([]) == []
    assert server.requests == []


async def test_vector_is_exactly_what_a_float32_holds(make: Make, server: EmbeddingServer) -> None:
    import numpy as np

    def thirds(document: dict[str, Any]) -> None:
        vectors_in(document)[0][:] = [1 / 3] * 63 + [2]  # JSON of a whole number is an int

    server.plan(Answer(alter=thirds))
    vector = await make().embed("text")
    assert vector == [float(np.float32(1 / 3))] * 63 + [2.0]


async def test_a_second_event_loop_gets_its_own_connection(make: Make) -> None:
    provider = make()
    here = await provider.embed("text")

    async def elsewhere() -> list[float]:
        try:
            return await provider.embed("text")
        finally:
            await provider.close()

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == here
    assert await provider.embed("text") == here
    gc.collect()  # a connection that was dropped unclosed warns here


async def test_close_may_be_repeated_and_the_provider_used_again(make: Make) -> None:
    provider = make()
    before = await provider.embed("once")
    await provider.close()
    await provider.close()
    assert await provider.embed("once") == before


async def test_first_calls_at_once_share_one_client(make: Make, server: EmbeddingServer) -> None:
    provider = make()
    vectors = await asyncio.gather(*(provider.embed("text") for _ in range(5)))
    assert len(server.requests) == 5
    assert all(vector == vectors[0] for vector in vectors)


# --- texts that are refused here ---

BAD_TEXTS = [
    pytest.param("", "empty", id="empty"),
    pytest.param(" \n\t", "empty", id="blank"),
    pytest.param("nul \0 inside", "NUL character at position 4", id="nul"),
    pytest.param("half \ud83d a pair", "surrogate.* at position 5", id="surrogate"),
    pytest.param(None, "NoneType, not str", id="none"),
    pytest.param(b"bytes", "bytes, not str", id="bytes"),
]


@pytest.mark.parametrize(("text", "why"), BAD_TEXTS)
async def test_bad_text_is_refused_before_anything_is_sent(
    make: Make, server: EmbeddingServer, text: Any, why: str
) -> None:
    with pytest.raises(EmbeddingProviderError, match=why):
        await make().embed(text)
    assert server.requests == []


@pytest.mark.parametrize(("text", "why"), BAD_TEXTS)
async def test_bad_text_in_a_batch_is_named_and_the_others_embedded(
    make: Make, server: EmbeddingServer, text: Any, why: str
) -> None:
    with pytest.raises(EmbeddingBatchError, match=f"text 1: it.*{why}") as caught:
        await make().embed_many(["first", text, "third"])
    assert list(caught.value.failures) == [1]
    assert caught.value.embeddings == [
        close_to(vector_of("first", 64)),
        None,
        close_to(vector_of("third", 64)),
    ]
    assert server.texts == [["first", "third"]]


async def test_embed_many_of_a_single_text_is_a_mistake(make: Make) -> None:
    with pytest.raises(EmbeddingProviderError, match="use embed"):
        await make().embed_many("text")


# --- texts that the server refuses ---


@pytest.mark.parametrize("status", [400, 413, 422, 500])
async def test_one_refused_text_does_not_sink_the_others(
    make: Make, server: EmbeddingServer, status: int
) -> None:
    server.refuse_status = status
    server.refuses = {SECRET}
    texts = [f"text number {number}" for number in range(32)]
    texts[13] = SECRET
    with pytest.raises(EmbeddingBatchError, match=f"text 13: .*HTTP {status}") as caught:
        await make(batch_size=16, max_retries=1).embed_many(texts)
    assert_nothing_secret(caught.value)
    assert list(caught.value.failures) == [13]
    assert [index for index, vector in enumerate(caught.value.embeddings) if vector is None] == [13]
    assert caught.value.embeddings[12] == close_to(vector_of(texts[12], 64))
    # The batch, the probe, and two halves for each of the four times that 16 can be halved; the
    # other batch. Where it may pass (500), the five refused ones are repeated once.
    assert len(server.requests) == 1 + 1 + 2 * 4 + 1 + (5 if status == 500 else 0)


async def test_texts_that_are_too_much_only_together_are_all_embedded(
    make: Make, server: EmbeddingServer
) -> None:
    server.plan(Answer(status=413))
    vectors = await make().embed_many(["one", "two", "three"])
    assert vectors == [close_to(vector_of(text, 64)) for text in ("one", "two", "three")]
    assert server.texts == [["one", "two", "three"], ["text"], ["one"], ["two", "three"]]


async def test_a_server_that_refuses_every_text_is_not_asked_for_each(
    make: Make, server: EmbeddingServer
) -> None:
    server.always(Answer(status=400))
    with pytest.raises(EmbeddingProviderError, match=r"HTTP 400.*settings of model"):
        await make().embed_many([f"text number {number}" for number in range(100)])
    assert len(server.requests) == 2  # the first batch and the probe


async def test_server_that_goes_away_while_the_culprit_is_sought(
    make: Make, server: EmbeddingServer
) -> None:
    server.plan(Answer(status=400), Answer())  # the batch; the probe
    server.always(Answer(status=503))
    with pytest.raises(EmbeddingProviderError, match="HTTP 503"):
        await make(max_retries=0).embed_many(["one", "two", "three", "four"])
    assert server.texts[2:] == [["one", "two"]]


async def test_single_refused_text(make: Make, server: EmbeddingServer) -> None:
    server.refuses = {SECRET}
    assert "HTTP 400" in await failure(make())


async def test_vectors_made_before_the_server_went_away_are_kept(
    make: Make, server: EmbeddingServer
) -> None:
    server.plan(Answer(), *[Answer(status=503)] * 2)
    with pytest.raises(EmbeddingBatchError) as caught:
        await make(batch_size=2, max_retries=1).embed_many(["a", "b", "c", "d", "e", "f", ""])
    assert caught.value.embeddings[:2] == [close_to(vector_of(text, 64)) for text in "ab"]
    assert caught.value.embeddings[2:] == [None] * 5
    assert list(caught.value.failures) == [2, 3, 4, 5, 6]
    assert "HTTP 503" in caught.value.failures[2]
    assert caught.value.failures[4] == "not tried"
    assert "empty" in caught.value.failures[6]
    assert len(server.requests) == 3


# --- refusals that no retry mends ---


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_refusal_of_the_whole_service_is_told_at_once(
    make: Make, server: EmbeddingServer, status: int
) -> None:
    server.always(Answer(status=status))
    with pytest.raises(EmbeddingProviderError, match=f"HTTP {status}"):
        await make().embed_many(["one", "two", "three"])
    assert len(server.requests) == 1


async def test_redirect_is_not_followed(make: Make, server: EmbeddingServer) -> None:
    with EmbeddingServer() as other:
        for status in (301, 302, 307, 308):
            location = {"Location": f"{other.url}{'/v1/embeddings'}"}
            server.plan(Answer(status=status, headers=location))
            message = await failure(make())
            assert f"HTTP {status}" in message
            assert "final address" in message
        assert other.requests == []
    assert len(server.requests) == 4


# --- what may pass ---


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_passing_failure_is_retried(make: Make, server: EmbeddingServer, status: int) -> None:
    server.plan(Answer(status=status), Answer(status=status))
    assert await make().embed("text") == close_to(vector_of("text", 64))
    assert len(server.requests) == 3


async def test_retries_are_bounded_and_the_client_adds_none(
    make: Make, server: EmbeddingServer
) -> None:
    server.always(Answer(status=503))
    assert "HTTP 503" in await failure(make(max_retries=2))
    assert len(server.requests) == 3


async def test_no_retry_where_none_is_wanted(make: Make, server: EmbeddingServer) -> None:
    server.always(Answer(status=429))
    assert "HTTP 429" in await failure(make(max_retries=0))
    assert len(server.requests) == 1


async def test_retry_after_is_waited_for(make: Make, server: EmbeddingServer) -> None:
    server.plan(Answer(status=429, headers={"Retry-After": "0.3"}))
    provider = make()
    started = time.perf_counter()
    await provider.embed("text")
    assert time.perf_counter() - started >= 0.3


async def test_retry_after_may_be_a_date(make: Make, server: EmbeddingServer) -> None:
    # Dates have whole seconds: two ahead is at least one.
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server.plan(Answer(status=503, headers={"Retry-After": date}))
    provider = make()
    started = time.perf_counter()
    await provider.embed("text")
    assert time.perf_counter() - started >= 0.9


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "-5", "Wed, 99 Foo 2020", "0"])
async def test_useless_retry_after_leaves_the_own_back_off(
    make: Make, server: EmbeddingServer, value: str
) -> None:
    server.plan(Answer(status=429, headers={"Retry-After": value}))
    assert await make().embed("text") == close_to(vector_of("text", 64))


async def test_too_long_a_retry_after_is_told_instead_of_waited_for(
    make: Make, server: EmbeddingServer
) -> None:
    server.plan(Answer(status=429, headers={"Retry-After": "3600"}))
    assert "wait 3600 s" in await failure(make())
    assert len(server.requests) == 1


async def test_back_off_grows(make: Make, server: EmbeddingServer) -> None:
    server.plan(*[Answer(status=503)] * 3)
    provider = make(backoff=0.1)
    started = time.perf_counter()
    await provider.embed("text")
    # At least half of 0.1 + 0.2 + 0.4.
    assert time.perf_counter() - started >= 0.35


async def test_retry_is_logged_without_text_or_key(
    make: Make, server: EmbeddingServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.plan(Answer(status=503))
    with caplog.at_level(logging.DEBUG, logger="paracle_meta"):
        await make().embed(SECRET)
    own = [record.getMessage() for record in caplog.records if record.name == "paracle_meta"]
    assert len(own) == 1
    assert "HTTP 503" in own[0]
    assert SECRET not in own[0]
    assert KEY not in own[0]


async def test_time_out(make: Make, server: EmbeddingServer) -> None:
    await make().embed("import the client first, which takes a while")
    server.always(Answer(hang=True))
    # Long enough that each request has reached the server by then, whatever else the machine does.
    message = await failure(make(timeout=1, max_retries=1))
    assert "no answer within 1 s" in message
    assert "embedding_timeout" in message
    assert len(server.requests) == 3


async def test_refused_connection(make: Make) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        message = await failure(make(url=url, max_retries=1))
    assert f"no connection to {url}" in message


async def test_unknown_host_keeps_the_word_of_the_system(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A resolver of the machine may answer anything for an unknown name; this one does not.
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    provider = make(url="http://nowhere.invalid", max_retries=0)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EmbeddingProviderError, match=r"nowhere\.invalid") as caught:
        await provider.embed(SECRET)
    assert isinstance(caught.value.__cause__, socket.gaierror)
    assert_nothing_secret(caught.value)


async def test_answer_cut_off_by_the_network(make: Make, server: EmbeddingServer) -> None:
    server.plan(Answer(cut=True))
    assert await make().embed("text") == close_to(vector_of("text", 64))
    server.always(Answer(cut=True))
    assert "it broke" in await failure(make(max_retries=1))


async def test_answer_that_is_cut_json(make: Make, server: EmbeddingServer) -> None:
    broken = Answer(body=b'{"data": [{"index": 0, "embedding": [0.1, ')
    server.plan(broken)
    assert await make().embed("text") == close_to(vector_of("text", 64))
    server.always(broken)
    assert "holds no embeddings" in await failure(make(max_retries=1))


async def test_cancelling_passes_at_once(make: Make, server: EmbeddingServer) -> None:
    provider = make()
    await provider.embed("import the client first")
    server.arrived.clear()
    server.always(Answer(hang=True))
    task = asyncio.create_task(provider.embed("text"))
    assert await asyncio.to_thread(server.arrived.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)
    assert len(server.requests) == 2


async def test_cancelling_while_waiting_to_retry(make: Make, server: EmbeddingServer) -> None:
    server.always(Answer(status=503))
    task = asyncio.create_task(make(backoff=30.0).embed("text"))
    assert await asyncio.to_thread(server.arrived.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)


# --- answers that are no embeddings ---


def changed(change: Callable[[list[Any]], object], index: int = -1) -> Answer:
    return Answer(alter=lambda document: change(vectors_in(document)[index]))


BAD_VECTORS = [
    pytest.param(lambda vector: vector.__setitem__(5, math.nan), "NaN", id="nan"),
    pytest.param(lambda vector: vector.__setitem__(5, math.inf), "infinite", id="infinite"),
    pytest.param(lambda vector: vector.__setitem__(5, 1e39), "too large", id="beyond-float32"),
    pytest.param(
        lambda vector: vector.__setitem__(slice(None), [1e19] * 64), "too large", id="large-sum"
    ),
    pytest.param(lambda vector: vector.__setitem__(slice(None), [0] * 64), "zero", id="zero"),
    pytest.param(
        lambda vector: vector.__setitem__(slice(None), [1e-50] * 64), "zero", id="zero-as-float32"
    ),
    pytest.param(
        lambda vector: vector.__setitem__(slice(None), [1e-30] * 64), "zero", id="zero-sum"
    ),
    pytest.param(lambda vector: vector.pop(), "63 dimensions instead of 64", id="too-short"),
]


@pytest.mark.parametrize(("change", "why"), BAD_VECTORS)
async def test_bad_vector_is_refused(
    make: Make, server: EmbeddingServer, change: Callable[[list[Any]], object], why: str
) -> None:
    server.plan(changed(change))
    assert why in await failure(make())
    assert len(server.requests) == 1  # the same call would bring the same vector


@pytest.mark.parametrize(("change", "why"), BAD_VECTORS)
async def test_bad_vector_in_a_batch_is_named_and_the_others_kept(
    make: Make, server: EmbeddingServer, change: Callable[[list[Any]], object], why: str
) -> None:
    server.plan(changed(change))
    with pytest.raises(EmbeddingBatchError, match=f"text 2: .*{why}") as caught:
        await make().embed_many(["one", "two", SECRET])
    assert_nothing_secret(caught.value)
    assert caught.value.embeddings == [
        close_to(vector_of("one", 64)),
        close_to(vector_of("two", 64)),
        None,
    ]


async def test_another_length_of_all_vectors_is_the_model_s_and_ends_the_work(
    make: Make, server: EmbeddingServer
) -> None:
    with pytest.raises(EmbeddingProviderError, match="64 dimensions instead of 32") as caught:
        await make(dimensions=32, batch_size=2).embed_many(["one", "two", "three", "four"])
    assert "embedding_dimensions" in str(caught.value)
    assert len(server.requests) == 1


async def test_wrong_number_of_vectors(make: Make, server: EmbeddingServer) -> None:
    def drop(document: dict[str, Any]) -> None:
        (document.get("embeddings") or document.get("data") or []).pop()

    server.plan(Answer(alter=drop))
    with pytest.raises(EmbeddingProviderError, match="1 vectors for 2 texts"):
        await make().embed_many(["one", "two"])
    assert len(server.requests) == 1


NO_ANSWERS = [
    b"",
    b"null",
    b"[]",
    b"42",
    b'"text"',
    b"{}",
    b"<html>a page</html>",
    b"\xff\xfe",
    b'{"data": null, "embeddings": null}',
    b'{"data": [null], "embeddings": [null]}',
    b'{"data": [{"index": 0}], "embeddings": [{}]}',
    b'{"data": [{"index": 0, "embedding": "AAAA"}], "embeddings": ["AAAA"]}',
    b'{"data": [{"index": 0, "embedding": [null]}], "embeddings": [[null]]}',
]


@pytest.mark.parametrize("body", NO_ANSWERS)
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
async def test_answer_of_another_kind_of_server(
    make: Make, server: EmbeddingServer, body: bytes, kind: str
) -> None:
    server.always(Answer(body=body, headers={"Content-Type": kind}))
    assert "holds no embeddings" in await failure(make())


@pytest.mark.parametrize("body", NO_ANSWERS)
@pytest.mark.parametrize("status", [400, 401, 503])
async def test_refusal_with_any_body(
    make: Make, server: EmbeddingServer, body: bytes, status: int
) -> None:
    server.always(Answer(status=status, body=body))
    assert f"HTTP {status}" in await failure(make(max_retries=0))


async def test_number_beyond_any_float(make: Make, server: EmbeddingServer) -> None:
    huge = b"[" + b"1" + b"0" * 400 + b", 0.5" * 63 + b"]"
    server.always(
        Answer(body=b'{"data": [{"index": 0, "embedding": %b}], "embeddings": [%b]}' % (huge, huge))
    )
    with pytest.raises(EmbeddingError):
        await make().embed("text")


# --- settings ---


@pytest.mark.parametrize(
    "url",
    ["localhost:11434", "ftp://host", "http://", "http://user:word@host", "http://h:99999", ""],
)
def test_address_that_cannot_be_used(url: str) -> None:
    for make_provider in (
        lambda: OpenAIEmbeddings(KEY, base_url=url),
        lambda: OllamaEmbeddings(base_url=url),
    ):
        with pytest.raises(ConfigurationError, match=r"_url must") as caught:
            make_provider()
        assert "word" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"timeout": 0}, "embedding_timeout"),
        ({"max_retries": -1}, "embedding_max_retries"),
        ({"batch_size": 0}, "embedding_batch_size"),
        ({"dimensions": 0}, "embedding_dimensions"),
        ({"dimensions": None}, "embedding_dimensions"),
        ({"backoff": -1.0}, "backoff"),
    ],
)
async def test_number_out_of_range(make: Make, arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        make(**arguments)


async def test_text_for_this_machine_goes_through_no_proxy(
    make: Make, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddingServer() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        await make().embed("text")
        await make(url=server.url.replace("127.0.0.1", "localhost")).embed("text")
        assert proxy.requests == []
        # Elsewhere the environment's proxy counts; that one knows no such path.
        with pytest.raises(EmbeddingProviderError, match="HTTP 404"):
            await make(url="http://elsewhere.invalid").embed("text")
        assert len(proxy.requests) == 1
    assert len(server.requests) == 2


async def test_missing_package_says_how_to_get_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = make()
    package = "openai" if isinstance(provider, OpenAIEmbeddings) else "ollama"
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError) as caught:
        await provider.embed("text")
    assert f"pip install 'paracle-meta[{package}]'" in str(caught.value)


async def test_repr_shows_the_model_and_no_key(make: Make) -> None:
    provider = make()
    assert "test-model" in repr(provider)
    assert KEY not in repr(provider)
    assert KEY not in repr(vars(provider))
