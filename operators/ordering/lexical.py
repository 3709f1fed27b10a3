"""Lexical embeddings: TF-IDF of hashed words (Weinberger et al. 2009, arXiv 0902.2206) in a signed sparse random
projection (Achlioptas 2003), for similarity without a model.

Words are those of deduplication; in texts mostly in scripts without spaces, pairs of characters. A word counts
1 + ln(occurrences), times ln(1 + documents / documents that have it). Sums are of whole numbers, so the order of words
does not matter to the last bit.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.dedup.words import GOLDEN, buffers, frozen, tables, word_hashes
from operators.ordering.vectors import BLOCK_ROWS, Vectors, on_grid

BUCKETS = 1 << 20
TOTAL = 0  # no word's bucket: its count is that of documents with any word
SHIFT = np.uint64(44)
STEP = np.uint64(1)
BASE, MIX1, MIX2 = np.uint64(GOLDEN), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
PLACES = 4  # dimensions that a word is added to, each with its own sign: 16 bits of its hash
FRACTION = float(1 << 16)  # weights are rounded to this part of one


@numba.njit(inline="always")
def _mixed(h: Any) -> Any:
    h = (h ^ (h >> np.uint64(30))) * MIX1
    h = (h ^ (h >> np.uint64(27))) * MIX2
    return h ^ (h >> np.uint64(31))


@numba.njit(inline="always")
def _buckets(data: Any, start: Any, end: Any, tables: Any, out: Any) -> Any:
    """Write the bucket of every word of a text; return how many there are."""
    count, spaceless = word_hashes(data, start, end, tables, out)
    if spaceless + spaceless > count and count > STEP:
        count -= STEP
        for i in range(count):
            out[i] = out[i] * BASE + out[np.uint64(i) + STEP]
    for i in range(count):
        out[i] = max(_mixed(out[i]) >> SHIFT, STEP)
    return count


@numba.njit(nogil=True, cache=True)
def _count(data: Any, offsets: Any, tables: Any, words: Any, counts: Any) -> None:
    last = np.full(counts.shape[0], -1, np.int64)
    for d in range(offsets.shape[0] - 1):
        count = _buckets(data, offsets[d], offsets[d + 1], tables, words)
        counts[0] += count > 0
        for i in range(count):
            counts[words[i]] += last[words[i]] != d
            last[words[i]] = d


@numba.njit(nogil=True, cache=True)
def _embed(data: Any, offsets: Any, tables: Any, weights: Any, words: Any, occurrences: Any, sums: Any) -> None:
    mask = np.uint64(sums.shape[1] - 1)
    for d in range(offsets.shape[0] - 1):
        count = _buckets(data, offsets[d], offsets[d + 1], tables, words)
        for i in range(count):
            occurrences[words[i]] += 1
        for i in range(count):
            word = words[i]
            times = occurrences[word]
            if times == 0:
                continue
            occurrences[word] = 0
            weight = np.int64(np.rint((1.0 + np.log(times)) * weights[word] * FRACTION))
            bits = _mixed(word + BASE)
            for _ in range(PLACES):
                sums[d, bits & mask] += weight if (bits >> np.uint64(15)) & STEP else -weight
                bits >>= np.uint64(16)


def _room(offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    return np.empty(int(np.diff(offsets).max(initial=0)) // 2 + 3, np.uint64)


def frequencies(texts: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """In how many of the texts the words of each bucket occur, shape [BUCKETS]; add them up over any parts."""
    data, offsets = buffers(texts)
    counts = np.zeros(BUCKETS, np.int64)
    _count(data, offsets, tables(), _room(offsets), counts)
    return counts


def weights_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weight of each bucket's words by the `frequencies` of the corpus; 0 for words it does not have."""
    weights = np.zeros(BUCKETS)
    known = counts > 0
    weights[known] = np.log1p(counts[TOTAL] / counts[known])
    return frozen(weights)


def embed(texts: pa.ChunkedArray | pa.Array, weights: NDArray[np.float64], dimensions: int) -> Vectors:
    """A vector for each text, shape [n, dimensions], a power of two; texts without known words have zero vectors."""
    data, offsets = buffers(texts)
    vectors = np.empty((len(offsets) - 1, dimensions), np.int16)
    words, occurrences = _room(offsets), np.zeros(BUCKETS, np.int64)
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        sums = np.zeros(block.shape, np.int64)
        _embed(data, offsets[start : start + len(block) + 1], tables(), weights, words, occurrences, sums)
        block[:] = on_grid(sums)
    return vectors
