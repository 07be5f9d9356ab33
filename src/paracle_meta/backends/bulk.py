"""What a database must do to be read and written as a whole: for exports, imports and copies.

Part of the contract in `base`: what is said there of every method holds here too. Rows are
`portable` rows; they come and go in batches, so that memory does not grow with the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.portable import Row
    from paracle_meta.schema import Table


BATCH_ROWS: Final = 2_000
"""Most rows at once: what is done once a batch, such as a commit where they are stored, costs each
of them next to nothing."""


@dataclass(frozen=True, slots=True)
class Period:
    """When rows were made.

    Attributes:
        since: Only rows whose ``created_at`` is this or later; None for the first on.
        until: Only rows whose ``created_at`` is earlier; None for no end.
    """

    since: datetime | None = None
    until: datetime | None = None


EVER: Final = Period()


@dataclass(frozen=True, slots=True)
class Unportable:
    """A stored value that no other database can hold, written by something else than this package.

    Attributes:
        table: The name of its table.
        record_id: Of its row, in a form that can be printed.
        column: Where it is.
        reason: What is wrong with it, never its text.
    """

    table: str
    record_id: str
    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class Inserted:
    """What became of the rows that were to be inserted; the others are stored.

    Attributes:
        taken: Ids of those that were left out, as a row is stored under their id or, in
            ``memory``, under their scope, session and key.
        orphans: Ids of those that were left out, as the row that they refer to is not stored.
    """

    taken: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()


class Bulk(Protocol):
    """One open database as a whole."""

    def snapshot(self, *, repair: bool = False) -> AbstractAsyncContextManager[Snapshot]:
        """Return all tables as they are at one moment, while writers go on.

        Args:
            repair: Read what `Snapshot.unportable` names with a replacement character (U+FFFD) in
                the place of each character that cannot be held, and what else is wrong as a
                missing value or, where the column must have one, its default.
        """

    def loading(self, *, whole: bool = False) -> AbstractAsyncContextManager[Loading]:
        """Return a way to store many rows.

        Args:
            whole: Store all rows at the end of the block, or none where it raises. Otherwise each
                call stores its own, which stay whatever comes after.
        """


class Snapshot(Protocol):
    """All tables at one moment."""

    async def count(self, table: Table[Any], period: Period = EVER) -> int:
        """Return how many rows `rows` yields."""

    async def vector_spaces(self, table: Table[Any]) -> list[VectorSpace]:
        """Return of which models and widths the vectors of a table are, in order; none if none."""

    async def orphans(self, table: Table[Any]) -> int:
        """Return how many rows refer to a record that is not stored, which raw SQL may bring about.

        On PostgreSQL there are none.
        """

    def rows(
        self,
        table: Table[Any],
        period: Period = EVER,
        *,
        tested: bool = False,
        most: int = BATCH_ROWS,
    ) -> AsyncIterator[list[Row]]:
        """Yield rows in the order of their ids.

        Of the generations, those that feedback from the period refers to are among them, whenever
        they were made: what is read can be stored elsewhere.

        Args:
            table: Whose rows.
            period: Which of them.
            tested: Look for what `unportable` names while reading, which takes half as long as to
                call that first.
            most: Most rows at once; there are fewer where they are large.

        Raises:
            UnportableError: There is such a value; which others there are is not known.
        """

    async def rows_of(self, table: Table[Any], ids: Sequence[str]) -> list[Row]:
        """Return the rows with these ids, those that are stored, in the order of their ids."""

    def versions(self, table: Table[Any]) -> AsyncIterator[list[tuple[str, str]]]:
        """Yield the id and ``updated_at`` of each row in the order of the ids."""

    def unportable(self, table: Table[Any], period: Period = EVER) -> AsyncIterator[Unportable]:
        """Yield what cannot be held elsewhere: one item a value, none where all is well.

        On SQLite, raw SQL may have stored anything in any column: a NUL character, bytes that are
        no UTF-8 (a lone surrogate is none), text in a column of numbers, JSON that is none, a
        number beyond what the column may have. On PostgreSQL there is nothing of the kind.
        """


class Loading(Protocol):
    """Stores many rows. Searches find them as they find others."""

    async def prepare(self, table: Table[Any], space: VectorSpace) -> None:
        """Make ready for vectors of this model; before the first of them is stored.

        Raises:
            EmbeddingModelMismatchError: The table holds vectors of another model.
        """

    async def insert(self, table: Table[Any], rows: Sequence[Row]) -> Inserted:
        """Store rows whose id, or in ``memory`` whose key, is not taken; never overwrite one."""

    async def stored(self, table: Table[Any], rows: Sequence[Row]) -> list[Row]:
        """Return the stored rows that have the id or, in ``memory``, the key of one of these.

        What this block has stored is among them, also before its end.
        """

    async def overwrite(self, table: Table[Any], rows: Sequence[Row]) -> None:
        """Store rows in the place of those with the same id or, in ``memory``, the same key.

        Raises:
            NotFoundError: One refers to a row that is not stored.
        """

    async def finish(self, table: Table[Any]) -> None:
        """Make what `prepare` left for later: the index of the vectors, where one is wanted."""
