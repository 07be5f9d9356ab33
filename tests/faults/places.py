"""Databases as the tests look at them, past the package: raw connections and what is in them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pysqlite3 import dbapi2 as pysqlite

from paracle_meta import DatabaseSettings, MetaDatabase
from paracle_meta.schema import TABLES
from tests.faults.vectors import TinyEmbeddings

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

NAMES = [table.name for table in TABLES]


@dataclass(frozen=True, kw_only=True)
class Place:
    """An empty database on SQLite or PostgreSQL.

    Attributes:
        settings: What `DatabaseSettings` needs to lead there, as plain values.
        server: The PostgreSQL server, or None.
        database: The database on it.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    server: PostgresServer | None = None
    database: str = ""

    def given(self, **more: Any) -> dict[str, Any]:
        """Return the settings with some others."""
        return {**self.settings, **more}

    def open(self, **more: Any) -> MetaDatabase:
        """Return a MetaDatabase there."""
        settings = DatabaseSettings(**self.given(**more))
        return MetaDatabase(settings, embeddings=TinyEmbeddings())

    @property
    def folder(self) -> Path:
        """The folder of the SQLite files."""
        return Path(self.settings["sqlite_dir"])

    def rows(self, sql: str) -> list[tuple[str, ...]]:
        """Return the rows of a query on tables by their bare names, every value as text."""
        if self.server is None:
            return sqlite_rows(self.folder, sql)
        answer = self.server.sql(sql, self.database)
        return [tuple(line.split("|")) for line in answer.splitlines()]

    def orphans(self) -> list[tuple[str, ...]]:
        """Return feedback about generations that are not stored."""
        return self.rows(
            "SELECT id FROM feedback WHERE generation_id NOT IN (SELECT id FROM generations)"
        )


def attached(folder: Path, *, timeout: float = 5.0) -> Any:
    """Return a raw connection to the six files.

    It is the same SQLite library as the package's: two libraries in one process would each drop the
    other's locks when they close a file (sqlite.org/howtocorrupt.html, 2.2.1).
    """
    connection = pysqlite.connect(
        folder / f"{NAMES[0]}.db",
        isolation_level=None,
        timeout=timeout,
        check_same_thread=False,
    )
    for name in NAMES[1:]:
        connection.execute(f"ATTACH ? AS {name}", (str(folder / f"{name}.db"),))
    return connection


def sqlite_rows(folder: Path, sql: str) -> list[tuple[str, ...]]:
    with closing(attached(folder)) as connection:
        return [tuple(map(str, row)) for row in connection.execute(sql)]


def unsound_files(folder: Path) -> dict[str, list[Any]]:
    """Return the files of which SQLite's own check says anything but ok."""
    found = {}
    for name in NAMES:
        with closing(pysqlite.connect(folder / f"{name}.db")) as connection:
            words = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        if words != ["ok"]:
            found[name] = words
    return found
