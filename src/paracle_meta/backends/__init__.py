"""The databases. Nothing outside this package knows a dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paracle_meta.backends.base import Backend
    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.health import Health
    from paracle_meta.config import DatabaseSettings


def create_backend(settings: DatabaseSettings, space: VectorSpace | None) -> Backend:
    """Return the backend that the settings ask for, not yet opened.

    Args:
        settings: Where the database is and how to treat it.
        space: The vectors that will be stored and searched, or None for none.
    """
    # Each driver is imported only by those who use it.
    match settings.backend:
        case "sqlite":
            from paracle_meta.backends.sqlite.backend import SqliteBackend

            return SqliteBackend(settings)
        case "postgresql":
            from paracle_meta.backends.postgresql.backend import PostgresBackend

            return PostgresBackend(settings, space)


def create_health(settings: DatabaseSettings, space: VectorSpace | None) -> Health:
    """Return what looks after the database that the settings ask for; see `create_backend`."""
    match settings.backend:
        case "sqlite":
            from paracle_meta.backends.sqlite.health import SqliteHealth

            return SqliteHealth(settings, space)
        case "postgresql":
            from paracle_meta.backends.postgresql.health import PostgresHealth

            return PostgresHealth(settings, space)
