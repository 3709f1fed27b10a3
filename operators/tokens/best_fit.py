"""Best-fit decreasing by run lengths: which pieces share a bin, from the number of pieces of each length alone.

Best-fit decreasing takes the longest piece first and puts it into the bin with the least room that takes it, or a new
one (for language models: Ding et al. 2024, arXiv 2404.10830). Pieces of a length are alike, and so are bins with the
same room: whole runs are placed at once, so the plan takes time by distinct lengths, not by pieces. The histograms of
several parts of a corpus add up to one plan for all; each part places its own pieces once it is told how many pieces of
each length the parts before it have.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


class Plan(NamedTuple):
    """`runs`, int64[k, 5]: length of the pieces, rank of the first among those of its length, first bin, number of
    bins, pieces in each bin. Runs of a length are in the order of ranks, and cover all its pieces."""

    runs: NDArray[np.int64]
    bins: int


def histogram(lengths: NDArray[np.int64], capacity: int) -> Counts:
    """How many pieces have each length, int64[capacity + 1]."""
    counts: Counts = np.bincount(lengths, minlength=capacity + 1)
    return counts


def plan(pieces: Counts, room: Counts | None = None) -> Plan:
    """Best-fit decreasing of `pieces[l]` pieces of each length l into bins of `len(pieces) - 1`.

    `room[r]` bins with a room of r exist before; they have the first numbers, by ascending room. The bins' contents are
    those of placing piece by piece, up to the numbers of bins."""
    return Plan(*_plan(pieces, np.zeros_like(pieces) if room is None else room))


def place(plan: Plan, lengths: NDArray[np.int64], before: Counts | None = None) -> NDArray[np.int64]:
    """The bin of each piece. `before[l]`: pieces of length l that the parts before this one have; none if unset."""
    capacity = int(plan.runs[:, 0].max(initial=0))
    before = np.zeros(capacity + 1, np.int64) if before is None else before
    bins: NDArray[np.int64] = _place(plan.runs, before, lengths)
    return bins


@numba.njit(nogil=True, cache=True)
def _mark(tree: Any, room: Any) -> None:
    """`tree` says of each room, in its leaves, whether any bin has it, and of each inner node whether a leaf does."""
    node = tree.shape[0] // 2 + room
    while node and not tree[node]:
        tree[node] = True
        node //= 2


@numba.njit(nogil=True, cache=True)
def _clear(tree: Any, room: Any) -> None:
    node = tree.shape[0] // 2 + room
    tree[node] = False
    while node > 1 and not tree[node ^ 1]:
        node //= 2
        tree[node] = False


@numba.njit(nogil=True, cache=True)
def _least(tree: Any, length: Any) -> Any:
    """The least room of a bin that takes `length`, -1 where there is none."""
    size = tree.shape[0] // 2
    node = size + length
    while not tree[node]:
        while node & 1:  # a right child: nothing to the right of it below its parent
            node //= 2
        if node == 0:
            return -1
        node += 1
    while node < size:
        node *= 2
        if not tree[node]:
            node += 1
    return node - size


@numba.njit(nogil=True, cache=True)
def doubled(rows: Any) -> Any:
    return np.concatenate((rows, np.empty_like(rows)))


@numba.njit(nogil=True, cache=True)
def _plan(pieces: Any, room: Any) -> Any:
    capacity = pieces.shape[0] - 1
    size = 1
    while size <= capacity:
        size *= 2
    tree = np.zeros(2 * size, np.bool_)
    latest = np.full(capacity + 1, -1, np.int64)  # by room: the group of bins that is used next
    groups = np.empty((1024, 3), np.int64)  # first bin, number of bins, the next group with the same room
    runs = np.empty((1024, 5), np.int64)
    made = count = 0
    bins = room[0]  # full ones
    for r in range(1, capacity + 1):
        if room[r]:
            groups = doubled(groups) if made == groups.shape[0] else groups
            groups[made] = bins, room[r], -1
            latest[r] = made
            made += 1
            _mark(tree, r)
        bins += room[r]
    for length in range(capacity, 0, -1):
        left = pieces[length]
        while left:
            r = _least(tree, length)
            group = latest[r] if r >= 0 else -1
            r = r if r >= 0 else capacity
            each = min(r // length, left)
            many = left // each if group < 0 else min(left // each, groups[group, 1])
            first = bins if group < 0 else groups[group, 0]
            runs = doubled(runs) if count == runs.shape[0] else runs
            runs[count] = length, pieces[length] - left, first, many, each
            count += 1
            left -= many * each
            if group < 0:
                bins += many
            elif many < groups[group, 1]:
                groups[group, 0] += many
                groups[group, 1] -= many
            else:
                latest[r] = groups[group, 2]
                if latest[r] < 0:
                    _clear(tree, r)
            r -= each * length
            if r:
                groups = doubled(groups) if made == groups.shape[0] else groups
                groups[made] = first, many, latest[r]
                latest[r] = made
                made += 1
                _mark(tree, r)
    return runs[:count], bins


@numba.njit(nogil=True, cache=True)
def _place(runs: Any, before: Any, lengths: Any) -> Any:
    """Goes through the pieces once; of each length it knows the run, the bin and what that still takes."""
    capacity = before.shape[0]
    run = np.full(capacity, -1, np.int64)
    ends = np.zeros(capacity, np.int64)  # one more than the last run of the length
    for k in range(runs.shape[0]):
        length = runs[k, 0]
        run[length] = k if run[length] < 0 else run[length]
        ends[length] = k + 1
    at = np.zeros(capacity, np.int64)
    takes = np.zeros(capacity, np.int64)  # pieces, the bin `at`
    others = np.zeros(capacity, np.int64)  # bins of the run after it
    for length in range(capacity):
        k = run[length]
        while k >= 0 and k < ends[length]:
            skipped = before[length] - runs[k, 1]
            if skipped < runs[k, 3] * runs[k, 4]:
                full = skipped // runs[k, 4]
                run[length] = k
                at[length] = runs[k, 2] + full
                takes[length] = runs[k, 4] - skipped % runs[k, 4]
                others[length] = runs[k, 3] - full - 1
                break
            k += 1
    found = np.empty(lengths.shape[0], np.int64)
    for i in range(lengths.shape[0]):
        length = lengths[i]
        if takes[length] == 0:
            if others[length]:
                at[length] += 1
                others[length] -= 1
            else:
                run[length] += 1
                at[length] = runs[run[length], 2]
                others[length] = runs[run[length], 3] - 1
            takes[length] = runs[run[length], 4]
        takes[length] -= 1
        found[i] = at[length]
    return found
