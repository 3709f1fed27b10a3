"""Characters in repeated word n-grams, read in three ways, for the Gopher repetition rules (gopher_repetition.py).

Each word gets for its number the place where it first stands, each n-gram likewise: an n-gram is the pair of the two
(n-1)-grams that it begins and ends with, so that equality is exact. It can only be repeated where both of them are:
each length looks at the few places left over by the one before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from operators.text.lines import DATATROVE, NEMO, PAPER, clear, slot
from operators.text.segment import MIX, ONE

TOP = (2, 3, 4)
DUPLICATE = (5, 6, 7, 8, 9, 10)


class NgramCounts(NamedTuple):
    """Names of what `count_ngrams` writes. By reading:

    | | PAPER | DATATROVE | NEMO |
    |---|---|---|---|
    | top n-gram | longest of the most frequent | first of them | first of them |
    | its characters | without spaces, 0 if never repeated | with spaces | where "w1 w2 .." stands literally |
    | duplicate | words in any repeated n-gram | repeats met from left to right, stepping over each | repeats |
    | its characters | without spaces | without; n-grams equal if joined equal | with spaces |
    """

    distinct_words: Any
    top2: Any  # characters of the most frequent n-gram, times its count
    top3: Any
    top4: Any
    duplicate5: Any  # characters in n-grams that stand more than once
    duplicate6: Any
    duplicate7: Any
    duplicate8: Any
    duplicate9: Any
    duplicate10: Any


class Grams(NamedTuple):
    """The n-grams of one document, each at the place of its first word; buffers used again for the next document."""

    number: NDArray[np.int32]  # where the same n-gram first stands
    next: NDArray[np.int32]  # the same of n-grams that are one longer
    times: NDArray[np.int32]  # how often it stands; kept at its first place only
    places: NDArray[np.int32]  # ascending: where an n-gram stands that may be repeated
    polynomial: NDArray[np.uint64]  # (DATATROVE) hash of a word that can be joined to the one before
    power: NDArray[np.uint64]  # MIX ** bytes of the word
    joined: NDArray[np.uint64]  # hash of the n-gram without separators


@njit(nogil=True, cache=True)
def gram_buffers(most, reading):  # type: ignore[no-untyped-def]
    """Room for the n-grams of a document of at most `most` words."""
    more = most if reading == DATATROVE else 1
    return Grams(
        np.empty(most, np.int32),
        np.empty(most, np.int32),
        np.empty(most, np.int32),
        np.empty(most, np.int32),
        np.empty(more, np.uint64),
        np.empty(more, np.uint64),
        np.empty(more, np.uint64),
    )


@njit(nogil=True, cache=True)
def count_ngrams(src, d, words, n, reading, grams, table, out):  # type: ignore[no-untyped-def]
    """Write the fields of NgramCounts for document d to `out`; `table` has at least 2n + 2 places."""
    data, begin, end = src.data, src.offsets[d], src.offsets[d + 1]
    number, longer, times, places, _, _, _ = grams
    out[:] = 0
    out[0], found = _number_words(words.hash, n, number, times, places, table)
    if reading == DATATROVE:
        _join_words(data, begin, words, n, grams)
    for size in range(2, 11):
        if size > n:
            break
        if size > 4 and reading == DATATROVE:
            out[size - 1] = _stepped_over(words.chars, n, size, grams, table)
            continue
        found = _number_ngrams(number, longer, times, places, found, table)
        number, longer = longer, number
        if size < 5:
            count, best, chars, longest = _most_frequent(words.chars, size, number, times, places, found)
            if reading == PAPER:
                out[size - 1] = longest * count if count > 1 else 0
            else:
                if reading == NEMO:
                    count = _occurrences(data, begin, end, words, best, size)
                out[size - 1] = (chars + size - 1) * count
        found = _repeated(number, times, places, found)
        if found == 0 and (reading == PAPER or (reading == NEMO and size > 3)):
            break
        if size > 4:
            if reading == PAPER:
                out[size - 1] = _covered(words.chars, size, places, found)
            else:
                out[size - 1] = _later(words.chars, size, number, places, found)


@njit(nogil=True, cache=True)
def _number_words(hashes, n, number, times, places, table):  # type: ignore[no-untyped-def]
    """(different words, how many `places` hold a repeated one)."""
    mask = clear(table, n)
    distinct = np.int64(0)
    for place in range(n):
        k = np.uint64(place)
        j = slot(hashes[k], mask)
        while table[j] >= 0 and hashes[np.uint64(table[j])] != hashes[k]:
            j = (j + ONE) & mask
        first = table[j]
        if first < 0:
            table[j] = place
            number[k], times[k] = place, 1
            distinct += 1
        else:
            number[k] = first
            times[np.uint64(first)] += 1
    for place in range(n):
        places[np.uint64(place)] = place
    return distinct, _repeated(number, times, places, n)


@njit(nogil=True, cache=True)
def _repeated(number, times, places, found):  # type: ignore[no-untyped-def]
    """Keep the places of n-grams that stand more than once; returns how many."""
    kept = np.uint64(0)
    for row in range(found):
        place = places[np.uint64(row)]
        places[kept] = place
        kept += np.uint64(times[np.uint64(number[np.uint64(place)])] > 1)
    return np.int64(kept)


@njit(nogil=True, cache=True)
def _number_ngrams(number, longer, times, places, found, table):  # type: ignore[no-untyped-def]
    """From n-grams to those one longer, at the `places` where both halves are repeated; returns how many."""
    mask = clear(table, found)
    kept = np.uint64(0)
    for row in range(found - 1):
        place = places[np.uint64(row)]
        if places[np.uint64(row + 1)] != place + 1:
            continue
        k = np.uint64(place)
        head, tail = number[k], number[k + ONE]
        j = slot((np.uint64(head) << np.uint64(32) | np.uint64(tail)) * MIX, mask)
        first = table[j]
        while first >= 0 and (number[np.uint64(first)] != head or number[np.uint64(first + 1)] != tail):
            j = (j + ONE) & mask
            first = table[j]
        if first < 0:
            table[j] = place
            longer[k], times[k] = place, 1
        else:
            longer[k] = first
            times[np.uint64(first)] += 1
        places[kept] = place
        kept += ONE
    return np.int64(kept)


@njit(nogil=True, cache=True)
def _most_frequent(word_chars, size, number, times, places, found):  # type: ignore[no-untyped-def]
    """(count, first place, its characters, those of the longest) of the most frequent n-grams; the first n-gram if
    none is repeated."""
    count, best, longest = np.int64(1), np.int64(0), np.int64(0)
    for row in range(found):
        place = places[np.uint64(row)]
        k = np.uint64(place)
        if number[k] != place or times[k] < count or times[k] == 1:
            continue
        chars = _chars(word_chars, place, place + size)
        if times[k] > count:
            count, best, longest = np.int64(times[k]), np.int64(place), chars
        longest = max(longest, chars)
    return count, best, _chars(word_chars, best, best + size), longest


@njit(inline="always")
def _chars(word_chars, begin, end):  # type: ignore[no-untyped-def]
    total = np.int64(0)
    for k in range(begin, end):
        total += np.int64(word_chars[np.uint64(k)])
    return total


@njit(nogil=True, cache=True)
def _occurrences(data, begin, end, words, first, size):  # type: ignore[no-untyped-def]
    """How often the words from `first` on, joined by single spaces, stand in the text without overlap."""
    starts, ends = words.start, words.end
    lead = data[np.uint64(begin + starts[first])]
    count, at = np.int64(0), begin
    while at < end:
        if data[np.uint64(at)] != lead:
            at += 1
            continue
        i = at
        for k in range(first, first + size):
            if k > first:
                if i >= end or data[np.uint64(i)] != 32:
                    i = -1
                    break
                i += 1
            i = _after(data, i, end, begin + starts[k], begin + ends[k])
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
def _covered(word_chars, size, places, found):  # type: ignore[no-untyped-def]
    """Characters of the words that some repeated n-gram holds."""
    total, done = np.int64(0), 0
    for row in range(found):
        place = np.int64(places[np.uint64(row)])
        total += _chars(word_chars, max(place, done), place + size)
        done = place + size
    return total


@njit(nogil=True, cache=True)
def _later(word_chars, size, number, places, found):  # type: ignore[no-untyped-def]
    """Characters, spaces between words included, of n-grams that stood before; overlaps once, the way NeMo Curator
    does (heuristic/repetition: RepeatingDuplicateNGramsFilter)."""
    total, before = np.int64(0), np.int64(-size)
    for row in range(found):
        place = np.int64(places[np.uint64(row)])
        if number[np.uint64(place)] != place:
            overlap = max(size - (place - before), 0)
            total += _chars(word_chars, place + overlap, place + size) + min(size - overlap, size - 1)
            before = place
    return total


@njit(nogil=True, cache=True)
def _join_words(data, begin, words, n, grams):  # type: ignore[no-untyped-def]
    """Hash the words so that hashes can be joined."""
    starts, ends = words.start, words.end
    polynomials, powers, joined = grams.polynomial, grams.power, grams.joined
    for place in range(n):
        k = np.uint64(place)
        h, power = np.uint64(0), ONE
        for i in range(begin + starts[k], begin + ends[k]):
            h = h * MIX + np.uint64(data[np.uint64(i)]) + ONE
            power *= MIX
        polynomials[k], powers[k], joined[k] = h, power, h


@njit(nogil=True, cache=True)
def _stepped_over(word_chars, n, size, grams, table):  # type: ignore[no-untyped-def]
    """Characters of n-grams met before when each of them is stepped over as a whole. Equality is that of the words
    joined without a separator, so a shorter repeat is no condition and every place is looked up."""
    polynomials, powers, joined = grams.polynomial, grams.power, grams.joined
    mask = clear(table, n)
    known = 1 if size == 5 else size - 1  # words that `joined` holds already
    for place in range(n - size + 1):
        h = joined[np.uint64(place)]
        for word in range(place + known, place + size):
            h = h * powers[np.uint64(word)] + polynomials[np.uint64(word)]
        joined[np.uint64(place)] = h
    total, place = np.int64(0), 0
    while place < n - size + 1:
        h = joined[np.uint64(place)]
        j = slot(h, mask)
        while table[j] >= 0 and joined[np.uint64(table[j])] != h:
            j = (j + ONE) & mask
        if table[j] < 0:
            table[j] = place
            place += 1
        else:
            total += _chars(word_chars, place, place + size)
            place += size
    return total
