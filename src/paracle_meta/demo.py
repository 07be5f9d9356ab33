"""The whole of what paracle_meta does, once, on a folder of files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.loading import load_practices, record_specs
from paracle_meta.repositories import (
    BestPracticeRepository,
    CostRepository,
    MemoryRepository,
    TemplateRepository,
)
from paracle_meta.specs import read_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paracle_meta.database import MetaDatabase
    from paracle_meta.loading import Loaded, Recorded
    from paracle_meta.records import (
        BestPracticeMatch,
        CostReport,
        MemoryItem,
        Promotion,
        TemplateMatch,
    )
    from paracle_meta.specs import Problem

QUESTION: Final = "security audit agent"
"""What is searched for unless told otherwise: no name among the examples holds "audit"."""

SESSION: Final = "demo"
"""The session that the demo remembers its values in."""

TOP_K: Final = 3
"""Results a search: enough to see what is near and what is less so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What the demo did and found.

    Attributes:
        folder: The folder that was read.
        question: What was searched for.
        generations: One entry a file that was taken.
        problems: The files that could not be taken, and why.
        promotions: The generations that are good enough to be templates.
        practices: What became of the best practices.
        similar_templates: The templates closest to the question.
        similar_practices: The best practices closest to it.
        memory: The values that were remembered and read again.
        today: What was spent today.
        month: What was spent this month.
    """

    folder: str
    question: str
    generations: list[Recorded]
    problems: list[Problem]
    promotions: list[Promotion]
    practices: Loaded
    similar_templates: list[TemplateMatch]
    similar_practices: list[BestPracticeMatch]
    memory: list[MemoryItem]
    today: CostReport
    month: CostReport


async def run_demo(
    db: MetaDatabase,
    folder: Path,
    *,
    question: str = QUESTION,
    progress: Callable[[str], None],
) -> DemoReport:
    """Record a folder of specs, promote the good ones, search, remember, add up.

    Running it again adds only what changed in the folder.

    Args:
        db: Where everything is stored.
        folder: Markdown files, as `specs.read_folder` takes them.
        question: What templates and best practices are searched for.
        progress: Told what is done next.

    Raises:
        NotFoundError: There is no such folder, or nothing in it to take.
    """
    progress("Reading the files")
    files = read_folder(folder)
    progress("Recording generations, costs and ratings")
    generations, refused = await record_specs(db, files.specs)
    progress("Loading best practices")
    practices = await load_practices(db, files.practices)
    progress("Promoting what is good enough")
    templates = TemplateRepository(db)
    promotions = await templates.promote_qualified()
    progress("Searching by meaning")
    similar_templates = await templates.find_similar(question, TOP_K)
    similar_practices = await BestPracticeRepository(db).find_similar(question, TOP_K)
    progress("Remembering")
    remembered = {
        "folder": str(folder),
        "question": question,
        "answer": {"templates": [template.name for template in similar_templates]},
    }
    memory = await _remember(db, remembered)
    progress("Adding up")
    costs = CostRepository(db)
    return DemoReport(
        folder=str(folder),
        question=question,
        generations=generations,
        problems=sorted([*files.problems, *refused], key=lambda problem: problem.file),
        promotions=promotions,
        practices=practices,
        similar_templates=similar_templates,
        similar_practices=similar_practices,
        memory=memory,
        today=await costs.get_report("daily"),
        month=await costs.get_report("monthly"),
    )


async def _remember(db: MetaDatabase, values: dict[str, Any]) -> list[MemoryItem]:
    memory = MemoryRepository(db)
    for key, value in values.items():
        await memory.set(key, value, session_id=SESSION)
    items = [await memory.get(key, session_id=SESSION) for key in values]
    return [item for item in items if item is not None]
