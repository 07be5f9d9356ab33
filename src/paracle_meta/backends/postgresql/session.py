"""SQLAlchemy sessions over connections that are borrowed from the backend's asyncpg pool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, TypeVar

import asyncpg
from sqlalchemy import NullPool
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_connection,
    AsyncAdapt_asyncpg_dbapi,
    PGDialect_asyncpg,
)
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util.concurrency import await_, in_greenlet

from paracle_meta.backends.session import (
    ENGINE_NAME,
    MetaSession,
    Translate,
    finish,
    keep_rows_from_log,
    raise_typed_errors,
    run_work,
    session_scope,
)

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection

T = TypeVar("T")

Acquire: TypeAlias = Callable[[], Awaitable[Any]]
"""Takes a connection from the pool: asyncpg's `Connection`, or the pool's proxy of one."""

Release: TypeAlias = Callable[[Any, bool], Awaitable[None]]
"""Gives the connection back; True says that its state is unknown and it must not be used again."""

_PREPARED_STATEMENTS: Final = 100
"""Statements that one borrower keeps prepared; SQLAlchemy's default."""

_SETTLE_SECONDS: Final = 2.0
"""Longest wait for the server to stop a cancelled statement, as in SQLAlchemy's asyncpg dialect."""


class PostgresSessions:
    """Sessions and migrations on PostgreSQL.

    The backend's pool owns every connection. SQLAlchemy pools none (`NullPool`): it borrows one
    when a transaction begins, and what it takes for closing is giving it back, exactly once.
    """

    def __init__(
        self,
        acquire: Acquire,
        release: Release,
        translate: Translate,
        *,
        prepares: bool = True,
    ) -> None:
        """Prepare; nothing is borrowed yet.

        Args:
            acquire: Takes a connection from the pool. Its errors are passed on as they are, so they
                should be this package's. Its connections have asyncpg's own json and jsonb codecs,
                which leave JSON as text.
            release: Gives one back, and does not fail, not even for a lost one that asyncpg's pool
                has taken back by itself. Resetting what a session left behind (settings,
                listeners, advisory locks) is its task; no transaction is open unless the
                connection is broken.
            translate: Returns this package's error for one of asyncpg's.
            prepares: Whether statements are kept prepared while a connection is borrowed. They
                cannot be where asyncpg's `statement_cache_size` is 0 (PgBouncer), as all share one
                name then.
        """
        self._engine = create_async_engine(
            "postgresql+paracle_meta://",
            module=_Driver(acquire, release, _PREPARED_STATEMENTS if prepares else 0),
            poolclass=NullPool,
            pool_reset_on_return=None,  # `_Borrowed.close` does it.
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            logging_name=ENGINE_NAME,
        )
        keep_rows_from_log()
        raise_typed_errors(self._engine, translate)

    def session(
        self,
        *,
        write: bool = False,  # noqa: ARG002 - the signature is the same for every database
    ) -> AbstractAsyncContextManager[MetaSession]:
        """Open a session; see `session_scope`.

        Args:
            write: Of no effect here: readers and writers do not block each other.
        """
        return session_scope(self._engine)

    def run(self, work: Callable[[Connection], T]) -> Awaitable[T]:
        """Run a migration: synchronous code that begins and commits its own transactions.

        Under the execution option ``isolation_level="AUTOCOMMIT"`` there are none, as CREATE INDEX
        CONCURRENTLY needs it.
        """
        return run_work(self._engine, work)

    async def close(self) -> None:
        """Do nothing: the pool is the backend's; safe to repeat."""
        await self._engine.dispose()


class PostgresDialect(PGDialect_asyncpg):
    """The asyncpg dialect, leaving the connection as it found it.

    SQLAlchemy's installs codecs for json and jsonb on every connection. They would stay for the
    next borrower, and installing them empties the statement cache. asyncpg's own codecs hand JSON
    over as text, which SQLAlchemy's JSON types then decode.
    """

    supports_statement_cache = True
    supports_native_json_deserialization = False

    async def setup_asyncpg_json_codec(self, conn: Any) -> None:
        """Install nothing."""

    async def setup_asyncpg_jsonb_codec(self, conn: Any) -> None:
        """Install nothing."""


