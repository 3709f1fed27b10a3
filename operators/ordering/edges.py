"""Lists of neighbours as edges: two documents are linked if either lists the other (Shi et al. 2024, arXiv 2310.10638,
section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.ordering.neighbours import WEIGHTS
from operators.ordering.numbering import NONE, share, starts_of

BYTES = 18  # of an edge with its key
HALF = np.uint64(32)


def listed(table: pa.Table, sizes: pa.Table, regions: int, most: int) -> pa.Table:
    """The edges of documents to their neighbours, but for those between regions and of weights above `most`."""
    starts = starts_of(sizes)
    k = table["neighbours"].type.list_size
    near = _flat(table["neighbours"])
    weight = _flat(table["weights"])
    number = np.repeat(table["number"].to_numpy(), k)
    bounds = starts[share(np.arange(regions), regions, len(starts) - 2)]
    region = np.searchsorted(bounds, number, side="right") - 1
    kept = (near != NONE) & (weight <= most)
    kept &= region == np.searchsorted(bounds, near, side="right") - 1
    number, near, weight, region = number[kept], near[kept], weight[kept], region[kept]
    return pa.table(
        {
            "key": _keys(region, weight, regions),
            "lo": np.minimum(number, near),
            "hi": np.maximum(number, near),
            "weight": weight,
        }
    )


def _flat(column: pa.ChunkedArray) -> NDArray[Any]:
    flat: NDArray[Any] = column.combine_chunks().flatten().to_numpy()
    return flat


def _keys(region: NDArray[np.int64], weight: NDArray[np.uint16], regions: int) -> NDArray[np.uint64]:
    """Keys that ascend by region and then with falling weight; where partitions are a multiple of regions, each of them
    holds edges of one region."""
    place = region.astype(np.uint64) * np.uint64(WEIGHTS + 1) + np.uint64(WEIGHTS) - weight
    return (-(-(place << np.uint64(16)).astype(np.int64) // regions)).astype(np.uint64) << HALF


def united(parts: Mapping[str, pa.Table]) -> pa.Table:
    """Each edge once, by falling weight, then by its documents."""
    table = parts["neighbours"]
    pair = (table["lo"].to_numpy().astype(np.uint64) << HALF) | table["hi"].to_numpy()
    order = np.argsort(pair)
    pair = pair[order]
    once = np.ones(len(pair), bool)
    once[1:] = pair[1:] != pair[:-1]
    pair, weight = pair[once], table["weight"].to_numpy()[order[once]]
    order = np.argsort(np.uint16(WEIGHTS) - weight, kind="stable")
    pair = pair[order]
    columns = {"lo": (pair >> HALF).astype(np.uint32), "hi": pair.astype(np.uint32), "weight": weight[order]}
    return pa.table(columns)
