"""Search by words in SQLite: the terms of each record in an FTS5 table, ranked by its BM25.

Beside each collection stand three tables. ``<name>_terms`` has the terms under numbers that
``<name>_documents`` gives to the ids. Triggers put the id of a record into ``<name>_unread`` when
it is written or deleted, by whomever; it leaves when the terms have been taken over. A writer of
this package does that for its own records in its own transaction, and a search first takes over
what is left: a record that was committed before is found by its present words.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.backends.sqlite.files import transaction
from paracle_meta.backends.terms import (
    INDEXED_BYTES,
    SCORE_STEPS,
    document_terms,
    query_terms,
    searched_text,
)
from paracle_meta.schema import Column, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.filters import Condition
    from paracle_meta.schema import Table

BATCH_ROWS: Final = 1_000
"""Most records whose terms are taken over at once, about 30 ms of one-line texts."""

BATCH_CHARACTERS: Final = 1_000_000
"""Most text taken over at once, give or take one record: 0.2 s for which other writers wait."""


def is_behind(connection: Any, table: Table[Any]) -> bool:
    """Return whether a record was written whose terms have not been taken over."""
    return bool(
        connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table.name}_unread)").fetchone()[0]
    )


def catch_up(connection: Any, table: Table[Any]) -> bool:
    """Take over the terms of some records in a transaction, and return whether some are left."""
    with transaction(connection):
        # The write lock first: what a read would see could be older than what is then written.
        connection.execute(f"DELETE FROM {table.name}_unread WHERE 0")
        _take_over(connection, table, "", ())
        return is_behind(connection, table)


def merge(connection: Any, table: Table[Any]) -> None:
    """Merge the index into one piece, in which nothing is left of what was deleted.

    FTS5 only notes that a term is gone, until the piece that has the note is merged with the one
    that has the term (sqlite.org/fts5.html, "The 'optimize' Command").
    """
    connection.execute(f"INSERT INTO {table.name}_terms ({table.name}_terms) VALUES ('optimize')")


def take_over(connection: Any, table: Table[Any], ids: Sequence[str]) -> None:
    """Take over the terms of records that the caller's transaction has written."""
    for first in range(0, len(ids), BATCH_ROWS):
        batch = json.dumps(ids[first : first + BATCH_ROWS])
        while _take_over(
            connection, table, "WHERE u.id IN (SELECT value FROM json_each(?1))", (batch,)
        ):
            pass


def scores(
    connection: Any,
    statements: TableStatements[Any],
    text: str,
    conditions: Sequence[Condition],
    limit: int,
    ids: Iterable[str] = (),
) -> dict[str, float]:
    """Return BM25 scores by id, best first, ties by id.

    They are of the whole collection, whatever the conditions.

    Args:
        connection: In a transaction.
        statements: Of the collection.
        text: The query.
        conditions: All must hold for the best ones.
        limit: How many of the best ones.
        ids: Of further records whose score is wanted, where they have one of the terms.
    """
    terms = query_terms(text)
    if not terms:
        return {}
    sql, parameters = _search(statements, conditions)
    match = " OR ".join(f'"{term}"' for term in terms)
    rows = connection.execute(sql, [match, limit, json.dumps(list(ids)), *parameters])
    return dict(rows.fetchall())


