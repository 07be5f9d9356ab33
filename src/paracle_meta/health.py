"""Whether a database is well, and what to do where it is not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from paracle_meta.backends import create_health
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.backends.health import ORPHANED, Finding
from paracle_meta.exceptions import ParacleMetaError
from paracle_meta.schema import BY_NAME
from paracle_meta.transfer.files import outputs
from paracle_meta.transfer.jsonl import JsonLines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paracle_meta.backends.base import DatabaseStatus, VectorStatus
    from paracle_meta.backends.health import Health
    from paracle_meta.database import MetaDatabase

__all__ = ["Finding", "HealthReport", "examine"]

BATCH: Final = 1_000
"""Records that are written into a file at once, which keeps memory flat."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What was found, and what became of it.

    Attributes:
        findings: In the order in which they were found; those that were fixed stand at the end.
    """

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is left of what was found."""
        return all(finding.fixed for finding in self.findings)


async def examine(db: MetaDatabase, *, fix: bool = False, folder: Path | str = ".") -> HealthReport:
    """Look whether a database is well, and mend what can be mended without asking.

    It need not be open, and nothing is changed unless `fix` says so: not even migrated. All of it
    is read, which takes as long as reading the files or tables once.

    Args:
        db: What to look at.
        fix: Mend what no decision is needed for: run migrations, make an index anew, embed what has
            no vector (by the configured provider), correct the rights of files, update pgvector,
            remove old vectors and index files. Records that refer to others that are not stored are
            written into a file before they are deleted.
        folder: Where that file goes, ``orphaned-feedback-<time>.jsonl``, which `import_file` takes.

    Raises:
        DatabaseConnectionError: The database cannot be reached.
        DatabaseBusyError: Another process held a lock for longer than `busy_timeout`.
        ConfigurationError: The server is too old, or the embedding provider lacks a setting.
    """
    doctor = _Doctor(db, Path(folder))
    found = await doctor.look()
    tried: dict[tuple[str, str], Finding] = {}
    # What is mended may bring to light what was hidden behind it.
    while todo := [f for f in found if fix and f.fixable and _key(f) not in tried]:
        for finding in todo:
            tried[_key(finding)] = dataclasses.replace(finding, result=await doctor.mended(finding))
        found = await doctor.look()
    left = {_key(finding) for finding in found}
    return HealthReport(
        (
            *(
                dataclasses.replace(finding, result=tried[_key(finding)].result)
                if _key(finding) in tried
                else finding
                for finding in found
            ),
            # Whether it is gone says the second look, and not whoever mended it.
            *(
                dataclasses.replace(finding, fixed=True)
                for key, finding in tried.items()
                if key not in left
            ),
        )
    )


def _key(finding: Finding) -> tuple[str, str]:
    return finding.name, finding.where


