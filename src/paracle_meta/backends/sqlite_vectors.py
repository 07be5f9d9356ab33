"""Exact search by meaning over the vectors stored in SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta.backends.statements import TableStatements
    from paracle_meta.filters import Condition

R = TypeVar("R")

BATCH: Final = 4096
"""Rows compared at once: 25 MB of vectors with 1,536 dimensions, which keeps memory flat."""

SLACK: Final = 1e-5
"""How far a product in float32 may be from the exact one; candidates within it are computed anew.

The error of a float32 sum of n products of unit vectors is below n * 2**-24 in the worst case and
some 1e-6 in practice at 1,536 dimensions.
"""


def nearest(
    connection: Any,
    statements: TableStatements[R],
    vector: bytes,
    conditions: Sequence[Condition],
    limit: int,
    min_similarity: float | None,
) -> list[R]:
    """Return the closest records; see `base.Backend.nearest`.

    Every vector is compared in float32, then the candidates in float64, row by row, so that equal
    vectors get equal similarities and ties are broken by id as PostgreSQL breaks them.
    """
    import numpy as np

    query = np.frombuffer(vector, dtype="<f4").astype(np.float64)
    query /= np.linalg.norm(query)
    candidates: list[tuple[float, str]] = []
    sql, parameters = statements.vectors(conditions)
    cursor = connection.execute(sql, parameters)
    while rows := cursor.fetchmany(BATCH):
        ids = [row[0] for row in rows]
        matrix = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
        matrix = matrix.reshape(len(rows), -1)
        norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
        rough = matrix @ query.astype(np.float32) / norms
        if len(rows) > limit:
            threshold = np.partition(rough, len(rows) - limit)[len(rows) - limit] - SLACK
            chosen = np.flatnonzero(rough >= threshold)
        else:
            chosen = np.arange(len(rows))
        exact = (matrix[chosen].astype(np.float64) * query).sum(axis=1) / norms[chosen]
        candidates += [
            (-float(similarity), ids[index])
            for index, similarity in zip(chosen, exact, strict=True)
            if min_similarity is None or similarity >= min_similarity
        ]
        candidates.sort()
        del candidates[limit:]
    found = connection.execute(*statements.get_many([record_id for _, record_id in candidates]))
    by_id = {row[0]: row for row in found}
    return [
        statements.match(by_id[record_id], min(1.0, max(-1.0, -negative)))
        for negative, record_id in candidates
    ]
