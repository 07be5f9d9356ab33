"""Remembers what a language-model generator made, and finds it again by meaning.

Everything public can be imported from here. Each name is loaded when it is first used, so that
importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paracle_meta.config import Config, DatabaseSettings, load_config
    from paracle_meta.database import MetaDatabase, get_meta_database
    from paracle_meta.exceptions import (
        ConfigurationError,
        DatabaseBusyError,
        DatabaseConnectionError,
        DatabaseError,
        DuplicateError,
        EmbeddingBatchError,
        EmbeddingError,
        EmbeddingModelMismatchError,
        EmbeddingProviderError,
        IntegrityError,
        InUseError,
        InvalidValueError,
        MigrationError,
        NotFoundError,
        ParacleMetaError,
        QueryError,
        RejectedLinesError,
        StorageError,
        TransferError,
        UnportableError,
    )
    from paracle_meta.records import (
        BestPractice,
        BestPracticeMatch,
        CostBreakdown,
        CostRecord,
        CostReport,
        EmbeddingReport,
        Feedback,
        GenerationResult,
        MemoryItem,
        Promotion,
        Template,
        TemplateMatch,
    )
    from paracle_meta.repositories import (
        BestPracticeRepository,
        CostRepository,
        FeedbackRepository,
        GenerationRepository,
        MemoryRepository,
        TemplateRepository,
    )

_MODULES = {
    "config": ("Config", "DatabaseSettings", "load_config"),
    "database": ("MetaDatabase", "get_meta_database"),
    "exceptions": (
        "ConfigurationError",
        "DatabaseBusyError",
        "DatabaseConnectionError",
        "DatabaseError",
        "DuplicateError",
        "EmbeddingBatchError",
        "EmbeddingError",
        "EmbeddingModelMismatchError",
        "EmbeddingProviderError",
        "InUseError",
        "IntegrityError",
        "InvalidValueError",
        "MigrationError",
        "NotFoundError",
        "ParacleMetaError",
        "QueryError",
        "RejectedLinesError",
        "StorageError",
        "TransferError",
        "UnportableError",
    ),
    "records": (
        "BestPractice",
        "BestPracticeMatch",
        "CostBreakdown",
        "CostRecord",
        "CostReport",
        "EmbeddingReport",
        "Feedback",
        "GenerationResult",
        "MemoryItem",
        "Promotion",
        "Template",
        "TemplateMatch",
    ),
    "repositories": (
        "BestPracticeRepository",
        "CostRepository",
        "FeedbackRepository",
        "GenerationRepository",
        "MemoryRepository",
        "TemplateRepository",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__version__ = "0.1.0"

__all__ = [
    "BestPractice",
    "BestPracticeMatch",
    "BestPracticeRepository",
    "Config",
    "ConfigurationError",
    "CostBreakdown",
    "CostRecord",
    "CostReport",
    "CostRepository",
    "DatabaseBusyError",
    "DatabaseConnectionError",
    "DatabaseError",
    "DatabaseSettings",
    "DuplicateError",
    "EmbeddingBatchError",
    "EmbeddingError",
    "EmbeddingModelMismatchError",
    "EmbeddingProviderError",
    "EmbeddingReport",
    "Feedback",
    "FeedbackRepository",
    "GenerationRepository",
    "GenerationResult",
    "InUseError",
    "IntegrityError",
    "InvalidValueError",
    "MemoryItem",
    "MemoryRepository",
    "MetaDatabase",
    "MigrationError",
    "NotFoundError",
    "ParacleMetaError",
    "Promotion",
    "QueryError",
    "RejectedLinesError",
    "StorageError",
    "Template",
    "TemplateMatch",
    "TemplateRepository",
    "TransferError",
    "UnportableError",
    "__version__",
    "get_meta_database",
    "load_config",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
