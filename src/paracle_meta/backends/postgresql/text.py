"""Search by words on PostgreSQL: terms in a tsvector, found by a GIN index, ranked by BM25.

Beside each collection stand two tables. ``<name>_terms`` has the terms of each record. A trigger
puts the id of a record into ``<name>_unread`` when its text is written, by whomever; it leaves when
the terms have been taken over, which a writer of this package does in its own transaction.

Whoever takes over terms locks the record first and everything else after it, as the cascade of a
delete does, so that none waits for the other in a circle. Under that lock no writer can change the
text between reading it and forgetting the id.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from paracle_meta.backends.terms import (
    INDEXED_BYTES,
    LEVELS,
    SCORE_STEPS,
    document_terms,
    query_terms,
    searched_text,
)
from paracle_meta.schema import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.filters import Condition
    from paracle_meta.schema import Table

BATCH: Final = 100
"""Records whose terms are taken over in one transaction, which writers of them wait for."""

INLINE_CHARACTERS: Final = 20_000
"""Text whose terms are made at once, in about 4 ms; more goes to a thread."""

COUNTED_ROWS: Final = 10_000
"""Up to so many records, count and mean length are read for each search: it takes 2 ms."""

EXTENT_SECONDS: Final = 60.0
"""How long the count and mean length of a larger collection are kept.

They enter the score by a logarithm and a ratio: that they are some percent off changes nothing
that could be seen.
"""

_PLANNING: Final = (
    # It prices the comparison with a long text as if it were free, and would read all of them.
    "SET LOCAL enable_seqscan = off;"
    # A plan that was kept from before would stay.
    "SET LOCAL plan_cache_mode = force_custom_plan;"
    # Compiling takes longer than the search.
    "SET LOCAL jit = off"
)


class Words(NamedTuple):
    """The terms of one record as they are stored.

    Attributes:
        record_id: Of which one.
        lexemes: Each term, followed by ``_2``, ``_4`` and ``_8`` once more for each level of its
            frequency that it reaches, with spaces between: as one text, since sending 100,000
            separately would hold the event loop for 0.1 s.
        length: The sum of the levels.
    """

    record_id: str
    lexemes: str
    length: int


@dataclass(frozen=True, slots=True)
class Extent:
    """How large a collection is.

    Attributes:
        rows: Its records.
        mean_length: Of their texts; 1 where there is none, as it divides.
        read_at: When that was read, by `time.monotonic`.
    """

    rows: int
    mean_length: float
    read_at: float


async def words_of(table: Table[Any], rows: Sequence[Mapping[str, Any]]) -> list[Words]:
    """Return the words of records, each given by its columns."""
    texts = [(row["id"], searched_text(table, row)) for row in rows]
    if sum(len(text) for _, text in texts) <= INLINE_CHARACTERS:
        return _all_words(texts)
    return await asyncio.to_thread(_all_words, texts)


def _all_words(texts: Iterable[tuple[str, str]]) -> list[Words]:
    words = []
    for record_id, text in texts:
        terms = document_terms(text)
        words.append(Words(record_id, " ".join(_lexemes(terms)), sum(terms.values())))
    return words


def _lexemes(terms: Mapping[str, int]) -> list[str]:
    return [
        term if level == 1 else f"{term}_{level}"
        for term, frequency in terms.items()
        for level in LEVELS
        if level <= frequency
    ]


async def terms_of_query(text: str) -> list[str]:
    """Return the terms to look for."""
    if len(text) <= INLINE_CHARACTERS:
        return query_terms(text)
    return await asyncio.to_thread(query_terms, text)


async def store(table: Table[Any], words: Sequence[Words], connection: Any) -> None:
    """Store the words of records that the caller's transaction has locked, or has inserted."""
    name = table.name
    await connection.executemany(
        f"WITH taken AS (INSERT INTO {name}_terms (id, terms, length)"
        " VALUES ($1, array_to_tsvector(string_to_array($2, ' ')), $3)"
        " ON CONFLICT (id) DO UPDATE SET terms = excluded.terms, length = excluded.length)"
        f" DELETE FROM {name}_unread WHERE id = $1",
        words,
    )


async def store_many(table: Table[Any], words: Sequence[Words], connection: Any) -> None:
    """Do what `store` does for many records, no two with the same id, in one statement."""
    name = table.name
    ids, lexemes, lengths = map(list, zip(*words, strict=True))
    await connection.execute(
        f"WITH taken AS (INSERT INTO {name}_terms (id, terms, length)"
        " SELECT id, array_to_tsvector(string_to_array(lexemes, ' ')), length"
        " FROM unnest($1::text[], $2::text[], $3::int[]) AS new (id, lexemes, length)"
        " ON CONFLICT (id) DO UPDATE SET terms = excluded.terms, length = excluded.length)"
        f" DELETE FROM {name}_unread WHERE id = ANY($1)",
        ids,
        lexemes,
        lengths,
    )


async def take_over(table: Table[Any], connection: Any) -> None:
    """Store the words of all records whose text was written by others.

    The id of a record that was deleted is gone with it.
    """
    unread = await connection.fetch(f"SELECT id FROM {table.name}_unread ORDER BY id")
    for first in range(0, len(unread), BATCH):
        async with connection.transaction():
            ids = [row["id"] for row in unread[first : first + BATCH]]
            await _take_over(table, ids, connection)


