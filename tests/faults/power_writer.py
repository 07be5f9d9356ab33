"""The process whose calls are recorded, until the power goes."""

from __future__ import annotations

import json
import os
from datetime import date
from typing import TYPE_CHECKING, Any

from paracle_meta import (
    BestPractice,
    BestPracticeRepository,
    CostRecord,
    CostRepository,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    Template,
    TemplateRepository,
)
from paracle_meta.transfer import back_up, restore
from tests.faults.killed_writer import write
from tests.faults.workers import database, main

if TYPE_CHECKING:
    from collections.abc import Callable


def _telling(acknowledged: str) -> Callable[[Any], None]:
    """Return a function that writes a line to a file, which is recorded with all the others."""
    file = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(line: Any) -> None:
        os.write(file, json.dumps(line).encode() + b"\n")

    return tell


async def write_and_tell(
    settings: dict[str, Any], acknowledged: str, openings: int, rounds: int
) -> None:
    """Open the database so many times and write so many rounds each time.

    Args:
        settings: Of the database.
        acknowledged: A file for what was acknowledged.
        openings: How often to open and close it.
        rounds: How many rounds to write then.
    """
    tell = _telling(acknowledged)
    for opening in range(openings):
        async with database(settings) as db:
            first = opening * rounds
            await write(db, tell, range(first, first + rounds), size=300)


async def write_again(settings: dict[str, Any], acknowledged: str) -> None:
    """Add a record of each kind that has an id: those that were added before by another process.

    Args:
        settings: Of the database.
        acknowledged: A file for what was acknowledged.
    """
    tell = _telling(acknowledged)
    async with database(settings) as db:
        await GenerationRepository(db).add(
            GenerationResult(id="gen-again", artifact_type="agent", name="0", content="c")
        )
        tell(["there", "generations", "gen-again", 0])
        await FeedbackRepository(db).add(
            Feedback(id="fb-again", generation_id="gen-again", rating=1)
        )
        tell(["there", "feedback", "fb-again", 1])
        await TemplateRepository(db).add(
            Template(id="tpl-again", artifact_type="agent", name="t", content="c")
        )
        tell(["there", "templates", "tpl-again", 0])
        await CostRepository(db).add(
            CostRecord(
                id="cost-again",
                provider="p",
                model="m",
                input_tokens=0,
                period_start=date(2026, 1, 1),
            )
        )
        tell(["there", "costs", "cost-again", 0])
        await BestPracticeRepository(db).add(
            BestPractice(id="bp-again", category="c", title="0", content="c")
        )
        tell(["there", "best_practices", "bp-again", 0])


async def back_up_and_restore(settings: dict[str, Any], acknowledged: str, backup: str) -> None:
    """Write, back up, write more, and put the backup in the place of all that.

    Args:
        settings: Of the database.
        acknowledged: A file for what was acknowledged, and each step.
        backup: The folder of the backup.
    """
    tell = _telling(acknowledged)
    db = database(settings)
    async with db:
        await write(db, tell, range(2), size=300)
        await back_up(db, backup)
        tell("backed up")
        await write(db, tell, range(2, 4), size=300)
    tell("restoring")
    await restore(db, backup, replace=True)
    tell("restored")


if __name__ == "__main__":
    main(globals())
