from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.models.faiss import gpu_knn, gpus, library
from operators.ordering import neighbours
from operators.ordering.neighbours import (
    WEIGHTS,
    Rows,
    Weights,
    _FetchingJoin,
    cosines_of,
    nearest_neighbours,
    weights_of,
)
from operators.ordering.vectors import Vectors, on_grid, squares


def by_hand(found: Vectors, lists: Rows, probed: Rows, k: int, cap: float = 1.0) -> tuple[Rows, NDArray[np.int64]]:
    """The same by all pairs and a stable sort."""
    products = found.astype(np.int64) @ found.T.astype(np.int64)
    lengths = np.sqrt(np.outer(squares(found), squares(found)))
    weights = weights_of(products / np.where(lengths > 0, lengths, 1)).astype(np.int64)
    probes = np.zeros((len(probed), len(probed)), bool)
    for number, others in enumerate(probed):
        probes[number, others[others >= 0]] = True
    weights[~probes[np.ix_(lists, lists)]] = 0
    weights[weights > round(cap * WEIGHTS)] = 0
    np.fill_diagonal(weights, 0)
    rows = np.argsort(-weights, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(weights, rows, axis=1)
    room = ((0, 0), (0, k - rows.shape[1]))
    return np.pad(np.where(best > 0, rows, -1), room, constant_values=-1), np.pad(best, room)


def some(random: np.random.Generator, rows: int, dimensions: int) -> Vectors:
    """Vectors of few directions, so that many are equal or equally near, and some zero ones."""
    found = on_grid(random.integers(-2, 3, (rows, dimensions)))
    found[random.random(rows) < 0.1] = 0
    return found


def probes_of(random: np.random.Generator, lists: int, probes: int) -> Rows:
    others = [random.permutation(np.delete(np.arange(lists), number))[: probes - 1] for number in range(lists)]
    return np.stack([np.append(own, number) for number, own in enumerate(others)])


def everything(rows: int) -> tuple[Rows, Rows]:
    return np.zeros(rows, np.int64), np.zeros((1, 1), np.int64)


@given(st.integers(0, 2**32), st.integers(0, 90), st.integers(1, 5), st.integers(1, 9), st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_the_same_as_by_hand(seed: int, rows: int, dimensions: int, lists: int, k: int) -> None:
    random = np.random.default_rng(seed)
    found, number = some(random, rows, dimensions), np.sort(random.integers(0, lists, rows))
    probed = probes_of(random, lists, int(random.integers(1, lists + 1)))
    cap = float(random.choice([1.0, 0.7]))
    near, weights = nearest_neighbours(found, number, probed, k, cap=cap)
    expected = by_hand(found, number, probed, k, cap)
    assert np.array_equal(near, expected[0])
    assert np.array_equal(weights, expected[1])
    part = slice(rows // 3, rows // 2)
    assert np.array_equal(nearest_neighbours(found, number, probed, k, part, cap)[0], near[part])


def test_many_rows_and_uneven_lists() -> None:
    random = np.random.default_rng(3)
    found = on_grid(random.normal(size=(3000, 24)))
    number = np.sort(random.choice(12, 3000, p=np.array([40, 20, 8, 8, 8, 6, 5, 2, 1, 1, 0.5, 0.5]) / 100))
    for probed in (probes_of(random, 12, 5), probes_of(random, 12, 12)):
        near, weights = nearest_neighbours(found, number, probed, 10)
        expected = by_hand(found, number, probed, 10)
        assert np.array_equal(near, expected[0])
        assert np.array_equal(weights, expected[1])


def test_lists_that_probe_nothing_more() -> None:
    """As many columns as lists mean all only where all are named."""
    found = on_grid(np.ones((4, 2)))
    near, _ = nearest_neighbours(found, np.array([0, 0, 1, 1]), np.array([[0, -1], [1, -1]]), 2)
    assert near.tolist() == [[1, -1], [0, -1], [3, -1], [2, -1]]


def test_equal_vectors() -> None:
    found = on_grid(np.tile(np.arange(1.0, 9.0), (9000, 1)))
    near, weights = nearest_neighbours(found, *everything(9000), 3)
    assert near[:2].tolist() == [[1, 2, 3], [0, 2, 3]]
    assert (near[3:] == [0, 1, 2]).all()
    assert (weights == WEIGHTS).all()


def test_nothing_to_find() -> None:
    assert nearest_neighbours(on_grid(np.ones((5, 3))), *everything(5), 0)[0].shape == (5, 0)
    for rows in (0, 1):
        near, weights = nearest_neighbours(on_grid(np.ones((rows, 3))), *everything(rows), 4)
        assert near.tolist() == [[-1] * 4] * rows
        assert weights.shape == (rows, 4)
    opposite = on_grid(np.array([[1.0, 0], [-1, 0], [0, 1], [0, 0]]))
    assert (nearest_neighbours(opposite, *everything(4), 2)[0] == -1).all()


def test_weights_and_back() -> None:
    cosines = np.array([-1.0, 0.0, 1e-9, 0.25, 0.9999999, 1.0, 1.0000001])
    weights: Weights = weights_of(cosines)
    assert weights.tolist() == [0, 0, 0, 16384, 65535, 65535, 65535]
    assert np.abs(cosines_of(weights)[1:] - cosines[1:]).max() < 1e-5


@pytest.mark.parametrize(("rows", "dimensions", "fetched"), [(500, 3, 4), (900, 16, 64), (900, 40, 2), (60, 8, 64)])
@pytest.mark.parametrize("at_once", [100, 10_000])
def test_a_search_with_other_ties_gives_the_same(
    rows: int, dimensions: int, fetched: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done on a GPU, here with FAISS's search of the same signature on the CPU."""
    random = np.random.default_rng(rows + dimensions)
    found = some(random, rows, dimensions) if dimensions < 8 else on_grid(random.normal(size=(rows, dimensions)))
    found[20:60] = found[20]
    expected = nearest_neighbours(found, *everything(rows), 7)
    monkeypatch.setattr(neighbours, "GPU_NUMBERS", at_once * dimensions)
    join = _FetchingJoin(found, squares(found), WEIGHTS, library().knn, fetched)
    near, weights = np.full((rows, 7), -1, np.int64), np.zeros((rows, 7), np.uint16)
    join(slice(0, rows), [slice(0, 30), slice(30, rows)], near, weights)
    assert np.array_equal(near, expected[0])
    assert np.array_equal(weights, expected[1])


@pytest.mark.skipif(gpus() > 0, reason="there is a GPU")
def test_without_a_gpu_nothing_of_one_is_called() -> None:
    with pytest.raises(ValueError, match="no GPU"):
        gpu_knn()
