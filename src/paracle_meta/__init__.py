"""Remembers what a language-model generator made, and finds it again by meaning.

Everything public can be imported from here. Each name is loaded when it is first used, so that
importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paracle_meta.lazy import names_of

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


__getattr__ = names_of(
    __name__,
    {
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
    },
)


def __dir__() -> list[str]:
    return __all__
