"""Looking after a folder of SQLite files, whatever state it is in."""

from __future__ import annotations

import contextlib
import os
from functools import partial
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
from paracle_meta.backends.sqlite import cost_days
from paracle_meta.backends.sqlite import status as sqlite_status
from paracle_meta.backends.sqlite.backup import INSTRUCTIONS, UNFINISHED
from paracle_meta.backends.sqlite.change import FILLED, empty, filled
from paracle_meta.backends.sqlite.dialect import SqliteDialect
from paracle_meta.backends.sqlite.driver import cannot_open, is_damage, translate
from paracle_meta.backends.sqlite.files import SCHEMAS, SqliteFiles, lock, transaction
from paracle_meta.backends.sqlite.surroundings import examine_surroundings, mend_modes
from paracle_meta.backends.statements import Statements
from paracle_meta.backends.watching import in_thread
from paracle_meta.exceptions import StorageError
from paracle_meta.migrations import HEAD
from paracle_meta.schema import BY_NAME, COLLECTIONS, TABLES, referenced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.watching import Watcher
    from paracle_meta.config import DatabaseSettings
    from paracle_meta.schema import Table

_BROKEN: Final = (
    "(embedding IS NULL) <> (embedding_model IS NULL) OR typeof(embedding) NOT IN ('null', 'blob')"
    " OR length(embedding) % 4 <> 0 OR (embedding_model = ?1 AND length(embedding) <> ?2)"
)
"""Whether the vector of a row is none; ?1 is the configured model and ?2 the bytes of a vector."""


