"""Keys of evaluation items, which are n-grams of words, as an index, and their occurrences in texts.

Words are those of deduplication (operators/dedup/words.py) with digits told apart: case, accents, punctuation and
white space do not count. An item of `ngram` words or more has a key for each run of `ngram`; a shorter one is a key as
a whole, down to `shortest` words. Shorter items say too little to be found by. A key is 128 bits of hash.

All keys begin with `shortest` words, so one look at a filter of those, which stays in cache, rules out nearly every
place of a text, however many lengths of keys there are.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.dedup.signature import MIX2
from operators.dedup.units import Hashes, Places, mix, text_units
from operators.dedup.words import CLASS_SHIFT, GOLDEN, LETTER, frozen, tables
from operators.document import utf8

BASE1, BASE2 = np.uint64(GOLDEN), np.uint64(0x9FB21C651E98DF25)  # odd, without structure
STEP = np.uint64(1)
CASED = 0x2000  # letters below may have a capital whose small letter is another one: ς, ı, ſ
FILTER_BITS = 16  # a key, of which three are set, in one word: one place in a hundred that has none passes the filter
SIX, TWELVE, LOW, HALF = np.uint64(6), np.uint64(12), np.uint64(63), np.uint64(32)


class Keys(NamedTuple):
    """Keys of items: two halves of their hash, the hash of their first words, their number of words."""

    key: Hashes
    low: Hashes
    head: Hashes
    words: Places


class Occurrences(NamedTuple):
    """Keys in texts: the text, the bytes in it, the number of the key in the index."""

    row: Places
    start: Places
    end: Places
    number: Places


@dataclass(frozen=True)
class Index:
    """The keys of evaluation sets, each once, with a hash table; `names` of the sets that have a key by `owners`."""

    key: Hashes
    low: Hashes
    owners: Places
    names: tuple[tuple[str, ...], ...]
    shortest: int  # words that the filter looks at
    lengths: Places  # of keys, in words, ascending
    slots: NDArray[np.int32]
    filter: Hashes


@functools.cache
def _folded() -> NDArray[np.uint32]:
    """The table of words.py, in which letters with the same capital are the same as well."""
    folded = tables().folded.copy()
    for code in range(CASED):
        capital = chr(code).upper()
        if len(capital) == 1 and folded[code] >> CLASS_SHIFT == LETTER:
            folded[code] = folded[ord(capital)]
    return frozen(folded)


@numba.njit(inline="always")
def _three(h: Any) -> Any:
    return (STEP << (h & LOW)) | (STEP << ((h >> SIX) & LOW)) | (STEP << ((h >> TWELVE) & LOW))


@numba.njit(nogil=True, cache=True)
def _fill(key: Any, head: Any, slots: Any, bits: Any) -> None:
    wrap, last = np.uint64(slots.shape[0] - 1), np.uint64(bits.shape[0] - 1)
    for k in range(key.shape[0]):
        slot = key[k] & wrap
        while slots[slot] >= 0:
            slot = (slot + STEP) & wrap
        slots[slot] = k
    for k in range(head.shape[0]):
        bits[(head[k] >> HALF) & last] |= _three(head[k])


@numba.njit(inline="always")
def _low(words: Any, at: Any, length: Any) -> Any:
    """The other half of a key's hash."""
    h = np.uint64(length)
    for k in range(length):
        h = h * BASE2 + mix(words[at + np.uint64(k)])
    return mix(h ^ MIX2)


