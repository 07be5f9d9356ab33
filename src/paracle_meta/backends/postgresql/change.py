"""A change of embedding model on PostgreSQL: new vectors in columns of their own, then a swap.

The columns ``new_embedding`` and ``new_embedding_model`` exist only while a change goes on, since
their width is the new model's; so does a trigger that empties them where a record's text is
written, and fills them where somebody stores a vector of the new model. The trigger's arguments
tell which model that is. At the end the old columns are dropped and the new ones and their indexes
take their names, which touches no row.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from paracle_meta.backends.postgresql import provision as postgresql_provision
from paracle_meta.backends.postgresql.new_vectors import has_texts, in_order, numbers
from paracle_meta.backends.postgresql.schema import migration_lock
from paracle_meta.exceptions import DatabaseBusyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

    from paracle_meta.backends.collections import NewVector, VectorSpace
    from paracle_meta.backends.postgresql.setup import PostgresSetup
    from paracle_meta.backends.statements import TableStatements

R = TypeVar("R")
T = TypeVar("T")

LOCK_CLASS: Final = 0x706D6E76
"""The advisory locks of changes of model: "pmnv" in ASCII. Each has its table's oid besides."""

OWN_TRIES: Final = 20
"""How often a second process looks, every LOCK_PAUSE seconds, whether the first has gone: the
server takes a moment to notice that a process was killed."""
LOCK_PAUSE: Final = 0.1

BRIEF: Final = "1s"
"""Longest wait for a table's lock: everybody else who wants the table waits behind it."""
BRIEF_TRIES: Final = 6
BRIEF_PAUSE: Final = 0.5
"""How often that is tried and seconds in between, in which the others get on."""

TAKEN_OVER: Final = 1_000
"""Vectors taken over at once: as long as a writer of one of these rows may have to wait."""

_STATE: Final = """
SELECT (SELECT tgargs FROM pg_trigger WHERE tgrelid = c.oid
        AND tgname = c.relname || '_new_embedding' AND NOT tgisinternal) AS arguments,
       (SELECT atttypmod FROM pg_attribute WHERE attrelid = c.oid AND attname = 'new_embedding'
        AND NOT attisdropped) AS width,
       (SELECT atttypmod FROM pg_attribute WHERE attrelid = c.oid AND attname = 'embedding'
        AND NOT attisdropped) AS old_width
FROM pg_class c WHERE c.oid = $1::text::regclass
"""

_INDEX: Final = """
SELECT am.amname AS method, i.indisvalid AS valid
FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_am am ON am.oid = x.relam
WHERE i.indrelid = $1::text::regclass AND x.relname = $2
"""


async def progress(connection: Any, table: str) -> tuple[str | None, int]:
    """Return the model to which a table is being changed, or None, and its vectors so far."""
    async with connection.transaction():
        # Keeps the columns where they are while they are looked at.
        await connection.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        model = _model(await connection.fetchrow(_STATE, table))
        if model is None:
            return None, 0
        return model, await connection.fetchval(f"SELECT count(new_embedding_model) FROM {table}")


def _model(state: Any) -> str | None:
    # The arguments of a trigger are kept one after another, each with a zero byte at its end.
    arguments: bytes | None = state["arguments"]
    return None if arguments is None else arguments.split(b"\0")[0].decode()


@contextlib.asynccontextmanager
async def change_of_model(
    setup: PostgresSetup, statements: TableStatements[R], space: VectorSpace
) -> AsyncIterator[PostgresChangeOfModel[R]]:
    """See `collections.Collections`.

    Args:
        setup: Opens the connection that all is done on, as no other could hold the lock.
        statements: Those of the table.
        space: What its vectors shall be of.
    """
    connection = await setup.connect()
    try:
        change = PostgresChangeOfModel(connection, setup, statements, space)
        await change.begin()
        yield change
    finally:
        # The lock goes with it.
        with setup.translated():
            await connection.close(timeout=setup.settings.connect_timeout)


