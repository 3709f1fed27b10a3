from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models.faiss import library
from operators.ordering.compression import (
    PROTOTYPES,
    codebook_from,
    codebook_of,
    decoded,
    encoded,
    unpacked_codes,
)
from operators.ordering.vectors import on_grid


@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(1, 13), st.integers(1, 16))
@settings(max_examples=40, deadline=None)
def test_codes_are_the_nearest_prototypes(seed: int, rows: int, dimensions: int, parts: int) -> None:
    random = np.random.default_rng(seed)
    vectors, centroids = (on_grid(random.normal(size=(rows, dimensions))) for _ in range(2))
    width = -(-dimensions // parts)
    codebook = random.integers(-3000, 3000, (parts, PROTOTYPES, width)).astype(np.int16)
    codebook[:, 200] = codebook[:, 100]
    rest = np.zeros((rows, parts * width), np.int64)
    rest[:, :dimensions] = vectors.astype(np.int64) - centroids
    apart = rest.reshape(rows, parts, 1, width) - codebook[None].astype(np.int64)
    codes = encoded(vectors, centroids, codebook)
    assert np.array_equal(codes, (apart**2).sum(axis=3).argmin(axis=2))
    found = decoded(codes, np.arange(rows), centroids, codebook)
    near = codebook[np.arange(parts), codes].reshape(rows, parts * width)[:, :dimensions]
    assert np.array_equal(found, on_grid(centroids.astype(np.int64) + near))


@pytest.mark.parametrize(("rows", "dimensions", "parts"), [(3000, 24, 8), (40, 24, 5), (1, 3, 3), (300, 6, 9)])
def test_what_was_learnt_is_near(rows: int, dimensions: int, parts: int) -> None:
    random = np.random.default_rng(rows)
    centroids = on_grid(random.normal(size=(rows, dimensions)))
    vectors = on_grid(centroids + 1500 * random.normal(size=(rows, dimensions)))
    codebook = codebook_of(vectors, centroids, parts)
    assert np.array_equal(codebook_from(codebook.tobytes(), parts), codebook)
    found = decoded(encoded(vectors, centroids, codebook), np.arange(rows), centroids, codebook)
    away = np.linalg.norm(vectors - found.astype(np.float64), axis=1).mean()
    assert away < 0.6 * np.linalg.norm(vectors - centroids.astype(np.float64), axis=1).mean()


def test_threads_do_not_matter() -> None:
    random = np.random.default_rng(8)
    vectors, centroids = (on_grid(random.normal(size=(900, 12))) for _ in range(2))
    once = codebook_of(vectors, centroids, 4)
    library().omp_set_num_threads(2)
    try:
        again = codebook_of(vectors, centroids, 4)
    finally:
        library().omp_set_num_threads(1)
    assert np.array_equal(once, again)


def test_nothing_to_learn_from_and_lists_without_centroid() -> None:
    none = on_grid(np.zeros((0, 6)))
    codebook = codebook_of(none, none, 4)
    assert codebook.shape == (4, PROTOTYPES, 2)
    centroids = on_grid(np.ones((2, 6)))
    found = decoded(np.zeros((3, 4), np.uint8), np.array([0, 2, 1]), centroids, codebook)
    assert found.any(axis=1).tolist() == [True, False, True]


def test_columns_of_codes() -> None:
    codes = np.arange(12, dtype=np.uint8).reshape(4, 3)
    array = pa.array([row.tobytes() for row in codes], pa.binary(3))
    column = pa.chunked_array([array[1:2], array[:0], array[2:]])
    assert np.array_equal(unpacked_codes(column), codes[1:])
    assert unpacked_codes(pa.chunked_array([], pa.binary(3))).shape == (0, 3)
