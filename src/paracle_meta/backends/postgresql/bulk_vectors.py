"""The vector columns and their indexes while many vectors are stored.

Entering a vector into an index takes 1 to 11 ms; building the index afterwards takes a tenth of it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from paracle_meta.backends.postgresql import provision as postgresql_provision
from paracle_meta.backends.postgresql.snapshot import vector_widths
from paracle_meta.exceptions import MigrationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.postgresql.setup import PostgresSetup
    from paracle_meta.config import DatabaseSettings
    from paracle_meta.schema import Table

FEW_VECTORS: Final = 1_000
"""Up to so many, a search that reads all of them is as quick as one by an index."""


async def make_width(connection: Any, name: str, space: VectorSpace) -> None:
    """Make a vector column as wide as the vectors to come, if it holds none that counts."""
    # Of texts that have changed since: nobody reads them.
    await connection.execute(
        f"UPDATE {name} SET embedding = NULL"
        " WHERE embedding IS NOT NULL AND embedding_model IS NULL"
    )
    await postgresql_provision.widen(connection, name, space)


class VectorsApart:
    """On a connection of the role that migrates, which commits each step.

    A run that is killed leaves a table without its index; whoever opens the database next makes it.
    """

    def __init__(
        self, setup: PostgresSetup, space: VectorSpace, changed: Callable[[], None]
    ) -> None:
        """Prepare.

        Args:
            setup: Lends the connection.
            space: That of the settings.
            changed: Called when a column was made anew, which other connections have to learn.
        """
        self._setup = setup
        self._space = space
        self._changed = changed

    async def prepare(self, table: Table[Any], space: VectorSpace, connection: Any) -> None:
        """See `loading.Vectors`."""
        name = table.name
        fits = (await vector_widths(connection)).get(name) == space.dimensions
        if not self._setup.settings.auto_migrate:
            if not fits:
                raise MigrationError(
                    f"The vector column of {name} at {self._setup.place} is not as wide as the "
                    f"vectors of {space.model!r:.90} and auto_migrate is off; configure that model "
                    "and run `paracle meta db migrate`."
                )
            return
        async with self._setup.provisioning() as own:
            if not fits:
                await make_width(own, name, space)
                self._changed()
            few = await own.fetchval(
                "SELECT count(*) <= $1 FROM"
                f" (SELECT 1 FROM {name} WHERE embedding IS NOT NULL LIMIT $1 + 1) AS sample",
                FEW_VECTORS,
            )
            if few:
                # A role that may not stores its rows all the same, more slowly.
                with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
                    await postgresql_provision.defer_indexes(own, name)

    async def finish(self, table: Table[Any], connection: Any) -> None:
        """See `loading.Vectors`."""
        del connection
        settings = self._setup.settings
        if settings.auto_migrate:
            async with self._setup.provisioning() as own:
                await postgresql_provision.provision_table(own, table.name, self._space, settings)
            self._changed()


class VectorsWithin:
    """In the transaction that stores the rows: an index stays, unless its column is made anew."""

    def __init__(self, settings: DatabaseSettings) -> None:
        """Prepare.

        Args:
            settings: Say which index is wanted.
        """
        self._settings = settings
        self._made_anew: set[str] = set()

    async def prepare(self, table: Table[Any], space: VectorSpace, connection: Any) -> None:
        """See `loading.Vectors`."""
        if (await vector_widths(connection)).get(table.name) != space.dimensions:
            await make_width(connection, table.name, space)
            await connection.reload_schema_state()
            self._made_anew.add(table.name)

    async def finish(self, table: Table[Any], connection: Any) -> None:
        """See `loading.Vectors`."""
        if table.name in self._made_anew:
            await postgresql_provision.index_in_transaction(connection, table.name, self._settings)
