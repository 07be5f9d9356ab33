"""Write docs/reliability.md from docs/reliability.jsonl, the figures of ``make faults``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

FIGURES: Final = Path("docs/reliability.jsonl")
PAGE: Final = Path("docs/reliability.md")

HEAD: Final = """\
# What this was put through

A store is trusted for what it survived. Everything below was done to the real thing: SQLite files
and PostgreSQL servers as you use them, processes killed by the system (`kill -9`), servers stopped
and cut off, disks that are full or lose what was not synced. There is no simulation in it but one:
for a power cut, the calls by which SQLite writes are recorded, and the files are put together as a
disk may have them that was cut off at some point.

**Acknowledged** means that the call has returned. A row is **lost** when its call had returned and
it is not there afterwards, or is not what it was.

{table}

Times are what one run saw, on 2 processors that were shared with the rest of the run. The clients
of both databases had them for themselves.

"""

TAIL: Final = """\
## What is not promised

- On SQLite, a session of your own that writes several kinds may be kept in part after a crash: it
  is atomic for each kind. `journal_mode: truncate` makes it atomic as a whole
  ([why](decisions/0001-sqlite-six-files.md)). No call of a repository writes more than one.
- SQLite has no checksums of rows: a disk that changes a letter inside a text is not noticed by
  reading it. `paracle meta doctor` and every backup check the structure of the files.
- As long as readers of SQLite overlap without a gap, its log (`-wal`) cannot be cut back and grows.
- When a connection to PostgreSQL breaks during a COMMIT, nobody can know whether it was done. Where
  repeating the call cannot do it twice, it is repeated; else the error says so, and repeating an
  `add` of the same record is always safe.
- A disk that says it has written and has not is beyond any database.

## What others test

| system | what its makers say they do |
| --- | --- |
| [SQLite](https://sqlite.org/testing.html) | Crash and power loss by a file system that drops or \
reorders unsynced writes, I/O errors and failing memory at every call, 100% of branches, fuzzed \
SQL and damaged files. What is ours stands on that, and adds six files, an index and processes. |
| [PostgreSQL](https://www.postgresql.org/docs/current/regress.html) | Suites for recovery, \
replication and isolation with real servers, on a farm of many systems. |
| [FoundationDB](https://apple.github.io/foundationdb/testing.html) | Whole clusters in a \
deterministic simulation with failing machines, disks and networks: they estimate a trillion \
hours of a processor. Nothing here comes near. |
| [LangGraph](https://pypi.org/project/langgraph-checkpoint-conformance/) | A conformance suite \
that anybody's store can be put through: round trips, metadata, isolation of names. Ours is \
`paracle_meta.testing` ([how](how-to/test-your-code.md)); both databases pass the same one. Faults \
are not part of theirs. |

## Do it again

```console
make faults
```

takes about an hour and writes this page; `make test` does the same things less often. Whether these
tests can fail was tried by breaking the code that they are about.
"""


def page(lines: list[dict[str, Any]]) -> str:
    """Return the page for the lines that `Faults.note` has written."""
    columns = ("what", "where", "times", "lost", "seen")
    rows = sorted(
        ([line[column].replace("|", "\\|") for column in columns] for line in lines),
        key=lambda row: (row[0].casefold(), row[1]),
    )
    head = [["what was done", "where", "how often", "lost", "seen"], ["---"] * len(columns)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [*head, *rows])
    return HEAD.format(table=table) + TAIL


def main() -> None:
    """Write the page."""
    lines = [json.loads(line) for line in FIGURES.read_text("utf-8").splitlines()]
    if not lines:
        sys.exit(f"{FIGURES} is empty")
    PAGE.write_text(page(lines), "utf-8")


if __name__ == "__main__":
    main()
