"""Windows of a fixed number of units of text (tokens or bytes), their seeds, and their hashes.

A token is a run of characters that are no white space, or one character of a script written without spaces; the hash
of a token is one of its characters, so tokens are equal byte by byte, whatever white space lies between them.

The seed of a window is the one of its k-grams (runs of k units) that hashes lowest, the last of equal ones: winnowing
(Schleimer, Wilkerson, Aiken 2003). It depends on the window alone, so equal windows have equal seeds, and windows that
follow one another mostly share theirs: two for each `length - k + 2` units of ordinary text.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from operators.dedup.signature import MIX2
from operators.dedup.units import Hashes, Places, mix, text_units
from operators.dedup.words import CLASS_SHIFT, GOLDEN, SEPARATOR, SPACELESS, frozen, splitmix
from operators.document import utf8
from operators.text.unicode_classes import SPACE, UNSPACED, flags

BASE1, BASE2 = np.uint64(GOLDEN), np.uint64(0x9FB21C651E98DF25)  # odd, without structure
STEP = np.uint64(1)
BYTES_A_SEED = 24  # of text, at least, as the first guess of how many seeds there are


class Seeds(NamedTuple):
    """Seeds and the windows `first` to `last` of text `row` that have them, in the order of the texts."""

    key: Hashes
    row: Places
    first: Places
    last: Places


class Windows(NamedTuple):
    """Windows: two halves of their hash, the text, the number of the first unit, and their bytes in the text."""

    key: Hashes
    low: Hashes
    row: Places
    position: NDArray[np.uint32]
    start: NDArray[np.uint32]
    end: NDArray[np.uint32]


@numba.njit(nogil=True, cache=True)
def _seeds(data: Any, offsets: Any, order: Any, tables: Any, sizes: Any, powers: Any, found: Any, counts: Any) -> Any:
    """Fill `found` with the seeds of the texts in `order`, `counts` with the units of each; returns how many seeds."""
    folded, letters = tables
    key, row, first, last = found
    length, k, room = sizes
    hashes, starts, ends = np.empty(room, np.uint64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    span = length - k + 1  # k-grams of a window
    ring = np.empty(span, np.uint64)
    places = np.empty(span, np.int64)
    n = np.int64(0)
    for d in order:
        units = np.int64(text_units(data, offsets[d], offsets[d + 1], folded, letters, hashes, starts, ends))
        counts[d] = units
        if units < length:
            continue
        head = tail = np.int64(0)  # of a queue of k-grams, each lower than all after it
        seed = np.int64(-1)
        h = np.uint64(0)
        for i in range(units):
            h = h * BASE1 + hashes[np.uint64(i)]
            if i >= k:
                h -= powers[0] * hashes[np.uint64(i - k)]
            gram = i - k + 1
            if gram < 0:
                continue
            if tail > head and places[np.uint64(head % span)] <= gram - span:
                head += 1
            value = mix(h)
            while tail > head and ring[np.uint64((tail - 1) % span)] >= value:
                tail -= 1
            ring[np.uint64(tail % span)], places[np.uint64(tail % span)] = value, gram
            tail += 1
            window = gram - span + 1
            if window < 0:
                continue
            place = places[np.uint64(head % span)]
            if place != seed:
                if n < key.shape[0]:
                    key[n], row[n], first[n] = ring[np.uint64(head % span)], d, window
                n += 1
                seed = place
            if n <= key.shape[0]:
                last[n - 1] = window
    return n


@numba.njit(nogil=True, cache=True)
def _windows(data: Any, offsets: Any, seeds: Any, tables: Any, sizes: Any, powers: Any, found: Any) -> None:
    """Fill `found` with the windows of `seeds`."""
    folded, letters = tables
    of, first, last = seeds
    key, low, row, position, start, end = found
    length, _, room = sizes
    hashes, starts, ends = np.empty(room, np.uint64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    n = np.uint64(0)
    at = 0
    while at < of.shape[0]:
        d = of[at]
        base, stop = offsets[d], offsets[d + 1]
        units = np.int64(text_units(data, base, stop, folded, letters, hashes, starts, ends))
        a = b = np.uint64(0)
        for i in range(units):
            h = hashes[np.uint64(i)]
            a = a * BASE1 + h
            b = b * BASE2 + mix(h)
            if i >= length:
                h = hashes[np.uint64(i - length)]
                a -= powers[1] * h
                b -= powers[2] * mix(h)
            window = i - length + 1
            if at < of.shape[0] and of[at] == d and first[at] <= window:
                key[n], low[n], row[n], position[n] = mix(a), mix(b ^ MIX2), d, window
                if len(letters):
                    start[n] = _boundary(data, base, stop, base + window, 1)
                    end[n] = _boundary(data, base, stop, base + i + 1, -1)
                else:
                    start[n], end[n] = starts[np.uint64(window)], ends[np.uint64(i)]
                n += STEP
                if last[at] == window:
                    at += 1


@numba.njit(nogil=True, cache=True)
def _boundary(data: Any, base: Any, stop: Any, at: Any, step: Any) -> Any:
    """The next byte at which a character begins, in the direction of `step`, from the text's first."""
    while at < stop and data[np.uint64(at)] & 0xC0 == 0x80:
        at += step
    return at - base


