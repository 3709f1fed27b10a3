"""Evaluation sets as an index of n-grams, and their occurrences in texts.

Words are those of deduplication (operators/dedup/words.py) with digits told apart: case, accents, punctuation and
white space do not count. An item of `ngram` words or more has a key for each run of `ngram`; a shorter one is a key as
a whole, down to `shortest` words. Shorter items say too little to be found by. A key is 128 bits of hash.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from numpy.typing import NDArray

from operators.dedup.signature import MIX2
from operators.dedup.units import Hashes, Places, mix, text_units
from operators.dedup.words import GOLDEN, frozen, tables
from operators.document import Pinned, utf8

BASE1, BASE2 = np.uint64(GOLDEN), np.uint64(0x9FB21C651E98DF25)  # odd, without structure
STEP = np.uint64(1)
MOST_BYTES = 1 << 30  # of an evaluation set, decompressed
FILTER_BITS = 16  # a key: one key in sixteen that is none passes the filter, which stays in cache
NONE = np.int64(-1)
SIX, LOW = np.uint64(6), np.uint64(63)


class Grams(NamedTuple):
    """Runs of words in texts: two halves of their hash, the text, their bytes in it, and what they were found as."""

    key: Hashes
    low: Hashes
    row: Places
    start: Places
    end: Places
    number: Places  # of the key in an index


@dataclass(frozen=True)
class Index:
    """The keys of evaluation sets, each once, with a hash table; `names` of the sets that have a key by `owners`."""

    key: Hashes
    low: Hashes
    owners: Places
    names: tuple[tuple[str, ...], ...]
    lengths: Places  # of keys, in words
    slots: NDArray[np.int32]
    filter: Hashes


@dataclass(frozen=True)
class EvaluationSets:
    """What makes an index: (name, file, fields) of each set, and which n-grams are keys."""

    sets: tuple[tuple[str, Pinned, tuple[str, ...]], ...]
    ngram: int
    shortest: int

    def load(self) -> Index:
        """Raises ValueError naming a set and what is wrong with it."""
        found: list[tuple[Hashes, Hashes, Places]] = []
        lengths: set[int] = set()
        for number, (name, file, fields) in enumerate(self.sets):
            try:
                texts = pa.array(list(items(file, fields)), pa.large_string())
            except ValueError as error:
                raise ValueError(f"sets.{name}: {file.path}: {error}") from None
            grams, sizes = _keys(texts, self.ngram, self.shortest)
            if not len(grams.key):
                raise ValueError(
                    f"sets.{name}: {file.path}: no item of at least {self.shortest} words, of {len(texts)}"
                )
            lengths.update(sizes.tolist())
            found.append((grams.key, grams.low, np.full(len(grams.key), number, np.int64)))
        key, low, of = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return _index(key, low, of, [name for name, _, _ in self.sets], sorted(lengths))


def items(file: Pinned, fields: Sequence[str]) -> Iterator[str]:
    """The texts of a set's items: of each item every string in it, or those of `fields`; of lists every string.
    JSON lines, also as .gz or .zst, or Parquet. Raises ValueError."""
    data = file.read()
    if data[:4] == b"PAR1":
        try:
            table = pq.read_table(pa.BufferReader(data), columns=list(fields) or None)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"not a Parquet file that can be read: {error}") from error
        rows: Iterator[tuple[int, Any]] = enumerate(table.to_pylist(), 1)
    else:
        rows = _lines(_plain(file.path, data))
    seen: set[str] = set()
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object")
        for name in fields or row:
            if name in row:
                seen.add(name)
                yield from _strings(row[name])
    if missing := [name for name in fields if name not in seen]:
        raise ValueError(f"no item has a field {missing[0]!r}")


def _plain(path: str, data: bytes) -> bytes:
    try:
        if path.endswith(".gz"):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MOST_BYTES + 1)
        elif path.endswith(".zst"):
            data = zstandard.ZstdDecompressor().stream_reader(data).read(MOST_BYTES + 1)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise ValueError(f"cannot be decompressed: {error}") from error
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return data


def _lines(data: bytes) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"line {number} is no JSON: {error}") from error


def _strings(value: Any) -> Iterator[str]:
    """The strings in a JSON value, each an item of its own."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            stack.extend(reversed(one.values()))
        elif isinstance(one, (list, tuple)):
            stack.extend(reversed(one))


