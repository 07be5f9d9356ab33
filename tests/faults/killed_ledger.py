"""What a writer was told is stored, and whether it is."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from tests.faults.places import NAMES, attached

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS: Final = {
    "generations": "name",
    "templates": "usage_count",
    "feedback": "rating",
    "costs": "input_tokens",
    "memory": "value",
    "best_practices": "title",
}
"""The column of each table that a writer counts up by one with every update."""

ORPHANS: Final = "SELECT id FROM feedback WHERE generation_id NOT IN (SELECT id FROM generations)"

SOURCES: Final = (
    "SELECT id FROM templates WHERE source IS NOT NULL"
    " AND source NOT IN (SELECT 'generation:' || id FROM generations)"
)

PAIRS: Final = {"generations": "gen-pair-", "feedback": "fb-pair-", "memory": "mem-pair-"}
"""How the ids begin of the rows that a transaction over three files writes, one in each."""


class Ledger:
    """What was acknowledged, by the lines of `killed_writer`."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, int]] = {name: {} for name in NAMES}
        self.gone: dict[str, set[str]] = {name: set() for name in NAMES}

    def take(self, line: list[Any]) -> None:
        """Take a line in."""
        match line:
            case ["there", table, record_id, version]:
                self.there[table][record_id] = max(
                    version, self.there[table].get(record_id, version)
                )
            case ["going", table, record_id]:
                del self.there[table][record_id]
            case ["gone", table, record_id]:
                self.gone[table].add(record_id)
            case _:
                raise ValueError(line)

    @property
    def rows(self) -> int:
        """Rows that must be there."""
        return sum(map(len, self.there.values()))

    @property
    def deleted(self) -> int:
        """Rows that must not be there."""
        return sum(map(len, self.gone.values()))

    def lost(self, folder: Path, *, unanswered: int = 1) -> list[str]:
        """Return what is not as it was acknowledged, in words.

        Args:
            folder: Of the six files.
            unanswered: How many updates of one row may have been made and never acknowledged.
        """
        found = []
        with closing(attached(folder)) as connection:
            for name in NAMES:
                stored = dict(
                    connection.execute(f"SELECT id, CAST({VERSIONS[name]} AS INTEGER) FROM {name}")
                )
                for record_id, version in self.there[name].items():
                    if record_id not in stored:
                        found.append(f"{name}: {record_id} is lost")
                    elif not version <= stored[record_id] <= version + unanswered:
                        found.append(
                            f"{name}: {record_id} is at {stored[record_id]}, acknowledged {version}"
                        )
                found += [
                    f"{name}: {record_id} is back" for record_id in self.gone[name] & stored.keys()
                ]
            found += [f"{row[0]} has no generation" for row in connection.execute(ORPHANS)]
            found += [f"{row[0]} has no source" for row in connection.execute(SOURCES)]
        return found


def halves(folder: Path) -> set[str]:
    """Return the transactions over several files that are there in part, by their names."""
    with closing(attached(folder)) as connection:
        parts = [
            {
                row[0].removeprefix(start)
                for row in connection.execute(f"SELECT id FROM {name} WHERE id LIKE '{start}%'")
            }
            for name, start in PAIRS.items()
        ]
    return set.union(*parts) - set.intersection(*parts)
