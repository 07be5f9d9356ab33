"""What a database must do for paracle_meta: the contract, in prose.

A backend answers for one kind of database and is the only code that knows its dialect. It is given
values that were checked already (`validation`, `filters`) and returns records. The same contract as
tests is the set of classes in `paracle_meta.testing`; every backend passes all of them.

What holds for every method:

- It either returns, and what it wrote is durable, or raises one of the errors of
  `paracle_meta.exceptions` and has written nothing. A cancelled call has written all or nothing.
- Values come back as they went in: times in UTC to the microsecond, JSON with its types, text
  byte for byte.
- Text is ordered and compared bytewise. "Newest first" means (created_at, id) descending.
- Waiting for another writer ends after the configured time with `DatabaseBusyError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import date, datetime

    from paracle_meta.backends.backups import Backups
    from paracle_meta.backends.bulk import Bulk
    from paracle_meta.backends.collections import Collections
    from paracle_meta.backends.retention import Retention
    from paracle_meta.backends.session import MetaSession
    from paracle_meta.filters import Condition
    from paracle_meta.records import MemoryItem
    from paracle_meta.schema import Table

R = TypeVar("R")

Values = dict[str, Any]
"""A row in its stored form, as `validation.check_record` returns it."""


class Stored(NamedTuple, Generic[R]):
    """What came of an insert.

    Attributes:
        records: The stored record of each row, in the same order.
        new: How many of them this call has stored; the others were stored before.
    """

    records: list[R]
    new: int


class CostGroup(NamedTuple):
    """The costs of one provider, model and day together.

    Attributes:
        provider: Who was paid.
        model: The model that was called.
        period_start: The day, or the first day of a month that was folded together.
        calls: How many rows.
        unpriced_calls: How many of them have no cost.
        total: US dollars of the others.
        input_tokens: Tokens sent.
        output_tokens: Tokens received.
    """

    provider: str
    model: str
    period_start: date
    calls: int
    unpriced_calls: int
    total: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class RatedGeneration:
    """A generation that qualifies for promotion.

    Attributes:
        id: Of the generation.
        quality_score: 0 to 10, or None.
        ratings: How many ratings it has.
        average: Their mean, or None where there are none.
    """

    id: str
    quality_score: float | None
    ratings: int
    average: float | None


@dataclass(frozen=True, slots=True)
class VectorStatus:
    """How far a collection can be searched by meaning.

    Attributes:
        embedded: Records with a vector.
        missing: Records without one.
        models: The models that made the stored vectors; more than one is an error to mend.
        index: The name of the index that serves the search, or None where every search is exact.
        changing_to: The model of a change of model that has begun and not ended, or None.
        changed: Records that have a vector of that model already, beside the one that answers.
    """

    embedded: int
    missing: int
    models: tuple[str, ...]
    index: str | None
    changing_to: str | None = None
    changed: int = 0


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """The state of a database.

    Attributes:
        backend: ``sqlite.backend`` or ``postgresql.backend``.
        location: The folder, or the server and database without a password.
        version: Of the database engine, and of pgvector.
        revision: The schema's revision; None where there is no schema yet.
        head: The revision that this version of the package needs.
        counts: Rows a table, without those whose SQLite file is damaged; empty where the schema is
            not current.
        vectors: One entry a collection; empty where vectors are switched off.
    """

    backend: str
    location: str
    version: str
    revision: str | None
    head: str
    counts: Mapping[str, int]
    vectors: Mapping[str, VectorStatus]


class Backend(Protocol):
    """One open database, used by one event loop."""

    @property
    def collections(self) -> Collections:
        """What can be done with the searchable tables."""

    @property
    def bulk(self) -> Bulk:
        """Reads and writes it as a whole."""

    @property
    def backups(self) -> Backups:
        """Backs it up and restores it; also where it is not open."""

    @property
    def retention(self) -> Retention:
        """Lets go of what it holds."""

    async def open(self) -> None:
        """Connect, and make the schema current unless `auto_migrate` is off.

        Several processes may open an empty database at once; one of them makes the schema and the
        others wait for it.

        Raises:
            DatabaseConnectionError: The database cannot be reached.
            MigrationError: The schema is newer than this package, or older while `auto_migrate`
                is off.
            StorageError: A file is damaged or not a database.
        """

    async def close(self) -> None:
        """Close all connections. Safe to repeat."""

    async def migrate(self) -> list[str]:
        """Apply the migrations that are missing and return their revisions.

        A run that was killed at any point is finished by the next one.
        """

    def migration_sql(self) -> str:
        """Return the SQL that makes an empty database current, for the database's own client."""

    async def status(self) -> DatabaseStatus:
        """Return the state of the database; it need not be migrated, and is not changed."""

    def session(self, *, write: bool = False) -> AbstractAsyncContextManager[MetaSession]:
        """Return a transaction for SQLAlchemy: committed at the end, rolled back on an error.

        Args:
            write: Take the right to write at once, so that a read cannot be followed by a write
                that comes too late. On PostgreSQL this makes no difference.
        """

    async def insert(self, table: Table[R], rows: Sequence[Values]) -> Stored[R]:
        """Store rows, all or none.

        A row whose id is stored already is compared: the same record is left as it is and returned
        as it is stored, any other is an error.

        Raises:
            DuplicateError: Another record has this id.
            NotFoundError: A row refers to a record that is not stored. Never is such a row left
                behind, whoever deletes the other record at the same time.
            EmbeddingModelMismatchError: The collection holds vectors of another model.
        """

    async def get(self, table: Table[R], record_id: str, *, with_vector: bool = False) -> R | None:
        """Return a record by id, or None; with its vector as a list of floats if asked for."""

    async def select(
        self,
        table: Table[R],
        conditions: Sequence[Condition],
        *,
        limit: int,
        after: str | None = None,
    ) -> list[R]:
        """Return records newest first.

        Args:
            table: Where to look.
            conditions: All must hold.
            limit: Most records to return.
            after: Only records that come after the one with this id, in the same order. Rows that
                are added meanwhile do not move a page.

        Raises:
            NotFoundError: There is no record with the id `after`.
        """

    async def count(self, table: Table[Any], conditions: Sequence[Condition]) -> int:
        """Return how many records meet all conditions."""

    async def update(
        self,
        table: Table[R],
        record_id: str,
        changes: Values,
        *,
        unchanged_since: datetime | None = None,
    ) -> R | None:
        """Change columns of a record and return it as it is then.

        Args:
            table: Where it is.
            record_id: Which one.
            changes: Columns with their new values; `updated_at` among them.
            unchanged_since: Change it only if its `updated_at` is still this.

        Returns:
            The record, or None where none has this id or it was changed meanwhile.
        """

    async def increment(self, table: Table[R], record_id: str, column: str) -> R | None:
        """Add one to a counter and return the record, or None where none has this id."""

    async def delete(self, table: Table[Any], record_id: str, *, cascade: bool = False) -> bool:
        """Delete a record and return whether there was one.

        Args:
            table: Where it is.
            record_id: Which one.
            cascade: Delete the records that refer to it too.

        Raises:
            InUseError: Others refer to it and `cascade` is off.
        """

    async def delete_where(self, table: Table[Any], conditions: Sequence[Condition]) -> int:
        """Delete the records that meet all conditions and return how many there were."""

    async def put_memory(self, values: Values, now: datetime) -> MemoryItem:
        """Store a memory item, replacing the value under the same scope, session and key.

        An item that replaces a living one keeps its id and `created_at`; one that has expired by
        `now` is forgotten altogether.
        """

    async def get_memory(
        self, scope: str, session_id: str | None, key: str, now: datetime
    ) -> MemoryItem | None:
        """Return the item that lives at `now` under this scope, session and key, or None."""

    async def delete_memory(
        self, scope: str, session_id: str | None, key: str, now: datetime
    ) -> bool:
        """Delete the item that `get_memory` would return, and return whether there was one."""

    async def cost_groups(self, conditions: Sequence[Condition]) -> list[CostGroup]:
        """Return the costs that meet all conditions, by provider, model and day."""

    async def qualified_generations(
        self, *, min_ratings: int, min_average: float, min_quality: float
    ) -> list[RatedGeneration]:
        """Return each generation with enough good ratings or a high quality score, oldest first."""
