"""Which provider a configuration means. A new one is one file and one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paracle_meta.embeddings.local import LocalEmbeddings
from paracle_meta.embeddings.ollama import OllamaEmbeddings
from paracle_meta.embeddings.openai import OpenAIEmbeddings
from paracle_meta.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from paracle_meta.config import Config, DatabaseSettings
    from paracle_meta.embeddings.base import EmbeddingProvider

PROVIDERS: Mapping[str, Callable[[DatabaseSettings], EmbeddingProvider]] = {
    "local": LocalEmbeddings.from_settings,
    "ollama": OllamaEmbeddings.from_settings,
    "openai": OpenAIEmbeddings.from_settings,
}


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
