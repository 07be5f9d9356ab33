"""Looking after a database on PostgreSQL, whatever state it is in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.health import (
    ORPHANED,
    Examination,
    Finding,
    broken_vectors,
    missing_structure,
    orphans,
    wrong_sums,
)
from paracle_meta.backends.postgresql import cost_days
from paracle_meta.backends.postgresql import provision as postgresql_provision
from paracle_meta.backends.postgresql import schema as postgresql_schema
from paracle_meta.backends.postgresql import status as postgresql_status
from paracle_meta.backends.postgresql.setup import PostgresSetup
from paracle_meta.migrations import HEAD
from paracle_meta.schema import COLLECTIONS, TABLES, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.health import Severity
    from paracle_meta.backends.postgresql.schema import SchemaState
    from paracle_meta.config import DatabaseSettings

SOUND_PGVECTOR: Final = (0, 8, 4)
"""Older ones are known to damage their indexes (pgvector's changelog)."""

_BROKEN: Final = "(embedding IS NULL) <> (embedding_model IS NULL)"
"""Whether the vector of a row is none; the server sees to the rest."""

_STRUCTURE: Final = """
WITH ours AS (
    SELECT c.oid, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = COALESCE($1, current_schema()) AND c.relkind IN ('r', 'p', 'i', 'I')
)
SELECT relname::text FROM ours
UNION ALL
SELECT relname || '.' || attname FROM ours JOIN pg_attribute ON attrelid = oid
WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'trigger ' || tgname FROM ours JOIN pg_trigger ON tgrelid = ours.oid
WHERE NOT tgisinternal AND tgenabled <> 'D'
UNION ALL
SELECT 'foreign key of ' || relname FROM ours JOIN pg_constraint ON conrelid = ours.oid
WHERE contype = 'f' AND convalidated
"""

_INVALID_INDEXES: Final = """
SELECT c.relname AS table_name, x.relname AS name
FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND n.nspname = COALESCE($1, current_schema()) AND c.relname = ANY($2)
AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_create_index p WHERE p.relid = i.indrelid)
ORDER BY x.relname
"""
"""Those that nobody is making just now."""

_IS_INDEXED_NOW: Final = """
SELECT EXISTS (SELECT 1 FROM pg_stat_progress_create_index WHERE relid = to_regclass($1))
"""

_WORDS: Final[dict[str, tuple[Severity, str]]] = {
    "missing-vector-column": (
        "error",
        "{table} has no column for vectors of the configured model, so none can be stored.",
    ),
    "waiting-words": (
        "warning",
        "A load of many records into {table} was killed, so each search by words reads a list of "
        "new words first.",
    ),
    "missing-index": (
        "warning",
        "The vectors of {table} have no index, so each search by meaning compares all of them.",
    ),
    "invalid-index": (
        "error",
        "The building of the index of {table} failed, so it is not used, and is kept up with each "
        "write all the same.",
    ),
    "stale-index": (
        "warning",
        "The index of {table} is not of the kind that is configured, or was made of far fewer "
        "vectors than there are now.",
    ),
}
"""What `provision.what_is_missing` names: how bad it is, and in words."""


class PostgresHealth:
    """See `health.Health`, which is the contract of every method."""

    def __init__(self, settings: DatabaseSettings, space: VectorSpace | None) -> None:
        """Prepare; nothing is looked at yet.

        Args:
            settings: Where the database is.
            space: The vectors that are stored, or None for none.
        """
        self._settings = settings
        self._space = space
        self._setup = PostgresSetup(settings, space)

    async def examine(self) -> Examination:
        """See `health.Health`."""
        async with self._setup.looking() as (connection, state):
            postgresql_schema.check_server(state, self._setup.place)
            findings = []
            if self._space is not None:
                findings += await _extension(connection, state)
            if state.revision == HEAD:
                gone = await self._missing_structure(connection)
                if gone:
                    command = "paracle meta db migrate --sql | psql ..."
                    return Examination([*findings, missing_structure(gone, command)], None)
                findings += [finding async for finding in self._contents(connection, state)]
            status = await postgresql_status.read(connection, state, self._setup.place, self._space)
            return Examination(findings, status)

    async def _missing_structure(self, connection: Any) -> list[str]:
        found = await connection.fetch(_STRUCTURE, self._settings.postgres_schema)
        return sorted(_wanted_structure() - {row[0] for row in found})

    async def _contents(self, connection: Any, state: SchemaState) -> AsyncIterator[Finding]:
        for table, orphaned in ORPHANED.items():
            count = await connection.fetchval(orphaned.count)
            if count:
                yield orphans(table, count)
        if wrong := await cost_days.count_wrong(connection):
            yield wrong_sums(wrong)
        if self._space is None or state.extension is None:
            return
        for name in COLLECTIONS:
            missing = await postgresql_provision.what_is_missing(
                connection, name, self._space, self._settings
            )
            if missing is not None and not await connection.fetchval(_IS_INDEXED_NOW, name):
                yield _unprovisioned(missing, name)
            if missing == "missing-vector-column":
                continue
            count = await connection.fetchval(f"SELECT count(*) FROM {name} WHERE {_BROKEN}")
            if count:
                yield broken_vectors(name, count)
        names = [table.name for table in TABLES]
        rows = await connection.fetch(_INVALID_INDEXES, self._settings.postgres_schema, names)
        for row in rows:
            # The first is seen above, and the others belong to a change of model that goes on.
            if not re.fullmatch(
                rf"{row['table_name']}_(embedding|new_embedding.*)_idx", row["name"]
            ):
                yield _invalid(row["table_name"], row["name"])

    async def mend(self, finding: Finding) -> None:
        """See `health.Health`."""
        async with self._setup.provisioning() as connection:
            match finding.name:
                case "outdated-pgvector" | "pgvector-update":
                    await postgresql_schema.update_extension(connection, self._setup.place)
                    if finding.name == "outdated-pgvector":
                        await self._make_indexes_anew(connection)
                case "broken-vectors":
                    await connection.execute(
                        f"UPDATE {finding.where} SET embedding = NULL, embedding_model = NULL"
                        f" WHERE {_BROKEN}"
                    )
                case "wrong-sums":
                    await cost_days.make_anew(connection)
                case "invalid-index":
                    name = postgresql_schema.quoted(finding.where)
                    await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
                case _:
                    raise ValueError(f"{finding.name} is mended elsewhere")

    async def _make_indexes_anew(self, connection: Any) -> None:
        """Make the indexes anew that the old version may have damaged."""
        if self._space is None:
            return
        for name in COLLECTIONS:
            # One that is missing, or not there yet, is made by a migration.
            if not await postgresql_provision.what_is_missing(
                connection, name, self._space, self._settings
            ):
                await postgresql_provision.rebuild(connection, name, self._settings)


async def _extension(connection: Any, state: SchemaState) -> list[Finding]:
    available = await connection.fetchval(
        "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
    )
    return [*examine_extension(state.extension, available)]


def examine_extension(installed: str | None, available: str | None) -> Iterator[Finding]:
    """Yield what is not well with pgvector.

    Args:
        installed: Its version in the database; None where it is not there.
        available: The version that the server could install; None where it has none.
    """
    if installed is None:
        yield Finding(
            name="missing-extension",
            severity="error",
            where="pgvector",
            what="The database has no pgvector, so no vectors can be stored.",
            repair="Run in this database: CREATE EXTENSION vector;"
            if available
            else "Install pgvector on the server (on Debian the package "
            "postgresql-<version>-pgvector), or set enable_vectors: false.",
            remedy="migrate" if available else None,
        )
        return
    newer = available is not None and _numbers(available) > _numbers(installed)
    where = f"pgvector {installed}"
    if _numbers(installed) < SOUND_PGVECTOR:
        helps = newer and _numbers(available or "") >= SOUND_PGVECTOR
        first = "" if helps else "Install pgvector 0.8.4 or later on the server. "
        yield Finding(
            name="outdated-pgvector",
            severity="error",
            where=where,
            what="This pgvector can damage its indexes, which then miss records.",
            repair=f"{first}Run in this database: ALTER EXTENSION vector UPDATE; and then "
            "`paracle meta index`.",
            remedy="own" if helps else None,
        )
    elif newer:
        yield Finding(
            name="pgvector-update",
            severity="warning",
            where=where,
            what=f"The server has pgvector {available}.",
            repair="Run in this database: ALTER EXTENSION vector UPDATE;",
            remedy="own",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def _wanted_structure() -> set[str]:
    wanted = set()
    for table in TABLES:
        wanted.add(table.name)
        wanted |= {index.name for index in table.indexes}
        for column in table.columns:
            # That of the vectors is beside the migrations.
            if column.kind is not Kind.VECTOR:
                wanted.add(f"{table.name}.{column.name}")
            if column.references:
                wanted.add(f"foreign key of {table.name}")
    for name in COLLECTIONS:
        wanted |= {f"{name}_{beside}" for beside in ("terms", "terms_idx", "unread")}
        wanted |= {f"{name}_cached_vectors", f"trigger {name}_unread"}
    wanted |= {"cost_days", "cost_days_idx"}
    wanted |= {
        f"trigger costs_{event}_days" for event in ("insert", "update", "delete", "truncate")
    }
    return wanted


def _unprovisioned(name: str, table: str) -> Finding:
    severity, words = _WORDS[name]
    return Finding(
        name=name,
        severity=severity,
        where=table,
        what=words.format(table=table),
        repair="`paracle meta db migrate` makes it.",
        remedy="migrate",
    )


def _invalid(table: str, name: str) -> Finding:
    # That is how the index is called that a stopped `paracle meta index` has begun.
    left = name == f"{table}_embedding_new_idx"
    drop = f"DROP INDEX CONCURRENTLY {name};"
    return Finding(
        name="invalid-index",
        severity="warning" if left else "error",
        where=name,
        what=f"The building of the index {name} failed, so it is not used, and is kept up with "
        "each write all the same.",
        repair=drop if left else f"REINDEX INDEX CONCURRENTLY {name}; or {drop}",
        remedy="own" if left else None,
    )
