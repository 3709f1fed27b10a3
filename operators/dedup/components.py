"""From rows of equal keys to connected components, with a union-find (Tarjan 1975, path halving) on flat arrays.

Each partition sends on only a spanning forest of its links. One process then unites the links of all of them, a table
at a time, over an array of parents: four bytes a document. Where that is more than the process may take, documents are
cut into blocks that it can hold, and the links with their larger end in the highest block come first: what they unite
below the block becomes a link of lower ones. So each block is held once, and links wait in files for their turn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.hashes import spread
from operators.phases import PUBLISHED_NUMBER

Docs = NDArray[np.uint64]
NARROW = 1 << 32  # what uint32 can count
CHUNK_ROWS = 1 << 13  # rows of one hash table: 16 k slots of 12 bytes stay in a core's cache
STEP = np.uint64(1)
LINKS_AT_ONCE = 1 << 20
DOCUMENTS_AT_ONCE = 1 << 22  # of which results are yielded


@numba.njit(nogil=True, cache=True)
def _first_rows(keys: Any, bits: Any) -> Any:
    """For each row the first row with its key: split the keys by their low `bits`, then a small hash table a part."""
    parts = np.uint64(1) << bits
    low = parts - STEP
    starts = np.zeros(parts + STEP, np.int64)
    for key in keys:
        starts[(key & low) + STEP] += 1
    largest = 0
    for part in range(parts):
        largest = max(largest, starts[part + 1])
        starts[part + 1] += starts[part]
    order = np.empty(len(keys), np.uint32)
    place = starts.copy()
    for row in range(len(keys)):
        part = keys[row] & low
        order[place[part]] = row
        place[part] += 1
    slots = 1
    while slots < 2 * largest:
        slots *= 2
    wrap = np.uint64(slots - 1)
    slot_key = np.empty(slots, np.uint64)
    slot_row = np.empty(slots, np.uint32)
    slot_part = np.full(slots, -1, np.int64)  # whose entry it is: spares clearing the table for each part
    first = np.empty(len(keys), np.uint32)
    for part in range(parts):
        for at in range(starts[part], starts[part + 1]):
            row = order[at]
            key = keys[row]
            slot = (key >> bits) & wrap
            while slot_part[slot] == part and slot_key[slot] != key:
                slot = (slot + STEP) & wrap
            if slot_part[slot] != part:
                slot_part[slot] = part
                slot_key[slot] = key
                slot_row[slot] = row
            first[row] = slot_row[slot]
    return first


def first_rows(keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """For each row the first row that has its key. Keys should differ in their low bits, as hashes do."""
    if len(keys) >= NARROW:
        raise ValueError(f"{len(keys)} rows in one partition: the limit is 2^32")
    bits = max(0, (len(keys) // CHUNK_ROWS).bit_length())
    first: NDArray[np.uint32] = _first_rows(keys, np.uint64(bits))
    return first


def links(keys: NDArray[np.uint64], docs: Docs) -> tuple[Docs, Docs]:
    """A star for each key: one edge from the first document that has it to each other one."""
    first = first_rows(keys)
    other = np.flatnonzero(first != np.arange(len(keys), dtype=np.uint32))
    return docs[first[other]], docs[other]


@numba.njit(inline="always")
def _top(parent: Any, node: Any) -> Any:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@numba.njit(nogil=True, cache=True)
def _unite(left: Any, right: Any, parent: Any) -> Any:
    """Unite both ends of every edge under the smaller number; which edges made two trees one."""
    joined = np.empty(left.shape[0], np.bool_)
    for edge in range(left.shape[0]):
        a, b = _top(parent, left[edge]), _top(parent, right[edge])
        joined[edge] = a != b
        if a < b:
            parent[b] = a
        else:
            parent[a] = b
    return joined


def forest(left: Docs, right: Docs) -> tuple[Docs, Docs]:
    """The fewest of these edges that connect the same documents."""
    place = first_rows(spread(np.concatenate((left, right))))  # numbers the documents without sorting them
    joined = _unite(place[: len(left)], place[len(left) :], np.arange(len(place), dtype=np.uint32))
    return left[joined], right[joined]


class Numbering(NamedTuple):
    """Dense numbers: documents in the order of their units, then published ones (distinct, ascending)."""

    first: NDArray[np.uint64]  # number of each unit's first document, and of the first published one
    published: Docs

    def dense(self, docs: Docs) -> NDArray[np.uint64]:
        new = docs < PUBLISHED_NUMBER
        numbers = np.empty(len(docs), np.uint64)
        numbers[new] = self.first[docs[new] >> np.uint64(32)] + (docs[new] & np.uint64(0xFFFFFFFF))
        numbers[~new] = self.first[-1] + self.published.searchsorted(docs[~new]).astype(np.uint64)
        return numbers

    def docs(self, numbers: NDArray[np.uint64]) -> Docs:
        new = numbers < self.first[-1]
        docs = np.empty(len(numbers), np.uint64)
        unit = self.first.searchsorted(numbers[new], side="right").astype(np.uint64) - STEP
        docs[new] = (unit << np.uint64(32)) | (numbers[new] - self.first[unit])
        docs[~new] = self.published[numbers[~new] - self.first[-1]]
        return docs


@numba.njit(nogil=True, cache=True)
def _unite_block(low: Any, high: Any, base: Any, none: Any, parent: Any, below: Any, links: Any) -> Any:
    """Unite both ends of links (low < high, high in the block that begins at `base`); the smaller number is the parent.

    `below[root]` is the smallest member below the block of what `root` stands for, or `none`; links between members
    below the block are written to `links`. Returns their number. With a single block `below` is empty.
    """
    whole = len(below) == 0
    made = 0
    for k in range(low.shape[0]):
        a = _top(parent, high[k] - base)
        if low[k] >= base:
            b = _top(parent, low[k] - base)
            if a == b:
                continue
            a, b = min(a, b), max(a, b)
            parent[b] = a
            other = none if whole else np.uint64(below[b])
        else:
            other = np.uint64(low[k])
        if whole or other == none or other == below[a]:
            continue
        if below[a] != none:
            links[made, 0], links[made, 1] = min(other, np.uint64(below[a])), max(other, np.uint64(below[a]))
            made += 1
            other = links[made - 1, 0]
        below[a] = other
    return made


@numba.njit(nogil=True, cache=True)
def _settle(parent: Any, below: Any, base: Any, none: Any) -> None:
    """Make `parent` the smallest known member: below the block, or in it."""
    for node in range(parent.shape[0]):  # parents are smaller than their children, so theirs are final already
        parent[node] = parent[parent[node]]
    for node in range(parent.shape[0] - 1, -1, -1):
        top = parent[node]
        parent[node] = top + base if len(below) == 0 or below[top] == none else below[top]


@numba.njit(nogil=True, cache=True)
def _mark(roots: Any, base: Any, joined: Any) -> None:
    """Set the bits of numbers that have another root than themselves, and of their roots."""
    for k in range(roots.shape[0]):
        node, root = np.uint64(base) + np.uint64(k), np.uint64(roots[k])
        if root != node:
            joined[node >> np.uint64(3)] |= np.uint8(1) << np.uint8(node & np.uint64(7))
            joined[root >> np.uint64(3)] |= np.uint8(1) << np.uint8(root & np.uint64(7))


class Waiting(NamedTuple):
    """Links that wait for the block of their larger end, in a file for each block."""

    folder: Path
    block: int

    def add(self, pairs: NDArray[Any]) -> None:
        number = (pairs[:, 1] // pairs.dtype.type(self.block)).astype(np.int64)
        order = np.argsort(number, kind="stable")
        numbers, starts = np.unique(number[order], return_index=True)
        for which, part in zip(numbers.tolist(), np.split(pairs[order], starts[1:]), strict=False):
            with (self.folder / str(which)).open("ab") as file:
                file.write(part.tobytes())

    def take(self, number: int, width: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """The links of a block."""
        if (path := self.folder / str(number)).exists():
            with path.open("rb") as file:
                while data := file.read(2 * width.itemsize * LINKS_AT_ONCE):
                    yield np.frombuffer(data, width).reshape(-1, 2)
            path.unlink()


def connect(tables: Iterable[pa.Table], sizes: Sequence[int], memory: int) -> Iterator[pa.Table]:
    """Fold links (`left`, `right`: documents or published numbers) to (`doc`, `root`) of all that they connect.

    `root` is one of them, the same for all. Holds `memory` bytes at most, beside an eighth of a byte a document and the
    distinct published numbers; what is more lies in files of the temporary folder.
    """
    first = np.concatenate(([0], np.cumsum(sizes))).astype(np.uint64)
    ends = (np.asarray(table[side].to_numpy(), np.uint64) for table in tables for side in ("left", "right"))
    published = [np.unique(docs[docs >= PUBLISHED_NUMBER]) for docs in ends]
    numbering = Numbering(first, np.unique(np.concatenate([np.zeros(0, np.uint64), *published])))
    with tempfile.TemporaryDirectory(prefix="components-") as folder:
        roots = _roots(_pairs(tables, numbering), len(numbering.published) + int(first[-1]), memory, Path(folder))
        yield pa.table({"doc": pa.array([], pa.uint64()), "root": pa.array([], pa.uint64())})
        joined = np.zeros(len(roots) // 8 + 1, np.uint8)
        for at in range(0, len(roots), DOCUMENTS_AT_ONCE):
            _mark(np.asarray(roots[at : at + DOCUMENTS_AT_ONCE]), at, joined)
        for at in range(0, len(roots), DOCUMENTS_AT_ONCE):  # a multiple of eight
            bits = np.unpackbits(joined[at // 8 : (at + DOCUMENTS_AT_ONCE) // 8], bitorder="little")
            numbers = np.flatnonzero(bits).astype(np.uint64) + np.uint64(at)
            if len(numbers):
                found = {"doc": numbering.docs(numbers), "root": numbering.docs(roots[numbers].astype(np.uint64))}
                yield pa.table({name: pa.array(docs) for name, docs in found.items()})


def _pairs(tables: Iterable[pa.Table], numbering: Numbering) -> Iterator[NDArray[np.uint64]]:
    """The links by their dense numbers, (low, high) a row."""
    for table in tables:
        for at in range(0, table.num_rows, LINKS_AT_ONCE):
            part = table.slice(at, LINKS_AT_ONCE)
            left, right = (numbering.dense(part[side].to_numpy()) for side in ("left", "right"))
            apart = left != right
            yield np.stack((np.minimum(left, right)[apart], np.maximum(left, right)[apart]), axis=1)


def _roots(links: Iterator[NDArray[np.uint64]], count: int, memory: int, folder: Path) -> NDArray[Any]:
    """The smallest number that each of `count` is connected to."""
    width = np.dtype(np.uint32 if count < NARROW - 1 else np.uint64)
    if count * width.itemsize <= memory:
        return _block(links, 0, count, width, None)
    block = max(1, memory // (2 * width.itemsize))  # parents, and what lies below
    waiting = Waiting(folder, block)
    for pairs in links:
        waiting.add(pairs.astype(width))
    roots = np.memmap(folder / "roots", width, "w+", shape=(count,))
    starts = range(0, count, block)
    for number, base in reversed(list(enumerate(starts))):
        size = min(block, count - base)
        roots[base : base + size] = _block(waiting.take(number, width), base, size, width, waiting)
    for base in starts:  # upwards: what lies below is final
        roots[base : base + block] = roots[roots[base : base + block]]
    return roots


def _block(
    links: Iterator[NDArray[Any]], base: int, size: int, width: np.dtype[Any], waiting: Waiting | None
) -> NDArray[Any]:
    """The smallest known number that each of a block is connected to; links below the block go to `waiting`."""
    none = np.uint64(np.iinfo(width).max)
    parent = np.arange(size, dtype=width)
    below = np.full(0 if waiting is None else size, none, width)
    for pairs in links:
        made = np.empty((len(pairs) if waiting else 0, 2), width)
        low, high = (np.ascontiguousarray(pairs[:, end], width) for end in (0, 1))
        count = _unite_block(low, high, np.uint64(base), none, parent, below, made)
        if waiting:
            waiting.add(made[:count])
    _settle(parent, below, np.uint64(base), none)
    return parent
