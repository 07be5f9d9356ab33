from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest

import paracle_meta.embeddings
from paracle_meta.config import Config, DatabaseSettings
from paracle_meta.embeddings import (
    EmbeddingProvider,
    LocalEmbeddings,
    OllamaEmbeddings,
    OpenAIEmbeddings,
    get_embedding_provider,
)
from paracle_meta.embeddings.registry import PROVIDERS
from paracle_meta.exceptions import ConfigurationError
from tests.embedding_server import EmbeddingServer


def settings(**values: Any) -> DatabaseSettings:
    return DatabaseSettings(**values)


def test_every_provider_that_the_configuration_takes_is_registered() -> None:
    taken = DatabaseSettings.model_fields["embedding_provider"].annotation
    assert set(get_args(taken)) == set(PROVIDERS)


def test_local_where_nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-lies-around")  # a key alone sends no text anywhere
    provider = get_embedding_provider(Config())
    assert isinstance(provider, LocalEmbeddings)
    assert repr(provider) == "<LocalEmbeddings local/wordllama-256, 256 dimensions>"


@pytest.mark.parametrize(
    ("values", "kind", "model_id", "dimensions"),
    [
        ({"embedding_provider": "local"}, LocalEmbeddings, "local/wordllama-256", 256),
        (
            {"embedding_provider": "local", "embedding_dimensions": 256},
            LocalEmbeddings,
            "local/wordllama-256",
            256,
        ),
        (
            {"embedding_provider": "openai", "openai_api_key": "sk-test"},
            OpenAIEmbeddings,
            "openai/text-embedding-3-small",
            1536,
        ),
        (
            {
                "embedding_provider": "openai",
                "openai_api_key": "sk-test",
                "openai_model": "text-embedding-3-large",
                "embedding_dimensions": 1024,
            },
            OpenAIEmbeddings,
            "openai/text-embedding-3-large@1024",
            1024,
        ),
        ({"embedding_provider": "ollama"}, OllamaEmbeddings, "ollama/nomic-embed-text", 768),
        (
            {"embedding_provider": "ollama", "ollama_model": "my", "embedding_dimensions": 12},
            OllamaEmbeddings,
            "ollama/my",
            12,
        ),
    ],
)
def test_provider_that_the_configuration_names(
    values: dict[str, Any], kind: type, model_id: str, dimensions: int
) -> None:
    database = settings(**values)
    for config in (database, Config(database=database)):
        provider: EmbeddingProvider = get_embedding_provider(config)
        assert type(provider) is kind
        assert provider.model_id == model_id
        assert provider.dimensions == dimensions
        assert "sk-test" not in repr(provider)


async def test_every_setting_reaches_the_provider() -> None:
    with EmbeddingServer() as server:
        for values in (
            {
                "embedding_provider": "openai",
                "openai_api_key": "sk-test",
                "openai_base_url": server.openai_url,
                "openai_model": "my-model",
            },
            {
                "embedding_provider": "ollama",
                "ollama_url": server.url,
                "ollama_model": "my-model",
            },
        ):
            provider = get_embedding_provider(
                settings(
                    embedding_dimensions=64,
                    embedding_batch_size=2,
                    embedding_timeout=7.0,
                    embedding_max_retries=0,
                    **values,
                )
            )
            assert isinstance(provider, OpenAIEmbeddings | OllamaEmbeddings)
            assert (provider._timeout, provider._max_retries) == (7.0, 0)
            server.requests.clear()
            assert len(await provider.embed_many(["a", "b", "c"])) == 3
            assert server.texts == [["a", "b"], ["c"]]
            assert server.requests[0].body["model"] == "my-model"
            await provider.close()


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"embedding_provider": "local", "embedding_dimensions": 512}, "embedding_dimensions"),
        ({"embedding_provider": "ollama", "ollama_model": "my"}, "embedding_dimensions"),
        ({"embedding_provider": "openai"}, "OPENAI_API_KEY"),
    ],
)
def test_settings_that_do_not_fit(
    values: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=name):
        get_embedding_provider(settings(**values))


def test_something_else_than_a_configuration() -> None:
    with pytest.raises(ConfigurationError, match="load_config"):
        get_embedding_provider({"embedding_provider": "local"})  # type: ignore[arg-type]


def test_every_public_name_is_there() -> None:
    for name in paracle_meta.embeddings.__all__:
        assert getattr(paracle_meta.embeddings, name).__doc__


def test_import_loads_no_heavy_package() -> None:
    program = """
import sys
import paracle_meta.embeddings as embeddings
embeddings.OllamaEmbeddings(), embeddings.LocalEmbeddings(), embeddings.OpenAIEmbeddings("sk-test")
heavy = {"openai", "ollama", "wordllama", "tokenizers", "numpy", "httpx", "httpx2", "requests"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
