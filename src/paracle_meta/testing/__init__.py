"""For the tests of those who use paracle_meta, and of those who write a backend for it.

`FakeEmbeddings` needs nothing but this package. The contract classes need pytest and
pytest-asyncio with ``asyncio_mode = "auto"``; `Contract` says how to run them on a database of
your own. Each name is loaded when it is first used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paracle_meta.testing.base import Contract
    from paracle_meta.testing.best_practices import BestPracticeContract
    from paracle_meta.testing.cost_sums import CostSumContract
    from paracle_meta.testing.costs import CostContract
    from paracle_meta.testing.embed_missing import EmbedMissingContract
    from paracle_meta.testing.embedding_cache import EmbeddingCacheContract
    from paracle_meta.testing.embeddings import FakeEmbeddings
    from paracle_meta.testing.feedback import FeedbackContract
    from paracle_meta.testing.filters import FilterContract
    from paracle_meta.testing.generations import GenerationContract
    from paracle_meta.testing.hybrid_search import HybridSearchContract
    from paracle_meta.testing.life import LifeContract
    from paracle_meta.testing.loading import LoadingContract
    from paracle_meta.testing.memory import MemoryContract
    from paracle_meta.testing.promotion import PromotionContract
    from paracle_meta.testing.reembedding import ReembeddingContract
    from paracle_meta.testing.retention import RetentionContract
    from paracle_meta.testing.sessions import SessionContract
    from paracle_meta.testing.snapshots import SnapshotContract
    from paracle_meta.testing.templates import TemplateContract
    from paracle_meta.testing.text_search import TextSearchContract
    from paracle_meta.testing.values import ValueContract
    from paracle_meta.testing.vector_search import VectorSearchContract
    from paracle_meta.testing.vectors import VectorContract

_CONTRACTS = {
    "Contract": "base",
    "BestPracticeContract": "best_practices",
    "CostContract": "costs",
    "CostSumContract": "cost_sums",
    "EmbedMissingContract": "embed_missing",
    "EmbeddingCacheContract": "embedding_cache",
    "FeedbackContract": "feedback",
    "FilterContract": "filters",
    "GenerationContract": "generations",
    "HybridSearchContract": "hybrid_search",
    "LifeContract": "life",
    "LoadingContract": "loading",
    "MemoryContract": "memory",
    "PromotionContract": "promotion",
    "ReembeddingContract": "reembedding",
    "RetentionContract": "retention",
    "SessionContract": "sessions",
    "SnapshotContract": "snapshots",
    "TemplateContract": "templates",
    "TextSearchContract": "text_search",
    "ValueContract": "values",
    "VectorContract": "vectors",
    "VectorSearchContract": "vector_search",
}

__all__ = [
    "BestPracticeContract",
    "Contract",
    "CostContract",
    "CostSumContract",
    "EmbedMissingContract",
    "EmbeddingCacheContract",
    "FakeEmbeddings",
    "FeedbackContract",
    "FilterContract",
    "GenerationContract",
    "HybridSearchContract",
    "LifeContract",
    "LoadingContract",
    "MemoryContract",
    "PromotionContract",
    "ReembeddingContract",
    "RetentionContract",
    "SessionContract",
    "SnapshotContract",
    "TemplateContract",
    "TextSearchContract",
    "ValueContract",
    "VectorContract",
    "VectorSearchContract",
]


@cache
def _show_values_of_failed_assertions() -> None:
    import pytest

    # As in the user's own tests; pytest has to be told before the modules are imported.
    pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _CONTRACTS.values()))


def __getattr__(name: str) -> Any:
    if name == "FakeEmbeddings":
        value = import_module(f"{__name__}.embeddings").FakeEmbeddings
    elif name in _CONTRACTS:
        _show_values_of_failed_assertions()
        value = getattr(import_module(f"{__name__}.{_CONTRACTS[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
