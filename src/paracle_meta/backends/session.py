"""The session that callers get: SQLAlchemy's, with plain SQL strings and this package's errors.

What both databases share. SQLAlchemy is imported here and in the modules that import this one,
which are loaded when a session or a migration is first asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, overload

from sqlalchemy import event, text
from sqlalchemy.exc import EmulatedDBAPIException, SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from paracle_meta.exceptions import ParacleMetaError, QueryError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
    from typing import TypeVarTuple

    from sqlalchemy import Connection, Executable, Result, ScalarResult
    from sqlalchemy.engine.interfaces import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncResult, AsyncScalarResult
    from sqlalchemy.sql.selectable import TypedReturnsRows

    Ts = TypeVarTuple("Ts")
    Parameters: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
    AnyRow: TypeAlias = tuple[Any, ...]

T = TypeVar("T")

Translate: TypeAlias = Callable[[BaseException], ParacleMetaError | None]
"""Returns this package's error for one of the driver's, or None for any other error."""

ENGINE_NAME: Final = "paracle_meta"
"""Of the engines in SQLAlchemy's log: ``sqlalchemy.engine.Engine.paracle_meta``."""


class MetaSession(AsyncSession):
    r"""An SQLAlchemy `AsyncSession` that takes plain SQL strings as well.

    A string is one statement with named parameters (``:id``), as SQLAlchemy's `text` describes
    them; a colon that begins no parameter is written ``\:``. Everything else is SQLAlchemy's:
    mapped objects, `begin_nested`, `commit` in the middle. Objects keep their values after a
    commit, since loading them again would need an await where there is none.

    Errors of the database are this package's (`QueryError`, `DuplicateError`, `DatabaseBusyError`,
    ...), also those that come up in a flush or at the commit, with the driver's as their cause.
    Misuse of SQLAlchemy itself stays SQLAlchemy's error.
    """

    @overload
    async def execute(
        self,
        statement: TypedReturnsRows[*Ts],
        params: Parameters | None = None,
        **options: Any,
    ) -> Result[*Ts]: ...

    @overload
    async def execute(
        self,
        statement: Executable | str,
        params: Parameters | None = None,
        **options: Any,
    ) -> Result[*AnyRow]: ...

    async def execute(
        self,
        statement: Executable | str,
        params: Parameters | None = None,
        **options: Any,
    ) -> Result[*AnyRow]:
        """Run a statement and return its rows, all of them read.

        Args:
            statement: One SQL statement as a string, or anything that SQLAlchemy can execute.
            params: Its named parameters; a list of them runs the statement once for each.
            **options: `execution_options` and `bind_arguments`, as SQLAlchemy describes them.

        Raises:
            QueryError: The database refuses the statement.
            IntegrityError: It would break a rule of the schema.
            DatabaseBusyError: Another writer held a lock for too long.
            DatabaseConnectionError: There is no connection.
        """
        return await super().execute(_executable(statement), params, **options)

    @overload
    async def scalar(
        self,
        statement: TypedReturnsRows[T],
        params: Parameters | None = None,
        **options: Any,
    ) -> T | None: ...

    @overload
    async def scalar(
        self,
        statement: Executable | str,
        params: Parameters | None = None,
        **options: Any,
    ) -> Any: ...

    async def scalar(
        self,
        statement: Executable | str,
        params: Parameters | None = None,
        **options: Any,
    ) -> Any:
        """Run a statement and return the first value of its first row, or None; see `execute`."""
        return await super().scalar(_executable(statement), params, **options)

    @overload
    async def scalars(
        self,
        statement: TypedReturnsRows[T],
        params: Parameters | None = None,
        **options: Any,
    ) -> ScalarResult[T]: ...

    @overload
    async def scalars(
        self,
        statement: Executable | str,
        params: Parameters | None = None,
        **options: Any,
    ) -> ScalarResult[Any]: ...

    async def scalars(
        self,
        statement: Executable | str,
        params: Parameters | None = None,
        **options: Any,
    ) -> ScalarResult[Any]:
        """Run a statement and return the first value of every row; see `execute`."""
        return await super().scalars(_executable(statement), params, **options)

    @overload
    async def stream(
        self,
        statement: TypedReturnsRows[*Ts],
        params: Parameters | None = None,
        **options: Any,
    ) -> AsyncResult[*Ts]: ...

    @overload
    async def stream(
        self,
        statement: Executable | str,
        params: Parameters | None = None,
        **options: Any,
    ) -> AsyncResult[*AnyRow]: ...

    async def stream(
        self,
        statement: Executable | str,
        params: Parameters | None = None,
        **options: Any,
    ) -> AsyncResult[*AnyRow]:
        """Run a statement and return its rows as they are read; see `execute`."""
        return await super().stream(_executable(statement), params, **options)

    @overload
    async def stream_scalars(
        self,
        statement: TypedReturnsRows[T],
        params: Parameters | None = None,
        **options: Any,
    ) -> AsyncScalarResult[T]: ...

    @overload
    async def stream_scalars(
        self,
        statement: Executable | str,
        params: Parameters | None = None,
        **options: Any,
    ) -> AsyncScalarResult[Any]: ...

    async def stream_scalars(
        self,
        statement: Executable | str,
        params: Parameters | None = None,
        **options: Any,
    ) -> AsyncScalarResult[Any]:
        """Run a statement and return the first value of every row as it is read; see `execute`."""
        return await super().stream_scalars(_executable(statement), params, **options)