def _search(
    statements: TableStatements[Any], conditions: Sequence[Condition]
) -> tuple[str, list[Any]]:
    """Return the statement and its parameters from the fourth on."""
    name = statements.table.name
    tests, parameters = statements.tests(conditions, start=4)
    if tests:
        chosen = f"EXISTS (SELECT 1 FROM {name} WHERE id = d.id AND {' AND '.join(tests)})"
    else:
        # Only what reaches the last place is looked up by its number; more than one may.
        chosen = (
            "s.score >= (SELECT min(score) FROM"
            " (SELECT score FROM scored ORDER BY score DESC LIMIT ?2))"
        )
    return (
        # FTS5 gives the better the lower.
        "WITH scored AS MATERIALIZED ("
        f"SELECT rowid AS doc, round(-bm25({name}_terms) * {SCORE_STEPS}) / {SCORE_STEPS} AS score"
        f" FROM {name}_terms"
        f" WHERE {name}_terms MATCH ?1"
        "), best AS ("
        f"SELECT d.id, s.score FROM scored s JOIN {name}_documents d ON d.doc = s.doc"
        f" WHERE {chosen} ORDER BY s.score DESC, d.id LIMIT ?2"
        ") SELECT id, score FROM best UNION"
        f" SELECT d.id, s.score FROM scored s JOIN {name}_documents d ON d.doc = s.doc"
        " WHERE d.id IN (SELECT value FROM json_each(?3))"
        " ORDER BY score DESC, id",
        parameters,
    )


def _take_over(connection: Any, table: Table[Any], where: str, parameters: Sequence[Any]) -> bool:
    """Take over the terms of a batch, and return whether there may be more.

    Reading a text and forgetting its id is one transaction, so no writer comes between.
    """
    names = ", ".join(f"{_bytes(table, name)} AS {name}" for name in table.searched)
    cursor = connection.execute(
        f"SELECT u.id, t.id, {names} FROM {table.name}_unread u"
        f" LEFT JOIN {table.name} t ON t.id = u.id {where} ORDER BY u.id LIMIT {BATCH_ROWS}",
        parameters,
    )
    documents: list[tuple[str, str]] = []
    gone: list[tuple[str]] = []
    rows = characters = 0
    for unread, stored, *values in cursor:
        rows += 1
        if stored is None:
            gone.append((unread,))
            continue
        text = searched_text(table, dict(zip(table.searched, map(_decode, values), strict=True)))
        documents.append((unread, _document(text)))
        characters += len(text)
        if characters > BATCH_CHARACTERS:
            cursor.close()
            break
    _store(connection, table.name, documents, gone)
    return rows == BATCH_ROWS or characters > BATCH_CHARACTERS


def _store(
    connection: Any, name: str, documents: Sequence[tuple[str, str]], gone: Sequence[tuple[str]]
) -> None:
    number = f"(SELECT doc FROM {name}_documents WHERE id = ?1)"
    read = [(record_id,) for record_id, _ in documents]
    connection.executemany(
        f"INSERT INTO {name}_documents (id) VALUES (?1) ON CONFLICT (id) DO NOTHING", read
    )
    connection.executemany(
        f"INSERT OR REPLACE INTO {name}_terms (rowid, terms) VALUES ({number}, ?2)", documents
    )
    connection.executemany(f"DELETE FROM {name}_terms WHERE rowid = {number}", gone)
    connection.executemany(f"DELETE FROM {name}_documents WHERE id = ?1", gone)
    connection.executemany(f"DELETE FROM {name}_unread WHERE id = ?1", [*read, *gone])


def _document(text: str) -> str:
    """Return the terms as FTS5 reads them, each as often as its level says."""
    return " ".join(
        " ".join([term] * level) if level > 1 else term
        for term, level in document_terms(text).items()
    )


def _bytes(table: Table[Any], name: str) -> str:
    """Return as much of a column as counts, whatever plain SQL has put there.

    A value that is no text must not stop the searches for all others.
    """
    column = table.column(name)
    if isinstance(column, Column) and column.kind is Kind.TAGS:
        labels = f"SELECT group_concat(value, char(10)) FROM json_each(t.{name})"
        text = f"CASE WHEN json_valid(t.{name}) THEN ({labels}) END"
    else:
        text = f"t.{name}"
    # A character may be cut, of four bytes at most: what is left is enough all the same.
    return f"substr(CAST({text} AS BLOB), 1, {INDEXED_BYTES} + 3)"


def _decode(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="ignore")
