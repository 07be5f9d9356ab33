"""What the processes do that embed by a real server of the tests; started as `workers` are."""

from __future__ import annotations

from typing import Any

from paracle_meta import DatabaseSettings, MetaDatabase, Template, TemplateRepository
from tests.faults.workers import heard, main, say


async def reembed(settings: dict[str, Any]) -> None:
    """Change the model of the templates and say how far it is after each batch."""
    async with MetaDatabase(DatabaseSettings(**settings)) as db:
        reports = await db.reembed("templates", progress=lambda _, done, total: say([done, total]))
        say(reports["templates"].embedded)


async def reembed_slowly(settings: dict[str, Any]) -> None:
    """Change the model of the templates and wait for a word before and after each batch."""

    def wait(_: str, done: int, total: int) -> None:
        say([done, total])
        next(heard())

    async with MetaDatabase(DatabaseSettings(**settings)) as db:
        say((await db.reembed("templates", progress=wait))["templates"].embedded)


async def embed_missing(settings: dict[str, Any]) -> None:
    """Embed the templates without a vector and say how far it is after each batch."""
    async with MetaDatabase(DatabaseSettings(**settings)) as db:
        reports = await db.embed_missing(
            "templates", progress=lambda _, done, total: say([done, total])
        )
        say(reports["templates"].embedded)


async def add(settings: dict[str, Any]) -> None:
    """Store a template under each id and name that come."""
    async with MetaDatabase(DatabaseSettings(**settings)) as db:
        say("ready")
        for record_id, name in heard():
            record = Template(id=record_id, artifact_type="agent", name=name, content="Text.")
            await TemplateRepository(db).add(record)
            say("added")


if __name__ == "__main__":
    main(globals())
