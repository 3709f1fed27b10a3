from __future__ import annotations

import numpy as np
import pytest

from operators.tokens.pieces import arranged, cut, numbered


def test_cut() -> None:
    pieces = cut(np.array([5, 0, 2, 4, 1]), 2)
    assert pieces.document.tolist() == [0, 0, 0, 2, 3, 3, 4]
    assert pieces.start.tolist() == [0, 2, 4, 0, 0, 2, 0]
    assert pieces.length.tolist() == [2, 2, 1, 2, 2, 2, 1]


def test_numbered_by_first_use() -> None:
    assert numbered(np.array([3, 1, 3, 0, 2, 1]), 4).tolist() == [0, 1, 0, 2, 3, 1]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 20, 3000])
def test_no_neighbours_along_the_path_are_neighbours(count: int) -> None:
    for seed in (0, 1, 2**32 - 1):
        order = arranged(np.full(count, 8), seed)
        assert sorted(order.tolist()) == list(range(count))
        if count > 3:
            assert np.abs(np.diff(order)).min() > 1
    assert arranged(np.full(count, 8), None).tolist() == list(range(count))


def test_the_shuffle_is_the_same_for_ever() -> None:
    assert arranged(np.full(8, 4), 0).tolist() == [1, 6, 3, 7, 0, 4, 2, 5]
    assert arranged(np.array([4, 2, 4, 1, 2]), None).tolist() == [3, 1, 4, 0, 2]
