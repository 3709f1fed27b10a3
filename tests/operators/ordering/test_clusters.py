from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models.faiss import library
from operators.ordering import clusters
from operators.ordering.clusters import greedy_path, k_means, nearest
from operators.ordering.vectors import on_grid


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 12), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_nearest_is_the_first_of_the_best(seed: int, rows: int, centroids: int, dimensions: int) -> None:
    """Few directions, so that many are equally near; FAISS has another way for fewer than 20 rows."""
    random = np.random.default_rng(seed)
    vectors = on_grid(random.integers(-1, 2, (rows, dimensions)))
    middle = on_grid(random.integers(-1, 2, (centroids, dimensions)))
    expected = (vectors.astype(np.int64) @ middle.astype(np.int64).T).argmax(axis=1)
    assert np.array_equal(nearest(vectors, middle), expected)
    assert np.array_equal(np.concatenate([nearest(vectors[:5], middle), nearest(vectors[5:], middle)]), expected)


def test_many_rows_at_once() -> None:
    random = np.random.default_rng(2)
    vectors, middle = on_grid(random.normal(size=(9000, 16))), on_grid(random.normal(size=(50, 16)))
    middle[7] = middle[3]
    found = nearest(vectors, middle)
    assert np.array_equal(found, (vectors.astype(np.int64) @ middle.astype(np.int64).T).argmax(axis=1))
    assert 3 in found
    assert 7 not in found


def test_k_means_finds_planted_groups() -> None:
    random = np.random.default_rng(5)
    middle = random.normal(size=(5, 32))
    group = random.permutation(np.arange(500) % 5)
    sample = on_grid(middle[group] + 0.4 * random.normal(size=(500, 32)))
    first = [int(np.flatnonzero(group == k)[0]) for k in range(5)]  # one of each, to begin with
    sample = np.concatenate((sample[first], np.delete(sample, first, axis=0)))
    centroids = k_means(sample, 5)
    cosine = centroids @ on_grid(middle).T.astype(np.float64) / 4096**2
    assert cosine.diagonal().min() > 0.99  # that of single ones is about 0.93


@pytest.mark.parametrize("clusters", [1, 2, 7, 64, 1000])
def test_threads_do_not_matter(clusters: int) -> None:
    random = np.random.default_rng(clusters)
    sample = on_grid(random.normal(size=(600, 24)))
    once = k_means(sample, clusters)
    library().omp_set_num_threads(2)
    try:
        again = k_means(sample, clusters)
    finally:
        library().omp_set_num_threads(1)
    assert np.array_equal(once, again)
    assert 0 < len(once) <= min(clusters, 600)


def test_equal_vectors_are_one_cluster() -> None:
    sample = on_grid(np.array([[1.0, 2.0]] * 40 + [[-2.0, 1.0]]))
    assert k_means(sample[:40], 20).tolist() == [sample[0].tolist()]
    assert k_means(sample, 41).tolist() == [sample[0].tolist(), sample[40].tolist()]


def test_no_vectors() -> None:
    middle = on_grid(np.eye(3))
    assert nearest(middle[:0], middle).tolist() == []


def test_very_many_centroids(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    vectors, middle = on_grid(random.normal(size=(700, 8))), on_grid(random.normal(size=(90, 8)))
    expected = nearest(vectors, middle)
    monkeypatch.setattr(clusters, "BLOCK_SCORES", 1000)
    assert np.array_equal(nearest(vectors, middle), expected)


@given(st.integers(0, 2**32), st.integers(0, 80), st.integers(1, 6), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_greedy_path_goes_to_the_nearest_left(seed: int, rows: int, dimensions: int, looked_at: int) -> None:
    """By the weight that products are rounded to, and where none is positive by the product."""
    random = np.random.default_rng(seed)
    middle = on_grid(random.normal(size=(rows, dimensions)))
    before = clusters.LOOKED_AT
    clusters.LOOKED_AT = looked_at
    try:
        path = greedy_path(middle)
    finally:
        clusters.LOOKED_AT = before
    assert sorted(path.tolist()) == list(range(rows))
    cosines = middle.astype(np.float64) @ middle.T / 4096**2
    for at in range(1, rows):
        left = path[at:]
        step = cosines[path[at - 1], left]
        assert step[0] > step.max() - 0.002  # lengths differ a little by rounding
    if rows:
        total = middle.astype(np.int64) @ middle.sum(axis=0, dtype=np.int64)
        assert total[path[0]] == total.min()
