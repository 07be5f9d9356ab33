"""Embeddings: texts as vectors, from OpenAI, from Ollama, or from models in the installation.

Importing this loads none of their packages; each is imported when its provider is first used, and
so is the module here that speaks to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paracle_meta.lazy import names_of

if TYPE_CHECKING:
    from paracle_meta.embeddings.base import EmbeddingProvider
    from paracle_meta.embeddings.local import LocalEmbeddings
    from paracle_meta.embeddings.minilm import MiniLMEmbeddings
    from paracle_meta.embeddings.ollama import OllamaEmbeddings
    from paracle_meta.embeddings.openai import OpenAIEmbeddings
    from paracle_meta.embeddings.registry import get_embedding_provider, settings_for_model

__all__ = [
    "EmbeddingProvider",
    "LocalEmbeddings",
    "MiniLMEmbeddings",
    "OllamaEmbeddings",
    "OpenAIEmbeddings",
    "get_embedding_provider",
    "settings_for_model",
]

__getattr__ = names_of(
    __name__,
    {
        "base": ("EmbeddingProvider",),
        "local": ("LocalEmbeddings",),
        "minilm": ("MiniLMEmbeddings",),
        "ollama": ("OllamaEmbeddings",),
        "openai": ("OpenAIEmbeddings",),
        "registry": ("get_embedding_provider", "settings_for_model"),
    },
)
