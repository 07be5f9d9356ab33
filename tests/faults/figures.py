"""What the tests of faults did, how often, and what was lost: the lines of docs/reliability.md."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How much is done, and where it is noted.

    Attributes:
        long: Whether this is the long form, of `make faults`.
        file: Where the figures go, one JSON object a line; None to keep none.
    """

    long: bool
    file: Path | None

    def times(self, short: T, long: T) -> T:
        """Return how often (or how long) in this form: what CI has time for, or the whole."""
        return long if self.long else short

    def note(self, what: str, *, where: str, times: str, lost: str, seen: str = "") -> None:
        """Keep a line of the table. Call it behind the last assertion of a test.

        Args:
            what: What was done, in a few plain words: "Writer killed (kill -9) at a random moment".
            where: "SQLite", "PostgreSQL" or "both".
            times: How often, with its unit: "1,000 kills, 41,893 acknowledged rows".
            lost: What was lost, as counted: "0 rows".
            seen: Other figures: "slowest answer after a restart 1.2 s".
        """
        if self.file is None:
            return
        line = {"what": what, "where": where, "times": times, "lost": lost, "seen": seen}
        # One write to a file opened for appending: several processes of tests write at once.
        file = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, json.dumps(line, ensure_ascii=False).encode() + b"\n")
        finally:
            os.close(file)
