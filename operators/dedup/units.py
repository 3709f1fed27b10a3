"""Texts as rows of units, hashed: what exact substrings and evaluation sets are compared by.

A unit is a run of characters that are no separators, a character of a script without spaces, or a byte. Its 64-bit hash
is one of what the table makes of its characters, so a table decides what is equal: the characters themselves, or words
whatever their case.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from operators.dedup.signature import MIX1
from operators.dedup.words import CLASS_SHIFT, CODE, SEPARATOR, SPACELESS, VANISHES
from operators.text.segment import decode

LANE = np.uint64(0xD6E8FEB86659FD93)  # odd, without structure
HALF, SHIFT, STEP, NOTHING = np.uint64(32), np.uint64(29), np.uint64(1), np.uint64(0)
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]


@numba.njit(inline="always")
def mix(h: Any) -> Any:
    h = (h ^ (h >> HALF)) * MIX1
    return h ^ (h >> SHIFT)


@numba.njit(nogil=True, cache=True)
def text_units(data: Any, at: Any, stop: Any, folded: Any, letters: Any, hashes: Any, starts: Any, ends: Any) -> Any:
    """Write the hash of each unit of data[at:stop], and the bytes at which it starts and ends; return their number.

    `folded[code point]` = class << 24 | character, in the classes of words.py. `letters` is empty, or has a hash for
    each byte: then bytes are the units, whose places need no telling.
    """
    begin = at
    n = NOTHING
    if len(letters):
        while at < stop:
            hashes[n] = letters[data[np.uint64(at)]]
            n += STEP
            at += 1
        return n
    h = NOTHING
    while at < stop:
        point, after = decode(data, at)
        entry = folded[np.uint64(point)]
        kind = entry >> CLASS_SHIFT
        between, alone = kind == SEPARATOR, kind == SPACELESS
        if h and (between or alone):
            hashes[n], ends[n] = mix(h), at - begin
            n += STEP
            h = NOTHING
        if not between and kind != VANISHES:
            if not h:
                starts[n] = at - begin
            h = (h ^ np.uint64((entry & CODE) + np.uint32(1))) * LANE
            h ^= h >> HALF
            h += np.uint64(h == NOTHING)
            if alone:
                hashes[n], ends[n] = mix(h), after - begin
                n += STEP
                h = NOTHING
        at = after
    if h:
        hashes[n], ends[n] = mix(h), stop - begin
        n += STEP
    return n