@numba.njit(nogil=True, cache=True)
def _item_keys(data: Any, offsets: Any, folded: Any, ngram: Any, shortest: Any, found: Any, room: Any) -> Any:
    """Fill `found` with the keys of items; returns how many there are."""
    key, low, head, length = found
    none = np.zeros(0, np.uint64)
    words, starts, ends = np.empty(room, np.uint64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    n = np.int64(0)
    for d in range(offsets.shape[0] - 1):
        count = np.int64(text_units(data, offsets[d], offsets[d + 1], folded, none, words, starts, ends))
        size = min(count, ngram)
        if size < shortest:
            continue
        for i in range(count - size + 1):
            if n < key.shape[0]:
                h = np.uint64(0)
                for k in range(size):
                    h = h * BASE1 + words[np.uint64(i + k)]
                    if k == shortest - 1:
                        head[n] = mix(h)
                key[n], low[n], length[n] = mix(h ^ np.uint64(size)), _low(words, np.uint64(i), size), size
            n += 1
    return n


@numba.njit(nogil=True, cache=True)
def _find(data: Any, offsets: Any, folded: Any, shortest: Any, lengths: Any, index: Any, found: Any, room: Any) -> Any:
    """Fill `found` with the occurrences of an index's keys; returns how many there are."""
    keys, lows, slots, bits = index
    row, start, end, number = found
    wrap, last = np.uint64(slots.shape[0] - 1), np.uint64(bits.shape[0] - 1)
    none = np.zeros(0, np.uint64)
    words, starts, ends = np.empty(room, np.uint64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    power = np.uint64(1)
    for _ in range(shortest):
        power *= BASE1
    n = np.int64(0)
    for d in range(offsets.shape[0] - 1):
        count = np.int64(text_units(data, offsets[d], offsets[d + 1], folded, none, words, starts, ends))
        rolling = np.uint64(0)
        for i in range(count):
            rolling = rolling * BASE1 + words[np.uint64(i)]
            first = i - shortest + 1
            if first < 0:
                continue
            if first > 0:
                rolling -= words[np.uint64(first - 1)] * power
            begin = mix(rolling)
            if ~bits[(begin >> HALF) & last] & _three(begin):
                continue
            at, h, done = np.uint64(first), rolling, shortest
            for j in range(lengths.shape[0]):
                length = lengths[j]
                if first + length > count:
                    break
                while done < length:
                    h = h * BASE1 + words[at + np.uint64(done)]
                    done += 1
                whole = mix(h ^ np.uint64(length))
                slot = whole & wrap
                place = np.int64(slots[slot])
                while place >= 0:
                    if keys[np.uint64(place)] == whole and lows[np.uint64(place)] == _low(words, at, length):
                        if n < row.shape[0]:
                            row[n], number[n] = d, place
                            start[n], end[n] = starts[at], ends[at + np.uint64(length - 1)]
                        n += 1
                        break
                    slot = (slot + STEP) & wrap
                    place = np.int64(slots[slot])
    return n


def _filled(kernel: Any, texts: Any, types: Sequence[Any], *args: Any) -> list[NDArray[Any]]:
    """What a kernel finds in texts, as columns of `types`: again with more room where it was not enough."""
    data, offsets = utf8(texts)
    room, guess = int(np.diff(offsets).max(initial=0)) // 2 + 3, 1024
    while True:
        found = tuple(np.empty(guess, one) for one in types)
        if (n := kernel(frozen(data), frozen(offsets), _folded(), *args, found, room)) <= guess:
            return [column[:n] for column in found]
        guess = int(n)


def item_keys(texts: Sequence[str], ngram: int, shortest: int) -> Keys:
    """The keys of items."""
    types = (np.uint64, np.uint64, np.uint64, np.int64)
    return Keys._make(_filled(_item_keys, pa.array(texts, pa.large_string()), types, ngram, shortest))


def indexed(keys: Keys, of: Places, names: Sequence[str], shortest: int) -> Index:
    """The index of keys that are of sets `of`, by number in `names`."""
    order = np.lexsort((of, keys.low, keys.key))
    key, low, of = keys.key[order], keys.low[order], of[order]
    new = np.append(True, (key[1:] != key[:-1]) | (low[1:] != low[:-1]))
    sets = np.bitwise_or.reduceat(np.left_shift(1, of), np.flatnonzero(new))
    combined, owners = np.unique(sets, return_inverse=True)
    owning = tuple(tuple(name for k, name in enumerate(names) if one >> k & 1) for one in combined.tolist())
    key, low = key[new], low[new]
    slots = np.full(1 << max(4, (2 * len(key)).bit_length()), -1, np.int32)
    bits = np.zeros(1 << (FILTER_BITS * len(key) // 64).bit_length(), np.uint64)
    _fill(key, keys.head, slots, bits)
    return Index(key, low, owners, owning, shortest, np.unique(keys.words), slots, bits)


def occurrences(texts: pa.ChunkedArray | pa.Array, index: Index) -> Occurrences:
    """Where texts have keys of the index, by text, then place, then length."""
    table = (index.key, index.low, index.slots, index.filter)
    return Occurrences._make(_filled(_find, texts, (np.int64,) * 4, index.shortest, index.lengths, table))