# The one way to give `create_async_engine` a dialect of one's own.
registry.register("postgresql.paracle_meta", __name__, PostgresDialect.__name__)


class _Driver(AsyncAdapt_asyncpg_dbapi):
    """The driver as SQLAlchemy sees it: connecting is borrowing."""

    def __init__(self, acquire: Acquire, release: Release, cache_size: int) -> None:
        super().__init__(asyncpg)  # type: ignore[no-untyped-call]
        self._acquire = acquire
        self._release = release
        self._cache_size = cache_size

    def connect(self, *_arguments: Any, **_options: Any) -> AsyncAdapt_asyncpg_connection:
        """Borrow a connection; where it leads is the backend's to say."""
        return await_(
            _Borrowed.create(
                self,
                self._acquire(),
                release=self._release,
                prepared_statement_cache_size=self._cache_size,
            )
        )


class _Loan:
    """A borrowed asyncpg connection that can always say whether it is closed.

    The pool takes a connection back by itself when it is lost, and its proxy then refuses every
    question, this one included, which SQLAlchemy asks after each error.
    """

    def __init__(self, connection: Any) -> None:
        self.lent = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lent, name)

    def is_closed(self) -> bool:
        """Whether the connection is gone."""
        try:
            return bool(self.lent.is_closed())
        except asyncpg.InterfaceError:
            return True


class _Borrowed(AsyncAdapt_asyncpg_connection):
    """A borrowed connection as SQLAlchemy sees it: closing it gives it back."""

    __slots__ = ("_failed", "_release")

    _connection: Any  # A _Loan; SQLAlchemy's own type has no `execute`.

    def __init__(
        self,
        driver: _Driver,
        connection: Any,
        *,
        release: Release,
        prepared_statement_cache_size: int,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            driver, _Loan(connection), prepared_statement_cache_size=prepared_statement_cache_size
        )
        self._release: Release | None = release
        self._failed = False

    def commit(self) -> None:
        """Commit, or raise why it cannot.

        To COMMIT after a failed statement the server answers with a rollback and no error. So where
        a statement has failed, it is asked for one more: it refuses unless the failure was undone
        by rolling back to a savepoint.
        """
        if self._failed and self._transaction is not None:
            try:
                await_(self._connection.fetchrow("SELECT 1"))
            except Exception as error:  # noqa: BLE001 - raised again, as SQLAlchemy's
                self._handle_exception(error)
        super().commit()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Give it back with no transaction open."""
        broken = True
        try:
            self.rollback()  # type: ignore[no-untyped-call]
            broken = self._connection.is_closed()
        finally:
            self._give_back(broken=broken)

    def terminate(self) -> None:
        """Give it back as broken, after a cancelled or failed call."""
        if in_greenlet():
            self._give_back(broken=True)  # Its state is unknown even where it still answers.
        elif self._release is not None and not self._connection.is_closed():
            # The garbage collector found it: there is no loop to wait in. The pool notices.
            self._connection.terminate()

    def _give_back(self, *, broken: bool) -> None:
        release, self._release = self._release, None
        if release is not None:
            self._transaction = None
            await_(finish(self._returned(release, broken)))

    async def _returned(self, release: Release, broken: bool) -> None:
        if broken and not self._connection.is_closed():
            # Cut off at once, the server would go on with a cancelled statement and keep its locks.
            # This waits until the cancellation has arrived; what comes of it does not matter.
            with suppress(Exception):
                await self._connection.execute("ROLLBACK", timeout=_SETTLE_SECONDS)
        await release(self._connection.lent, broken)

    def _handle_exception(self, error: Exception) -> NoReturn:
        self._failed = True
        super()._handle_exception(error)
