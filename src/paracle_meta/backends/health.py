"""What a database must do to be looked after: say what is wrong with it, and mend some of that.

Unlike everything else here it works on a database that cannot be opened: one that is damaged, not
migrated, or of a newer version. Looking changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from paracle_meta.schema import TABLES, referencing

if TYPE_CHECKING:
    from paracle_meta.backends.base import DatabaseStatus
    from paracle_meta.schema import Column, Table

Severity: TypeAlias = Literal["error", "warning"]
"""An error loses records, finds the wrong ones, or fails; a warning may come to that, or is slow.
"""

Remedy: TypeAlias = Literal["migrate", "index", "embed", "set aside", "own"]
"""What mends a finding: a migration, making the index anew, embedding what has no vector, writing
records into a file and deleting them, or `Health.mend`.
"""


NAMED: Final = 5
"""Most things that a finding names, which is read in a line."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not well.

    Attributes:
        name: Which one it is, for programs, such as ``orphaned-feedback``; it never changes.
        severity: ``error`` or ``warning``.
        where: The table, file, folder or library that it is about.
        what: What is wrong, in a sentence; no text of a record is in it.
        repair: What to do about it, in a sentence.
        count: How many there are of it.
        remedy: How `paracle_meta.health.examine` mends it when it is told to; None where only the
            one who reads this can.
        fixed: Whether it was mended.
        result: What came of mending it, or why that failed; None where it was not tried.
    """

    name: str
    severity: Severity
    where: str
    what: str
    repair: str
    count: int = 1
    remedy: Remedy | None = None
    fixed: bool = False
    result: str | None = None

    @property
    def fixable(self) -> bool:
        """Whether `paracle meta doctor --fix` mends it."""
        return self.remedy is not None


@dataclass(frozen=True, slots=True)
class Examination:
    """What a look at a database found.

    Attributes:
        findings: What is not well.
        status: The state of the database; None where its tables cannot be read as they are.
    """

    findings: list[Finding]
    status: DatabaseStatus | None


class Health(Protocol):
    """Looks after one database, which need not be open, exist or be migrated."""

    async def examine(self) -> Examination:
        """Return what is not well, in what belongs to this kind of database alone.

        What `DatabaseStatus` tells (revisions, models, records without a vector) is left to the
        caller.

        Raises:
            DatabaseConnectionError: The database cannot be reached.
            DatabaseBusyError: Another process held a lock for longer than `busy_timeout`.
            ConfigurationError: The server is too old.
        """

    async def mend(self, finding: Finding) -> None:
        """Mend a finding whose remedy is ``own``.

        Raises:
            DatabaseError: The database did not let it happen.
            StorageError: The files did not.
        """


@dataclass(frozen=True, slots=True)
class Orphaned:
    """SQL about the rows of a table that refer to records that are not stored.

    Attributes:
        count: Counts them.
        ids: Returns their ids.
        delete: Deletes the one whose id is ``:id``, if it is one of them.
    """

    count: str
    ids: str
    delete: str


def _orphaned(table: Table[Any], child: Table[Any], column: Column) -> Orphaned:
    rows = (
        f"{child.name} WHERE NOT EXISTS"
        f" (SELECT 1 FROM {table.name} WHERE {table.name}.id = {child.name}.{column.name})"
    )
    return Orphaned(
        count=f"SELECT count(*) FROM {rows}",
        ids=f"SELECT id FROM {rows} ORDER BY id",
        delete=f"DELETE FROM {rows} AND id = :id",
    )


ORPHANED: Final = {
    child.name: _orphaned(table, child, column)
    for table in TABLES
    for child, column in referencing(table)
}
"""By the tables whose rows refer to others."""


def orphans(table: str, count: int) -> Finding:
    """Return the finding that rows refer to records that are not stored."""
    return Finding(
        name=f"orphaned-{table}",
        severity="error",
        where=table,
        what=f"{count} of {table} are about a record that is not stored; only another program "
        "can have written or left them.",
        repair="Bring the records back (`paracle meta import`), or let `paracle meta doctor --fix` "
        "write these into a file that `paracle meta import` takes, and delete them here.",
        count=count,
        remedy="set aside",
    )


def broken_vectors(table: str, count: int) -> Finding:
    """Return the finding that stored vectors cannot be compared with others of their model."""
    return Finding(
        name="broken-vectors",
        severity="error",
        where=table,
        what=f"{count} of {table} have a vector without its model, a model without its vector, or "
        "a vector of the wrong length; searches by meaning leave them out, or fail.",
        repair="`paracle meta doctor --fix` takes these vectors away and makes them anew.",
        count=count,
        remedy="own",
    )


def wrong_sums(count: int) -> Finding:
    """Return the finding that the sums of costs are not those of the rows."""
    return Finding(
        name="wrong-sums",
        severity="error",
        where="costs",
        what=f"{count} sums of a day's costs are not those of its rows, so reports are wrong; only "
        "another program can have left them so.",
        repair="`paracle meta doctor --fix` adds up the rows again.",
        count=count,
        remedy="own",
    )


def missing_structure(names: list[str], command: str) -> Finding:
    """Return the finding that parts of the schema are gone."""
    return Finding(
        name="missing-structure",
        severity="error",
        where=", ".join([*names[:NAMED], *(["..."] if len(names) > NAMED else [])]),
        what="Tables, columns, indexes, triggers or keys that the migrations made are gone.",
        repair=f"Indexes and triggers are made again by `{command}`, after which `paracle meta "
        "index` is due. Where anything else is gone, restore a backup.",
        count=len(names),
    )