async def _take_over(table: Table[Any], ids: list[str], connection: Any) -> None:
    # What plain SQL has stored may be longer than what is searched, by far.
    texts = [
        name if column.kind is Kind.TAGS else f"left({name}, {INDEXED_BYTES}) AS {name}"
        for name in table.searched
        if (column := table.column(name)) is not None
    ]
    rows = await connection.fetch(
        f"SELECT id, {', '.join(texts)} FROM {table.name}"
        " WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE",
        ids,
    )
    # Whoever was waited for may have taken over the words itself.
    unread = await connection.fetch(f"SELECT id FROM {table.name}_unread WHERE id = ANY($1)", ids)
    wanted = {row["id"] for row in unread}
    await store(table, await words_of(table, [r for r in rows if r["id"] in wanted]), connection)


class TextSearch:
    """Ranks the records of one open database by the words that they share with a query."""

    def __init__(self) -> None:
        self._extents: dict[str, Extent] = {}

    async def scores(
        self,
        statements: TableStatements[Any],
        terms: Sequence[str],
        conditions: Sequence[Condition],
        limit: int,
        ids: Sequence[str],
        connection: Any,
    ) -> dict[str, float]:
        """Return scores by id, best first, ties by id.

        The score is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009)
        with the constants of SQLite's FTS5: k1 = 1.2, b = 0.75, and an inverse document frequency
        that is at least 1e-6. It is of the whole collection, whatever the conditions.

        Args:
            statements: Of the collection.
            terms: Those of the query.
            conditions: All must hold for the best ones.
            limit: How many of the best ones.
            ids: Of further records whose score is wanted, where they have one of the terms.
            connection: In a transaction, whose planner settings are changed.
        """
        if not terms:
            return {}
        await connection.execute(_PLANNING)
        extent = await self._extent(statements.table, connection)
        asked = [
            (f"'{term}'" if level == 1 else f"'{term}_{level}'", n, float(below), float(level))
            for n, term in enumerate(terms)
            for below, level in zip((0, *LEVELS), LEVELS, strict=False)
        ]
        lexemes, positions, below, levels = map(list, zip(*asked, strict=True))
        sql, parameters = _search(statements, conditions)
        rows = await connection.fetch(
            sql,
            lexemes,
            positions,
            below,
            levels,
            float(extent.rows),
            extent.mean_length,
            limit,
            list(ids),
            *parameters,
        )
        return {row["id"]: row["score"] for row in rows}

    async def _extent(self, table: Table[Any], connection: Any) -> Extent:
        known = self._extents.get(table.name)
        now = time.monotonic()
        if known is not None and known.rows > COUNTED_ROWS and now - known.read_at < EXTENT_SECONDS:
            return known
        rows, mean = await connection.fetchrow(
            f"SELECT count(*), avg(length)::float8 FROM {table.name}_terms"
        )
        extent = self._extents[table.name] = Extent(rows, mean or 1.0, now)
        return extent


def _search(
    statements: TableStatements[Any], conditions: Sequence[Condition]
) -> tuple[str, list[Any]]:
    """Return the statement and its parameters from the ninth on.

    Each lexeme is one scan of the index, and the tsvector itself is never read, so long texts cost
    no more than short ones. A lexeme adds the step from the level below ($3) to its own ($4).
    """
    name = statements.table.name
    tests, parameters = statements.tests(conditions, start=9)
    # Not joined: the names in the tests would be ambiguous.
    where = f"WHERE id IN (SELECT id FROM {name} WHERE {' AND '.join(tests)})" if tests else ""
    return (
        "WITH hit AS MATERIALIZED ("
        " SELECT q.n, q.below, q.level, d.id,"
        " 1.2::float8 * (0.25::float8 + 0.75::float8 * d.length / $6::float8) AS k"
        " FROM unnest($1::text[]::tsquery[], $2::int[], $3::float8[], $4::float8[])"
        " AS q (lexeme, n, below, level)"
        f" CROSS JOIN LATERAL (SELECT id, length FROM {name}_terms"
        " WHERE terms @@ q.lexeme OFFSET 0) AS d"
        "), frequency AS ("
        # The count may be older than what is found, but no logarithm may be of a negative number.
        " SELECT n, greatest(1e-6::float8, ln((greatest($5::float8, count(*)) - count(*) + 0.5)"
        " / (count(*) + 0.5))) AS idf"
        " FROM hit WHERE below = 0 GROUP BY n"
        "), scored AS MATERIALIZED ("
        f" SELECT id, round({SCORE_STEPS}::float8"
        " * sum(idf * 2.2::float8 * (level / (level + k) - below / (below + k))))"
        f" / {SCORE_STEPS}::float8 AS score"
        " FROM hit JOIN frequency USING (n) GROUP BY id"
        f"), best AS (SELECT id, score FROM scored {where} ORDER BY score DESC, id LIMIT $7)"
        " SELECT id, score FROM best UNION SELECT id, score FROM scored WHERE id = ANY($8::text[])"
        " ORDER BY score DESC, id",
        parameters,
    )
