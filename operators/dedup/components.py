"""From rows of equal keys to connected components, with a union-find (Tarjan 1975, path halving) on flat arrays.

Each partition sends on only a spanning forest of its links, at most one edge for each document it touches, so what
the last step must hold grows with the number of duplicates and not with the number of bands.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Docs = NDArray[np.uint64]
CHUNK_ROWS = 1 << 13  # rows of one hash table: 16 k slots of 12 bytes stay in a core's cache
STEP = np.uint64(1)


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


def links(keys: NDArray[np.uint64], docs: Docs) -> tuple[Docs, Docs]:
    """A star for each key: one edge from the first document that has it to each other one."""
    if len(keys) >= 1 << 32:
        raise ValueError(f"{len(keys)} rows in one partition: the limit is 2^32")
    bits = max(0, (len(keys) // CHUNK_ROWS).bit_length())
    first = _first_rows(keys, np.uint64(bits))
    other = np.flatnonzero(first != np.arange(len(keys), dtype=np.uint32))
    return docs[first[other]], docs[other]


@numba.njit(inline="always")
def _top(parent: Any, node: Any) -> Any:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@numba.njit(nogil=True, cache=True)
def _unite(left: Any, right: Any, parent: Any, joined: Any) -> None:
    """Unite both ends of every edge under the smaller number; `joined` marks the edges that made two trees one."""
    for edge in range(left.shape[0]):
        a, b = _top(parent, left[edge]), _top(parent, right[edge])
        joined[edge] = a != b
        if a < b:
            parent[b] = a
        else:
            parent[a] = b
    for node in range(parent.shape[0]):  # parents are smaller than their children, so theirs are final already
        parent[node] = parent[parent[node]]


def _united(left: Docs, right: Docs) -> tuple[Docs, NDArray[Any], NDArray[np.bool_]]:
    """(the documents in order, the place of each one's root among them, the edges of a spanning forest)."""
    docs, dense = np.unique(np.concatenate((left, right)), return_inverse=True)
    width = np.uint32 if len(docs) < 1 << 32 else np.uint64
    dense = dense.astype(width)
    parent = np.arange(len(docs), dtype=width)
    joined = np.empty(len(left), np.bool_)
    _unite(dense[: len(left)], dense[len(left) :], parent, joined)
    return docs, parent, joined


def forest(left: Docs, right: Docs) -> tuple[Docs, Docs]:
    """The fewest of these edges that connect the same documents."""
    _, _, joined = _united(left, right)
    return left[joined], right[joined]


def roots(left: Docs, right: Docs) -> tuple[Docs, Docs]:
    """Every document of an edge, and the smallest document that it is connected to."""
    docs, parent, _ = _united(left, right)
    return docs, docs[parent]
