"""Paths through a graph of neighbours that link like documents: heuristics for the maximum travelling salesman problem.

`Fragments` takes the best edges first and keeps those that leave only paths (the greedy-edge or multi-fragment
heuristic, Bentley 1992): pieces grow everywhere at once, so nobody's best neighbour is used up by a walk that passes.
`walk_greedily` is Algorithm 1 of In-Context Pretraining (Shi et al. 2024, arXiv 2310.10638): from a document of minimum
degree on to the best neighbour that was not visited, and where there is none, anew.

Edges come as a stream, best first, equal ones by their smaller and then their larger document; where a document has
equally good ones, the first is the one to the smaller number. Numbers count from 0. A weight is a cosine in parts of
65,535.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from operators.hashes import spread

EDGE, STITCH, JUMP = 0, 1, 2  # how a document of a path follows the one before it
LINKS = ("edge", "stitch", "jump")
NONE = np.uint64(2**64 - 1)
STEP, HALF = np.uint64(1), np.uint64(32)
FACTORS = (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35)  # odd ones that scatter 32-bit numbers, of xxHash and MurmurHash3
Numbers = NDArray[np.uint32]
Weights = NDArray[np.uint16]


class Edges(NamedTuple):
    """Some of the undirected edges, arrays of equal length: `low` < `high`."""

    low: Numbers
    high: Numbers
    weight: Weights


class Stretch(NamedTuple):
    """Some of a path, in order: documents, and the weight (0 for a jump) and kind of the link to each one's
    predecessor. The first of a path is a jump."""

    number: Numbers
    weight: Weights
    link: NDArray[np.uint8]

    def cut(self, rows: int) -> Iterator[Stretch]:
        """The same in stretches of at most `rows`."""
        for at in range(0, len(self.number), rows):
            part = slice(at, at + rows)
            yield Stretch(self.number[part], self.weight[part], self.link[part])


@numba.njit(nogil=True, cache=True)
def _join(low: Any, high: Any, weight: Any, degree: Any, near: Any, weights: Any) -> Any:
    joined = 0
    for e in range(np.uint64(low.shape[0])):
        a, b = np.uint64(low[e]), np.uint64(high[e])
        at_a, at_b = np.uint64(degree[a]), np.uint64(degree[b])
        if at_a > STEP or at_b > STEP:
            continue
        end, other = np.uint64(near[a, 1]), np.uint64(near[b, 1])
        if end == b:
            continue
        near[a, at_a], near[b, at_b] = b, a
        weights[a, at_a] = weights[b, at_b] = weight[e]
        degree[a], degree[b] = at_a + STEP, at_b + STEP
        near[end, 1], near[other, 1] = other, end  # after the rest: a lone document is its own end
        joined += 1
    return joined


@numba.njit(nogil=True, cache=True)
def _follow(degree: Any, near: Any, weights: Any, edged: Any, at: Any, number: Any, weight: Any, link: Any) -> Any:
    """Write the next documents of the fragments one after the other; `at`: where to look for the next fragment, then
    the next document, the one before it, and weight and kind of the link between them. Return how many there are."""
    start, here, before, heavy, kind = at[0], at[1], at[2], at[3], at[4]
    written = np.uint64(0)
    while written < np.uint64(number.shape[0]):
        if here == NONE:
            while start < np.uint64(degree.shape[0]) and (degree[start] > 1 or near[start, 1] < start):
                start += STEP
            if start == np.uint64(degree.shape[0]):
                break
            here, before, heavy, kind = start, NONE, np.uint64(0), np.uint64(JUMP)
            start += STEP
        number[written], weight[written], link[written] = here, heavy, kind
        written += STEP
        came, before = before, here
        here = NONE
        for slot in range(np.uint64(degree[before])):
            if np.uint64(near[before, slot]) != came:
                here = np.uint64(near[before, slot])
                heavy = np.uint64(weights[before, slot])
                kind = np.uint64(EDGE if slot < edged[before] else STITCH)
    at[0], at[1], at[2], at[3], at[4] = start, here, before, heavy, kind
    return written


class Fragments:
    """Paths that grow by their ends, of 14 bytes a document. At first each document is one.

    A document with fewer than two neighbours is an end, and the place of the second one says where the other end of its
    path is: an edge between the two would close a circle. So no union-find is needed.
    """

    def __init__(self, documents: int) -> None:
        self._degree = np.zeros(documents, np.uint8)
        self._near = np.empty((documents, 2), np.uint32)
        self._near[:] = np.arange(documents, dtype=np.uint32)[:, None]
        self._weights = np.zeros((documents, 2), np.uint16)
        self._edged = self._degree

    def join(self, edges: Edges) -> int:
        """Take the edges that leave only paths; how many these are."""
        return int(_join(*edges, self._degree, self._near, self._weights))

    def stitched_from_now_on(self) -> None:
        """What is joined from here on is a stitch."""
        self._edged = self._degree.copy()

    def ends(self) -> Numbers:
        """The documents with fewer than two neighbours, ascending."""
        return np.flatnonzero(self._degree < 2).astype(np.uint32)

    def seams(self) -> tuple[Numbers, Numbers]:
        """The last document of each fragment but the last one, and the first of the next, as they will follow."""
        ends = self.ends()
        others = self._near[ends, 1]
        first = ends <= others
        return others[first][:-1], ends[first][1:]

    def path(self, rows: int) -> Iterator[Stretch]:
        """All fragments by their smaller ends, with which each begins, in stretches of at most `rows`."""
        at = np.array([0, NONE, NONE, 0, JUMP], np.uint64)
        left = len(self._degree)
        while left:
            size = min(rows, left)
            stretch = Stretch(np.empty(size, np.uint32), np.empty(size, np.uint16), np.empty(size, np.uint8))
            left -= int(_follow(self._degree, self._near, self._weights, self._edged, at, *stretch))
            yield stretch


class Neighbours(NamedTuple):
    """Every document's neighbours, best first: those of document i are the rows from bounds[i] to bounds[i + 1]."""

    bounds: NDArray[Any]
    number: Numbers