def _index(key: Hashes, low: Hashes, of: Places, names: Sequence[str], lengths: Sequence[int]) -> Index:
    order = np.lexsort((of, low, key))
    key, low, of = key[order], low[order], of[order]
    new = np.append(True, (key[1:] != key[:-1]) | (low[1:] != low[:-1]))
    sets = np.bitwise_or.reduceat(np.left_shift(1, of), np.flatnonzero(new))
    combined, owners = np.unique(sets, return_inverse=True)
    owning = tuple(tuple(name for k, name in enumerate(names) if one >> k & 1) for one in combined.tolist())
    key, low = key[new], low[new]
    slots = np.full(1 << max(4, (2 * len(key)).bit_length()), NONE, np.int32)
    bits = np.zeros(1 << max(0, (FILTER_BITS * len(key) // 64).bit_length()), np.uint64)
    _fill(key, slots, bits)
    return Index(key, low, owners, owning, np.array(lengths), slots, bits)


@numba.njit(nogil=True, cache=True)
def _fill(key: Any, slots: Any, bits: Any) -> None:
    wrap, last = np.uint64(slots.shape[0] - 1), np.uint64(bits.shape[0] * 64 - 1)
    for k in range(key.shape[0]):
        bit = (key[k] >> np.uint64(32)) & last
        bits[bit >> SIX] |= STEP << (bit & LOW)
        slot = key[k] & wrap
        while slots[slot] >= 0:
            slot = (slot + STEP) & wrap
        slots[slot] = k


@numba.njit(nogil=True, cache=True)
def _grams(data: Any, offsets: Any, folded: Any, lengths: Any, powers: Any, index: Any, found: Any, room: Any) -> Any:
    """Fill `found` with the runs of words whose number of words is in `lengths` and which `index` has (all, where its
    table is empty); returns how many there are."""
    keys, lows, slots, bits = index
    key, low, row, start, end, number = found
    wrap, last = np.uint64(slots.shape[0] - 1), np.uint64(bits.shape[0] * 64 - 1)
    none = np.zeros(0, np.uint64)
    words, starts, ends = np.empty(room, np.uint64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    sums, other = np.empty(room + 1, np.uint64), np.empty(room + 1, np.uint64)
    n = np.int64(0)
    for d in range(offsets.shape[0] - 1):
        count = np.int64(text_units(data, offsets[d], offsets[d + 1], folded, none, words, starts, ends))
        sums[0] = other[0] = np.uint64(0)
        for i in range(np.uint64(count)):
            sums[i + STEP] = sums[i] * BASE1 + words[i]
            other[i + STEP] = other[i] * BASE2 + mix(words[i])
        for j in range(lengths.shape[0]):
            length = lengths[j]
            for i in range(count - length + 1):
                at, to = np.uint64(i), np.uint64(i + length)
                h = mix((sums[to] - sums[at] * powers[0, j]) ^ np.uint64(length))
                place = NONE
                if slots.shape[0]:
                    bit = (h >> np.uint64(32)) & last
                    if not (bits[bit >> SIX] >> (bit & LOW)) & STEP:
                        continue
                    g = mix((other[to] - other[at] * powers[1, j]) ^ MIX2)
                    slot = h & wrap
                    place = np.int64(slots[slot])
                    while place >= 0 and (keys[np.uint64(place)] != h or lows[np.uint64(place)] != g):
                        slot = (slot + STEP) & wrap
                        place = np.int64(slots[slot])
                    if place < 0:
                        continue
                else:
                    g = mix((other[to] - other[at] * powers[1, j]) ^ MIX2)
                if n < key.shape[0]:
                    key[n], low[n], row[n], number[n] = h, g, d, place
                    start[n], end[n] = starts[at], ends[np.uint64(i + length - 1)]
                n += 1
    return n


def _found(column: Any, lengths: Places, index: tuple[Any, ...], guess: int) -> Grams:
    data, offsets = utf8(column)
    powers = np.array([[pow(int(b), int(n), 1 << 64) for n in lengths] for b in (BASE1, BASE2)], np.uint64)
    room = int(np.diff(offsets).max(initial=0)) // 2 + 3
    while True:
        widths = (np.uint64, np.uint64, np.int64, np.int64, np.int64, np.int64)
        found = Grams._make(np.empty(guess, width) for width in widths)
        args = (frozen(data), frozen(offsets), tables().folded, lengths, powers, index, tuple(found), room)
        if (n := _grams(*args)) <= guess:
            return Grams._make(column[:n] for column in found)
        guess = int(n)


def _keys(texts: pa.Array, ngram: int, shortest: int) -> tuple[Grams, Places]:
    """The keys of items, and the lengths that occur."""
    nothing = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.uint64))
    sizes = np.arange(shortest, ngram + 1)
    parts, lengths = [], []
    for (
        size
    ) in sizes.tolist():  # a shorter item is a key as a whole: it has one run of its length and none that is longer
        runs = _found(texts, np.array([size]), nothing, 1024)
        if size < ngram:
            longer = np.unique(_found(texts, np.array([size + 1]), nothing, 1024).row)
            whole = ~np.isin(runs.row, longer)
            runs = Grams._make(column[whole] for column in runs)
        if len(runs.key):
            parts.append(runs)
            lengths.append(size)
    together = [np.concatenate(columns) for columns in zip(*parts, strict=True)] if parts else []
    return Grams._make(together or nothing[:2] + (np.zeros(0, np.int64),) * 4), np.array(lengths, np.int64)


def occurrences(column: pa.ChunkedArray | pa.Array, index: Index) -> Grams:
    """Where texts have keys of the index, by text, then length, then place."""
    return _found(column, index.lengths, (index.key, index.low, index.slots, index.filter), 1024)
