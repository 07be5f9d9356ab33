"""How PostgreSQL's errors, asyncpg's and the network's become errors of this package."""

from __future__ import annotations

from typing import Final

import asyncpg

from paracle_meta.exceptions import (
    DatabaseBusyError,
    DatabaseConnectionError,
    IntegrityError,
    ParacleMetaError,
    QueryError,
    StorageError,
)

DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # A connection that the server ended while it was idle meets its next call with this one.
    asyncpg.InternalClientError,
    OSError,
    OverflowError,  # A port that no host has.
)
"""What asyncpg and the network raise."""

READ_ONLY: Final = "25006"
"""SQLSTATE of a write that reached a server in recovery: a primary that was demoted."""

# SQLSTATE classes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOST_STATES: Final = ("08", "57P01", "57P02", "57P03", "57P05", READ_ONLY)
# A prepared statement is known already, or is not: both happen where connections are lent by turns.
_PREPARED_STATES: Final = ("42P05", "26000")
_POOLED: Final = "Where postgres_url leads through PgBouncer, set transaction_pooling: true."
_UNDONE_STATES: Final = ("40001", "40P01", READ_ONLY)
_BUSY_STATES: Final = ("40001", "40P01", "55P03", "57014")
_STORAGE_STATES: Final = ("58", "XX")
_NAME_STATES: Final = ("42501", "42P06", "42P07", "42701", "42710")
"""Rights that are missing and what exists already: errors that are about names alone."""
_STATES_WITHOUT_VALUES: Final = (
    *("08", "0A", "23", "25", "28", "3D", "53", "54", "55", "57", "58", "XX"),
)
"""Classes about constraints, roles, limits and the server, whose details alone quote values."""


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone or leads to the wrong server, so that a new one may help."""
    if isinstance(error, asyncpg.PostgresError):
        return _state(error).startswith(_LOST_STATES)
    if isinstance(error, TimeoutError | ValueError | OverflowError):
        # Waiting once more for a server that does not answer only doubles the wait, and a parameter
        # that asyncpg cannot send (an InterfaceError that is a ValueError) is the caller's.
        return False
    return isinstance(error, DRIVER_ERRORS)


def is_undone(error: BaseException) -> bool:
    """Whether the server has undone everything, so that any call is safe to repeat."""
    return isinstance(error, asyncpg.PostgresError) and _state(error) in _UNDONE_STATES


def translate(error: BaseException, place: str) -> ParacleMetaError | None:
    """Return the error of this package for a driver's error, or None where it is not a driver's.

    The server's own words are passed on only where they speak of names (class 42); others may quote
    the values of a row. The driver's error becomes the cause of ours and is printed with it, so
    what it quotes of values is taken out of it.

    Args:
        error: What asyncpg or the network raised.
        place: The server and database, as a message names them.
    """
    if isinstance(error, asyncpg.PostgresError):
        _forget_values(error)
        return _translate_server_error(error, place)
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        words = "it does not fit its type."
        # The driver's words quote the parameter, and its causes do.
        error.args = (f"A parameter cannot be sent: {words}",)
        error.__cause__ = error.__context__ = None
        return QueryError(f"{place} cannot take a parameter: {words}")
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return DatabaseConnectionError(
            f"No server at {place} is what target_session_attrs in postgres_url asks for, such as "
            "one that takes writes; repeat the call when there is one."
        )
    if isinstance(error, TimeoutError):
        return DatabaseConnectionError(
            f"{place} did not answer in time; see that it runs and can be reached."
        )
    if isinstance(error, DRIVER_ERRORS):
        return DatabaseConnectionError(
            f"No connection to {place} ({type(error).__name__}); see that PostgreSQL runs there "
            "and that postgres_url names its host and port."
        )
    return None


def is_wrong_width(error: BaseException | None) -> bool:
    """Whether the server refused a vector because its column is of another width."""
    return isinstance(error, asyncpg.DataError) and _state(error) == "22000"


def _translate_server_error(error: asyncpg.PostgresError, place: str) -> ParacleMetaError:
    state = _state(error)
    name = f"{type(error).__name__}, SQLSTATE {state}"
    if state.startswith("28"):
        return DatabaseConnectionError(
            f"{place} refused the role or its password ({name}); check postgres_url."
        )
    if state == "3D000":
        return DatabaseConnectionError(
            f"{place}: there is no such database ({name}); create it, or check postgres_url."
        )
    if state == "53300":
        return DatabaseConnectionError(
            f"{place} has no connection left ({name}); lower pool_size or raise max_connections."
        )
    if state == READ_ONLY:
        return DatabaseConnectionError(
            f"{place} takes no writes ({name}), as after a fail-over; nothing was changed, so "
            "repeat the call when it leads to a server that does."
        )
    if "unsupported startup parameter" in str(error):  # PgBouncer's words, in no other language.
        return DatabaseConnectionError(f"{place} refused a setting of ours ({name}). {_POOLED}")
    if state in _PREPARED_STATES:
        return QueryError(f"{place} mixes up prepared statements ({name}). {_POOLED}")
    if state.startswith(_LOST_STATES):
        return DatabaseConnectionError(
            f"The connection to {place} was lost ({name}), and with it the answer: whether a "
            "change that was under way is stored is not known. Repeat what does no harm twice, "
            "such as an add; look first otherwise."
        )
    if state.startswith(_BUSY_STATES):
        return DatabaseBusyError(
            f"{place} gave up because of other transactions or a time limit ({name}); "
            "repeat the call."
        )
    if state == "53100":
        return StorageError(
            f"The disk of {place} is full ({name}); make room, and repeat the call."
        )
    if state.startswith(_STORAGE_STATES):
        return StorageError(f"{place} cannot store or read its files ({name}); see its log.")
    if state.startswith("23"):
        return IntegrityError(f"{place} refused a row ({name}).")
    if _speaks_of_names(error):
        return QueryError(f"{place} refused the statement ({name}): {error.args[0]}.")
    return QueryError(f"{place} refused the statement ({name}).")


def _forget_values(error: asyncpg.PostgresError) -> None:
    """Take out of a server's error what may quote values.

    That is its details ("Failing row contains (...)"), save those about locks, and its words where
    they are about a value and not about a name or a state.
    """
    state = _state(error)
    if state.startswith(_UNDONE_STATES):
        return
    fields = vars(error)
    fields |= dict.fromkeys(("detail", "context", "internal_query"))
    if not (state.startswith(_STATES_WITHOUT_VALUES) or _speaks_of_names(error)):
        fields |= dict.fromkeys(("message", "hint"))
        error.args = (f"SQLSTATE {state}",)
        # Where it is the driver that cannot send a parameter: what its codec says.
        error.__cause__ = error.__context__ = None


def _speaks_of_names(error: asyncpg.PostgresError) -> bool:
    """Whether a server's words are about names of the statement.

    They are where they say at which position of it; otherwise the name may be a value, such as
    that of a table in a parameter, or the syntax that of a query for words.
    """
    state = _state(error)
    return state.startswith("42") and bool(error.position or state in _NAME_STATES)


def _state(error: asyncpg.PostgresError) -> str:
    return str(error.sqlstate or "")