@functools.cache
def _tables(unit: str) -> tuple[NDArray[np.uint32], Hashes]:
    """Characters as they are, in the classes of words.py, and a hash for each byte where bytes are the units."""
    folded = np.arange(0x110000, dtype=np.uint32)
    folded[flags() & SPACE != 0] = SEPARATOR << CLASS_SHIFT
    folded[flags() & UNSPACED != 0] |= SPACELESS << CLASS_SHIFT
    return frozen(folded), frozen(splitmix(3, 256) if unit == "bytes" else np.zeros(0, np.uint64))


def _powers(length: int, k: int) -> Hashes:
    bases = [(BASE1, k), (BASE1, length), (BASE2, length)]
    return frozen(np.array([pow(int(base), exponent, 1 << 64) for base, exponent in bases], np.uint64))


def _sizes(length: int, offsets: Places) -> tuple[int, int, int]:
    return length, (length + 1) // 2, int(np.diff(offsets).max(initial=0)) + 1


def seeds_of(column: Any, order: Places, unit: str, length: int) -> tuple[Seeds, Places]:
    """The seeds of all windows of the texts, taken in `order`, and the number of units of each text."""
    data, offsets = utf8(column)
    data, offsets = frozen(data), frozen(offsets)
    sizes = _sizes(length, offsets)
    counts = np.zeros(len(offsets) - 1, np.int64)
    room = int(offsets[-1] - offsets[0]) // BYTES_A_SEED + 1024
    while True:
        found = Seeds._make(np.empty(room, width) for width in (np.uint64, np.int64, np.int64, np.int64))
        n = _seeds(data, offsets, order, _tables(unit), sizes, _powers(*sizes[:2]), tuple(found), counts)
        if n <= room:
            return Seeds._make(column[:n] for column in found), counts
        room = int(n)


def windows_of(column: Any, seeds: Seeds, unit: str, length: int) -> Windows:
    """The windows that have these seeds, in their order."""
    data, offsets = utf8(column)
    data, offsets = frozen(data), frozen(offsets)
    sizes = _sizes(length, offsets)
    n = int((seeds.last - seeds.first + 1).sum())
    widths = (np.uint64, np.uint64, np.int64, np.uint32, np.uint32, np.uint32)
    found = Windows._make(np.empty(n, width) for width in widths)
    places = tuple(np.ascontiguousarray(p) for p in (seeds.row, seeds.first, seeds.last))
    _windows(data, offsets, places, _tables(unit), sizes, _powers(*sizes[:2]), tuple(found))
    return found
