from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.speech import clustering
from operators.speech.clustering import (
    alikes,
    average_linkage,
    centroids,
    clusters,
    numbered,
    unit,
    voices,
    voices_in_noise,
)

Labels = NDArray[np.int64]


def naive(vectors: NDArray[np.float64], sizes: NDArray[np.float64], threshold: float) -> Labels:
    """Join the nearest pair of clusters, by the mean distance of their members, until none is near enough."""
    parts = [[n] for n in range(len(vectors))]
    far = 1 - vectors @ vectors.T
    while len(parts) > 1:
        pairs = [(i, j) for i in range(len(parts)) for j in range(i + 1, len(parts))]

        def distance(pair: tuple[int, int]) -> float:
            one, other = parts[pair[0]], parts[pair[1]]
            weights = np.outer(sizes[one], sizes[other])
            return float((far[np.ix_(one, other)] * weights).sum() / weights.sum())

        i, j = min(pairs, key=distance)
        if distance((i, j)) >= threshold:
            break
        parts[i] += parts.pop(j)
    labels = np.zeros(len(vectors), np.int64)
    for number, part in enumerate(parts):
        labels[part] = number
    return numbered(labels)


def around(seed: int, centres: int, count: int, spread: float) -> tuple[NDArray[np.float64], Labels]:
    """Unit vectors about so many directions, which have a third one in common."""
    rng = np.random.default_rng(seed)
    middle = unit(rng.normal(size=(centres, 24))) + 0.5 * unit(rng.normal(size=(1, 24)))
    which = np.arange(count) % centres
    return unit(middle[which] + spread * rng.normal(size=(count, 24))), which


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 18), st.sampled_from([0.2, 0.5, 0.9, 1.1]), st.booleans())
def test_as_the_nearest_pair_again_and_again(seed: int, count: int, threshold: float, weighted: bool) -> None:
    vectors, _ = around(seed, 3, count, 0.2)
    sizes = np.random.default_rng(seed).integers(1, 9, count).astype(float) if weighted else np.ones(count)
    assert np.array_equal(average_linkage(vectors, sizes, threshold), naive(vectors, sizes, threshold))


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 1.2])
def test_as_scipy(threshold: float) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    vectors, _ = around(1, 6, 400, 0.25)
    peers = hierarchy.fcluster(hierarchy.linkage(vectors, "average", metric="cosine"), threshold, "distance")
    assert np.array_equal(average_linkage(vectors, np.ones(400), threshold), numbered(peers))


def test_ties_and_small_ones() -> None:
    same = np.tile(unit(np.ones((1, 4))), (5, 1))
    assert average_linkage(same, np.ones(5), 0.1).tolist() == [0] * 5
    assert average_linkage(np.eye(4), np.ones(4), 1.0).tolist() == [0, 1, 2, 3]
    assert average_linkage(np.eye(4), np.ones(4), 1.01).tolist() == [0] * 4
    assert average_linkage(np.zeros((0, 3)), np.zeros(0), 1.0).tolist() == []


def test_means_and_sizes_stand_for_their_members() -> None:
    vectors, _ = around(3, 4, 60, 0.1)
    fine = average_linkage(vectors, np.ones(60), 0.05)
    means, sizes = centroids(vectors, fine)
    assert len(sizes) > 6
    assert np.array_equal(average_linkage(means, sizes, 0.5)[fine], average_linkage(vectors, np.ones(60), 0.5))


def test_blocks_give_the_clusters_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, which = around(4, 5, 900, 0.08)
    whole = clusters(vectors, 0.5)
    assert np.array_equal(whole, numbered(which))
    monkeypatch.setattr(clustering, "BLOCK", 100)
    assert np.array_equal(clusters(vectors, 0.5), whole)


