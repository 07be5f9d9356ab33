from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from paracle_meta.embeddings import OpenAIEmbeddings
from paracle_meta.exceptions import ConfigurationError, EmbeddingProviderError
from tests.embedding_server import Answer, EmbeddingServer, vector_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    Make = Callable[..., OpenAIEmbeddings]

KEY = "sk-a-key-that-nobody-may-see"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "BASE_URL", "ORG_ID", "PROJECT_ID", "CUSTOM_HEADERS"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


@pytest.fixture
async def make(server: EmbeddingServer) -> AsyncIterator[Make]:
    made: list[OpenAIEmbeddings] = []

    def provider(api_key: str | SecretStr | None = KEY, **arguments: Any) -> OpenAIEmbeddings:
        given: dict[str, Any] = {"base_url": server.openai_url, "backoff": 0.0} | arguments
        made.append(OpenAIEmbeddings(api_key, **given))
        return made[-1]

    yield provider
    for one in made:
        await one.close()


async def test_request_says_model_and_texts_and_carries_the_key(
    make: Make, server: EmbeddingServer
) -> None:
    vector = await make().embed("Hello world")
    assert len(vector) == 1536
    [request] = server.requests
    assert request.path == "/v1/embeddings"
    assert request.body == {
        "model": "text-embedding-3-small",
        "input": ["Hello world"],
        "encoding_format": "float",
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [
        ("text-embedding-3-small", 1536),
        ("text-embedding-3-large", 3072),
        ("text-embedding-ada-002", 1536),
    ],
)
async def test_known_models(
    make: Make, server: EmbeddingServer, model: str, dimensions: int
) -> None:
    # Asked for or not, the own length is no option of the request and not part of the id.
    for given in (None, dimensions):
        provider = make(model=model, dimensions=given)
        assert provider.model_id == f"openai/{model}"
        assert len(await provider.embed("text")) == provider.dimensions == dimensions
    assert all("dimensions" not in request.body for request in server.requests)


async def test_shorter_vectors_are_asked_for_and_part_of_the_id(
    make: Make, server: EmbeddingServer
) -> None:
    provider = make(model="text-embedding-3-large", dimensions=256)
    assert provider.model_id == "openai/text-embedding-3-large@256"
    assert len(await provider.embed("text")) == 256
    assert server.requests[0].body["dimensions"] == 256


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [
        ("text-embedding-3-small", 3072),
        ("text-embedding-3-small", 0),
        ("text-embedding-ada-002", 256),
    ],
)
def test_length_that_a_model_does_not_have(model: str, dimensions: int) -> None:
    with pytest.raises(ConfigurationError, match=r"embedding_dimensions cannot be .* have 1536"):
        OpenAIEmbeddings(KEY, model, dimensions=dimensions)


async def test_unknown_model_needs_its_length_told(make: Make, server: EmbeddingServer) -> None:
    with pytest.raises(ConfigurationError, match="embedding_dimensions"):
        make(model="my-model")
    provider = make(model="my-model", dimensions=64)
    assert provider.model_id == "openai/my-model"
    assert await provider.embed("text") == pytest.approx(vector_of("text", 64), abs=1e-6)
    assert "dimensions" not in server.requests[0].body


async def test_answers_out_of_order_are_put_right(make: Make, server: EmbeddingServer) -> None:
    texts = ["one", "two", "three", "four"]
    expected = await make().embed_many(texts)
    server.plan(Answer(alter=lambda document: document["data"].reverse()))
    assert await make().embed_many(texts) == expected


async def test_answers_without_index_are_in_order(make: Make, server: EmbeddingServer) -> None:
    def without_index(document: dict[str, Any]) -> None:
        for item in document["data"]:
            del item["index"]

    expected = await make().embed_many(["one", "two"])
    server.plan(Answer(alter=without_index))
    assert await make().embed_many(["one", "two"]) == expected


@pytest.mark.parametrize("index", [0, 2, -1, 0.5, None, "1", [1], True])
async def test_index_that_makes_no_order(make: Make, server: EmbeddingServer, index: Any) -> None:
    server.plan(Answer(alter=lambda document: document["data"][1].update(index=index)))
    with pytest.raises(EmbeddingProviderError, match="holds no embeddings"):
        await make().embed_many(["one", "two"])


@pytest.mark.parametrize("key", [KEY, SecretStr(KEY)])
async def test_key_as_text_or_secret(
    make: Make, server: EmbeddingServer, key: str | SecretStr
) -> None:
    await make(key).embed("text")
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_key_from_the_environment(
    make: Make, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    await make(None).embed("text")
    await make().embed("text")
    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer sk-from-the-environment",
        f"Bearer {KEY}",
    ]


@pytest.mark.parametrize("key", [None, "", SecretStr("")])
def test_missing_key_names_both_places(key: str | SecretStr | None) -> None:
    with pytest.raises(ConfigurationError, match="openai_api_key or OPENAI_API_KEY"):
        OpenAIEmbeddings(key)


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} ", f"{KEY}\r\nX-Header: 1", f"{KEY}é", " "])
def test_key_that_cannot_be_sent_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY") as caught:
        OpenAIEmbeddings(key)
    assert KEY not in "".join(traceback.format_exception(caught.value))


async def test_address_of_the_environment_is_ignored(
    make: Make, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddingServer() as other:
        monkeypatch.setenv("OPENAI_BASE_URL", other.openai_url)
        await make().embed("text")
        assert other.requests == []
        # Nor does it take the place of OpenAI's own address.
        client = await make(base_url=None)._client()
        assert str(client.base_url) == "https://api.openai.com/v1/"
    assert len(server.requests) == 1


async def test_refused_key_is_not_repeated_and_the_setting_named(
    make: Make, server: EmbeddingServer
) -> None:
    # Word for word what OpenAI answers, but for the stars that it puts into the key.
    body = b'{"error": {"message": "Incorrect API key provided: %b.", "code": "invalid_api_key"}}'
    server.always(Answer(status=401, body=body % KEY.encode()))
    with pytest.raises(EmbeddingProviderError, match="openai_api_key or OPENAI_API_KEY") as caught:
        await make().embed("text")
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert len(server.requests) == 1


async def test_unknown_model_of_the_server_names_the_setting(
    make: Make, server: EmbeddingServer
) -> None:
    server.always(Answer(status=404))
    with pytest.raises(EmbeddingProviderError, match="openai_model"):
        await make().embed("text")


async def test_used_up_quota_is_not_retried(make: Make, server: EmbeddingServer) -> None:
    body = b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'
    server.always(Answer(status=429, body=body))
    with pytest.raises(EmbeddingProviderError, match="billing"):
        await make().embed("text")
    assert len(server.requests) == 1


async def test_redirect_takes_the_key_nowhere(make: Make, server: EmbeddingServer) -> None:
    with EmbeddingServer() as other:
        location = {"Location": f"{other.openai_url}/embeddings"}
        server.plan(Answer(status=307, headers=location))
        with pytest.raises(EmbeddingProviderError, match="openai_base_url to the final address"):
            await make().embed("text")
        assert other.requests == []
