"""One history of the tables for both databases.

The revisions are in `versions`; `runner` runs them. Rules for a new one, since it may be stopped
between any two statements and, on SQLite, between any two files, and is then run again:

- every operation is harmless where it has been done already (``if_not_exists`` and the like), also
  where later revisions have been through;
- it spells out what it does and never imports `paracle_meta.schema`, which describes today's
  tables and not those of the day when the revision was written;
- it takes ``op`` as an argument. Alembic's global of that name would be shared by all threads.

Nothing heavy is imported here: whoever only compares a stamp with `HEAD` needs no Alembic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from paracle_meta.exceptions import MigrationError

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD: Final = "0006"
"""The newest revision."""

VERSION_TABLE: Final = "paracle_meta_version"
"""The table with the stamp, one row with one column ``version_num``, in each SQL schema."""


def refuse_newer(stamps: Iterable[str | None]) -> None:
    """Raise MigrationError where a stamp is of a newer version of this package.

    The revisions are numbered, so that this is known without loading them.
    """
    newer = [stamp for stamp in stamps if stamp is not None and stamp > HEAD]
    if newer:
        raise MigrationError(
            f"The tables are at revision {newer[0]!r}, which this version does not know: "
            "they were made by a newer paracle_meta. Upgrade the package."
        )
