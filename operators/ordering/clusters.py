"""Spherical k-means (Dhillon and Modha 2001) over vectors on the grid, searched by FAISS.

Sums of whole numbers are exact and centroids are put back on the grid, so the same sample gives the same centroids
on any machine and with any number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.models.faiss import library
from operators.ordering.vectors import Vectors, on_grid

ITERATIONS = 5  # more find no more duplicates
BLOCK_ROWS = 4096


def nearest(vectors: Vectors, centroids: Vectors) -> NDArray[np.int64]:
    """For each vector the centroid with the largest product, the first of equals."""
    index = library().IndexFlatIP(centroids.shape[1])
    index.add(centroids.astype(np.float32))
    found = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS].astype(np.float32)
        found[start : start + len(block)] = index.search(block, 1)[1][:, 0]
    return found


def k_means(sample: Vectors, clusters: int) -> Vectors:
    """At most `clusters` centroids of the sample, which starts with the first of its vectors; those that no vector is
    nearest to are left out."""
    centroids = sample[:clusters]
    for _ in range(ITERATIONS):
        cluster = nearest(sample, centroids)
        order = np.argsort(cluster, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1)
        moved = on_grid(np.stack([sample[rows].sum(axis=0, dtype=np.int64) for rows in members]))
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids
