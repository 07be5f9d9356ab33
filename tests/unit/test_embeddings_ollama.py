from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta.embeddings import OllamaEmbeddings
from paracle_meta.exceptions import ConfigurationError, EmbeddingProviderError
from tests.embedding_server import Answer, EmbeddingServer, vector_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    Make = Callable[..., OllamaEmbeddings]


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


@pytest.fixture
async def make(server: EmbeddingServer) -> AsyncIterator[Make]:
    made: list[OllamaEmbeddings] = []

    def provider(**arguments: Any) -> OllamaEmbeddings:
        given: dict[str, Any] = {"base_url": server.url, "backoff": 0.0} | arguments
        made.append(OllamaEmbeddings(**given))
        return made[-1]

    yield provider
    for one in made:
        await one.close()


async def test_request_says_model_and_texts_and_forbids_cutting_them(
    make: Make, server: EmbeddingServer
) -> None:
    vector = await make().embed("Hello world")
    assert len(vector) == 768
    [request] = server.requests
    assert request.path == "/api/embed"
    assert request.body == {
        "model": "nomic-embed-text",
        "input": ["Hello world"],
        "truncate": False,
    }


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [
        ("nomic-embed-text", 768),
        ("nomic-embed-text:v1.5", 768),
        ("mxbai-embed-large", 1024),
        ("all-minilm", 384),
        ("all-minilm:33m", 384),
        ("bge-m3", 1024),
        ("snowflake-arctic-embed", 1024),
        ("snowflake-arctic-embed:22m", 384),
        ("snowflake-arctic-embed:137m", 768),
        ("snowflake-arctic-embed:335m", 1024),
        ("embeddinggemma", 768),
    ],
)
def test_known_models(model: str, dimensions: int) -> None:
    provider = OllamaEmbeddings(model)
    assert provider.dimensions == dimensions
    assert provider.model_id == f"ollama/{model}"


def test_latest_is_what_a_name_without_a_tag_means() -> None:
    assert OllamaEmbeddings("nomic-embed-text:latest").model_id == "ollama/nomic-embed-text"


async def test_unknown_model_needs_its_length_told(make: Make, server: EmbeddingServer) -> None:
    with pytest.raises(ConfigurationError, match="embedding_dimensions"):
        make(model="my-model")
    provider = make(model="my-model", dimensions=64)
    assert provider.model_id == "ollama/my-model"
    assert await provider.embed("text") == pytest.approx(vector_of("text", 64), abs=1e-6)
    assert "dimensions" not in server.requests[0].body


async def test_shorter_vectors_are_asked_for_and_part_of_the_id(
    make: Make, server: EmbeddingServer
) -> None:
    provider = make(dimensions=256)
    assert provider.model_id == "ollama/nomic-embed-text@256"
    assert len(await provider.embed("text")) == 256
    assert server.requests[0].body["dimensions"] == 256


@pytest.mark.parametrize("dimensions", [0, 1024])
def test_length_that_a_model_does_not_have(dimensions: int) -> None:
    with pytest.raises(ConfigurationError, match=r"embedding_dimensions cannot be .* have 768"):
        OllamaEmbeddings(dimensions=dimensions)


async def test_missing_model_says_how_to_fetch_it(make: Make, server: EmbeddingServer) -> None:
    server.always(Answer(status=404))
    with pytest.raises(EmbeddingProviderError, match="`ollama pull nomic-embed-text`"):
        await make().embed("text")
    assert len(server.requests) == 1


async def test_address_of_the_environment_is_ignored(
    make: Make, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddingServer() as other:
        monkeypatch.setenv("OLLAMA_HOST", other.url)
        await make().embed("text")
        assert other.requests == []
    assert len(server.requests) == 1


def test_default_address_is_that_of_a_local_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://elsewhere.invalid")
    assert OllamaEmbeddings()._url == "http://localhost:11434"


async def test_address_with_a_path(make: Make, server: EmbeddingServer) -> None:
    # Behind a gateway; this server has no such path and says so.
    with pytest.raises(EmbeddingProviderError, match="HTTP 404"):
        await make(base_url=f"{server.url}/ollama/").embed("text")
    assert server.requests[0].path == "/ollama/api/embed"


async def test_redirect_is_not_followed(make: Make, server: EmbeddingServer) -> None:
    with EmbeddingServer() as other:
        server.plan(Answer(status=307, headers={"Location": f"{other.url}/api/embed"}))
        with pytest.raises(EmbeddingProviderError, match="ollama_url to the final address"):
            await make().embed("text")
        assert other.requests == []
