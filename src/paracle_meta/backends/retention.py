"""What a database must do to let go of what it holds.

Part of the contract in `base`: what is said there of every method holds here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.filters import Condition
    from paracle_meta.schema import Table


class Retention(Protocol):
    """Deletes in batches, and makes sure that what was deleted is gone."""

    async def delete_batch(
        self, table: Table[Any], conditions: Sequence[Condition], *, limit: int
    ) -> dict[str, int]:
        """Delete some records that meet all conditions, and the records that refer to them.

        Args:
            table: Where they are.
            conditions: All must hold.
            limit: Most of them; there are no more of them where fewer were deleted.

        Returns:
            How many were deleted of `table` and of each table that refers to it, by name.
        """

    async def count_referring(
        self,
        table: Table[Any],
        conditions: Sequence[Condition],
        child: Table[Any],
        child_conditions: Sequence[Condition],
    ) -> int:
        """Return how many records refer to others that meet all conditions.

        Args:
            table: What they refer to.
            conditions: Of those.
            child: A table that refers to `table`.
            child_conditions: Of the records that are counted.
        """

    async def count_cache(self, table: Table[Any]) -> int:
        """Return how many vectors the cache of a collection has."""

    async def clear_cache(self, table: Table[Any]) -> int:
        """Empty the cache of a collection, and return how many vectors it had."""

    async def scrub(self, tables: Sequence[Table[Any]]) -> None:
        """Take what was deleted or overwritten out of the files, as far as they are the database's.

        Neither the words nor the vectors of a record that is gone are left in an index. Those who
        write to the tables wait meanwhile where they cannot go on. It may be repeated.

        Raises:
            DatabaseBusyError: Others use the tables for long, so something is left; repeat the
                call.
        """

    @property
    def out_of_reach(self) -> tuple[str, ...]:
        """Where else what was deleted may still be, for people to read."""
