"""A sample of the path as a picture in two dimensions, from which a person sees whether neighbours belong together.

Documents at even distances along the path are the land; a few runs of consecutive documents, as contexts hold them,
are drawn into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.ordering.graph import unpacked
from operators.ordering.tsne import tsne

SAMPLE = 1500
RUNS, RUN = 8, 12
APART = 4  # times their length is at least the way from one run to the next
SIDE = 1000  # of the picture, in which places are whole numbers: short to write
SCHEMA = pa.schema(
    [
        pa.field("x", pa.float32()),
        pa.field("y", pa.float32()),
        pa.field("context", pa.int32()),  # number of the run, -1 of the land
        pa.field("rank", pa.int64()),
    ]
)


def landscape(
    path: Iterable[pa.Table], found: Iterable[pa.Table], centroids: pa.Table, _units: Sequence[int]
) -> Iterator[pa.Table]:
    """One table of SCHEMA by rank, of about 1,600 documents of `path` (`number`, `rank`) that have a vector in `found`,
    which is gone through once; row i of all its tables is document number i."""
    ranks, contexts = sampled(sum(len(table) for table in path))
    numbers = np.zeros(len(ranks), np.int64)
    for table in path:
        rank = table["rank"].to_numpy().astype(np.int64)
        wanted = np.isin(rank, ranks)
        numbers[np.searchsorted(ranks, rank[wanted])] = table["number"].to_numpy()[wanted]
    by_number = np.argsort(numbers)
    parts, first = [], 0
    for table in found:
        low, high = np.searchsorted(numbers, [first, first + len(table)], sorter=by_number)
        if low < high:
            parts.append(unpacked(table.take(pa.array(numbers[by_number[low:high]] - first)), centroids))
        first += len(table)
    if not len(ranks):
        yield SCHEMA.empty_table()
        return
    vectors = np.empty((len(ranks), parts[0].shape[1]), np.int16)
    vectors[by_number] = np.concatenate(parts)
    alike = vectors.any(axis=1)
    places = _in_square(tsne(vectors[alike]))
    columns = [*places.T.astype(np.float32), contexts[alike], ranks[alike]]
    yield pa.table([pa.array(column) for column in columns], schema=SCHEMA)


def sampled(documents: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The ranks of the sample, ascending, and the run that each is in, -1 for none. Runs lie evenly spaced, and are
    fewer and shorter where there are not documents enough."""
    runs = max(1, min(RUNS, documents // (APART * RUN)))
    length = min(RUN, documents)
    starts = (2 * np.arange(runs) + 1) * documents // (2 * runs) - length // 2
    in_runs = (starts[:, None] + np.arange(length)).ravel()
    land = np.arange(min(SAMPLE, documents)) * documents // max(1, min(SAMPLE, documents))
    ranks = np.union1d(land, in_runs)
    contexts = np.full(len(ranks), -1, np.int32)
    contexts[np.searchsorted(ranks, in_runs)] = np.repeat(np.arange(runs), length)
    return ranks, contexts


def _in_square(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The places as whole numbers from 0 to SIDE, to scale."""
    if not len(places):
        return places
    moved = places - places.min(axis=0)
    return np.asarray(np.rint(moved * (SIDE / (moved.max() or 1.0))), np.float64)
