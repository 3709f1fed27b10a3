"""Spherical k-means (Dhillon and Modha 2001) over vectors on the grid.

Sums of whole numbers are exact and centroids are put back on the grid, so the same sample gives the same centroids
on any machine and with any number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.ordering.neighbours import nearest_neighbours
from operators.ordering.vectors import Vectors, on_grid

ITERATIONS = 5  # more find no more duplicates
BLOCK_ROWS = 1024  # compared with all centroids at a time, fewer with very many of these:
BLOCK_SCORES = 1 << 24  # 64 MB
LOOKED_AT = 32  # of a centroid's nearest, before all others are


def nearest(vectors: Vectors, centroids: Vectors) -> NDArray[np.int64]:
    """For each vector the centroid with the largest product, the first of equals."""
    found = np.empty(len(vectors), np.int64)
    across = centroids.astype(np.float32).T
    rows = max(min(BLOCK_ROWS, BLOCK_SCORES // max(len(centroids), 1)), 1)
    scores = np.empty((min(rows, len(vectors)), len(centroids)), np.float32)
    for start in range(0, len(vectors), rows):
        block = vectors[start : start + rows].astype(np.float32)
        np.matmul(block, across, out=scores[: len(block)])
        scores[: len(block)].argmax(axis=1, out=found[start : start + len(block)])
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


def greedy_path(centroids: Vectors) -> NDArray[np.int64]:
    """An order of the centroids in which each is followed by the nearest of those left, the first of equals. It begins
    with the one that is least like their sum."""
    near, _ = nearest_neighbours(centroids, np.zeros(len(centroids), np.int64), np.zeros((1, 1), np.int64), LOOKED_AT)
    reals = centroids.astype(np.float32)
    left = np.ones(len(centroids), bool)
    path = np.empty(len(centroids), np.int64)
    here = int((centroids.astype(np.int64) @ centroids.sum(axis=0, dtype=np.int64)).argmin()) if len(path) else 0
    for at in range(len(path)):
        path[at], left[here] = here, False
        ahead = near[here][near[here] >= 0]
        ahead = ahead[left[ahead]]
        if len(ahead):
            here = int(ahead[0])
        elif at + 1 < len(path):
            others = np.flatnonzero(left)
            here = int(others[(reals[others] @ reals[here]).argmax()])
    return path
