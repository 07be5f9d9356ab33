"""The same records in both databases, and what must be left of them after hostile arguments."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from paracle_meta import (
    BestPractice,
    CostRecord,
    Feedback,
    GenerationResult,
    MemoryRepository,
    Template,
)
from paracle_meta.testing.texts import HOSTILE
from tests.contract.test_hostile_filters import SQL, repositories, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from paracle_meta import MetaDatabase
    from tests.faults.places import Place

T = TypeVar("T")

SPELLINGS: Final = (
    *("%", "_", "a%", "%a", r"\%", r"\_", "[a]", "*", "?", ".*", "a\\", "\\\\"),
    *("$.a", "$[0]", "$.*", '"]', '{"a":1}', '["a"]', "{a,b}", '{"a,b"}', "{}", "a,b", '"a"'),
    *(
        "\uff07 OR \uff11\uff1d\uff11",
        "\u02bc",
        "\u2019",
        "\u2019; --",
        "\u0430gent",
        "agent\u200b",
        "AGENT",
        "a\u0301",
        "\u00e1",
    ),
    *("agent ", " agent", "agent\t", "\x85", "\u00a0", "\ufb00", "\u0131", "K", "\u202eagent"),
    *("NULL", "null", "None", "nan", "Infinity", "0", "0x10", "1e3", "-1", "true", "TRUE", "\x7f"),
    *("gen-1", "GEN-1", "gen-%", "gen-_", "gen-1' --", "gen-1\0", "gen-1;", "' || 'gen-1"),
    *("../generations", "generations.db", "file:x?mode=memory", "pg_catalog.pg_class"),
)
"""What means something else to LIKE, GLOB, a JSON path, an array, a file system or an eye."""

STORED: Final = tuple(
    text
    for text in dict.fromkeys(("agent", "a", "Äpfel", *SQL, *SPELLINGS[:48]))
    if text.strip() and "\0" not in text
)
"""Texts that stand in records as well, so that each of them means one and no other."""

hostile = st.one_of(
    texts,
    st.sampled_from(STORED),
    st.sampled_from(SPELLINGS),
    st.sampled_from(HOSTILE),
    st.builds("".join, st.lists(st.sampled_from([*STORED, *SPELLINGS]), max_size=2)),
)

SIGNS: Final = ("DROP TABLE", "OR '1'='1", "OR (1=1", "pg_sleep", "randomblob", "load_extension")
"""Parts of SQL that no statement of this package has."""

LOGGED: Final = re.compile(r"LOG:  (?:execute [^:]*|statement): (.*(?:\n\t.*)*)")
"""A statement in PostgreSQL's log; its parameters follow in an entry of their own."""

FILES: Final = "SELECT type, name, sql FROM {}.sqlite_master ORDER BY type, name"
CATALOGUE: Final = """
SELECT 'class', relname, relkind, pg_get_userbyid(relowner) FROM pg_class
UNION ALL SELECT 'function', proname, prokind, pg_get_userbyid(proowner) FROM pg_proc
UNION ALL SELECT 'role', rolname, 'r', rolsuper::text FROM pg_roles
UNION ALL SELECT 'trigger', tgname, 't', '' FROM pg_trigger
UNION ALL SELECT 'database', datname, 'd', '' FROM pg_database"""


