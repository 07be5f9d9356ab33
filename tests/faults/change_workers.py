"""What the processes do that change the model of a database; started as `workers` are."""

from __future__ import annotations

from typing import Any

from paracle_meta import DatabaseBusyError
from tests.faults.changes import NEW, OLD, changing, database, vectors_of
from tests.faults.workers import heard, main, say


async def change_in_steps(settings: dict[str, Any]) -> None:
    """Make a few new vectors whenever told to and say of which records, once they are stored."""
    async with database(settings, OLD) as db:
        try:
            async with changing(db, NEW) as change:
                say("begun")
                after = None
                for _ in heard():
                    records = await change.pending(limit=5, after=after)
                    await change.store(await vectors_of(records, NEW))
                    after = records[-1].id
                    say([record.id for record in records])
        except DatabaseBusyError as error:
            say(str(error))


if __name__ == "__main__":
    main(globals())
