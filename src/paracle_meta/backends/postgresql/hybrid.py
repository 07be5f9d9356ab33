"""Search by meaning and by words at once on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paracle_meta.backends.fusion import CANDIDATES, fuse
from paracle_meta.backends.statements import EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.collections import QueryVector
    from paracle_meta.backends.postgresql.text import TextSearch
    from paracle_meta.backends.postgresql.vectors import VectorSearch
    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.filters import Condition


async def ranked(
    statements: TableStatements[Any],
    conditions: Sequence[Condition],
    vector_search: VectorSearch,
    text_search: TextSearch,
    terms: Sequence[str],
    vector: QueryVector,
    limit: int,
    min_similarity: float | None,
    connection: Any,
) -> tuple[list[tuple[str, float]], dict[str, float]]:
    """Return ids with their scores, best first, and the similarity of those that have a vector.

    Each side proposes candidates, and each candidate gets both scores exactly.

    Args:
        statements: Of the collection.
        conditions: All must hold.
        vector_search: Proposes by meaning.
        text_search: Scores by words.
        terms: Those of the query.
        vector: That of the query.
        limit: How many at most.
        min_similarity: Leave out what is less similar, or has no vector.
        connection: In a transaction with one snapshot.
    """
    wanted = max(limit, CANDIDATES)
    similarities = dict(
        await vector_search.nearest_ids(
            statements, vector.blob, conditions, vector.model, wanted, connection
        )
    )
    scores = await text_search.scores(
        statements, terms, conditions, wanted, list(similarities), connection
    )
    others = [record_id for record_id in scores if record_id not in similarities]
    similarities |= await _similarities(statements, vector.blob, others, connection)
    fused = fuse(scores, similarities)
    if min_similarity is not None:
        fused = [
            (record_id, score)
            for record_id, score in fused
            if record_id in similarities and similarities[record_id] >= min_similarity
        ]
    return fused[:limit], similarities


async def _similarities(
    statements: TableStatements[Any], query: bytes, ids: Sequence[str], connection: Any
) -> dict[str, float]:
    """Return the similarities of these records by id, of those that have a vector."""
    if not ids:
        return {}
    rows = await connection.fetch(
        "SELECT id, 1 - (embedding <=> $1::vector) AS similarity"
        f" FROM {statements.table.name}"
        f" WHERE id = ANY($2) AND {EMBEDDED} AND embedding IS NOT NULL",
        query,
        ids,
    )
    return {row["id"]: row["similarity"] for row in rows}
