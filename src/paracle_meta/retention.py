"""Lets go of what is stored: what is old (`prune`), and what somebody wants gone (`erase_...`).

Pruning makes room, a batch at a time. Erasing follows one session or one generation to every place
where it left something, and has the database write anew what held it, so that not even its bytes
are left in the files. With ``dry_run`` each says what it would do and changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from paracle_meta import schema
from paracle_meta.exceptions import InvalidValueError
from paracle_meta.filters import Operator, where
from paracle_meta.kinds import tables_of
from paracle_meta.records import utc_now
from paracle_meta.repositories.templates import origin, promoted_id
from paracle_meta.validation import MAX_PAGE, check_id
from paracle_meta.values import check_text, check_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from paracle_meta.backends.base import Backend
    from paracle_meta.database import MetaDatabase
    from paracle_meta.filters import Condition
    from paracle_meta.records import Template
    from paracle_meta.schema import Table

__all__ = ["EraseReport", "PruneReport", "erase_generation", "erase_session", "prune"]

BATCH: Final = 500
"""Records that are deleted at once: writers wait for some 10 ms."""

_AGES: Final = {
    # Their time is that of the last change or use: what is in use is not old.
    "templates": "updated_at",
    "best_practices": "updated_at",
    # A key is set again and again, and keeps the time when it was first set.
    "memory": "updated_at",
}
"""The column that tells how old a record is; of all other kinds it is ``created_at``."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What `prune` has deleted, or would delete.

    Attributes:
        before: What is older than this.
        rows: How many records of each kind; with generations also the feedback about them.
        dry_run: Whether nothing was changed.
    """

    before: datetime
    rows: Mapping[str, int]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class EraseReport:
    """What was erased, or would be.

    Attributes:
        rows: How many records of each kind; all 0 where nothing is stored of it (any more).
        kept: The ids of templates that were made of the generation. They were left,
            without saying from where they came, and hold the text of the generation.
        cached_vectors: How many vectors the cache lost: which text one was made of cannot be told,
            so the whole cache of the templates goes.
        out_of_reach: Where the database cannot erase, for people to read.
        dry_run: Whether nothing was changed.
    """

    rows: Mapping[str, int]
    kept: tuple[str, ...]
    cached_vectors: int
    out_of_reach: tuple[str, ...]
    dry_run: bool


async def prune(
    db: MetaDatabase,
    kinds: Iterable[str],
    *,
    older_than: timedelta | None = None,
    before: datetime | None = None,
    dry_run: bool = False,
) -> PruneReport:
    """Delete what is old, a batch at a time, so that writers need not wait for long.

    Generations, feedback and costs are as old as their `created_at`. Templates and best practices
    age from their last change or use and memory from when a value was last set, which is their
    `updated_at`. With a generation goes its feedback; a template that was made of it stays. Sums of
    costs lack what was pruned.

    A run that was stopped, by whatever, has deleted some of the records; the next one goes on.

    Args:
        db: Where to delete.
        kinds: ``generations``, ``templates``, ``feedback``, ``costs``, ``memory`` and
            ``best_practices``: one or several.
        older_than: Delete what is older than this, by this computer's clock.
        before: Delete what is older than this moment.
        dry_run: Only count.

    Raises:
        InvalidValueError: There is no such kind, or not exactly one of `older_than` and `before`
            was given, or it is no time in the past.
        DatabaseBusyError: Another writer held a lock for longer than `busy_timeout`.
    """
    tables = tables_of(kinds)
    moment = _moment(older_than, before)
    old = {table.name: _older(table, Operator.LT, moment) for table in tables}
    backend = await db.backend()
    if dry_run:
        rows = await _count_old(backend, tables, old, moment)
    else:
        rows = Counter()
        for table in tables:
            rows.update({table.name: 0})
            await _delete_old(backend, table, old[table.name], rows)
    return PruneReport(before=moment, rows=dict(rows), dry_run=dry_run)


def _moment(older_than: timedelta | None, before: datetime | None) -> datetime:
    if (older_than is None) == (before is None):
        raise InvalidValueError("Give one of older_than and before, to say how old is old.")
    now = utc_now()
    if older_than is not None:
        if not isinstance(older_than, timedelta):
            raise InvalidValueError(
                f"older_than must be a timedelta, not {type(older_than).__name__}."
            )
        try:
            before = now - older_than
        except OverflowError:
            raise InvalidValueError("older_than reaches to before the year 1.") from None
    moment = check_time("before", before)
    if moment > now:
        raise InvalidValueError("What is to be pruned must be older than now.")
    return moment


def _older(table: Table[Any], operator: Operator, moment: datetime) -> Sequence[Condition]:
    return (where(table, _AGES.get(table.name, "created_at"), operator, moment),)


async def _count_old(
    backend: Backend,
    tables: Sequence[Table[Any]],
    old: Mapping[str, Sequence[Condition]],
    moment: datetime,
) -> Counter[str]:
    rows: Counter[str] = Counter()
    for table in tables:
        rows.update({table.name: await backend.count(table, old[table.name])})
        for child, _ in schema.referencing(table):
            # What is old itself is counted as such.
            young = _older(child, Operator.GTE, moment) if child in tables else ()
            referring = await backend.retention.count_referring(
                table, old[table.name], child, young
            )
            rows.update({child.name: referring})
    return rows


async def _delete_old(
    backend: Backend, table: Table[Any], old: Sequence[Condition], rows: Counter[str]
) -> None:
    while True:
        started = time.monotonic()
        deleted = await backend.retention.delete_batch(table, old, limit=BATCH)
        rows.update(deleted)
        if deleted[table.name] < BATCH:
            return
        # Half of the time is left to the writers of other processes, which cannot queue here.
        await asyncio.sleep(time.monotonic() - started)


async def erase_session(db: MetaDatabase, session_id: str, *, dry_run: bool = False) -> EraseReport:
    """Erase what is remembered of a session, in all scopes.

    A session is known to memory alone: no other kind of record says in which session it was made.
    To erase the generations of one, erase each by its id.

    The file or table is written anew, for which writers to memory wait. The call may be repeated,
    also where it was stopped or nothing is stored any more.

    Args:
        db: Where to erase.
        session_id: The session.
        dry_run: Only count.

    Raises:
        InvalidValueError: No session can have this id.
        DatabaseBusyError: Others use the memory for long; repeat the call.
        QueryError: On PostgreSQL, the rows are deleted, but the role may not vacuum the tables.
        ConfigurationError: The same, as with `transaction_pooling` a `migration_url` is needed.
        StorageError: The disk has no room for the new file.
    """
    checked = check_text("session_id", session_id, schema.MAX_LABEL_BYTES, required=True)
    table = schema.MEMORY
    session = (where(table, "session_id", Operator.EQ, checked),)
    backend = await db.backend()
    if dry_run:
        number = await backend.count(table, session)
    else:
        number = await backend.delete_where(table, session)
        await backend.retention.scrub([table])
    return EraseReport(
        rows={table.name: number},
        kept=(),
        cached_vectors=0,
        out_of_reach=backend.retention.out_of_reach,
        dry_run=dry_run,
    )


async def erase_generation(
    db: MetaDatabase, generation_id: str, *, templates: bool = False, dry_run: bool = False
) -> EraseReport:
    """Erase a generation and the feedback about it, and what tells of it elsewhere.

    A template that was made of it is somebody's by now: it is kept, its `source` is emptied, and
    the report names it, unless `templates` is on. The cache of the templates' vectors is emptied
    and their indexes of words and vectors are made anew. A cost does not say of which generation it
    is, so costs stay.

    The files or tables of the generations, feedback and templates are written anew, for which
    writers to them wait. The call may be repeated, also where it was stopped or nothing is stored
    any more; repeat it where somebody may have been promoting the generation at the same moment.

    Args:
        db: Where to erase.
        generation_id: The generation.
        templates: Erase the templates that were made of it too.
        dry_run: Only count.

    Raises:
        InvalidValueError: No generation can have this id.
        DatabaseBusyError: Others use these records for long; repeat the call.
        QueryError: On PostgreSQL, the rows are deleted, but the role may not vacuum the tables.
        ConfigurationError: The same, as with `transaction_pooling` a `migration_url` is needed.
        StorageError: The disk has no room for the new files.
    """
    check_id(schema.GENERATIONS, generation_id)
    backend = await db.backend()
    retention = backend.retention
    made = await _made_of(backend, generation_id)
    this = (where(schema.GENERATIONS, "id", Operator.EQ, generation_id),)
    about = (where(schema.FEEDBACK, "generation_id", Operator.EQ, generation_id),)
    if dry_run:
        generations = await backend.count(schema.GENERATIONS, this)
        feedback = await backend.count(schema.FEEDBACK, about)
        cached = await retention.count_cache(schema.TEMPLATES)
    else:
        # First of all: a template can then only be made by who has read it before.
        deleted = await retention.delete_batch(schema.GENERATIONS, this, limit=1)
        generations, feedback = deleted["generations"], deleted.get("feedback", 0)
        made = await _made_of(backend, generation_id)
        for template in made:
            if templates:
                await backend.delete(schema.TEMPLATES, template.id)
            elif template.source == origin(generation_id):
                changes = {"source": None, "updated_at": utc_now()}
                await backend.update(schema.TEMPLATES, template.id, changes)
        cached = await retention.clear_cache(schema.TEMPLATES)
        await retention.scrub([schema.GENERATIONS, schema.TEMPLATES, schema.FEEDBACK])
    return EraseReport(
        rows={
            "generations": generations,
            "feedback": feedback,
            "templates": len(made) if templates else 0,
        },
        kept=() if templates else tuple(template.id for template in made),
        cached_vectors=cached,
        out_of_reach=retention.out_of_reach,
        dry_run=dry_run,
    )


async def _made_of(backend: Backend, generation_id: str) -> list[Template]:
    """Return the templates that say they are of a generation, and the one it was promoted to."""
    promoted = await backend.get(schema.TEMPLATES, promoted_id(generation_id))
    theirs = (where(schema.TEMPLATES, "source", Operator.EQ, origin(generation_id)),)
    made: list[Template] = []
    while True:
        after = made[-1].id if made else None
        page = await backend.select(schema.TEMPLATES, theirs, limit=MAX_PAGE, after=after)
        made += page
        if len(page) < MAX_PAGE:
            break
    others = [template for template in made if promoted is None or template.id != promoted.id]
    return others if promoted is None else [promoted, *others]
