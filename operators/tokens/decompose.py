"""Dataset Decomposition: documents in pieces of powers of two, so that batches of one length need no padding and no
attention between documents (Pouransari et al. 2024, arXiv 2405.13226).

Differs from the published code on purpose. Its pieces are 2^k + 1 tokens, as inputs and labels are both cut from them;
here they are 2^k, as trainers expect of a sequence: the label of its last token is not in it. It drops what is left of
a document below the smallest length, and shorter documents: a third of all tokens where the median is 200 and the
smallest length 256. Here such rests share windows of the smallest length, best fit, and boundaries tell them apart.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from operators.tokens.best_fit import histogram, place, plan
from operators.tokens.pieces import Filled, Integers, Pieces, numbered


def decompose(lengths: Integers, least: int, most: int) -> Filled:
    """Sequences of `least`, 2 `least`, ... `most` tokens, both powers of two, of documents of `lengths`: each document
    as pieces of `most`, then of the powers of two that its rest is the sum of, the longest first; what is below `least`
    with that of others."""
    pieces = _decompose(lengths, least, most)
    rests = pieces.length < least
    packed = plan(histogram(pieces.length[rests], least))
    sequence = np.empty(len(rests), np.int64)
    sequence[~rests] = np.arange(packed.bins, packed.bins + len(rests) - rests.sum())
    sequence[rests] = place(packed, pieces.length[rests])
    sequences = packed.bins + int((~rests).sum())
    sequence = numbered(sequence, sequences)
    sizes = np.empty(sequences, np.int64)
    sizes[sequence] = np.maximum(pieces.length, least)
    return Filled(pieces, sequence, sizes)


def buckets(offsets: NDArray[np.int64]) -> dict[int, tuple[int, int]]:
    """For each length that sequences have, ascending: (the first of them, how many). Sequences are sorted by length."""
    lengths, first, counts = np.unique(np.diff(offsets), return_index=True, return_counts=True)
    return {int(length): (int(at), int(n)) for length, at, n in zip(lengths, first, counts, strict=True)}


def _decompose(lengths: Integers, least: int, most: int) -> Pieces:
    bits = np.bitwise_count(lengths % most // least).astype(np.int64)
    counts = lengths // most + bits + (lengths % least > 0)
    columns = np.empty((3, int(counts.sum())), np.int64)
    _cut(lengths, least, most, columns)
    return Pieces(*columns)


@numba.njit(nogil=True, cache=True)
def _cut(lengths: Any, least: Any, most: Any, columns: Any) -> None:
    i = 0
    for d in range(lengths.shape[0]):
        start, size = 0, most
        while start < lengths[d]:
            rest = lengths[d] - start
            while size > rest and size > least:
                size //= 2
            columns[0, i], columns[1, i], columns[2, i] = d, start, min(size, rest)
            start += columns[2, i]
            i += 1