class Stores:
    """One record of each of STORED and of each kind, in a database on SQLite and on PostgreSQL.

    Attributes:
        databases: By name of the backend.
        records: What is stored, by name of the table.
        done: Arguments checked by the last `each`.
        refused: Those of them that were refused as no value at all.
    """

    def __init__(self, sqlite: Place, postgresql: Place) -> None:
        self._places = places = {"SQLite": sqlite, "PostgreSQL": postgresql}
        self._runner = asyncio.Runner()
        self.databases: dict[str, MetaDatabase] = {
            name: place.open(index_in_background=False) for name, place in places.items()
        }
        self.records = _records()
        self.done = self.refused = 0
        server = postgresql.server
        assert server is not None
        # Only the superuser may ask for this.
        server.sql(f"ALTER DATABASE {postgresql.database} SET log_statement = 'all'")
        self._log = server.folder / "log"
        self._log_before = self._log.stat().st_size
        for database in self.databases.values():
            self.run(self._fill(database))
        self._before = self.seen()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop in which the databases are open."""
        return self._runner.run(work)

    async def _fill(self, database: MetaDatabase) -> None:
        every = repositories(database)
        for table, records in self.records.items():
            await every[table].add_many(records)
        for text in STORED:
            await MemoryRepository(database).set(text, text, session_id=text, scope="project")

    def each(
        self,
        times: int,
        strategy: st.SearchStrategy[Any],
        check: Callable[[MetaDatabase, Any], Coroutine[Any, Any, Any]],
    ) -> None:
        """Have so many arguments checked on both databases, which must say the same of each.

        Args:
            times: How many.
            strategy: What they are drawn from.
            check: Returns what the database said, as plain values; asserts what must be so.
        """

        self.done = self.refused = 0

        @settings(
            max_examples=times,
            deadline=None,
            database=None,
            derandomize=True,
            print_blob=True,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def ask_both(argument: Any) -> None:
            answers = {
                name: self.run(check(database, argument))
                for name, database in self.databases.items()
            }
            one, other = answers.values()
            assert one == other, answers
            self.done += 1
            self.refused += one == "refused"

        ask_both()
        assert self.seen() == self._before
        assert self._statements
        assert [text for text in self._statements if any(sign in text for sign in SIGNS)] == []

    def seen(self) -> dict[Any, Any]:
        """Return all rows of all tables, and what else there is in the databases."""
        found: dict[Any, Any] = {}
        for name, place in self._places.items():
            for table in (*self.records, "memory"):
                found[name, table] = sorted(place.rows(f"SELECT * FROM {table}"))
            if place.server is None:
                for table in (*self.records, "memory"):
                    schema = "main" if table == "generations" else table
                    found[name, f"{table} tables"] = place.rows(FILES.format(schema))
                found[name, "files"] = sorted(
                    path.name for path in place.folder.iterdir() if path.suffix in {"", ".db"}
                )
            else:
                found[name, "catalogue"] = sorted(place.rows(CATALOGUE))
        return found

    @property
    def _statements(self) -> set[str]:
        """Every statement that PostgreSQL was sent, without its parameters."""
        with self._log.open("rb") as file:
            file.seek(self._log_before)
            return set(LOGGED.findall(file.read().decode(errors="replace")))

    def close(self) -> None:
        """Close the databases and the loop."""
        for database in self.databases.values():
            self.run(database.close())
        self._runner.close()


def _records() -> dict[str, list[Any]]:
    """One record of each text and kind: the text is its id and stands in its other columns too."""
    records: dict[str, list[Any]] = {}
    for n, text in enumerate(STORED):
        moment = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(hours=n)
        number = len(text) % 11
        both: dict[str, Any] = {"id": text, "created_at": moment, "updated_at": moment}
        named: dict[str, Any] = {"artifact_type": "ab"[number % 2], "name": text, "content": text}
        rated: dict[str, Any] = {"quality_score": number - 0.5 if number else None}
        for table, record in {
            "generations": GenerationResult(
                **both, **named, **rated, description=text, provider="p", tokens_used=number
            ),
            "templates": Template(**both, **named, source=text),
            "feedback": Feedback(**both, generation_id=text, rating=1 + number % 5, comment=text),
            "costs": CostRecord(
                **both, provider=text, model=text, period_start=date(2026, 3, 1 + number)
            ),
            "best_practices": BestPractice(
                **both, category=text, title=text, content=text, tags=[text, "shared"]
            ),
        }.items():
            records.setdefault(table, []).append(record)
    return records