class _Doctor:
    def __init__(self, db: MetaDatabase, folder: Path) -> None:
        self._db = db
        self._folder = folder

    async def look(self) -> list[Finding]:
        """Return all that is not well."""
        examination = await self._health().examine()
        findings = list(examination.findings)
        status = examination.status
        if status is not None:
            findings += _schema(status)
            for name, vectors in status.vectors.items():
                findings += _vectors(name, vectors, self._db.embeddings().model_id)
        return findings

    def _health(self) -> Health:
        # Not by the open database: opening it would migrate it, or fail on what is to be found.
        space = None
        if self._db.settings.enable_vectors:
            provider = self._db.embeddings()
            space = VectorSpace(provider.model_id, provider.dimensions)
        return create_health(self._db.settings, space)

    async def mended(self, finding: Finding) -> str | None:
        """Mend what was found; return what came of it, or why that failed."""
        try:
            return await self._mend(finding)
        except ParacleMetaError as error:
            return str(error)

    async def _mend(self, finding: Finding) -> str | None:
        match finding.remedy:
            case "migrate":
                await self._db.migrate()
            case "index":
                await self._db.build_index(finding.where)
            case "embed":
                report = (await self._db.embed_missing(finding.where))[finding.where]
                if report.failed:
                    return f"{report.embedded} embedded; the provider refused {report.failed}."
            case "set aside":
                return await self._set_aside(finding.where)
            case "own":
                await self._health().mend(finding)
            case None:
                raise ValueError(f"{finding.name} cannot be mended here")
        return None

    async def _set_aside(self, name: str) -> str:
        """Write rows that refer to none into a file, and then delete them."""
        moment = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        file = self._folder / f"orphaned-{name}-{moment}.jsonl"
        table = BY_NAME[name]
        async with self._db.session() as session:
            ids = list(await session.scalars(ORPHANED[name].ids))
        backend = await self._db.backend()
        # With replacements, so that a value that nobody can read holds up nothing.
        async with backend.bulk.snapshot(repair=True) as snapshot:
            with outputs(file, [name]) as files:
                for start in range(0, len(ids), BATCH):
                    rows = await snapshot.rows_of(table, ids[start : start + BATCH])
                    files[name].write(JsonLines().rows(table, rows))
        async with self._db.session(write=True) as session:
            for record_id in ids:
                # Unless what it refers to is back by now.
                await session.execute(ORPHANED[name].delete, {"id": record_id})
        return f"{len(ids)} moved into {file}."


def _schema(status: DatabaseStatus) -> Iterator[Finding]:
    if status.revision is None:
        yield Finding(
            name="no-tables",
            severity="error",
            where=status.location,
            what="There is no database yet, or it is gone.",
            repair="`paracle meta db migrate` makes an empty one, and so does the first use; "
            "`paracle meta restore` brings back a backup.",
            remedy="migrate",
        )
    elif status.revision > status.head or (status.revision == status.head and not status.counts):
        yield Finding(
            name="newer-schema",
            severity="error",
            where=status.location,
            what="The tables were made by a newer version of this package.",
            repair="Upgrade the package: pip install --upgrade paracle-meta",
        )
    elif status.revision < status.head:
        yield Finding(
            name="unapplied-migrations",
            severity="error",
            where=status.location,
            what=f"The tables are at revision {status.revision}; this version needs {status.head}.",
            repair="`paracle meta db migrate`",
            remedy="migrate",
        )


def _vectors(name: str, vectors: VectorStatus, model: str) -> Iterator[Finding]:
    others = [other for other in vectors.models if other != model]
    reembed = f"`paracle meta reembed {name}`"
    if len(vectors.models) > 1:
        yield Finding(
            name="mixed-models",
            severity="error",
            where=name,
            what=f"The vectors are of several models: {', '.join(vectors.models)}. They cannot be "
            "compared, so a search by meaning fails.",
            repair=f"{reembed} makes all of them anew with the configured one, {model}.",
            count=len(vectors.models),
        )
    elif others:
        yield Finding(
            name="other-model",
            severity="error",
            where=name,
            what=f"The vectors are of the model {others[0]}, and {model} is configured, so a "
            "search by meaning fails.",
            repair=f"{reembed}, or configure {others[0]} again.",
            count=vectors.embedded,
        )
    if vectors.changing_to is not None:
        yield Finding(
            name="unfinished-change",
            severity="warning",
            where=name,
            what=f"A change to the model {vectors.changing_to} has begun and not ended; "
            f"{vectors.changed} vectors are made.",
            repair=f"Unless `paracle meta reembed` runs just now, {reembed} goes on with it.",
        )
    if vectors.missing:
        yield Finding(
            name="missing-vectors",
            severity="warning",
            where=name,
            what=f"{vectors.missing} of {name} have no vector, so a search by meaning leaves them "
            "out.",
            repair=f"{reembed} makes them too." if others else f"`paracle meta embed {name}`",
            count=vectors.missing,
            remedy=None if others else "embed",
        )
