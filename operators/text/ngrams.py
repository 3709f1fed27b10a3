"""Characters in repeated word n-grams, read in three ways, for the Gopher repetition rules (gopher_repetition.py).

An n-gram can only be repeated where the (n-1)-grams that it begins and ends with are, so that each length looks at
the few places left over by the one before: n = 2 costs a look-up a word, later lengths fewer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from operators.text.segment import BASE, Source, character_count, cut_words, word_buffers
from operators.text.statistics import Counts, mask_for, new_table, slot_of
from operators.text.unicode_classes import UNSPACED

PAPER, DATATROVE, NEMO = 0, 1, 2
TOP = (2, 3, 4)
DUPLICATE = (5, 6, 7, 8, 9, 10)
SEPARATOR = np.uint64(257)  # no byte plus one: ("ab", "c") differs from ("a", "bc")


class NgramCounts(NamedTuple):
    top: NDArray[np.int64]  # [len(TOP), documents]: characters of the most frequent n-gram, times its count
    duplicate: NDArray[np.int64]  # [len(DUPLICATE), documents]: characters in n-grams that stand more than once
    words: Counts
    word_chars: Counts
    chars: Counts  # of the text, white space included
    character_words: Counts  # words that begin with a letter of a script without spaces


def ngram_counts(src: Source, reading: int) -> NgramCounts:
    """By `reading`:

    | | PAPER | DATATROVE | NEMO |
    |---|---|---|---|
    | top n-gram | longest of the most frequent | first of them | first of them |
    | its characters | without spaces, 0 if never repeated | with spaces | where "w1 w2 .." stands literally |
    | duplicate | words in any repeated n-gram | repeats met from left to right, stepping over each | repeats |
    | its characters | without spaces | without; n-grams equal if joined equal | with spaces |
    """
    out = np.zeros((len(TOP) + len(DUPLICATE) + 4, len(src.offsets) - 1), np.int64)
    _ngrams(src, reading, out)
    return NgramCounts(out[:3], out[3:9], out[9], out[10], out[11], out[12])


class Grams(NamedTuple):
    """The n-grams of one document, each at the place of its first word."""

    hash: NDArray[np.uint64]
    first: NDArray[np.int64]  # where the same n-gram first stands
    times: NDArray[np.int64]  # how often it stands; kept at its first place only
    repeated: NDArray[np.bool_]


@njit(nogil=True, cache=True)
def _ngrams(src, reading, out):  # type: ignore[no-untyped-def]
    words = word_buffers(src)
    most = words.hash.shape[0]
    grams = Grams(
        np.empty(most, np.uint64), np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.bool_)
    )
    table = new_table(64)
    for d in range(out.shape[1]):
        n = cut_words(src, d, words)
        if 2 * n + 2 > table.key.shape[0]:
            table = new_table(n)
        out[9, d], out[11, d] = n, character_count(src.data, src.offsets[d], src.offsets[d + 1])
        out[10, d] = _chars(words.chars, 0, n)
        out[12, d] = _begin(words, n, grams)
        for size in range(2, min(n, 4) + 1):
            _group(words, n, size, grams, table, 10 * d + size)
            out[size - 2, d] = _top(src, d, words, n, size, grams, reading)
        for size in range(5, min(n, 10) + 1):
            if reading == DATATROVE:
                out[size - 2, d] = _stepped_over(words, n, size, grams, table, 10 * d + size)
            elif not _group(words, n, size, grams, table, 10 * d + size):
                break
            elif reading == NEMO:
                out[size - 2, d] = _later(words, n, size, grams)
            else:
                out[size - 2, d] = _covered(words, n, size, grams)


@njit(nogil=True, cache=True)
def _begin(words, n, grams):  # type: ignore[no-untyped-def]
    """Words as 1-grams, any of which may be repeated; returns how many are letters of scripts without spaces."""
    kinds, hashes, gram_hashes, repeated = words.kind, words.hash, grams.hash, grams.repeated
    single = np.int64(0)
    for k in range(n):
        single += (kinds[np.uint64(k)] & UNSPACED) != 0
        gram_hashes[np.uint64(k)] = hashes[np.uint64(k)]
        repeated[np.uint64(k)] = True
    return single


@njit(nogil=True, cache=True)
def _group(words, n, size, grams, table, epoch):  # type: ignore[no-untyped-def]
    """Turn (size-1)-grams into `size`-grams; False if none is repeated."""
    hashes, powers = words.hash, words.power
    gram_hashes, firsts, counts, repeated = grams
    keys, epochs, values = table
    mask = mask_for(n)
    places = n - size + 1
    found = False
    for place in range(places):
        k = np.uint64(place)
        last = np.uint64(place + size - 1)
        h = (gram_hashes[k] * BASE + SEPARATOR) * powers[last] + hashes[last]
        gram_hashes[k] = h
        first = place
        counts[k] = 0
        if repeated[k] and repeated[np.uint64(place + 1)]:
            j = slot_of(keys, epochs, mask, epoch, h)
            if epochs[j] == epoch:
                first = values[j]
                found = True
            else:
                epochs[j], keys[j], values[j] = epoch, h, place
        firsts[k] = first
        counts[np.uint64(first)] += 1
    for place in range(places):
        k = np.uint64(place)
        repeated[k] = counts[np.uint64(firsts[k])] > 1
    return found


@njit(inline="always")
def _chars(word_chars, begin, end):  # type: ignore[no-untyped-def]
    total = np.int64(0)
    for k in range(begin, end):
        total += word_chars[np.uint64(k)]
    return total


@njit(nogil=True, cache=True)
def _top(src, d, words, n, size, grams, reading):  # type: ignore[no-untyped-def]
    word_chars, firsts, counts = words.chars, grams.first, grams.times
    best, count, longest = 0, np.int64(0), np.int64(0)
    for place in range(n - size + 1):
        k = np.uint64(place)
        if firsts[k] != place or counts[k] < count:
            continue
        if counts[k] == count:
            if reading == PAPER and count > 1:
                longest = max(longest, _chars(word_chars, place, place + size))
        else:
            best, count = place, counts[k]
            longest = _chars(word_chars, place, place + size)
    if reading == PAPER:
        return longest * count if count > 1 else 0
    if reading == NEMO:
        count = _occurrences(src.data, src.offsets[d], src.offsets[d + 1], words, best, size)
    return (longest + size - 1) * count


@njit(nogil=True, cache=True)
def _occurrences(data, at, end, words, first, size):  # type: ignore[no-untyped-def]
    """How often the words from `first` on, joined by single spaces, stand in the text without overlap."""
    starts, ends = words.start, words.end
    count = np.int64(0)
    while at < end:
        i = at
        for k in range(first, first + size):
            if k > first:
                if i >= end or data[np.uint64(i)] != 32:
                    i = -1
                    break
                i += 1
            i = _after(data, i, end, starts[k], ends[k])
            if i < 0:
                break
        if i >= 0:
            count += 1
            at = i
        else:
            at += 1
    return count


@njit(nogil=True, cache=True)
def _after(data, at, end, begin, stop):  # type: ignore[no-untyped-def]
    """The position after the bytes begin:stop if they stand at `at`, else -1."""
    if at + stop - begin > end:
        return -1
    for i in range(stop - begin):
        if data[np.uint64(at + i)] != data[np.uint64(begin + i)]:
            return -1
    return at + stop - begin


@njit(nogil=True, cache=True)
def _covered(words, n, size, grams):  # type: ignore[no-untyped-def]
    """Characters of the words that some repeated n-gram holds."""
    word_chars, repeated = words.chars, grams.repeated
    total, done = np.int64(0), 0
    for place in range(n - size + 1):
        if repeated[np.uint64(place)]:
            total += _chars(word_chars, max(place, done), place + size)
            done = place + size
    return total


@njit(nogil=True, cache=True)
def _later(words, n, size, grams):  # type: ignore[no-untyped-def]
    """Characters, spaces between words included, of n-grams that stood before; overlaps once, the way NeMo Curator
    does (heuristic/repetition: RepeatingDuplicateNGramsFilter)."""
    word_chars, firsts = words.chars, grams.first
    total, overlap = np.int64(0), 0
    for place in range(n - size + 1):
        if firsts[np.uint64(place)] != place:
            total += _chars(word_chars, place + overlap, place + size) + min(size - overlap, size - 1)
            overlap = size
        overlap = max(overlap - 1, 0)
    return total


@njit(nogil=True, cache=True)
def _stepped_over(words, n, size, grams, table, epoch):  # type: ignore[no-untyped-def]
    """Characters of n-grams met before when each of them is stepped over as a whole. Equality is that of the words
    joined without a separator, so a shorter repeat is no condition and every place is looked up."""
    hashes, powers, word_chars, joined = words.hash, words.power, words.chars, grams.hash
    keys, epochs, _ = table
    mask = mask_for(n)
    known = 1 if size == 5 else size - 1  # `joined` holds these sizes; before size 5 it holds n-grams with separators
    for place in range(n - size + 1):
        k = np.uint64(place)
        h = hashes[k] if known == 1 else joined[k]
        for word in range(place + known, place + size):
            h = h * powers[np.uint64(word)] + hashes[np.uint64(word)]
        joined[k] = h
    total, place = np.int64(0), 0
    while place < n - size + 1:
        h = joined[np.uint64(place)]
        j = slot_of(keys, epochs, mask, epoch, h)
        if epochs[j] == epoch:
            total += _chars(word_chars, place, place + size)
            place += size
        else:
            epochs[j], keys[j] = epoch, h
            place += 1
    return total