def _executable(statement: Executable | str) -> Executable:
    return text(statement) if isinstance(statement, str) else statement


@asynccontextmanager
async def session_scope(engine: AsyncEngine) -> AsyncIterator[MetaSession]:
    """Open a session that is committed at the end of the block and rolled back on any error.

    It holds a connection only while it has a transaction: one that does nothing needs none, and
    after a `commit` in the middle the next statement gets a connection again. When the block has
    ended, also by a cancellation, the connection is closed or given back.
    """
    session = MetaSession(engine, expire_on_commit=False)
    try:
        yield session
        await session.commit()
    except BaseException:
        # The first error is the one to report. Where the rollback fails too, SQLAlchemy has
        # dropped the connection, and with it the transaction.
        with suppress(ParacleMetaError, SQLAlchemyError):
            await finish(session.close())
        raise
    await finish(session.close())


async def run_work(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    """Run synchronous code on a connection of its own; what it did not commit is rolled back."""
    connection = await engine.connect()
    try:
        return await connection.run_sync(work)
    finally:
        await finish(connection.close())


def keep_rows_from_log() -> None:
    """Drop what SQLAlchemy logs at DEBUG, which is every row that is read, with its texts.

    The logger is that of engines with `ENGINE_NAME` and no other engine's.
    """
    logging.getLogger("sqlalchemy.engine.Engine.paracle_meta").addFilter(_above_debug)


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def raise_typed_errors(engine: AsyncEngine, translate: Translate) -> None:
    """Make everything that uses the engine raise this package's errors.

    This is the one place that all errors of the database pass, whether they come up in a statement,
    a flush, a commit, a rollback or while rows are read.
    """

    def typed(context: ExceptionContext) -> ParacleMetaError | None:
        error = original = context.original_exception
        if isinstance(original, EmulatedDBAPIException):
            error = original.driver_exception
        translated = translate(error)
        if isinstance(original, EmulatedDBAPIException):
            # It has the words of the driver's error as they were before `translate` cleaned them.
            type(original).__init__(original, str(error), original.driver_exception)
        if translated is not None:
            return translated
        if isinstance(error, SQLAlchemyError):
            words = error.args[0]  # They name at most a parameter.
        elif isinstance(error, ValueError | OverflowError | TypeError):
            words = type(error).__name__
            # A driver that cannot send a value lets these through, and their words may quote it.
            error.args = ()
            error.__cause__ = error.__context__ = None
        elif isinstance(context.sqlalchemy_exception, StatementError):
            words = type(error).__name__
        else:
            return None
        return QueryError(
            f"A statement of the session was refused: {words}. Correct the statement or its "
            "parameters; the cause of this error says where."
        )

    event.listen(engine.sync_engine, "handle_error", typed)


async def finish(work: Awaitable[T]) -> T:
    """Await work to its end even if this task is cancelled meanwhile.

    Giving a connection back has to happen whole, and SQLAlchemy logs a cancellation that comes out
    of it as an error. So the cancellation is put off to the next await of the task.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    current = asyncio.current_task()
    if cancelled is not None and current is not None:
        # Asked for once more, it still counts once: `asyncio.timeout` compares the count.
        current.uncancel()
        current.cancel(*cancelled.args)
    return task.result()
