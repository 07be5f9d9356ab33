"""Embeddings: texts as vectors, from OpenAI, from Ollama, or from models in the installation.

Importing this loads none of their packages; each is imported when its provider is first used.
"""

from __future__ import annotations

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
