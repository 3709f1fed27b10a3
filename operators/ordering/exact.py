"""The exact nearest neighbours of a small sample, against which an approximate search is measured and a threshold of
similarity is calibrated.

Each table of vectors is compared with the whole sample, one matrix product a block, and the best of all tables are
merged. Similarities are weights (see neighbours.py). As it is these that are compared, and names where they are equal,
the best of the best of several tables are those of all their rows.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from operators.ordering.neighbours import WEIGHTS, product_weight
from operators.ordering.vectors import Vectors, squares

BLOCK_ROWS = 4096  # compared with as many of the sample at a time: 64 MB of products
NONE = np.uint64(2**64 - 1)
ROW_BYTES = 26  # of a neighbour with its key


@numba.njit(nogil=True, cache=True)
def _keep_best(products: Any, lengths: Any, names: Any, others: Any, other_names: Any, best: Any, weights: Any) -> None:
    """Put into `best` and `weights`, best first, the rows that are nearer; products[i, j] of query i and row j."""
    last = best.shape[1] - 1
    shortest = np.inf
    for j in range(products.shape[1]):
        if 0 < others[j] < shortest:
            shortest = others[j]
    if shortest == np.inf:
        return
    for i in range(products.shape[0]):
        scale = np.sqrt(lengths[i] * shortest) / WEIGHTS
        for j in range(products.shape[1]):
            if products[i, j] < (weights[i, last] - 0.5) * scale - 1.0:  # no smaller product has as large a weight
                continue
            if products[i, j] <= 0 or other_names[j] == names[i]:
                continue
            weight = product_weight(products[i, j], lengths[i] * others[j])
            name = other_names[j]
            if weight == 0 or weight < weights[i, last] or (weight == weights[i, last] and name >= best[i, last]):
                continue
            at = last
            while at > 0 and (weight > weights[i, at - 1] or (weight == weights[i, at - 1] and name < best[i, at - 1])):
                weights[i, at] = weights[i, at - 1]
                best[i, at] = best[i, at - 1]
                at -= 1
            weights[i, at] = weight
            best[i, at] = name


def nearest_of(
    sample: Vectors, names: NDArray[np.uint64], found: Vectors, found_names: NDArray[np.uint64], k: int
) -> pa.Table:
    """The at most `k` nearest rows of `found`, shape [n, d], to each row of `sample`, shape [q, d], without itself,
    whom its name tells: rows of `query`, `name` (uint64) and `weight` (uint16), in the order of `merged`. Of equally
    near ones the smaller name is taken first. Zero vectors are near nothing.

    Takes q * n * d multiplications, and memory of some blocks beside the arguments.
    """
    best = np.full((len(sample), k), NONE)
    weights = np.zeros((len(sample), k), np.uint16)
    lengths, others = squares(sample), squares(found)
    for first in range(0, len(sample), BLOCK_ROWS):
        q = slice(first, first + BLOCK_ROWS)
        queries = sample[q].astype(np.float32)
        for start in range(0, len(found), BLOCK_ROWS):
            f = slice(start, start + BLOCK_ROWS)
            products = queries @ found[f].astype(np.float32).T
            _keep_best(products, lengths[q], names[q], others[f], found_names[f], best[q], weights[q])
    columns = {"query": np.repeat(names, k), "name": best.ravel(), "weight": weights.ravel()}
    return merged(pa.table(columns).filter(pa.array(weights.ravel() > 0)), k)


def merged(rows: pa.Table, k: int) -> pa.Table:
    """Of rows as `nearest_of` returns them for disjoint tables, the `k` best of each query, ordered by query, the best
    first, equal weights by name."""
    frame = pl.DataFrame(rows).select("query", "name", "weight")
    ranked = frame.sort("query", "weight", "name", descending=[False, True, False])
    best: pa.Table = ranked.filter(pl.int_range(pl.len()).over("query") < k).to_arrow()
    return best
