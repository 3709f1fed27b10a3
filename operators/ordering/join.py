"""Lists of vectors joined with themselves: each partition owns a range of documents and is sent their lists, and all
that these probe, so that it finds the nearest neighbours of its own without another's help.

What else must be known of a list travels in its first row.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.document import with_columns
from operators.ordering import vectors
from operators.ordering.compression import codebook_from, decoded, unpacked_codes
from operators.ordering.division import bounds_of
from operators.ordering.neighbours import Rows, Weights, nearest_neighbours
from operators.ordering.numbering import NONE, keys_of, starts_of

BYTES = 16  # of a row that is sent, beside its vector


def numbers_of(table: pa.Table, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of the documents of some whole lists, by list."""
    lists = table["list"].to_numpy()
    return np.asarray(starts[lists] + np.arange(len(lists)) - np.searchsorted(lists, lists), np.int64)


def sent(table: pa.Table, centroids: pa.Table, sizes: pa.Table, partitions: int) -> pa.Table:
    """The documents of some whole lists (`list`, `doc`, `vector`, by list), once for each partition that needs them;
    `own`: it is to find the neighbours. `probed`, in a list's first row, are the lists that it probes, null for all.
    Of codes there are also, there, the `centroid` and, in the partition's first row, the `codebook`."""
    starts = starts_of(sizes)
    lists = table["list"].to_numpy().astype(np.int64)
    number = numbers_of(table, starts)
    probed = _probed_in(centroids)
    bounds = bounds_of(probed, starts, partitions)
    owner = np.minimum(np.searchsorted(bounds[1:], number, side="right"), partitions - 1)
    at, part, opens = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    owners, there = set(owner.tolist()), np.unique(lists)
    for p in range(partitions):
        needed = _needed(int(bounds[p]), int(bounds[p + 1]), starts, probed)
        if p not in owners and not needed[there].any():
            continue
        wanted = np.flatnonzero((owner == p) | needed[lists])
        at.append(wanted)
        part.append(np.full(len(wanted), p))
        opens.append(number[wanted] == starts[:-1][needed].min(initial=starts[-1]))
    rows, to, first = np.concatenate(at), np.concatenate(part), np.concatenate(opens)
    leads = (number == starts[lists])[rows] & (lists[rows] < len(centroids))
    of_list = pa.array(lists[rows], mask=~leads)
    columns = {
        "key": pa.array(keys_of(to, partitions)),
        "number": pa.array(number[rows].astype(np.uint32)),
        "own": pa.array(owner[rows] == to),
        "probed": centroids["probed"].take(of_list),
    }
    if "codebook" in centroids.column_names:
        columns["centroid"] = centroids["vector"].cast(pa.large_binary()).take(of_list)
        columns["codebook"] = centroids["codebook"].take(pa.array(np.zeros(len(rows), np.int64), mask=~first))
    return with_columns(table.select(["list", "doc", "vector"]).take(pa.array(rows)), columns)


def _probed_in(centroids: pa.Table) -> Rows | None:
    """The lists that each list probes, [L, p], itself more than once where it finds fewer; None for all."""
    if centroids["probed"].null_count:
        return None
    flat = np.frombuffer(b"".join(centroids["probed"].to_pylist()), "<u4")
    return flat.reshape(len(centroids), -1).astype(np.int64)


def _needed(first: int, end: int, starts: NDArray[np.int64], probed: Rows | None) -> NDArray[np.bool_]:
    """The lists, but for empty ones, that the documents of these numbers are compared with."""
    needed = np.zeros(len(starts) - 1, bool)
    if first < end:
        own = slice(*(np.searchsorted(starts, [first, end - 1], side="right") + [-1, 0]))
        needed[slice(len(needed) - 1) if probed is None else probed[own]] = True
    return needed & (np.diff(starts) > 0)


def joined(parts: Mapping[str, pa.Table], k: int) -> pa.Table:
    """The `k` nearest neighbours of a partition's own documents."""
    table = parts["vectors"]
    order = np.argsort(table["number"].to_numpy())
    number, lists = table["number"].to_numpy()[order], table["list"].to_numpy()[order]
    own = np.flatnonzero(table["own"].to_numpy()[order])
    queries = slice(int(own[0]), int(own[-1]) + 1) if len(own) else slice(0, 0)
    found = _vectors(table)[order]
    rows, weights = nearest_neighbours(found, *_probes(table, lists), k, queries)
    doc = table["doc"].to_numpy()[order][queries]
    return as_table(number[queries], doc, np.where(rows < 0, NONE, number[rows]) if len(rows) else rows, weights)


def as_table(
    number: NDArray[np.uint32], doc: NDArray[np.uint64], neighbours: Rows | NDArray[np.uint32], weights: Weights
) -> pa.Table:
    """Documents with the numbers of their neighbours, NONE for none, and the weights of these."""
    k = neighbours.shape[1]
    listed = pa.FixedSizeListArray.from_arrays
    return pa.table(
        {
            "number": number,
            "doc": doc,
            "neighbours": listed(pa.array(neighbours.ravel().astype(np.uint32)), k),
            "weights": listed(pa.array(weights.ravel()), k),
        }
    )


def _vectors(table: pa.Table) -> vectors.Vectors:
    """The vectors that a partition was sent, in the order of its rows."""
    if "codebook" not in table.column_names:
        return vectors.unpacked(table["vector"])
    led = table.filter(table["centroid"].is_valid())
    if not len(led):  # documents that are like nothing, if any
        return np.zeros((len(table), 1), np.int16)
    known, at = np.unique(led["list"].to_numpy(), return_index=True)
    centroids = np.stack([np.frombuffer(led["centroid"][int(i)].as_py(), "<i2") for i in at])
    lists = np.searchsorted(known, table["list"].to_numpy())
    codes = unpacked_codes(table["vector"])
    codebook = codebook_from(table["codebook"].drop_null()[0].as_py(), codes.shape[1])
    return decoded(codes, lists, centroids, codebook)


def _probes(table: pa.Table, lists: NDArray[np.uint32]) -> tuple[Rows, Rows]:
    """The list of each row, of those that the partition was sent, and which each of these probes."""
    led = table.select(["list", "probed"]).filter(table["probed"].is_valid())
    if not len(led):
        return np.zeros(len(lists), np.int64), np.zeros((1, 1), np.int64)
    known, of_row = np.unique(lists, return_inverse=True)
    wanted = np.stack([np.frombuffer(each, "<u4") for each in led["probed"].to_pylist()])
    at = np.searchsorted(known, wanted)
    there = known[np.minimum(at, len(known) - 1)] == wanted
    probed = np.full((len(known), wanted.shape[1]), -1, np.int64)
    probed[np.searchsorted(known, led["list"].to_numpy())] = np.where(there, at, -1)
    return of_row.astype(np.int64), probed
