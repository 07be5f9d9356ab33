"""Typed access to the six kinds of records."""

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
