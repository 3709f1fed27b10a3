"""Counts of characters by class, number signs, ellipses and the entropy of bytes of each document."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from operators.text.segment import HIGH, decode, eight
from operators.text.unicode_classes import BREAK, DIGIT, LETTER, SPACE, UPPER, cases, flags


class Classes(NamedTuple):
    """Tables of character classes, as kernels take them."""

    flags: NDArray[np.uint8]
    cases: NDArray[np.uint8]
    buckets: NDArray[np.int64]  # [2, 256] for the kernel's own use


class CharacterCounts(NamedTuple):
    """Names of what `count_characters` returns."""

    characters: Any
    newlines: Any
    letters: Any
    upper: Any
    digits: Any
    spaces: Any
    breaks: Any  # that end a line for str.splitlines, the line feed aside
    hashes: Any
    ellipses: Any  # non-overlapping "..." and "…"
    entropy: Any  # bits a byte, in millionths


def classes() -> Classes:
    return Classes(flags(), cases(), np.zeros((2, 256), np.int64))


@njit(nogil=True, cache=True)
def count_characters(data, begin, end, classes):  # type: ignore[no-untyped-def]
    """ASCII from a histogram of bytes, the rest character by character; the fields of CharacterCounts."""
    flags, cases, buckets = classes
    dots = _count_bytes(data, begin, end, buckets)
    letters = upper = digits = spaces = breaks = others = np.int64(0)
    for b in range(128):
        n = buckets[0, np.uint64(b)]
        flag, case = flags[np.uint64(b)], cases[np.uint64(b)]
        letters += n if flag & LETTER else 0
        spaces += n if flag & SPACE else 0
        breaks += n if flag & BREAK and b != 10 else 0
        upper += n if case & UPPER else 0
        digits += n if case & DIGIT else 0
    for b in range(128, 192):
        others += buckets[0, np.uint64(b)]
    ellipses = _dotted(data, begin, end) if dots else np.int64(0)
    if others:
        at = begin
        while at < end:
            if at + 8 <= end and not eight(data, at) & HIGH:
                at += 8
                continue
            point, at = decode(data, at)
            if point > 127:
                flag, case = flags[np.uint64(point)], cases[np.uint64(point)]
                letters += np.int64(flag & LETTER != 0)
                spaces += np.int64(flag & SPACE != 0)
                breaks += np.int64(flag & BREAK != 0)
                ellipses += np.int64(point == 0x2026)
                upper += np.int64(case & UPPER != 0)
                digits += np.int64(case & DIGIT != 0)
    size = end - begin
    newlines, hashes = buckets[0, np.uint64(10)], buckets[0, np.uint64(35)]
    entropy = _entropy(buckets[0], size)
    return size - others, newlines, letters, upper, digits, spaces, breaks, hashes, ellipses, entropy


@njit(inline="always")
def _count_bytes(data, begin, end, buckets):  # type: ignore[no-untyped-def]
    """Fill row 0 with how often each byte stands; returns how many full stops follow two others."""
    buckets[:] = 0
    at = begin
    while at + 2 <= end:  # two rows: no wait for the same counter where a byte is repeated
        buckets[0, np.uint64(data[np.uint64(at)])] += 1
        buckets[1, np.uint64(data[np.uint64(at + 1)])] += 1
        at += 2
    if at < end:
        buckets[0, np.uint64(data[np.uint64(at)])] += 1
    for b in range(256):
        buckets[0, np.uint64(b)] += buckets[1, np.uint64(b)]
    dots = np.int64(0)
    if buckets[0, np.uint64(46)] > 2:
        for i in range(begin + 2, end):
            a, b, c = data[np.uint64(i)], data[np.uint64(i - 1)], data[np.uint64(i - 2)]
            dots += np.int64((a == 46) & (b == 46) & (c == 46))
    return dots


@njit(nogil=True, cache=True)
def _dotted(data, begin, end):  # type: ignore[no-untyped-def]
    """Non-overlapping "..."."""
    ellipses, dots = np.int64(0), 0
    for i in range(begin, end):
        dots = dots + 1 if data[np.uint64(i)] == 46 else 0
        if dots == 3:
            ellipses += 1
            dots = 0
    return ellipses


@njit(nogil=True, cache=True)
def _entropy(histogram, size):  # type: ignore[no-untyped-def]
    """In millionths of a bit, so that all machines agree."""
    bits = 0.0
    for n in histogram:
        if n:
            bits -= n * np.log2(n / size)
    return np.int64(round(bits / max(size, 1) * 1e6))