class SqliteHealth:
    """See `health.Health`, which is the contract of every method.

    The work is done in a thread with connections of its own.
    """

    def __init__(self, settings: DatabaseSettings, space: VectorSpace | None) -> None:
        """Prepare; nothing is looked at yet.

        Args:
            settings: Where the files are.
            space: The vectors that are stored, or None for none.
        """
        self._settings = settings
        self._space = space
        self._files = SqliteFiles(
            settings.sqlite_folder,
            journal_mode=settings.journal_mode,
            busy_timeout=settings.busy_timeout,
        )
        self._statements = Statements(SqliteDialect())

    async def examine(self) -> Examination:
        """See `health.Health`."""
        return await in_thread(self._examine, None)

    async def mend(self, finding: Finding) -> None:
        """See `health.Health`."""
        await in_thread(partial(self._mend, finding), None)

    # Looking

    def _examine(self, watcher: Watcher) -> Examination:
        files = self._files
        with self._readable():
            missing = files.missing
        if len(missing) == len(TABLES):
            return Examination([], sqlite_status.not_created(files))
        with self._readable():
            findings = list(
                examine_surroundings(
                    files.folder, files.driver.sqlite_version_info, self._settings.journal_mode
                )
            )
        hindrances = [
            *self._unfinished_restore(),
            *(_missing_file(path.name) for path in missing),
        ]
        unsound = list(self._unsound_files(watcher))
        findings += [*hindrances, *unsound]
        # The others are looked at all the same.
        tables = [t for t in TABLES if files.path(t.name).name not in {f.where for f in unsound}]
        if hindrances or not tables:
            return Examination(findings, None)
        with self._connected(watcher) as connection:
            emptied = sqlite_status.emptied(connection, tables)
            findings += [_missing_file(files.path(t.name).name, "empty") for t in emptied]
            tables = [table for table in tables if table not in emptied]
            stamps = sqlite_status.revisions(connection, tables)
            if stamps == {HEAD}:
                gone = self._missing_structure(connection, tables)
                if gone:
                    findings.append(missing_structure(gone, self._migration_again()))
                    return Examination(findings, None)
                findings += self._contents(connection, {table.name for table in tables})
            status = sqlite_status.read(files, self._space is not None, connection, tables)
            return Examination(findings, status)

    def _unfinished_restore(self) -> Iterator[Finding]:
        if (self._files.folder / UNFINISHED).exists():
            yield Finding(
                name="unfinished-restore",
                severity="error",
                where=UNFINISHED,
                what="A restore was killed when it had begun to write, so some files may hold the "
                "backup and some what was there before.",
                repair="`paracle meta doctor --fix`, or any other command, finishes it.",
                remedy="migrate",
            )

    def _unsound_files(self, watcher: Watcher) -> Iterator[Finding]:
        files = self._files
        damaged = files.damaged()
        for table in TABLES:
            path = files.path(table.name)
            if not path.exists():
                continue
            if table.name in damaged:  # Nothing is written to it, as closing it might.
                yield _damaged_file(path.name)
                continue
            try:
                with contextlib.closing(files.connect_to(table.name)) as alone:
                    alone.execute(
                        f"PRAGMA busy_timeout = {int(self._settings.busy_timeout * 1000)}"
                    )
                    alone.set_progress_handler(watcher.stop.is_set, INSTRUCTIONS)
                    # Not quick_check, which does not see that an index lacks rows.
                    (said,) = alone.execute("PRAGMA integrity_check(1)").fetchone()
            except files.driver.Error as error:
                if not (is_damage(error) or cannot_open(error)):
                    watcher.check()
                    translated = translate(error, str(path))
                    if translated is None:
                        raise
                    raise translated from error
                said = str(error)
                if not os.access(path, os.R_OK | os.W_OK):
                    yield _unreadable_file(path.name)
                    continue
            if said != "ok":
                yield _damaged_file(path.name)

    def _missing_structure(self, connection: Any, tables: Sequence[Table[Any]]) -> list[str]:
        """Return what a new database would have and this one has not."""
        with contextlib.closing(self._new_database()) as new:
            wanted, present = _structure(new, tables), _structure(connection, tables)
        gone = wanted - present
        for name in COLLECTIONS:
            # A change of model leaves the index under either name.
            either = {f"{name}.db: {name}{new}_embedding_model_idx" for new in ("", "_new")}
            if either & present:
                gone -= either
        return sorted(gone)

    def _migration_again(self) -> str:
        return (
            f"paracle meta db migrate --sql | (cd {self._files.folder} && sqlite3 generations.db)"
        )

    def _new_database(self) -> Any:
        from paracle_meta.migrations.runner import upgrade_sql

        new = self._files.driver.connect(":memory:", isolation_level=None)
        for place in SCHEMAS.values():
            if place != "main":
                new.execute(f"ATTACH ':memory:' AS {place}")
        new.executescript(upgrade_sql("sqlite", SCHEMAS))
        return new

    def _contents(self, connection: Any, sound: set[str]) -> Iterator[Finding]:
        for table, orphaned in ORPHANED.items():
            columns = BY_NAME[table].columns
            if not {table, *(referenced(c).name for c in columns if c.references)} <= sound:
                continue
            (count,) = connection.execute(orphaned.count).fetchone()
            if count:
                yield orphans(table, count)
        if "costs" in sound and (wrong := cost_days.count_wrong(connection)):
            yield wrong_sums(wrong)
        if self._space is None:
            return
        for name in [name for name in COLLECTIONS if name in sound]:
            (count,) = connection.execute(
                f"SELECT count(*) FROM {name} WHERE {_BROKEN}", self._broken(self._space)
            ).fetchone()
            if count:
                yield broken_vectors(name, count)
            yield from _old_vectors(connection, name)
            if not count:  # Else the index cannot be made.
                yield from self._index(connection, name)

    def _broken(self, space: VectorSpace) -> tuple[str, int]:
        return space.model, 4 * space.dimensions

    def _index(self, connection: Any, name: str) -> Iterator[Finding]:
        # NumPy is loaded where there are vectors to look at.
        from paracle_meta.backends.sqlite.index_health import examine_index

        statements = self._statements.of(COLLECTIONS[name])
        yield from examine_index(connection, statements, self._files.folder / ".index" / name)

    # Mending

    def _mend(self, finding: Finding, watcher: Watcher) -> None:
        if finding.name in ("file-modes", "folder-mode"):
            with self._readable():
                mend_modes(self._files.folder)
            return
        name = finding.where
        with self._connected(watcher) as connection:
            if finding.name == "broken-vectors" and self._space is not None:
                with transaction(connection):
                    lock(connection, COLLECTIONS[name])
                    connection.execute(
                        f"UPDATE {name} SET embedding = NULL, embedding_model = NULL"
                        f" WHERE {_BROKEN}",
                        self._broken(self._space),
                    )
            elif finding.name == "wrong-sums":
                cost_days.make_anew(connection)
            elif finding.name == "old-vectors":
                last = ""
                while ids := filled(COLLECTIONS[name], last, connection):
                    last = ids[-1]
                    empty(COLLECTIONS[name], ids[0], last, connection)
                    watcher.check()
            elif finding.name == "old-index":
                from paracle_meta.backends.sqlite.index_health import remove_old_indexes

                remove_old_indexes(connection, name, self._files.folder / ".index" / name)
            else:
                raise ValueError(f"{finding.name} is mended elsewhere")

    @contextlib.contextmanager
    def _connected(self, watcher: Watcher) -> Iterator[Any]:
        with (
            self._files.translated(),
            contextlib.closing(self._files.connect_to_sound()) as connection,
        ):
            connection.set_progress_handler(watcher.stop.is_set, INSTRUCTIONS)
            try:
                yield connection
            except self._files.driver.OperationalError:
                # That is what a statement raises which was interrupted.
                watcher.check()
                raise

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self._files.folder} cannot be looked at or mended ({error.strerror}); check its "
                "rights, and whose it is."
            ) from error


