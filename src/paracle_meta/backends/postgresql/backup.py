"""Backups of a database on PostgreSQL, by its own programs pg_dump and pg_restore.

A database may hold other things than ours, even in the same schema. The dump has the tables of
ours, as they are at one moment, and a restore touches nothing else. The extension pgvector is not
in it: to make one, a role needs more rights than to use it.

pg_restore only writes a script, which psql runs in one transaction, and before its end that looks
whether this process is still there. So nothing goes on behind the back of one that was killed: left
alone, pg_restore would put the backup in the place of whatever is written until it is its turn.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.backup_folder import Manifest, new_folder, read_manifest, seal, take
from paracle_meta.backends.backups import RestoreReport
from paracle_meta.backends.postgresql import programs as postgresql_programs
from paracle_meta.backends.postgresql import schema as postgresql_schema
from paracle_meta.backends.postgresql.provision import BUILD_MEMORY
from paracle_meta.backends.postgresql.schema import quoted
from paracle_meta.backends.watching import in_thread
from paracle_meta.exceptions import TransferError
from paracle_meta.migrations import VERSION_TABLE
from paracle_meta.records import utc_now
from paracle_meta.schema import COLLECTIONS, TABLES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from paracle_meta.backends.backups import BackupReport, Progress
    from paracle_meta.backends.postgresql.programs import Program
    from paracle_meta.backends.postgresql.setup import PostgresSetup

DUMP: Final = "paracle_meta.dump"

OURS: Final = (
    *(table.name for table in TABLES),
    VERSION_TABLE,
    *(f"{name}_{kind}" for name in COLLECTIONS for kind in ("terms", "unread", "cached_vectors")),
    "cost_days",
)
"""All tables that the migrations make."""

OUR_FUNCTIONS: Final = (
    *(f"{name}_{kind}" for name in COLLECTIONS for kind in ("note_unread", "new_embedding")),
    *(f"costs_{event}_days" for event in ("insert", "update", "delete", "truncate")),
)
"""Those that the migrations make, and those of a change of model; none takes arguments."""

KINDS: Final = (
    "TABLE",
    "TABLE DATA",
    "SEQUENCE",
    "SEQUENCE SET",
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX",
    "TRIGGER",
    "RULE",
    "ROW SECURITY",
    "POLICY",
)
"""Entries of a dump that belong to a table, and so, as it has no other tables, to one of ours."""

TIMEOUT: Final = b"SET transaction_timeout = 0;\n"
TIMEOUT_SINCE: Final = 17
"""From this version on pg_restore writes that, which no older server knows."""

STILL_HERE: Final = """
DO $$ BEGIN
IF NOT EXISTS (SELECT FROM pg_catalog.pg_locks
    WHERE locktype = 'advisory' AND granted AND pid = {pid}) THEN
    RAISE 'the process that restores was ended';
END IF;
END $$;
"""
"""Fails where the session that holds the lock of migrations has ended."""

_OTHERS: Final = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND c.relname <> ALL($2::text[])
    AND NOT EXISTS (
        SELECT 1 FROM pg_depend d JOIN pg_class o ON o.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('i', 'a')
            AND d.refclassid = 'pg_class'::regclass AND o.relnamespace = c.relnamespace
            AND o.relname = ANY($2::text[]))
"""
"""Tables, views and sequences of others; a sequence of one of our columns is ours."""

_HELD: Final = """
SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p')
    AND relname = ANY($2::text[])
"""

_VECTOR_SCHEMA: Final = """
SELECT n.nspname FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE c.relnamespace = to_regnamespace($1) AND c.relname = ANY($2::text[])
    AND t.typname = 'vector' AND NOT a.attisdropped
LIMIT 1
"""


