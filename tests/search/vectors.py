"""Vectors with the structure of real ones: clusters of different size, and noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANK = 48
"""Directions in which the clusters differ; real embeddings use far fewer than they have."""


def clustered(count: int, dimensions: int, *, seed: int, sample: int = 0) -> NDArray[np.float32]:
    """Return unit vectors, shape (count, dimensions).

    Args:
        count: How many.
        dimensions: Their length.
        seed: Chooses the clusters.
        sample: Chooses the vectors; another sample of the same seed is of the same clusters.
    """
    world = np.random.default_rng(seed)
    clusters = 200
    basis = world.standard_normal((RANK, dimensions))
    centres = world.standard_normal((clusters, RANK))
    weights = 1 / np.arange(1, clusters + 1) ** 0.6
    random = np.random.default_rng((seed, sample))
    chosen = random.choice(clusters, count, p=weights / weights.sum())
    points = centres[chosen] + 0.6 * random.standard_normal((count, RANK))
    vectors = points @ basis + 0.8 * random.standard_normal((count, dimensions))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)
