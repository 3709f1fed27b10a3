"""Numbers of documents in a graph of neighbours: 0, 1, ... along the lists that k-means makes, which are numbered along
a path themselves. So like documents have near numbers, and whatever is cut by numbers is cut by likeness.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NONE = np.uint32(2**32 - 1)  # no document's number


def starts_of(sizes: pa.Table) -> NDArray[np.int64]:
    """The number of the first document of each list, and behind them the number of documents; the last list are those
    that are like nothing. `sizes`: `documents` of every list, in order. Raises ValueError if a number has no room."""
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes["documents"].to_numpy())])
    if starts[-1] > int(NONE):
        raise ValueError(f"{starts[-1]} documents are too many for one graph of neighbours: at most {int(NONE)}")
    return starts


def share(part: NDArray[np.int64] | int, parts: int, total: int) -> NDArray[np.int64]:
    """The first of `total` things that belongs to each part, of `parts` equal ones."""
    return np.asarray(part, np.int64) * total // parts


def part_of(thing: NDArray[np.int64], parts: int, total: int) -> NDArray[np.int64]:
    """The part that has each of `total` things, by `share`; the last one has those beyond."""
    firsts = share(np.arange(parts), parts, total)
    return np.searchsorted(firsts, thing, side="right") - 1


def keys_of(partition: NDArray[np.int64], partitions: int) -> NDArray[np.uint64]:
    """Keys that belong to these of `partitions`."""
    high = -(-(partition.astype(np.int64) << 32) // partitions)
    return high.astype(np.uint64) << np.uint64(32)