def test_ten_hours_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix is larger than a block: the bound holds whatever the vectors, here none of which are near another."""
    largest = 0
    known = clustering._cosines

    def cosines(these: NDArray[np.float64], those: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal largest
        largest = max(largest, len(these) * len(those))
        return known(these, those)

    monkeypatch.setattr(clustering, "_cosines", cosines)
    monkeypatch.setattr(clustering, "BLOCK", 50)
    vectors = unit(np.random.default_rng(0).normal(size=(1000, 64)))
    assert len(voices(vectors, np.full(1000, 3.0), 0.05, 0.999, 2.0)) == 1000
    assert 0 < largest <= 50 * 50


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_voices_are_counted(count: int) -> None:
    vectors, which = around(count, count, 120, 0.08)
    found = voices(vectors, np.full(120, 0.8), 0.9, 0.8, 2.0)
    assert np.array_equal(found, numbered(which))


def test_small_clusters_go_to_the_nearest_voice() -> None:
    vectors, which = around(9, 2, 80, 0.05)
    stray = unit(vectors[:1] + 0.9 * np.random.default_rng(0).normal(size=24))
    found = voices(np.vstack([vectors, stray]), np.full(81, 0.8), 0.9, 0.8, 2.0)
    assert np.array_equal(found[:80], numbered(which))
    assert found[80] in (0, 1)
    assert voices(stray, np.full(1, 0.8), 0.9, 0.8, 2.0).tolist() == [0]
    assert voices(np.zeros((0, 24)), np.zeros(0), 0.9, 0.8, 2.0).tolist() == []
    assert voices(np.vstack([stray] * 5), np.ones(5), 0.9, 0.8, 2.0).tolist() == [0] * 5


def in_noise(vectors: NDArray[np.float64], noisy: NDArray[np.bool_], weight: float = 1.5) -> NDArray[np.float64]:
    """Those that are noisy moved towards one direction, whoever speaks."""
    direction = unit(np.random.default_rng(99).normal(size=(1, vectors.shape[1])))
    return unit(vectors + weight * noisy[:, None] * direction)


def heard(vectors: NDArray[np.float64], noisy: NDArray[np.bool_], alike_in_noise: float = 0.4) -> Labels:
    return voices_in_noise(vectors, np.full(len(vectors), 0.8), noisy, 0.9, 0.8, alike_in_noise, 4.0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_noise_makes_no_voices(count: int) -> None:
    vectors, which = around(count, count, 120, 0.06)
    noisy = np.arange(120) >= 60
    vectors = in_noise(vectors, noisy)
    assert voices(vectors, np.full(120, 0.8), 0.9, 0.8, 4.0).max() + 1 > count
    assert np.array_equal(heard(vectors, noisy), numbered(which))


def test_a_voice_that_is_in_noise_alone_is_one() -> None:
    vectors, which = around(2, 3, 120, 0.06)
    noisy = which == 2
    vectors = in_noise(vectors, noisy)
    assert np.array_equal(heard(vectors, noisy, 0.6), numbered(which))
    assert heard(vectors, noisy, 0.01).max() == 1  # if it need not be near to one without noise


def test_a_little_in_noise_is_the_nearest_voice() -> None:
    vectors, which = around(5, 2, 64, 0.06)
    noisy = np.arange(64) >= 60
    assert np.array_equal(heard(in_noise(vectors, noisy), noisy, 1.0), numbered(which))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 30))
def test_all_in_noise_or_none_is_as_without(seed: int, count: int) -> None:
    vectors, _ = around(seed, 3, count, 0.3)
    plain = voices(vectors, np.full(count, 0.8), 0.9, 0.8, 4.0)
    for noisy in (np.zeros(count, bool), np.ones(count, bool)):
        assert np.array_equal(heard(vectors, noisy), plain)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0.1, 0.95))
def test_alikes_leave_no_two_that_are_alike(seed: int, count: int, threshold: float) -> None:
    vectors, _ = around(seed, 3, count, 0.3)
    sizes = np.random.default_rng(seed).integers(1, 9, count).astype(float)
    labels = numbered(alikes(vectors * 0.8, sizes, threshold))
    sums = np.stack([(vectors * sizes[:, None])[labels == label].sum(axis=0) for label in range(labels.max() + 1)])
    cosines = unit(sums) @ unit(sums).T
    assert (cosines[np.triu_indices(len(sums), 1)] < threshold + 1e-6).all()
