"""Searches of one collection in SQLite that compare words, alone or beside meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from paracle_meta.backends.fusion import CANDIDATES, fuse
from paracle_meta.backends.sqlite import text as sqlite_text
from paracle_meta.backends.sqlite.files import transaction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from paracle_meta.backends.collections import QueryVector
    from paracle_meta.backends.sqlite.vectors import VectorCollection
    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.filters import Condition

R = TypeVar("R")


def search_text(
    connection: Any,
    statements: TableStatements[R],
    conditions: Sequence[Condition],
    text: str,
    limit: int,
) -> list[R]:
    """Return the records that share most with the words of a text; see `Collections.search`.

    Args:
        connection: Not in a transaction.
        statements: Of the collection.
        conditions: All must hold.
        text: The query.
        limit: Most records to return.
    """
    with transaction(connection):
        scores = sqlite_text.scores(connection, statements, text, conditions, limit)
        return _records(connection, statements, list(scores.items()), {})


def search_both(
    connection: Any,
    collection: VectorCollection[Any],
    statements: TableStatements[R],
    conditions: Sequence[Condition],
    vector: QueryVector,
    text: str,
    limit: int,
    min_similarity: float | None,
) -> list[R] | None:
    """Return the records that are closest in words and meaning; see `Collections.search`.

    Each side proposes candidates, and each candidate gets both scores exactly, of one snapshot.

    Args:
        connection: Not in a transaction.
        collection: The vectors.
        statements: Of the collection.
        conditions: All must hold.
        vector: That of the query.
        text: That of the query.
        limit: Most records to return.
        min_similarity: Leave out what is less similar, or has no vector.

    Returns:
        None where the caller begins anew, see `VectorCollection.nearest_ids`.
    """
    wanted = max(limit, CANDIDATES)
    with transaction(connection):
        nearest = collection.nearest_ids(connection, vector, conditions, wanted)
        if nearest is None:
            return None
        similarities = dict(nearest)
        scores = sqlite_text.scores(connection, statements, text, conditions, wanted, similarities)
        others = [record_id for record_id in scores if record_id not in similarities]
        similarities.update(collection.similarities(connection, others, vector.blob))
        fused = fuse(scores, similarities)
        if min_similarity is not None:
            fused = [
                (record_id, score)
                for record_id, score in fused
                if record_id in similarities and similarities[record_id] >= min_similarity
            ]
        return _records(connection, statements, fused[:limit], similarities)


def _records(
    connection: Any,
    statements: TableStatements[R],
    ranked: Sequence[tuple[str, float]],
    similarities: Mapping[str, float],
) -> list[R]:
    """Return the matches of ids with their scores, in the same order."""
    found = connection.execute(*statements.get_many([record_id for record_id, _ in ranked]))
    rows = {row[0]: row for row in found}
    return [
        statements.match(rows[record_id], similarities.get(record_id), score)
        for record_id, score in ranked
    ]
