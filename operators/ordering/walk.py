"""The phase that walks through the graph of neighbours: from edges, best first, to an order of the documents.

Fragments that greedy edges leave are stitched: their ends are again linked to the ends nearest to them and the best
links kept, until one path is left or nothing is alike. Ends are a fifth of the documents, so what was too far from a
whole corpus to be seen is near among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.ordering.clustering import cosines
from operators.ordering.graph import unpacked
from operators.ordering.neighbours import WEIGHTS, cosines_of, nearest_neighbours
from operators.ordering.path import (
    JUMP,
    LINKS,
    Edges,
    Fragments,
    Numbers,
    Stretch,
    walk_greedily,
)
from operators.ordering.vectors import Vectors, on_grid

__all__ = ["LINKS", "SCHEMA", "walk", "walk_bytes"]

SCHEMA = pa.schema(
    [
        pa.field("number", pa.uint32()),
        pa.field("rank", pa.uint64()),
        pa.field("similarity", pa.float32()),  # cosine to the predecessor; null where there is none to tell
        pa.field("link", pa.uint8()),  # to it, a place in LINKS
    ]
)
ROWS = 1 << 20  # of a table
EDGES_AT_ONCE = 1 << 20
PLACE = np.uint64(20)  # bits of a number below ENDS_AT_ONCE
ENDS_AT_ONCE = 1 << 18  # compared with each other: 0.5 GB of 1,024 dimensions
GROUP = 256  # ends
PAIRS = 1 << 19  # of ends that are linked, where there are few ends: in the end all
FEWEST = 64  # one of so many ends must be joined for another round, or documents that are all alike would take many
SEAMS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Region:
    """Documents with consecutive numbers from `base` on, and their vectors; the last ones have none."""

    tables: Iterable[pa.Table]
    centroids: pa.Table
    base: int
    documents: int
    alike: int  # of them have a vector

    @staticmethod
    def of(tables: Iterable[pa.Table], sizes: pa.Table, centroids: pa.Table) -> Region:
        documents, alike, first = 0, 0, 0
        for table in tables:
            lists = table["list"].to_numpy()
            first = first if documents or not len(lists) else int(lists[0])
            documents += len(lists)
            alike += int(np.searchsorted(lists, len(centroids)))
        before = sizes["list"].to_numpy() < first
        return Region(tables, centroids, int(sizes["documents"].to_numpy()[before].sum()), documents, alike)

    def vectors(self, numbers: Numbers) -> Iterator[Vectors]:
        """The vectors of these documents, ascending and counted from `base`, of each table that has any."""
        start = 0
        for table in self.tables:
            low, high = np.searchsorted(numbers, [start, start + len(table)])
            if low < high:
                yield unpacked(table.take(pa.array(numbers[low:high] - np.uint32(start))), self.centroids)
            start += len(table)


def walk(  # noqa: PLR0913
    edges: Iterable[pa.Table],
    vectors: Iterable[pa.Table],
    sizes: pa.Table,
    centroids: pa.Table,
    _units: Sequence[int],
    *,
    method: str,
    seed: int,
    neighbours: int,
    probes: int,
    max_similarity: float,
) -> Iterator[pa.Table]:
    """The path through one region as tables of SCHEMA, in its order, of bounded size.

    `edges` (`lo`, `hi`, `weight`) come best first, equal ones by `lo` and `hi`; `vectors` (`list`, `vector`) by number,
    those of the list after the last centroid have none and are put at the end. `method`: greedy_edge, or icp, which
    draws by `seed`. `neighbours` of each end are looked for among `probes` groups of ends, those with a cosine of at
    most `max_similarity`.
    """
    region = Region.of(vectors, sizes, centroids)
    stream = EdgeStream(edges, region.base)
    if method == "icp":
        whole = walk_greedily(stream, region.alike, seed)
        jumps = np.flatnonzero(whole.link == JUMP)[1:]
        seams = whole.number[jumps - 1], whole.number[jumps]
        stretches = whole.cut(ROWS)
    else:
        fragments = Fragments(region.alike)
        for some in stream:
            fragments.join(some)
        fragments.stitched_from_now_on()
        _stitch(fragments, region, neighbours, probes, max_similarity)
        seams = fragments.seams()
        stretches = fragments.path(ROWS)
    yield from _tables(region, stretches, _of_seams(region, *seams))


def walk_bytes(method: str, documents: int, neighbours: int = 10, dimensions: int = 1024) -> int:
    """What `walk` holds for a region of so many documents, about."""
    if method == "icp":
        return documents * (32 + 8 * neighbours) + min(documents // 10, SEAMS_AT_ONCE) * 8 * dimensions
    return documents * 15 + min(documents // 5, ENDS_AT_ONCE) * (4 * dimensions + 64 * neighbours)


@dataclass(frozen=True)
class EdgeStream:
    """The edges of tables, with numbers counted from `base`."""

    tables: Iterable[pa.Table]
    base: int

    def __iter__(self) -> Iterator[Edges]:
        for table in self.tables:
            for at in range(0, len(table), EDGES_AT_ONCE):
                low, high, weight = (table[name].slice(at, EDGES_AT_ONCE).to_numpy() for name in ("lo", "hi", "weight"))
                yield Edges(low - np.uint32(self.base), high - np.uint32(self.base), weight)


class Ends(NamedTuple):
    """Documents that a path can go on from, ascending, with their vectors."""

    numbers: Numbers
    vectors: Vectors

    def among(self, numbers: Numbers) -> Ends:
        kept = np.isin(self.numbers, numbers, assume_unique=True)
        return Ends(self.numbers[kept], self.vectors[kept])


def _stitch(fragments: Fragments, region: Region, neighbours: int, probes: int, cap: float) -> None:
    """Link ends of fragments, the best first, until nothing that is alike can be linked."""
    held: Ends | None = None
    while len(fragments.seams()[0]):
        numbers = fragments.ends()
        joined = 0
        for ends in _windows(region, numbers) if held is None else [held.among(numbers)]:
            joined += fragments.join(_nearest(ends, neighbours, probes, cap))
            held = ends if len(ends.numbers) == len(numbers) else None
        if joined * FEWEST < len(numbers):
            return


def _windows(region: Region, numbers: Numbers) -> Iterator[Ends]:
    """ENDS_AT_ONCE of the ends at a time. Near numbers are of near lists, so they are worth comparing."""
    parts: list[Vectors] = []
    start = held = 0
    for part in region.vectors(numbers):
        parts.append(part)
        held += len(part)
        while held >= ENDS_AT_ONCE or (held and start + held == len(numbers)):
            joined = np.concatenate(parts)
            size = min(held, ENDS_AT_ONCE)
            yield Ends(numbers[start : start + size], joined[:size])
            start, held, parts = start + size, held - size, [joined[size:]]


def _nearest(ends: Ends, neighbours: int, probes: int, cap: float) -> Edges:
    """The edges between each end and those nearest to it, best first.

    Ends are compared within groups of them that lie together, and with the groups of the nearest means.
    """
    count = len(ends.numbers)
    k = max(1, min(count - 1, max(neighbours + 1, PAIRS // count)))  # the other end of its own path is of no use
    groups = -(-count // GROUP)
    if groups <= probes:
        lists, probed = np.zeros(count, np.int64), np.zeros((1, 1), np.int64)
    else:
        lists = np.arange(count) // GROUP
        sums = [ends.vectors[at : at + GROUP].sum(axis=0, dtype=np.int64) for at in range(0, count, GROUP)]
        alone = np.zeros(groups, np.int64), np.zeros((1, 1), np.int64)
        others, _ = nearest_neighbours(on_grid(np.stack(sums)), *alone, probes - 1)
        probed = np.concatenate((np.arange(groups)[:, None], others), axis=1)
    rows, weights = nearest_neighbours(ends.vectors, lists, probed, k, cap=cap)
    low, high = np.minimum(rows, np.arange(count)[:, None]), np.maximum(rows, np.arange(count)[:, None])
    keys = ((WEIGHTS - weights.astype(np.uint64)) << PLACE | low.astype(np.uint64)) << PLACE | high.astype(np.uint64)
    keys = np.unique(keys[rows >= 0])
    place = (np.uint64(1) << PLACE) - np.uint64(1)
    weight = (WEIGHTS - (keys >> PLACE >> PLACE)).astype(np.uint16)
    return Edges(ends.numbers[keys >> PLACE & place], ends.numbers[keys & place], weight)


def _of_seams(region: Region, before: Numbers, after: Numbers) -> NDArray[np.float32]:
    """The cosines over each jump; not a number for the first document and those without a vector."""
    firsts = len(before) + 1 if region.alike else 0
    found = np.full(firsts + region.documents - region.alike, np.nan, np.float32)
    for at in range(0, len(before), SEAMS_AT_ONCE):
        pairs = np.stack((before[at : at + SEAMS_AT_ONCE], after[at : at + SEAMS_AT_ONCE]))
        numbers, places = np.unique(pairs, return_inverse=True)
        held = np.concatenate(list(region.vectors(numbers)))
        left, right = places.reshape(pairs.shape)
        found[1 + at : 1 + at + len(left)] = cosines(held[left], held[right])
    return found


def _tables(region: Region, stretches: Iterable[Stretch], jumped: NDArray[np.float32]) -> Iterator[pa.Table]:
    """The path, and after it what has no vector."""
    starts = range(region.alike, region.documents, ROWS)
    rest = (np.arange(start, min(start + ROWS, region.documents), dtype=np.uint32) for start in starts)
    unlinked = (Stretch(n, np.zeros(len(n), np.uint16), np.full(len(n), JUMP, np.uint8)) for n in rest)
    rank = region.base
    seam = 0
    for stretch in chain(stretches, unlinked):
        similarity = cosines_of(stretch.weight)
        jumps = np.flatnonzero(stretch.link == JUMP)
        similarity[jumps] = jumped[seam : seam + len(jumps)]
        columns = {
            "number": stretch.number + np.uint32(region.base),
            "rank": np.arange(rank, rank + len(stretch.number), dtype=np.uint64),
            "similarity": pa.array(similarity, from_pandas=True),  # not a number: null
            "link": stretch.link,
        }
        yield pa.table(columns, schema=SCHEMA)
        rank, seam = rank + len(stretch.number), seam + len(jumps)
    if not region.documents:
        yield SCHEMA.empty_table()
