"""Greedy stars: best first, each row stays unless it is like a row that stays.

Connected components would not do: with cosines chains of neighbours grow through the whole corpus.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from operators.ordering.vectors import Vectors, squares

BLOCK_ROWS = 1024  # rows compared at a time
KEPT_ROWS = 4096  # with as many of those that stay: 16 MB of scores, and twice that for 1,024 dimensions as float32


@numba.njit(nogil=True, cache=True)
def _compare(
    scores: Any, first: Any, columns: Any, lengths: Any, ranks: Any, threshold: Any, cosines: Any, star: Any
) -> None:
    """Compare the rows from `first` on with the earlier ones of `columns` that stay; scores[i, j] is a product."""
    shortest = lengths[columns].min()
    for i in range(scores.shape[0]):
        row = first + i
        least = threshold * np.sqrt(lengths[row] * shortest) - 1.0
        for j in range(scores.shape[1]):
            if scores[i, j] < least:
                continue
            other = columns[j]
            if other >= row or star[other] != other:
                continue
            cosine = scores[i, j] / np.sqrt(lengths[row] * lengths[other])
            if cosine < threshold or cosine < cosines[row]:
                continue
            if cosine > cosines[row] or ranks[other] < ranks[star[row]]:
                cosines[row] = cosine
                star[row] = other


def greedy_stars(
    vectors: Vectors, ranks: NDArray[np.int64], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each vector, best first, the one that stays for it (itself, or the one with the largest cosine, at equal ones
    of the smallest rank), and that cosine, at least `threshold`; 0 for those that stay. Zero vectors are not allowed.

    Takes time in proportion to vectors times those that stay; memory of a block only beside the arguments.
    """
    star = np.arange(len(vectors))
    cosines = np.zeros(len(vectors))
    lengths = squares(vectors)
    kept = np.zeros(0, np.int64)
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS].astype(np.float32)
        own = np.arange(start, start + len(block))
        earlier = [kept[at : at + KEPT_ROWS] for at in range(0, len(kept), KEPT_ROWS)]
        for columns in [*earlier, own]:
            scores = block @ vectors[columns].astype(np.float32).T
            _compare(scores, start, columns, lengths, ranks, threshold, cosines, star)
        kept = np.concatenate((kept, own[star[own] == own]))
    return star, cosines
