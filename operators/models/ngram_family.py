"""A family of small language models of growing strength, where no losses of real ones are at hand: interpolated word
trigram models (Witten and Bell 1991) of ever larger parts of one collection.

Words are those of `\\w+|[^\\w\\s]`, upper case included. All models share one vocabulary, the words of the whole
collection, and one probability for each word that is not in it, so that their losses compare. What such a family ranks
high is text like its collection: affinity to a domain, not what makes language models strong.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.document import utf8
from operators.text.segment import decode, frozen
from operators.text.unicode_classes import SPACE, WORD, flags

SHARES = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)  # of the collection, a model each
MIX = np.uint64(0x9E3779B97F4A7C15)


class Tokens(NamedTuple):
    """Words as hashes, document after document."""

    hash: NDArray[np.uint64]
    offsets: NDArray[np.int64]


class Counts(NamedTuple):
    """Times that n-grams of one order, or contexts, stand somewhere: an open hash table; 0 is no key."""

    key: NDArray[np.uint64]
    times: NDArray[np.int64]  # of the n-gram
    follows: NDArray[np.int64]  # times that it stands before a word
    different: NDArray[np.int64]  # how many different words follow


class Trigrams(NamedTuple):
    counts: Counts  # of words, bigrams and trigrams; the hash of no words is that of the empty context
    vocabulary: int


def tokens_of(texts: pa.ChunkedArray | pa.Array) -> Tokens:
    """The words of texts; nulls have none."""
    data, offsets = utf8(texts)
    bounds = np.zeros(len(offsets), np.int64)
    buffer = np.empty(max(1, int(offsets[-1] - offsets[0])), np.uint64)
    n = _tokens(frozen(data), frozen(offsets), flags(), buffer, bounds)
    return Tokens(buffer[:n].copy(), bounds)


def family(collection: Tokens, order: NDArray[np.int64]) -> list[Trigrams]:
    """A model for each of SHARES of the documents, taken in the order given: each has read what the last one has."""
    vocabulary = len(np.unique(collection.hash))
    documents = len(collection.offsets) - 1
    models = []
    for share in SHARES:
        chosen = order[: max(1, round(share * documents))]
        words = int(np.diff(collection.offsets)[chosen].sum())
        size = 1 << max(4, (6 * (words + 1)).bit_length())
        counts = Counts(np.zeros(size, np.uint64), *(np.zeros(size, np.int64) for _ in range(3)))
        _count(collection.hash, collection.offsets, np.ascontiguousarray(chosen), counts)
        models.append(Trigrams(counts, vocabulary))
    return models


def losses(model: Trigrams, texts: Tokens) -> NDArray[np.float64]:
    """Bits of each text; NaN for one without words. Summed in the order of words, rounded to what machines agree on."""
    bits = np.empty(len(texts.offsets) - 1)
    _bits(texts.hash, texts.offsets, model.counts, 1.0 / (model.vocabulary + 1), bits)
    rounded: NDArray[np.float64] = bits.round(4)
    return rounded


@njit(nogil=True, cache=True)
def _tokens(data, offsets, flags, out, bounds):  # type: ignore[no-untyped-def]
    n = 0
    for d in range(offsets.shape[0] - 1):
        at, end = offsets[d], offsets[d + 1]
        h, inside = np.uint64(0), False
        while at < end:
            point, after = decode(data, at)
            word = flags[np.uint64(point)] & WORD
            if inside and not word:
                out[np.uint64(n)], n, inside = _mixed(h), n + 1, False
            if word:
                h = h if inside else np.uint64(0)
                inside = True
                for i in range(at, after):
                    h = h * MIX + np.uint64(data[np.uint64(i)]) + np.uint64(1)
            elif not flags[np.uint64(point)] & SPACE:
                out[np.uint64(n)], n = _mixed(np.uint64(point) + MIX), n + 1
            at = after
        if inside:
            out[np.uint64(n)], n = _mixed(h), n + 1
        bounds[d + 1] = n
    return n


@njit(inline="always")
def _mixed(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> np.uint64(32))) * MIX
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (h ^ (h >> np.uint64(32))) | np.uint64(1)


@njit(inline="always")
def _slot(keys, key):  # type: ignore[no-untyped-def]
    mask = np.uint64(keys.shape[0] - 1)
    j = (key >> np.uint64(20)) & mask
    while keys[j] != 0 and keys[j] != key:
        j = (j + np.uint64(1)) & mask
    return j


@njit(inline="always")
def _joined(context, word):  # type: ignore[no-untyped-def]
    return _mixed(context * MIX + word)


@njit(nogil=True, cache=True)
def _count(words, offsets, chosen, counts):  # type: ignore[no-untyped-def]
    keys, times, follows, different = counts
    empty = np.uint64(1)
    for d in chosen:
        before, last = empty, empty  # contexts of two words and of one
        for k in range(offsets[np.uint64(d)], offsets[np.uint64(d) + np.uint64(1)]):
            word = words[np.uint64(k)]
            start = k - offsets[np.uint64(d)]
            bigram = _joined(last, word)
            for order in range(min(start, 2) + 1):
                context = empty if order == 0 else (last if order == 1 else before)
                j = _slot(keys, context)
                keys[j] = context
                gram = word if order == 0 else _joined(context, word)
                i = _slot(keys, gram)
                follows[j] += 1
                different[j] += times[i] == 0
                keys[i] = gram
                times[i] += 1
            before, last = bigram, word


@njit(nogil=True, cache=True)
def _bits(words, offsets, counts, unknown, bits):  # type: ignore[no-untyped-def]
    keys, times, follows, different = counts
    empty = np.uint64(1)
    for d in range(bits.shape[0]):
        begin, end = offsets[d], offsets[d + 1]
        total = 0.0
        before, last = empty, empty
        for k in range(begin, end):
            word = words[np.uint64(k)]
            p = unknown
            for order in range(min(k - begin, 2) + 1):
                context = empty if order == 0 else (last if order == 1 else before)
                j = _slot(keys, context)
                if keys[j] == 0 or follows[j] == 0:
                    break
                i = _slot(keys, word if order == 0 else _joined(context, word))
                seen = times[i] if keys[i] != 0 else 0
                p = (seen + different[j] * p) / (follows[j] + different[j])
            total -= np.log2(p)
            before, last = _joined(last, word), word
        bits[d] = total if end > begin else np.nan
