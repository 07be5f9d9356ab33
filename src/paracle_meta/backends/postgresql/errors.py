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
)
"""What asyncpg and the network raise."""

READ_ONLY: Final = "25006"
"""SQLSTATE of a write that reached a server in recovery: a primary that was demoted."""

# SQLSTATE classes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOST_STATES: Final = ("08", "57P01", "57P02", "57P03", "57P05", READ_ONLY)
_UNDONE_STATES: Final = ("40001", "40P01", READ_ONLY)
_BUSY_STATES: Final = ("40001", "40P01", "55P03", "57014")
_STORAGE_STATES: Final = ("53100", "58", "XX")


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone or leads to the wrong server, so that a new one may help."""
    if isinstance(error, asyncpg.PostgresError):
        return _state(error).startswith(_LOST_STATES)
    if isinstance(error, TimeoutError | ValueError):
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
    the values of a row.

    Args:
        error: What asyncpg or the network raised.
        place: The server and database, as a message names them.
    """
    if isinstance(error, asyncpg.PostgresError):
        return _translate_server_error(error, place)
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        return QueryError(f"{place} cannot take a parameter: it does not fit its type.")
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
    if state.startswith(_LOST_STATES):
        return DatabaseConnectionError(
            f"The connection to {place} was lost or leads to a server that cannot write ({name}); "
            "repeat the call."
        )
    if state.startswith(_BUSY_STATES):
        return DatabaseBusyError(
            f"{place} gave up because of other transactions or a time limit ({name}); "
            "repeat the call."
        )
    if state.startswith(_STORAGE_STATES):
        return StorageError(f"{place} cannot store or read its files ({name}); see its log.")
    if state.startswith("23"):
        return IntegrityError(f"{place} refused a row ({name}).")
    if state.startswith("42"):
        return QueryError(f"{place} refused the statement ({name}): {error.args[0]}.")
    return QueryError(f"{place} refused the statement ({name}).")


def _state(error: asyncpg.PostgresError) -> str:
    return str(error.sqlstate or "")
