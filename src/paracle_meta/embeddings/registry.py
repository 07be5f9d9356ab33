"""Which provider a configuration or a model's name means. A new one is one file and lines here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from paracle_meta.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from paracle_meta.config import Config, DatabaseSettings
    from paracle_meta.embeddings.base import EmbeddingProvider


# Each imports its provider itself: a process that uses one does not load the others.


def _local(settings: DatabaseSettings) -> EmbeddingProvider:
    return LOCAL_MODELS[settings.local_model](settings)


def _wordllama(settings: DatabaseSettings) -> EmbeddingProvider:
    from paracle_meta.embeddings.local import LocalEmbeddings

    return LocalEmbeddings.from_settings(settings)


def _minilm(settings: DatabaseSettings) -> EmbeddingProvider:
    from paracle_meta.embeddings.minilm import MiniLMEmbeddings

    return MiniLMEmbeddings.from_settings(settings)


def _ollama(settings: DatabaseSettings) -> EmbeddingProvider:
    from paracle_meta.embeddings.ollama import OllamaEmbeddings

    return OllamaEmbeddings.from_settings(settings)


def _openai(settings: DatabaseSettings) -> EmbeddingProvider:
    from paracle_meta.embeddings.openai import OpenAIEmbeddings

    return OpenAIEmbeddings.from_settings(settings)


PROVIDERS: Mapping[str, Callable[[DatabaseSettings], EmbeddingProvider]] = {
    "local": _local,
    "ollama": _ollama,
    "openai": _openai,
}
LOCAL_MODELS: Mapping[str, Callable[[DatabaseSettings], EmbeddingProvider]] = {
    "wordllama": _wordllama,
    "minilm": _minilm,
}

# No model's vectors are longer than five digits say: a longer number belongs to the name.
LENGTH = re.compile("[0-9]{1,5}")


def get_embedding_provider(config: Config | DatabaseSettings) -> EmbeddingProvider:
    """Make the embedding provider that a configuration names; nothing is opened or loaded yet.

    Args:
        config: the whole configuration, or its `database` section.

    Returns:
        A new provider; whoever asked for it closes it.

    Raises:
        ConfigurationError: the provider's settings are incomplete or contradict each other.
    """
    from paracle_meta.config import Config, DatabaseSettings

    settings = config.database if isinstance(config, Config) else config
    if not isinstance(settings, DatabaseSettings):
        raise ConfigurationError(
            "get_embedding_provider takes what load_config() returns or its `database`, not "
            f"{type(settings).__name__}."
        )
    return PROVIDERS[settings.embedding_provider](settings)


def settings_for_model(settings: DatabaseSettings, model: str) -> DatabaseSettings:
    """The same settings with another embedding model.

    Args:
        settings: where keys, addresses and everything else come from.
        model: ``PROVIDER/MODEL``, which is also a provider's `model_id` as ``paracle meta db
            status`` shows it; ``@N`` behind it sets the length of its vectors. For instance
            ``"openai/text-embedding-3-small@512"``, ``"ollama/hf.co/x/y:Q4@768"``,
            ``"local/minilm"``.

    Returns:
        Settings whose provider is the one named. The length of the vectors is the model's own
        where none is given.

    Raises:
        ConfigurationError: this names no model, or one whose length of vectors is not known here
            and has to be given.
    """
    from paracle_meta.embeddings import local, minilm, ollama, openai

    local_names = {
        "local/wordllama": "wordllama",
        local.MODEL_ID: "wordllama",
        "local/minilm": "minilm",
        minilm.MODEL_ID: "minilm",
    }
    provider, _, name = model.partition("/")
    if provider == "local" and model in local_names:
        return _changed(settings, provider, "local_model", local_names[model], None)
    if provider == "openai" and name:
        return _remote(settings, provider, name, settings.openai_model, openai.own_dimensions)
    if provider == "ollama" and name:
        # A name with this tag and one without any mean the same model.
        configured = settings.ollama_model.removesuffix(":latest")
        name = name.removesuffix(":latest")
        return _remote(settings, provider, name, configured, ollama.own_dimensions)
    raise ConfigurationError(
        f"{model!r} names no embedding model: write local/wordllama, local/minilm, openai/MODEL or "
        "ollama/MODEL, where needed with @N for vectors of N dimensions, such as "
        "openai/text-embedding-3-small@512."
    )


def _remote(
    settings: DatabaseSettings,
    provider: str,
    wanted: str,
    configured: str,
    own_dimensions: Callable[[str], int | None],
) -> DatabaseSettings:
    """The settings with a model of a server; `configured` is the one that they name now."""
    # The id of a model that is not known here does not say its length, but its settings do.
    is_configured = settings.embedding_provider == provider and wanted == configured
    if is_configured and own_dimensions(wanted) is None and settings.embedding_dimensions:
        return settings
    name, _, length = wanted.rpartition("@")
    if not (name and LENGTH.fullmatch(length)):
        name, length = wanted, ""
    if not length and own_dimensions(name) is None:
        raise ConfigurationError(
            f"How many dimensions the vectors of {provider}/{name} have is not known here: write "
            f"{provider}/{name}@N."
        )
    return _changed(settings, provider, f"{provider}_model", name, int(length) if length else None)


def _changed(
    settings: DatabaseSettings, provider: str, setting: str, name: str, dimensions: int | None
) -> DatabaseSettings:
    from paracle_meta.config import DatabaseSettings

    change = {
        "embedding_provider": provider,
        setting: name,
        "embedding_dimensions": dimensions,
    }
    # Made anew and not copied, so that the new values are checked.
    return DatabaseSettings(**(dict(settings) | change))