class PostgresChangeOfModel(Generic[R]):
    """See `collections.ChangeOfModel`, which is the contract of every method."""

    def __init__(
        self,
        connection: Any,
        setup: PostgresSetup,
        statements: TableStatements[R],
        space: VectorSpace,
    ) -> None:
        """Prepare; see `change_of_model`."""
        self._connection = connection
        self._setup = setup
        self._statements = statements
        self._space = space
        self._name = statements.table.name

    async def begin(self) -> None:
        """Keep others away, and make the columns unless they are there.

        Raises:
            DatabaseBusyError: Another process is at it, or uses the table for long.
        """
        with self._setup.translated():
            await self._own()
            state = await self._connection.fetchrow(_STATE, self._name)
            wanted = (self._space.model, self._space.dimensions)
            if (_model(state), state["width"]) != wanted:
                async with migration_lock(self._connection, self._setup.place):
                    await self._briefly(self._make_columns)
            if state["old_width"] == self._space.dimensions:
                await self._take_over()

    async def _own(self) -> None:
        for _ in range(OWN_TRIES):
            if await self._connection.fetchval(
                "SELECT pg_try_advisory_lock($1, $2::text::regclass::oid::int)",
                LOCK_CLASS,
                self._name,
            ):
                return
            await asyncio.sleep(LOCK_PAUSE)
        raise DatabaseBusyError(
            f"Another process makes the vectors of {self._name} anew just now; wait for it."
        )

    async def _briefly(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run work that locks the table in a transaction, without keeping others waiting for it."""
        for left in reversed(range(BRIEF_TRIES)):
            try:
                with self._setup.translated():
                    async with self._connection.transaction():
                        await self._connection.execute(f"SET LOCAL lock_timeout = '{BRIEF}'")
                        await self._connection.execute(
                            f"LOCK TABLE {self._name} IN ACCESS EXCLUSIVE MODE"
                        )
                        return await work()
            except DatabaseBusyError as error:
                if not left:
                    raise DatabaseBusyError(
                        f"{self._name} was never free in {BRIEF_TRIES} tries of {BRIEF} each: end "
                        "long transactions that use it, then repeat the call, which goes on from "
                        "here."
                    ) from error
            await asyncio.sleep(BRIEF_PAUSE)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _make_columns(self) -> None:
        state = await self._connection.fetchrow(_STATE, self._name)
        await self._drop_trigger(state)
        name = self._name
        texts = ", ".join(f"NEW.{column}" for column in self._statements.table.embedded)
        await self._connection.execute(
            f"ALTER TABLE {name} DROP COLUMN IF EXISTS new_embedding,"
            " DROP COLUMN IF EXISTS new_embedding_model,"
            ' ADD COLUMN new_embedding_model varchar COLLATE "C",'
            f" ADD COLUMN new_embedding vector({self._space.dimensions});"
            f" CREATE FUNCTION {name}_new_embedding() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF TG_ARGV[1] = 'comparable' AND NEW.embedding_model = TG_ARGV[0] THEN"
            " NEW.new_embedding := NEW.embedding; NEW.new_embedding_model := NEW.embedding_model;"
            f" ELSIF TG_OP = 'UPDATE' AND ({texts}) IS DISTINCT FROM"
            f" ({texts.replace('NEW.', 'OLD.')}) THEN"
            " NEW.new_embedding := NULL; NEW.new_embedding_model := NULL;"
            " END IF; RETURN NEW; END $$"
        )
        same_width = state["old_width"] == self._space.dimensions
        trigger = await self._connection.fetchval(
            f"SELECT format('CREATE TRIGGER {name}_new_embedding BEFORE INSERT OR UPDATE ON {name}"
            f" FOR EACH ROW EXECUTE FUNCTION {name}_new_embedding(%L, %L)', $1::text, $2::text)",
            self._space.model,
            "comparable" if same_width else "other width",
        )
        await self._connection.execute(trigger)

    async def _drop_trigger(self, state: Any) -> None:
        # Only where it is there: by a bare name, another tenant's function might be found.
        if state["arguments"] is not None:
            await self._connection.execute(
                f"DROP TRIGGER {self._name}_new_embedding ON {self._name};"
                f" DROP FUNCTION {self._name}_new_embedding()"
            )

    async def _take_over(self) -> None:
        """Count vectors that are of the new model already as new ones."""
        sql = (
            f"UPDATE {self._name} SET new_embedding = embedding,"
            " new_embedding_model = embedding_model WHERE id IN"
            f" (SELECT id FROM {self._name} WHERE embedding_model = $1 AND embedding IS NOT NULL"
            f" AND new_embedding_model IS NULL ORDER BY id LIMIT {TAKEN_OVER} FOR UPDATE)"
        )
        while await self._connection.execute(sql, self._space.model) != "UPDATE 0":
            """Take over more."""

    async def remaining(self) -> int:
        """See `collections.ChangeOfModel`."""
        with self._setup.translated():
            return int(
                await self._connection.fetchval(
                    f"SELECT count(*) FROM {self._name} WHERE new_embedding_model IS NULL"
                )
            )

    async def pending(self, *, limit: int, after: str | None) -> list[R]:
        """See `collections.ChangeOfModel`."""
        with self._setup.translated():
            rows = await self._connection.fetch(
                f"SELECT {self._statements.output} FROM {self._name}"
                " WHERE new_embedding_model IS NULL AND id > $1 ORDER BY id LIMIT $2::bigint",
                after or "",
                limit,
            )
        return [self._statements.record(row) for row in rows]

    async def store(self, vectors: Sequence[NewVector]) -> None:
        """See `collections.ChangeOfModel`."""
        with self._setup.translated():
            await self._connection.executemany(
                f"UPDATE {self._name} SET new_embedding = $1::float4[]::vector,"
                " new_embedding_model = $2 WHERE id = $3 AND new_embedding_model IS NULL"
                f" AND {has_texts(self._statements.table, 4)}",
                [
                    (numbers(vector.blob), self._space.model, vector.record_id, *vector.texts)
                    for vector in in_order(vectors)
                ],
            )

    async def prepare(self) -> None:
        """See `collections.ChangeOfModel`."""
        with self._setup.translated():
            # The index of models is made now, as one that is there slows down every store.
            async with migration_lock(self._connection, self._setup.place):
                await self._make_index(
                    f"{self._name}_new_embedding_model_idx",
                    "btree",
                    f"CREATE INDEX CONCURRENTLY {self._name}_new_embedding_model_idx"
                    f" ON {self._name} (new_embedding_model)",
                )
                sql = await postgresql_provision.new_index_sql(
                    self._connection, self._name, self._space, self._setup.settings
                )
                if sql is not None:
                    await self._make_index(
                        f"{self._name}_new_embedding_idx", self._setup.settings.vector_index, sql
                    )

    async def _make_index(self, index: str, method: str, sql: str) -> None:
        row = await self._connection.fetchrow(_INDEX, self._name, index)
        if row is not None:
            if row["valid"] and row["method"] == method:
                return
            # Of another method, or left invalid by a build that was stopped.
            await self._connection.execute(f"DROP INDEX CONCURRENTLY {index}")
        await postgresql_provision.create_index(self._connection, sql)

    async def switch(self, without: Collection[str]) -> bool:
        """See `collections.ChangeOfModel`."""
        ids = sorted(without)
        with self._setup.translated():
            # Nobody has to wait for a look that ends with a no.
            if await self._lacks(ids):
                return False
            async with migration_lock(self._connection, self._setup.place):
                return await self._briefly(lambda: self._switch(ids))

    async def _lacks(self, without: list[str]) -> bool:
        return bool(
            await self._connection.fetchval(
                f"SELECT EXISTS (SELECT 1 FROM {self._name}"
                " WHERE new_embedding_model IS NULL AND id <> ALL ($1::text[]))",
                without,
            )
        )

    async def _switch(self, without: list[str]) -> bool:
        if await self._lacks(without):
            return False
        name = self._name
        await self._drop_trigger(await self._connection.fetchrow(_STATE, name))
        # Their indexes go with them.
        await self._connection.execute(
            f"ALTER TABLE {name} DROP COLUMN embedding, DROP COLUMN embedding_model;"
            f" ALTER TABLE {name} RENAME COLUMN new_embedding TO embedding;"
            f" ALTER TABLE {name} RENAME COLUMN new_embedding_model TO embedding_model"
        )
        for column in ("embedding", "embedding_model"):
            old, new = f"{name}_new_{column}_idx", f"{name}_{column}_idx"
            # Looked up: by a bare name, another tenant's index might be found.
            if await self._connection.fetchrow(_INDEX, name, old) is not None:
                await self._connection.execute(f"ALTER INDEX {old} RENAME TO {new}")
            elif column == "embedding_model":
                await self._connection.execute(f"CREATE INDEX {new} ON {name} ({column})")
        return True
