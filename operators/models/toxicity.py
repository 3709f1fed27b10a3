"""A small model of toxic English: alt-profanity-check 1.9.1 (Zhou 2018; MIT, see NOTICE.md), as arrays of numbers.

It weighs words alone: tf-idf of the words of a comment, brought to unit length, five linear support vector machines,
each with a sigmoid that makes a probability of its margin (Platt 1999), and the mean of the five. It was trained on
200,000 comments from Wikipedia talk pages and Twitter, so that it knows insults and swear-words, and takes words of
sex and of some minorities for them. `tests/peers/export_toxicity.py` makes the arrays from the package.

Texts longer than comments are cut into windows of about as many words.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.document import utf8
from operators.text.segment import decode, frozen
from operators.text.unicode_classes import WORD, flags

FILE = Path(__file__).with_name("toxicity.npz")
CASED = 0x20000  # no character from here on has a lower case
I_WITH_DOT = 0x130  # its lower case is an i and a mark that is no part of a word
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Tables(NamedTuple):
    """The vocabulary as a hash table, and weights by word; lower cases by code point."""

    key: NDArray[np.uint64]  # 0: free
    word: NDArray[np.int64]
    idf: NDArray[np.float64]
    weight: NDArray[np.float64]  # [words, machines]: idf times coefficient
    intercept: NDArray[np.float64]
    slope: NDArray[np.float64]  # of the sigmoids
    offset: NDArray[np.float64]
    lower: NDArray[np.uint32]


class Windows(NamedTuple):
    """What the model says of each window, text after text."""

    probability: NDArray[np.float64]  # that it is toxic
    bounds: NDArray[np.int64]  # those of text d are rows bounds[d]:bounds[d + 1]
    known: NDArray[np.int64]  # words of each text that are in the vocabulary


def windows(texts: pa.ChunkedArray | pa.Array, words: int) -> Windows:
    """A text of n words has n / words windows, rounded, one at least, all with as many words; nulls read as empty.
    Words are runs of two word characters or more."""
    data, offsets = utf8(texts)
    data, offsets = frozen(data), frozen(offsets)
    sizes = np.diff(offsets) // 2 + 1  # at most so many words a text
    out = np.empty(int((sizes // words + 2).sum()))
    longest = np.empty(int(sizes.max(initial=0)), np.int64)
    bounds, known = _score(data, offsets, flags(), tables(), words, longest, out)
    return Windows(out[: bounds[-1]], bounds, known)


@functools.lru_cache(maxsize=1)
def tables() -> Tables:
    """The model, read once in this process."""
    with np.load(FILE, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    words = arrays["words"].tobytes().decode().split("\n")
    lower = np.array([ord(chr(point).lower()[0]) for point in range(CASED)], np.uint32)
    slots = 1 << (2 * len(words)).bit_length()
    key, word = np.zeros(slots, np.uint64), np.zeros(slots, np.int64)
    data, offsets = utf8(pa.array(words, pa.large_string()))
    _enter(frozen(data), frozen(offsets), key, word)
    idf = arrays["idf"].astype(np.float64)
    weight = idf[:, None] * arrays["coefficients"].astype(np.float64)
    return Tables(key, word, idf, weight, arrays["intercept"], arrays["slope"], arrays["offset"], lower)


@njit(inline="always")
def _grown(h, point):  # type: ignore[no-untyped-def]
    h = (h ^ np.uint64(point)) * MULTIPLIER
    return h ^ (h >> np.uint64(29))


@njit(inline="always")
def _slot(keys, h):  # type: ignore[no-untyped-def]
    mask = np.uint64(keys.shape[0] - 1)
    j = h & mask
    while keys[j] != 0 and keys[j] != h:
        j = (j + np.uint64(1)) & mask
    return j


@njit(nogil=True, cache=True)
def _enter(data, offsets, keys, words):  # type: ignore[no-untyped-def]
    for k in range(offsets.shape[0] - 1):
        at, h = offsets[k], np.uint64(0)
        while at < offsets[k + 1]:
            point, at = decode(data, at)
            h = _grown(h, point)
        j = _slot(keys, h)
        keys[j], words[j] = h, k


@njit(nogil=True, cache=True)
def _score(data, offsets, flags, tables, size, found, out):  # type: ignore[no-untyped-def]
    bounds, known = np.zeros(offsets.shape[0], np.int64), np.zeros(offsets.shape[0] - 1, np.int64)
    times = np.zeros(tables.idf.shape[0], np.int64)
    done = 0
    for d in range(offsets.shape[0] - 1):
        words = _words(data, offsets[d], offsets[d + 1], flags, tables, found)
        windows = max(1, (2 * words + size) // (2 * size))
        for k in range(windows):
            begin, end = words * k // windows, words * (k + 1) // windows
            out[np.uint64(done)], hits = _probability(found, begin, end, tables, times)
            known[d] += hits
            done += 1
        bounds[d + 1] = done
    return bounds, known


@njit(nogil=True, cache=True)
def _words(data, at, end, flags, tables, found):  # type: ignore[no-untyped-def]
    """Puts the vocabulary's number of each word, -1 for an unknown one, into `found`; how many words there are."""
    keys, numbers, lower = tables.key, tables.word, tables.lower
    n, h, chars = 0, np.uint64(0), 0
    while at <= end:
        point, word = np.int64(0), False
        if at < end:
            point, at = decode(data, at)
            word = (flags[np.uint64(point)] & WORD) != 0
        else:
            at += 1
        if word:
            h = _grown(h, lower[np.uint64(point)] if point < CASED else np.uint32(point))
            chars += 1
            word = point != I_WITH_DOT
        if not word:
            if chars > 1:
                j = _slot(keys, h)
                found[np.uint64(n)] = numbers[j] if keys[j] != 0 else -1
                n += 1
            h, chars = np.uint64(0), 0
    return n


@njit(nogil=True, cache=True)
def _probability(found, begin, end, tables, times):  # type: ignore[no-untyped-def]
    machines = tables.intercept.shape[0]
    sums = np.zeros(machines)
    square, hits = 0.0, 0
    for k in range(begin, end):
        word = found[np.uint64(k)]
        if word < 0:
            continue
        w = np.uint64(word)
        square += tables.idf[w] * tables.idf[w] * (2 * times[w] + 1)  # n squared is the sum of the first n odd numbers
        times[w] += 1
        hits += 1
        for m in range(machines):
            sums[m] += tables.weight[w, np.uint64(m)]
    for k in range(begin, end):
        if found[np.uint64(k)] >= 0:
            times[np.uint64(found[np.uint64(k)])] = 0
    length = np.sqrt(square) if square > 0 else 1.0
    total = 0.0
    for m in range(machines):
        margin = sums[m] / length + tables.intercept[m]
        total += 1.0 / (1.0 + np.exp(tables.slope[m] * margin + tables.offset[m]))
    return total / machines, hits
