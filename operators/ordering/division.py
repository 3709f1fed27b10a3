"""Which partition finds the neighbours of which documents. What it must be sent for that are the lists of its own
documents and those that these probe: with like lists together, not many more."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from operators.ordering.numbering import share


@numba.njit(inline="always")
def _more(lists: Any, sizes: Any, part: Any, seen: Any, needed: Any) -> Any:
    """How many documents a part needs that has these lists too; ascending, some more than once."""
    before = -1
    for number in lists:
        if seen[number] != part and number != before:
            needed += sizes[number]
        before = number
    return needed


@numba.njit(nogil=True, cache=True)
def _cut(probed: Any, sizes: Any, most: Any, firsts: Any) -> Any:
    """Begin a part wherever the last would need more than `most` documents, and write its first list, as long as there
    is room; return how many parts that makes."""
    seen = np.full(sizes.shape[0], -1, np.int64)
    part, needed = -1, 0
    for number in range(probed.shape[0]):
        more = _more(probed[number], sizes, part, seen, needed)
        if part < 0 or more > most:
            part += 1
            more = _more(probed[number], sizes, part, seen, 0)
            if part < firsts.shape[0]:
                firsts[part] = number
        for other in probed[number]:
            seen[other] = part
        needed = more
    return part + 1


def bounds_of(probed: NDArray[np.int64] | None, starts: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """The number of each part's first document, and the last one's end, [parts + 1].

    Parts are runs of whole lists, cut so that the one that needs most documents needs as few as may be. Where all lists
    probe all (`probed` [L, p] is None), they are equal. `starts`: as of `starts_of`.
    """
    comparable = int(starts[-2])
    if probed is None:
        return share(np.arange(parts + 1), parts, comparable)
    sizes, firsts = np.diff(starts), np.full(parts, len(probed))
    low, high = 0, comparable
    while low < high:
        middle = (low + high) // 2
        if _cut(probed, sizes, middle, firsts) <= parts:
            high = middle
        else:
            low = middle + 1
    firsts[:] = len(probed)
    _cut(probed, sizes, high, firsts)
    return np.append(starts[firsts], comparable)
