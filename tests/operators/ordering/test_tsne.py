"""The picture of vectors: neighbours stay near, and nothing about it is left to chance."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from operators.ordering.tsne import tsne
from operators.ordering.vectors import Vectors, on_grid


def groups(count: int, each: int, spread: float, dimensions: int = 64) -> tuple[Vectors, NDArray[np.int64]]:
    """Vectors around `count` directions, and which each is near."""
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(count), each)
    centres = rng.normal(size=(count, dimensions))
    return on_grid(centres[group] + spread * rng.normal(size=(len(group), dimensions))), group


def nearest_of(places: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    distances = ((places[:, None] - places) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1)[:, :count]


def test_neighbours_stay_near() -> None:
    vectors, group = groups(40, 12, 0.5)
    places = tsne(vectors)
    assert np.isfinite(places).all()
    assert (group[nearest_of(places, 5)] == group[:, None]).mean() > 0.95
    components = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[0][:, :2]
    assert (group[nearest_of(components, 5)] == group[:, None]).mean() < 0.6  # the plane that it starts from


@pytest.mark.parametrize("count", [0, 1, 2])
def test_of_too_few_there_is_no_picture(count: int) -> None:
    assert tsne(np.full((count, 8), 3, np.int16)).tolist() == [[0.0, 0.0]] * count


def test_equal_vectors_are_places_too() -> None:
    for vectors in (np.tile(on_grid(np.ones((1, 8))), (50, 1)), np.zeros((5, 8), np.int16), groups(1, 3, 0.1)[0]):
        places = tsne(vectors)
        assert places.shape == (len(vectors), 2)
        assert np.isfinite(places).all()


def test_pictures_are_the_same_on_any_machine() -> None:
    places = tsne(np.random.default_rng(5).integers(-900, 900, (100, 16)).astype(np.int16))
    assert (
        hashlib.sha256(places.tobytes()).hexdigest()
        == "d0043216dd7094a3580951e054d850f1bacee85380471aacff8b6bbc622c2a69"
    )
