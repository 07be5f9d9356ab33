"""What the processes do that all go for one row at once; started as `workers` are."""

from __future__ import annotations

import os
from typing import Any

from paracle_meta import (
    DuplicateError,
    GenerationRepository,
    MemoryRepository,
    MetaDatabase,
    NotFoundError,
    Template,
    TemplateRepository,
)
from tests.faults.workers import Settings, database, heard, main, say

COUNTER = "counter"
"""The key of memory that `raise_counter` raises by one."""


async def race(settings: Settings) -> None:
    """Do what comes, a name and an argument, and say what came of it."""
    async with database(settings) as db:
        # A session loads SQLAlchemy when it is first asked for: before the races, not in one.
        async with db.session() as session:
            await session.execute("SELECT 1")
        say("ready")
        for name, argument in heard():
            say(await RACES[name](db, argument))


async def set_key(db: MetaDatabase, key: str) -> list[Any]:
    """Set a key to a value that is this process's own."""
    item = await MemoryRepository(db).set(key, os.getpid())
    return [item.id, item.value]


async def delete_key(db: MetaDatabase, key: str) -> bool:
    """Delete a key and say whether it was there."""
    try:
        await MemoryRepository(db).delete(key)
    except NotFoundError:
        return False
    return True


async def raise_counter(db: MetaDatabase, lock: str) -> int:
    """Read the counter and write one more; `lock` is what the database's SELECT needs for that."""
    async with db.session(write=True) as session:
        value = await session.scalar(f"SELECT value FROM memory WHERE key = '{COUNTER}'{lock}")
        raised = int(value) + 1
        await session.execute(f"UPDATE memory SET value = '{raised}' WHERE key = '{COUNTER}'")
    return raised


async def add_template(db: MetaDatabase, record_id: str) -> bool:
    """Add a template of this process's own under an id, and say whether it is the one."""
    record = Template(id=record_id, artifact_type="agent", name=f"by {os.getpid()}", content="c")
    try:
        await TemplateRepository(db).add(record)
    except DuplicateError:
        return False
    return True


async def change_template(db: MetaDatabase, argument: list[str]) -> list[str]:
    """Change one column of a template, whose vector is made of two."""
    record_id, column = argument
    template = await TemplateRepository(db).update(record_id, **{column: f"by {os.getpid()}"})
    return [column, getattr(template, column)]


async def promote(db: MetaDatabase, generation_id: str) -> str:
    """Promote a generation and say which template it became."""
    return (await TemplateRepository(db).promote_from_generation(generation_id)).id


async def promote_all(db: MetaDatabase, _: None) -> dict[str, bool]:
    """Promote whatever qualifies and say which templates there are, and whether they are new."""
    promotions = await TemplateRepository(db).promote_qualified()
    return {promotion.template.id: promotion.created for promotion in promotions}


async def delete_generation(db: MetaDatabase, generation_id: str) -> bool:
    """Delete a generation and say whether it was there."""
    try:
        await GenerationRepository(db).delete(generation_id)
    except NotFoundError:
        return False
    return True


async def use_template(db: MetaDatabase, record_id: str) -> int:
    """Count one use of a template and say how many there are."""
    return (await TemplateRepository(db).record_use(record_id)).usage_count


RACES = {
    function.__name__: function
    for function in (
        set_key,
        delete_key,
        delete_generation,
        raise_counter,
        add_template,
        change_template,
        promote,
        promote_all,
        use_template,
    )
}

if __name__ == "__main__":
    main(globals())
