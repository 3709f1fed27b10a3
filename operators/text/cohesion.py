"""How alike the words are on both sides of each place where a document could be cut (TextTiling: Hearst 1997, block
comparison), and how much its words stand in an order.

Places are the ends of paragraphs (blank lines); where those are rare the ends of lines, else of sentences; none is
nearer than 20 words to the last one. Blocks are the 100 words before and after a place; their similarity is the cosine
of 1 + ln(occurrences), weighted by how rare a word is. In scripts without spaces pairs of characters count as words.

Order: of the pairs of neighbours whose words both stood before, how many stood before as a pair; and the mean
logarithm of how much oftener a pair stands in real text than in shuffled text. The two tables (weights of words,
logarithms of pairs, by 16 bits of a hash) were `learned` once, from the sample of the demo: 12 languages.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.dedup.words import GOLDEN, buffers, frozen, splitmix, tables, word_hashes
from operators.text.segment import decode
from operators.text.unicode_classes import CLOSER, SPACE, TERMINAL, flags

BLOCK = 100  # words on each side of a place
APART = 20  # words between two places, and before the first and after the last
PARAGRAPH = 4000  # bytes: ends of a kind are rare where there are fewer than one in so many
LONGEST = 2000  # bytes without a place: from there on the next white space is one, from twice that any character
BLANK, LINE, SENTENCE = 2, 1, 0  # line feeds that end a part
WIDE = 0x3000  # sentence marks from here on need no white space after them
IDS = 1 << 16
SHIFT = np.uint64(48)
BASE, MIX = np.uint64(GOLDEN), np.uint64(0xBF58476D1CE4E5B9)
TIMES = np.arange(BLOCK + 2)
LOGS = frozen(np.where(TIMES > 0, np.rint(256 * (1 + np.log(TIMES.clip(1)))), 0).astype(np.int64))
PARTS = 16  # of one, in which weights are kept
LOG_PARTS = 32
SHUFFLES = 8
FEW = 10  # pairs that are rarer say nothing
SMOOTH = 4  # added to counts of pairs


class Prior(NamedTuple):
    """What is known of words and pairs by their ids, from texts in many languages."""

    weight: NDArray[np.int8]  # ln(1 + documents / documents with the word), at most ln(101), in sixteenths
    order: NDArray[np.int8]  # ln(times as a pair / times in shuffled text), in thirty-seconds; 0: not known


class Places(NamedTuple):
    """Where texts could be cut: the places of document d are offsets[d]:offsets[d + 1]."""

    offsets: NDArray[np.int64]
    byte: NDArray[np.int64]  # in the document's text
    word: NDArray[np.int64]  # how many words stand before it in the document
    similarity: NDArray[np.float64]  # of the blocks before and after, 0 to 1
    words: NDArray[np.int64]  # of each document
    pairs: NDArray[np.float64]  # of each document, share of pairs known from it among those that could be
    order: NDArray[np.float64]  # of each document, mean logarithm of its pairs


@functools.cache
def prior() -> Prior:
    with np.load(Path(__file__).with_name("cohesion.npz"), allow_pickle=False) as stored:
        return Prior(frozen(stored["weight"]), frozen(stored["order"]))


def places(texts: pa.ChunkedArray | pa.Array) -> Places:
    """The places of all texts, with similarities, in time linear in their bytes; nulls read as empty."""
    data, offsets = buffers(texts)
    documents, size = len(offsets) - 1, int(offsets[-1] - offsets[0])
    most = size // (2 * APART) + 1
    found = Places(
        np.zeros(documents + 1, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most),
        np.zeros(documents, np.int64),
        np.zeros(documents),
        np.zeros(documents),
    )
    _places(data, offsets, tables(), flags(), prior(), LOGS, _room(offsets), found)
    n = found.offsets[-1]
    return found._replace(byte=found.byte[:n], word=found.word[:n], similarity=found.similarity[:n])


def _room(offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    longest = int(np.diff(offsets).max(initial=0))
    return np.empty(longest // 2 + longest // LONGEST + 8, np.uint64)


@njit(nogil=True, cache=True)
def _places(data, offsets, tables, flags, prior, logs, words, out):  # type: ignore[no-untyped-def]
    ids = np.empty(words.shape[0], np.uint64)
    before, after = np.zeros(IDS, np.int64), np.zeros(IDS, np.int64)
    pairs = np.zeros(IDS, np.bool_)
    byte, word, similarity = out.byte, out.word, out.similarity
    at_place = 0
    for d in range(offsets.shape[0] - 1):
        begin, end = offsets[d], offsets[d + 1]
        level = _level(data, begin, end)
        n, spaceless, last = np.int64(0), np.int64(0), np.int64(0)
        at, first = begin, at_place
        while at < end:
            start, at = at, _next(data, flags, at, end, level)
            count, without = word_hashes(data, start, at, tables, words[n:])
            n += np.int64(count)
            spaceless += np.int64(without)
            if n - last >= APART and at < end:
                byte[at_place], word[at_place] = at - begin, n
                last = n
                at_place += 1
        while at_place > first and n - word[at_place - 1] < APART:
            at_place -= 1
        out.offsets[d + 1], out.words[d] = at_place, n
        if at_place == first:
            continue
        for i in range(n):
            ids[i] = (words[i] * MIX) >> SHIFT
        out.pairs[d], out.order[d] = _order(words, ids, n, prior.order, before, pairs)
        if 2 * spaceless > n:
            n -= 1
            for i in range(n):
                ids[i] = _pair(words[i], words[i + 1])
        _compare(ids, n, prior.weight, logs, before, after, word[first:at_place], similarity[first:at_place])


@njit(inline="always")
def _pair(a, b):  # type: ignore[no-untyped-def]
    h = (a * BASE + b) * MIX
    return ((h ^ (h >> np.uint64(29))) * BASE) >> SHIFT


@njit(nogil=True, cache=True)
def _level(data, begin, end):  # type: ignore[no-untyped-def]
    """What ends a part of this text: the largest unit that is not rare."""
    lines, blank, empty = 0, 0, False
    for i in range(begin, end):
        b = data[np.uint64(i)]
        if b == 10:
            lines += 1
            blank += empty
            empty = True
        elif b > 32:
            empty = False
    if blank * PARAGRAPH >= end - begin:
        return BLANK
    return LINE if lines * PARAGRAPH >= end - begin else SENTENCE


@njit(nogil=True, cache=True)
def _next(data, flags, begin, end, level):  # type: ignore[no-untyped-def]
    """Where the part that starts at `begin` ends: after the white space that follows it."""
    at, ended, wide, solid, gap, breaks = begin, False, False, False, False, 0
    while at < end:
        point, after = decode(data, at)
        flag = flags[np.uint64(point)]
        if flag & SPACE:
            gap = True
            breaks += point == 10
        else:
            if solid and (breaks >= level if level else breaks > 0 or (ended and (gap or wide) and not flag & CLOSER)):
                return at
            if at - begin >= LONGEST and (gap or at - begin >= 2 * LONGEST):
                return at
            if flag & TERMINAL:
                ended, wide = True, point >= WIDE
            elif not flag & CLOSER:
                ended = False
            solid, gap, breaks = True, False, 0
        at = after
    return end


@njit(nogil=True, cache=True)
def _order(words, ids, n, logs, seen, pairs):  # type: ignore[no-untyped-def]
    """(share of pairs that stood before among those whose words did, mean logarithm); the tables are left empty."""
    known, again, total = 0, 0, np.int64(0)
    for i in range(n - 1):
        pair = _pair(words[i], words[i + 1])
        if seen[ids[i]] and seen[ids[i + 1]]:
            known += 1
            again += pairs[pair]
        pairs[pair] = True
        seen[ids[i]] = 1
        total += logs[pair]
    for i in range(n - 1):
        pairs[_pair(words[i], words[i + 1])] = False
        seen[ids[i]] = 0
    return (again + 0.5) / (known + 5.0), total / (LOG_PARTS * np.float64(n))


@njit(inline="always")
def _moved(w, by, counts, others, logs, weights):  # type: ignore[no-untyped-def]
    """What one occurrence more or less of a word adds to the product and to the squared length of its block."""
    weight, old = np.int64(weights[w]), logs[counts[w]]
    counts[w] += by
    new = logs[counts[w]]
    square = weight * weight
    return (new - old) * logs[others[w]] * square, (new * new - old * old) * square


@njit(nogil=True, cache=True)
def _compare(ids, n, weights, logs, before, after, places, out):  # type: ignore[no-untyped-def]
    """The cosine at each place, in whole numbers up to the last step; to move on by a word changes four counts."""
    product, left, right = np.int64(0), np.int64(0), np.int64(0)  # of the blocks, and their squared lengths
    for i in range(min(BLOCK, n)):
        p, square = _moved(ids[i], 1, after, before, logs, weights)
        product, right = product + p, right + square
    middle = 0
    for k in range(places.shape[0]):
        while middle < places[k]:
            p, square = _moved(ids[middle], -1, after, before, logs, weights)
            product, right = product + p, right + square
            if middle + BLOCK < n:
                p, square = _moved(ids[middle + BLOCK], 1, after, before, logs, weights)
                product, right = product + p, right + square
            p, square = _moved(ids[middle], 1, before, after, logs, weights)
            product, left = product + p, left + square
            if middle >= BLOCK:
                p, square = _moved(ids[middle - BLOCK], -1, before, after, logs, weights)
                product, left = product + p, left + square
            middle += 1
        out[k] = np.float64(product) / np.sqrt(np.float64(left) * np.float64(right)) if left and right else 0.0
    for i in range(max(0, middle - BLOCK), min(n, middle + BLOCK)):
        before[ids[i]] = 0
        after[ids[i]] = 0


def learned(texts: pa.ChunkedArray | pa.Array) -> Prior:
    """The tables, from texts of all kinds: counts of documents with each word, and of pairs before and after shuffling
    the words of each."""
    data, offsets = buffers(texts)
    documents, counts = np.zeros(IDS, np.int64), np.zeros((2, IDS), np.int64)
    lots = splitmix(1, SHUFFLES * int(np.diff(offsets).max(initial=1)))
    _learn(data, offsets, tables(), lots, _room(offsets), documents, counts)
    weight = np.log1p(np.minimum((len(offsets) - 1) / documents.clip(1), 100))
    real, shuffled = counts[0], counts[1] / SHUFFLES
    order = np.where(real + shuffled < FEW, 0, np.log((real + SMOOTH) / (shuffled + SMOOTH)))
    return Prior(np.rint(PARTS * weight).astype(np.int8), np.rint(LOG_PARTS * order).clip(-127, 127).astype(np.int8))


@njit(nogil=True, cache=True)
def _learn(data, offsets, tables, lots, words, documents, counts):  # type: ignore[no-untyped-def]
    last = np.full(IDS, -1, np.int64)
    for d in range(offsets.shape[0] - 1):
        count, spaceless = word_hashes(data, offsets[d], offsets[d + 1], tables, words)
        n, by_pair = np.int64(count), 2 * np.int64(spaceless) > np.int64(count)
        for i in range(n - by_pair):
            w = _pair(words[i], words[i + 1]) if by_pair else (words[i] * MIX) >> SHIFT
            documents[w] += last[w] != d
            last[w] = d
        for i in range(n - 1):
            counts[0, _pair(words[i], words[i + 1])] += 1
        lot = 0
        for _ in range(SHUFFLES):
            for i in range(n - 1, 0, -1):  # Fisher-Yates
                j = lots[np.uint64(lot)] % np.uint64(i + 1)
                lot += 1
                words[i], words[j] = words[j], words[i]
            for i in range(n - 1):
                counts[1, _pair(words[i], words[i + 1])] += 1
