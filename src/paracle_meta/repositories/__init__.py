"""Typed access to the six kinds of records.

Each repository is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paracle_meta.lazy import names_of

if TYPE_CHECKING:
    from paracle_meta.repositories.best_practices import BestPracticeRepository
    from paracle_meta.repositories.costs import CostRepository
    from paracle_meta.repositories.feedback import FeedbackRepository
    from paracle_meta.repositories.generations import GenerationRepository
    from paracle_meta.repositories.memory import MemoryRepository
    from paracle_meta.repositories.templates import TemplateRepository

__all__ = [
    "BestPracticeRepository",
    "CostRepository",
    "FeedbackRepository",
    "GenerationRepository",
    "MemoryRepository",
    "TemplateRepository",
]

__getattr__ = names_of(
    __name__,
    {
        "best_practices": ("BestPracticeRepository",),
        "costs": ("CostRepository",),
        "feedback": ("FeedbackRepository",),
        "generations": ("GenerationRepository",),
        "memory": ("MemoryRepository",),
        "templates": ("TemplateRepository",),
    },
)