@numba.njit(nogil=True, cache=True)
def _count(low: Any, high: Any, bounds: Any) -> None:
    two = np.uint64(2)
    for e in range(np.uint64(low.shape[0])):
        for end in (np.uint64(low[e]), np.uint64(high[e])):
            if end + two < np.uint64(bounds.shape[0]):
                bounds[end + two] += 1


@numba.njit(nogil=True, cache=True)
def _fill(low: Any, high: Any, bounds: Any, number: Any) -> None:
    for e in range(np.uint64(low.shape[0])):
        a, b = np.uint64(low[e]), np.uint64(high[e])
        at_a, at_b = np.uint64(bounds[a + STEP]), np.uint64(bounds[b + STEP])
        number[at_a], number[at_b] = b, a
        bounds[a + STEP], bounds[b + STEP] = at_a + STEP, at_b + STEP


def neighbours_of(edges: Iterable[Edges], documents: int) -> Neighbours:
    """The neighbours of each document, from edges that are gone through twice: 4 bytes a document, 8 an edge (8 and 8
    from 2^31 edges on). Each row has the order of the stream, so nothing is sorted."""
    bounds: NDArray[Any] = np.zeros(documents + 1, np.uint32)
    rows = 0
    for some in edges:
        _count(some.low, some.high, bounds)
        rows += 2 * len(some.low)
    if rows >> 32:
        bounds = bounds.astype(np.uint64)
    np.cumsum(bounds, out=bounds)  # at i + 1 the start of row i, which filling moves to its end
    number = np.empty(rows, np.uint32)
    for some in edges:
        _fill(some.low, some.high, bounds, number)
    return Neighbours(bounds, number)


def starts(neighbours: Neighbours, seed: int) -> Numbers:
    """All documents by their number of neighbours, equal ones in an order that is drawn by `seed`."""
    salt = np.uint32(spread(np.array([seed], np.uint64))[0] >> HALF)
    drawn = np.arange(len(neighbours.bounds) - 1, dtype=np.uint32) ^ salt
    for factor in FACTORS:
        drawn *= np.uint32(factor)
        drawn ^= drawn >> np.uint32(16)
    keys = np.diff(neighbours.bounds).astype(np.uint64) << HALF
    keys |= drawn
    keys.sort()
    drawn = keys.astype(np.uint32)
    for factor in reversed(FACTORS):  # each step can be undone, which is faster than to sort places
        drawn ^= drawn >> np.uint32(16)
        drawn *= np.uint32(pow(factor, -1, 1 << 32))
    return drawn ^ salt


@numba.njit(nogil=True, cache=True)
def _walk(bounds: Any, neighbours: Any, starts: Any, number: Any, link: Any) -> None:
    visited = np.zeros(starts.shape[0], np.bool_)
    written = np.uint64(0)
    for start in starts:
        if visited[np.uint64(start)]:
            continue
        here, kind = np.uint64(start), JUMP
        while here != NONE:
            visited[here] = True
            number[written], link[written] = here, kind
            written += STEP
            row, end = np.uint64(bounds[here]), np.uint64(bounds[here + STEP])
            here, kind = NONE, EDGE
            while row < end:
                if not visited[np.uint64(neighbours[row])]:
                    here = np.uint64(neighbours[row])
                    break
                row += STEP


@numba.njit(nogil=True, cache=True)
def _weigh(low: Any, high: Any, weight: Any, place: Any, weights: Any) -> None:
    for e in range(np.uint64(low.shape[0])):
        a, b = np.uint64(place[np.uint64(low[e])]), np.uint64(place[np.uint64(high[e])])
        first, second = min(a, b), max(a, b)
        if second - first == STEP:
            weights[second] = weight[e]


def walk_greedily(edges: Iterable[Edges], documents: int, seed: int) -> Stretch:
    """The path of Algorithm 1, from edges that are gone through three times. Its line 7 is printed with arg min; its
    text, and what it is for, want the highest weight. The paper restarts at a random document of minimum degree: here
    at the first unvisited one of `starts`."""
    neighbours = neighbours_of(edges, documents)
    path = Stretch(np.empty(documents, np.uint32), np.zeros(documents, np.uint16), np.empty(documents, np.uint8))
    _walk(*neighbours, starts(neighbours, seed), path.number, path.link)
    del neighbours
    place = np.empty(documents, np.uint32)
    place[path.number] = np.arange(documents, dtype=np.uint32)
    for some in edges:
        _weigh(*some, place, path.weight)
    return path