def _missing_file(name: str, how: str = "gone") -> Finding:
    return Finding(
        name="missing-file",
        severity="error",
        where=name,
        what=f"{name} is {how}, while others are there.",
        repair="Restore a backup (`paracle meta restore`). Without one, `paracle meta db migrate` "
        "makes an empty file in its place.",
    )


def _damaged_file(name: str) -> Finding:
    return Finding(
        name="damaged-file",
        severity="error",
        where=name,
        what=f"{name} is damaged, or is no SQLite database.",
        repair="Restore a backup (`paracle meta restore`). Without one, `.recover` of the sqlite3 "
        "shell saves what can be read.",
    )


def _unreadable_file(name: str) -> Finding:
    return Finding(
        name="unreadable-file",
        severity="error",
        where=name,
        what=f"{name} cannot be opened by this user.",
        repair="Run this as the user whose file it is, or give the file to this one.",
    )


def _structure(connection: Any, tables: Sequence[Table[Any]]) -> set[str]:
    """Return the tables, columns, indexes and triggers of each file by their names."""
    found = set()
    for table in tables:
        place = SCHEMAS[table.name]
        objects = connection.execute(
            f"SELECT name FROM {place}.sqlite_master WHERE name NOT LIKE 'sqlite_%'"
            f" UNION ALL SELECT m.name || '.' || c.name FROM {place}.sqlite_master m,"
            f" pragma_table_info(m.name, '{place}') c WHERE m.type = 'table'"
        )
        found |= {f"{table.name}.db: {name}" for (name,) in objects}
    return found


def _old_vectors(connection: Any, name: str) -> Iterator[Finding]:
    """Yield the finding that a change of model has left the vectors of the former one."""
    columns = connection.execute("SELECT name FROM pragma_table_info(?1)", (name,)).fetchall()
    if ("new_embedding",) not in columns:
        return
    (count,) = connection.execute(
        f"SELECT count(*) FROM {name} WHERE {FILLED}"
        f" AND NOT EXISTS (SELECT 1 FROM {name}_new_model)"
    ).fetchone()
    if count:
        yield Finding(
            name="old-vectors",
            severity="warning",
            where=name,
            what=f"{count} of {name} still have a vector of the model before the last change, "
            "which nothing uses.",
            repair="`paracle meta doctor --fix` removes them.",
            count=count,
            remedy="own",
        )