class PostgresBackups:
    """See `backups.Backups`, which is the contract of every method."""

    def __init__(self, setup: PostgresSetup) -> None:
        self._setup = setup
        self._settings = setup.settings

    async def back_up(
        self, folder: Path, *, programs: Path | None = None, progress: Progress | None = None
    ) -> BackupReport:
        """See `backups.Backups`."""
        with new_folder(folder) as partial_folder:
            async with self._connection() as connection:
                server = connection.get_server_version().major
                pg_dump = await postgresql_programs.find("pg_dump", programs, server)
                _check_dump(pg_dump, server)
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    manifest = await self._describe(connection, pg_dump)
                    await self._dump(connection, pg_dump, partial_folder / DUMP)
            return await in_thread(
                lambda watcher: seal(partial_folder, manifest, watcher.stop, name=folder), progress
            )

    async def _describe(self, connection: Any, pg_dump: Program) -> Manifest:
        schema = await self._schema(connection)
        place = quoted(schema)
        version = connection.get_server_version()
        return Manifest(
            backend="postgresql",
            engine=f"PostgreSQL {version.major}.{version.minor}",
            revision=await connection.fetchval(f"SELECT version_num FROM {place}.{VERSION_TABLE}"),
            created_at=utc_now(),
            counts=await _counts(connection, schema),
            details={
                "server": version.major,
                "pg_dump": pg_dump.major,
                "schema": schema,
                "vector_schema": await connection.fetchval(_VECTOR_SCHEMA, place, OURS),
            },
        )

    async def _dump(self, connection: Any, pg_dump: Program, file: Path) -> None:
        schema = quoted(await self._schema(connection))
        others = await connection.fetch(_OTHERS, schema, OURS)
        database, environment = self._reach({})
        await postgresql_programs.run(
            pg_dump,
            [
                "--format=custom",
                "--no-owner",
                "--no-privileges",
                "--no-tablespaces",
                "--no-comments",
                "--no-security-labels",
                "--no-password",
                f"--snapshot={await connection.fetchval('SELECT pg_export_snapshot()')}",
                f"--schema={schema}",
                *(f"--exclude-table={schema}.{quoted(other['relname'])}" for other in others),
                f"--file={file}",
                f"--dbname={database}",
            ],
            environment,
        )

    async def restore(
        self,
        folder: Path,
        *,
        replace: bool,
        programs: Path | None = None,
        progress: Progress | None = None,
    ) -> RestoreReport:
        """See `backups.Backups`."""
        manifest = read_manifest(folder, "postgresql")
        await in_thread(lambda watcher: take(folder, [DUMP], watcher.stop), progress)
        async with (
            self._connection() as connection,
            postgresql_schema.migration_lock(connection, self._setup.place),
        ):
            server = connection.get_server_version().major
            pg_restore = await postgresql_programs.find("pg_restore", programs, server)
            _check_restore(pg_restore, server, manifest)
            await self._check_schema(connection, manifest)
            holds_records = await self._make_room(connection, manifest, replace=replace)
            psql = await postgresql_programs.find("psql", programs, pg_restore.major)
            await self._restore(connection, folder / DUMP, pg_restore, psql, clean=holds_records)
            counts = await _counts(connection, await self._schema(connection))
        if counts != manifest.counts:
            raise TransferError(
                f"{self._setup.place} does not hold as many rows as the backup after the restore: "
                "others have written to it meanwhile. Stop them, and restore again with --replace."
            )
        return RestoreReport(
            location=self._setup.place,
            revision=manifest.revision,
            created_at=manifest.created_at,
            counts=counts,
            kept=None,
        )

    async def _check_schema(self, connection: Any, manifest: Manifest) -> None:
        """See that the names in the dump mean the same here, and make the extension."""
        tenant = self._settings.postgres_schema
        if tenant is not None:
            await postgresql_schema.create_schema(connection, tenant)
        schema = await self._schema(connection)
        wanted = manifest.details["schema"]
        if schema != wanted:
            raise TransferError(
                f"The backup is of the schema {wanted!r:.80} and {self._setup.place} is used with "
                f"{schema!r:.80}; set postgres_schema to the first and restore, then `paracle meta "
                "copy` moves everything."
            )
        wanted = manifest.details["vector_schema"]
        if wanted is None:
            return
        await postgresql_schema.create_extension(connection, self._setup.place, tenant)
        state = await postgresql_schema.read_state(connection, self._settings, None)
        if state.extension_schema != wanted:
            raise TransferError(
                f"pgvector is in the schema {wanted!r:.80} in the backup and in "
                f"{state.extension_schema!r:.80} at {self._setup.place}, so its names differ. Have "
                "a DBA move it: ALTER EXTENSION vector SET SCHEMA."
            )

    async def _make_room(self, connection: Any, manifest: Manifest, *, replace: bool) -> bool:
        """Drop tables that hold no records, and return whether there are some that do."""
        schema = await self._schema(connection)
        place = quoted(schema)
        async with connection.transaction():
            held = [f"{place}.{row[0]}" for row in await connection.fetch(_HELD, place, OURS)]
            if not held:
                return False
            if not any((await _counts(connection, schema)).values()):
                await connection.execute(f"LOCK TABLE {', '.join(held)} IN ACCESS EXCLUSIVE MODE")
            # Anew, now that nobody can write.
            if not any((await _counts(connection, schema)).values()):
                await connection.execute(f"DROP TABLE {', '.join(held)}")
                for name in OUR_FUNCTIONS:
                    await connection.execute(f"DROP FUNCTION IF EXISTS {place}.{name}() CASCADE")
                return False
            if not replace:
                raise TransferError(
                    f"{self._setup.place} holds records already; restore into an empty database, "
                    "or, to put the backup in their place, with --replace (in Python, "
                    "replace=True). Make a backup of them before."
                )
            revision = await connection.fetchval(f"SELECT version_num FROM {place}.{VERSION_TABLE}")
            if revision != manifest.revision:
                raise TransferError(
                    f"{self._setup.place} is at revision {revision!r:.40} and the backup at "
                    f"{manifest.revision!r:.40}, so its tables cannot take their place; restore "
                    "into an empty database."
                )
            for name in COLLECTIONS:
                # Of a change of model, which the backup knows nothing of.
                await connection.execute(
                    f"DROP FUNCTION IF EXISTS {place}.{name}_new_embedding() CASCADE"
                )
            return True

    async def _restore(
        self,
        connection: Any,
        dump: Path,
        pg_restore: Program,
        psql: Program,
        *,
        clean: bool,
    ) -> None:
        contents = await postgresql_programs.run(pg_restore, ["--list", str(dump)], {})
        schema = await self._schema(connection)
        memory = await connection.fetchval(
            "SELECT pg_size_bytes(current_setting('maintenance_work_mem')) < pg_size_bytes($1)",
            BUILD_MEMORY,
        )
        server_settings = (
            # As for every other index of vectors: see `provision.create_index`.
            {"maintenance_work_mem": BUILD_MEMORY, "max_parallel_maintenance_workers": "0"}
            if memory
            else {}
        )
        database, environment = self._reach(server_settings)
        with _file(_ours(contents, schema)) as wanted:
            await postgresql_programs.run_script(
                pg_restore,
                [
                    "--file=-",
                    "--no-owner",
                    "--no-privileges",
                    "--no-tablespaces",
                    *(["--clean", "--if-exists"] if clean else []),
                    f"--use-list={wanted}",
                    str(dump),
                ],
                psql,
                [
                    "--no-psqlrc",
                    "--quiet",
                    "--set=ON_ERROR_STOP=1",
                    "--no-password",
                    f"--dbname={database}",
                ],
                environment,
                last=STILL_HERE.format(pid=connection.get_server_pid()).encode(),
                without=TIMEOUT if connection.get_server_version().major < TIMEOUT_SINCE else None,
            )

    async def _schema(self, connection: Any) -> str:
        schema: str = self._settings.postgres_schema or await connection.fetchval(
            "SELECT current_schema()"
        )
        return schema

    def _reach(self, server_settings: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        return postgresql_programs.connection(
            self._settings, self._setup.migration_url, server_settings
        )

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        with self._setup.translated():
            connection = await self._setup.connect()
            try:
                yield connection
            finally:
                await connection.close(timeout=self._settings.connect_timeout)


def _check_dump(pg_dump: Program, server: int) -> None:
    if pg_dump.major < server:
        raise TransferError(
            f"pg_dump is of version {pg_dump.major} and the server is PostgreSQL {server}, which "
            f"it cannot read. {postgresql_programs.to_install(server)}"
        )


def _check_restore(pg_restore: Program, server: int, manifest: Manifest) -> None:
    if server < manifest.details["server"]:
        raise TransferError(
            f"The backup is of PostgreSQL {manifest.details['server']} and the server is "
            f"PostgreSQL {server}; restore it into a newer one, then `paracle meta copy` moves "
            "everything."
        )
    if pg_restore.major < manifest.details["pg_dump"]:
        raise TransferError(
            f"pg_restore is of version {pg_restore.major} and cannot read what pg_dump "
            f"{manifest.details['pg_dump']} has written. "
            f"{postgresql_programs.to_install(manifest.details['pg_dump'])}"
        )


async def _counts(connection: Any, schema: str) -> dict[str, int]:
    place = quoted(schema)
    held = {row[0] for row in await connection.fetch(_HELD, place, OURS)}
    return {
        table.name: await connection.fetchval(f"SELECT count(*) FROM {place}.{table.name}")
        for table in TABLES
        if table.name in held
    }


def _ours(contents: str, schema: str) -> str:
    """Return the lines of a dump's list of contents that are about our tables and functions."""
    functions = "|".join(OUR_FUNCTIONS)
    wanted = re.compile(
        rf"\d+; \d+ \d+ (?:(?:{'|'.join(KINDS)}) {re.escape(schema)} "
        rf"|FUNCTION {re.escape(schema)} (?:{functions})\(\) )"
    )
    return "".join(f"{line}\n" for line in contents.splitlines() if wanted.match(line))


@contextlib.contextmanager
def _file(text: str) -> Iterator[str]:
    """Lend the name of a file with a text, which is deleted at the end."""
    descriptor, name = tempfile.mkstemp(prefix="paracle-meta-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        yield name
    finally:
        Path(name).unlink()
