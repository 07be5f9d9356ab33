"""Put what files say into the database, so that doing it twice changes nothing.

Every id is made from what it stands for, so a second run recognises the records of the first,
whoever runs it. Records are looked for before they are added: one that was changed in the database
meanwhile is left as it is.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from paracle_meta import schema
from paracle_meta.exceptions import InvalidValueError
from paracle_meta.records import BestPractice, CostRecord, Feedback, GenerationResult, utc_now
from paracle_meta.repositories import (
    BestPracticeRepository,
    CostRepository,
    FeedbackRepository,
    GenerationRepository,
)
from paracle_meta.specs import Problem
from paracle_meta.validation import check_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from paracle_meta.database import MetaDatabase
    from paracle_meta.specs import Practice, Spec

R = TypeVar("R")

NAMESPACE: Final = uuid.UUID("0b9f5f8e-6a3c-4a47-9d5e-2f1c7a8b6d40")
"""Namespace of all ids made here (UUID version 5)."""

BATCH: Final = 500
"""Ids looked for and records added at once: few round trips, and no large transaction."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one spec became.

    Attributes:
        generation: The generation of the file as it is.
        cost: What it cost; None where the file does not say who was paid.
        feedback: Its ratings.
        created: Whether this call stored the generation.
    """

    generation: GenerationResult
    cost: CostRecord | None
    feedback: list[Feedback]
    created: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of the best practices that were loaded.

    Attributes:
        added: Those that were new.
        updated: Those whose text, tags or score were edited.
        unchanged: The others.
    """

    added: list[BestPractice] = field(default_factory=list)
    updated: list[BestPractice] = field(default_factory=list)
    unchanged: list[BestPractice] = field(default_factory=list)


async def record_specs(
    db: MetaDatabase, specs: Iterable[Spec]
) -> tuple[list[Recorded], list[Problem]]:
    """Store the generations, costs and ratings of specs, each once.

    A file that changed is a new generation. A cost counts on the day of the call that stored it.

    Args:
        db: Where to store them.
        specs: As `read_folder` returns them.

    Returns:
        What was recorded, in the order given, and the specs that hold a value which is not allowed;
        of those nothing is stored.
    """
    recorded: list[Recorded] = []
    problems: list[Problem] = []
    for spec in specs:
        try:
            recorded.append(_records(spec, db))
        except InvalidValueError as error:
            problems.append(Problem(spec.file, str(error)))
    generations = await _add_missing(
        GenerationRepository(db), [item.generation for item in recorded]
    )
    # After the generations, which the ratings are about.
    costs = await _add_missing(CostRepository(db), [item.cost for item in recorded if item.cost])
    feedback = await _add_missing(
        FeedbackRepository(db), [rating for item in recorded for rating in item.feedback]
    )
    return [
        Recorded(
            generations.get(item.generation.id, item.generation),
            item.cost and costs.get(item.cost.id, item.cost),
            [feedback.get(rating.id, rating) for rating in item.feedback],
            created=item.generation.id not in generations,
        )
        for item in recorded
    ], problems


def _records(spec: Spec, db: MetaDatabase) -> Recorded:
    """Return the records of a spec, checked before anything is stored."""
    limit = db.settings.content_limit
    key = f"{spec.file}\n{hashlib.sha256(spec.text.encode()).hexdigest()}"
    counts = [n for n in (spec.input_tokens, spec.output_tokens) if n is not None]
    generation = GenerationResult(
        id=_id("gen", key),
        artifact_type=spec.artifact_type,
        name=spec.name,
        description=spec.description,
        content=spec.content,
        quality_score=spec.quality_score,
        provider=spec.provider,
        model=spec.model,
        tokens_used=sum(counts) if counts else None,
        cost=spec.cost,
        metadata={"file": spec.file},
    )
    check_record(schema.GENERATIONS, generation, limit)
    cost = _cost(spec, key, db)
    if cost is not None:
        check_record(schema.COSTS, cost, limit)
    feedback = [
        Feedback(
            id=_id("fbk", f"{key}\n{position}"),
            generation_id=generation.id,
            rating=rating.rating,
            comment=rating.comment,
        )
        for position, rating in enumerate(spec.ratings)
    ]
    for item in feedback:
        check_record(schema.FEEDBACK, item, limit)
    return Recorded(generation, cost, feedback, created=True)


def _cost(spec: Spec, key: str, db: MetaDatabase) -> CostRecord | None:
    if spec.provider is None or spec.model is None:
        if spec.cost is not None:
            raise InvalidValueError("cost needs a provider and a model: who was paid, and for what")
        return None
    return CostRecord(
        id=_id("cst", key),
        provider=spec.provider,
        model=spec.model,
        input_tokens=spec.input_tokens,
        output_tokens=spec.output_tokens,
        cost=spec.cost,
        period_start=utc_now().astimezone(db.settings.zone).date(),
    )


async def load_practices(db: MetaDatabase, practices: Iterable[Practice]) -> Loaded:
    """Store best practices; one whose category and title are known is updated where it differs.

    Raises:
        InvalidValueError: A value is not allowed. Nothing is stored then.
    """
    repository = BestPracticeRepository(db)
    records = [
        BestPractice(
            id=_id("bpr", f"{practice.category}\n{practice.title}"),
            category=practice.category,
            title=practice.title,
            content=practice.content,
            tags=practice.tags,
            quality_score=practice.quality_score,
        )
        for practice in practices
    ]
    for record in records:
        check_record(schema.BEST_PRACTICES, record, db.settings.content_limit)
    loaded = Loaded()
    stored = await _add_missing(repository, records)
    for record in records:
        known = stored.get(record.id)
        if known is None:
            loaded.added.append(record)
            continue
        changes = {
            name: getattr(record, name)
            for name in ("content", "tags", "quality_score")
            if getattr(record, name) != getattr(known, name)
        }
        if changes:
            loaded.updated.append(await repository.update(record.id, **changes))
        else:
            loaded.unchanged.append(known)
    return loaded


async def _add_missing(repository: Any, records: Sequence[R]) -> dict[str, R]:
    """Add the records whose ids are not stored yet and return, by id, those that were."""
    known: dict[str, R] = {}
    for start in range(0, len(records), BATCH):
        batch: Sequence[Any] = records[start : start + BATCH]
        ids = [record.id for record in batch]
        stored = await repository.list(len(batch), filters={"id": {"$in": ids}})
        known |= {record.id: record for record in stored}
        await repository.add_many([record for record in batch if record.id not in known])
    return known


def _id(prefix: str, key: str) -> str:
    return f"{prefix}-{uuid.uuid5(NAMESPACE, key).hex}"
