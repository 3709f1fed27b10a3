from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.ordering.division import bounds_of


def needed(probed: np.ndarray, sizes: np.ndarray, lists: range) -> int:
    return int(sizes[np.unique(probed[lists])].sum()) if len(lists) else 0


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_the_largest_part_is_as_small_as_may_be(seed: int, lists: int, parts: int) -> None:
    """Of all ways to cut."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 9, lists)
    probed = np.sort(np.column_stack([np.arange(lists), random.integers(0, lists, (lists, 2))]), axis=1)
    starts = np.concatenate([[0], np.cumsum(sizes), [sizes.sum() + 3]])
    bounds = bounds_of(probed, starts, parts)
    assert len(bounds) == parts + 1
    assert (np.diff(bounds) >= 0).all()
    firsts = np.searchsorted(starts, bounds).tolist()
    assert starts[firsts].tolist() == bounds.tolist()
    assert (firsts[0], firsts[-1]) == (0, lists)

    def largest(cuts: list[int]) -> int:
        return max(needed(probed, sizes, range(a, b)) for a, b in itertools.pairwise(cuts))

    ways = itertools.combinations_with_replacement(range(lists + 1), parts - 1)
    assert largest(firsts) == min(largest([0, *cuts, lists]) for cuts in ways)


def test_equal_parts_where_all_probe_all() -> None:
    starts = np.array([0, 2, 12, 15])
    assert bounds_of(None, starts, 4).tolist() == [0, 3, 6, 9, 12]
    assert bounds_of(None, np.array([0, 0, 5]), 3).tolist() == [0, 0, 0, 0]


def test_nothing_to_divide() -> None:
    starts = np.zeros(4, np.int64)
    assert bounds_of(np.array([[0, 1], [0, 1]]), starts, 3).tolist() == [0, 0, 0, 0]
