from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.ordering.vectors import LENGTH, lengths, of_column, on_grid, packed, squares, unpacked

NAN, INF = float("nan"), float("inf")


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 3000))
@settings(max_examples=40, deadline=None)
def test_any_order_of_summation_gives_the_same_products(seed: int, rows: int, dimensions: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, dimensions)) * random.choice([0, 1e-200, 1, 1e200], size=(rows, 1))
    vectors = on_grid(values)
    assert np.all(squares(vectors) <= LENGTH**2)
    exact = vectors.astype(np.int64) @ vectors.astype(np.int64).T
    order = random.permutation(dimensions)
    shuffled = np.ascontiguousarray(vectors[:, order], np.float32)
    assert np.array_equal(shuffled @ shuffled.T, exact)
    assert np.array_equal(np.cumsum(shuffled[0] * shuffled[-1], dtype=np.float32)[-1], exact[0, -1])
    assert np.array_equal(squares(vectors), np.diag(exact))


def test_cosines_are_those_of_the_numbers() -> None:
    random = np.random.default_rng(1)
    base = random.normal(size=(200, 768))
    values = np.concatenate((base, base + 0.2 * random.normal(size=base.shape)))
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    vectors = on_grid(values.astype(np.float16))
    scale = np.sqrt(squares(vectors))
    cosines = vectors.astype(float) @ vectors.T.astype(float) / np.outer(scale, scale)
    assert np.abs(cosines - unit @ unit.T).max() < 1e-3


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([3, 4], [3, 4]),
        ([3e300, 4e300], [3, 4]),
        ([3e-310, 4e-310], [3, 4]),
        ([-5e-324, 0], [-1, 0]),
        ([0, 0], [0, 0]),
        ([NAN, 1], [0, 0]),
        ([INF, 1], [0, 0]),
        ([1, -INF], [0, 0]),
    ],
)
def test_direction(row: list[float], expected: list[float]) -> None:
    [vector] = on_grid(np.array([row]))
    size = max(float(np.hypot(*expected)), 1.0)
    assert np.abs(vector / LENGTH - np.array(expected) / size).max() < 0.002


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
        pa.list_(pa.float16()),
        pa.list_(pa.int64()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.float16(), 2),
    ],
)
def test_columns_of_any_list_type(kind: pa.DataType) -> None:
    rows = [[1, 0], None, [1, None], [0, 2], [0, 0], [3, 4]]
    column = pa.chunked_array([pa.array(rows[:3], kind), pa.array([], kind), pa.array(rows[2:], kind).slice(1)])
    docs = pa.table({"e": column})
    assert lengths(docs, "e").tolist() == [2, 0, 2, 2, 2, 2]
    empty = pa.array([None] * 6, pa.list_(pa.float32()))
    assert not of_column(pa.table({"e": empty}), "e", 2).any()
    expected = on_grid(np.array([[1, 0], [0, 0], [0, 0], [0, 2], [0, 0], [3, 4]]))
    assert np.array_equal(of_column(docs, "e", 2), expected)
    assert np.array_equal(of_column(docs.slice(1, 4), "e", 2), expected[1:5])
    assert of_column(docs.slice(0, 0), "e", 2).shape == (0, 2)


def test_other_lengths_are_zero() -> None:
    docs = pa.table({"e": [[1.0], [1.0, 2.0], [], [1.0, 2.0, 3.0], [2.0, 1.0]]})
    assert of_column(docs, "e", 2).any(axis=1).tolist() == [False, True, False, False, True]


def test_columns_of_nulls() -> None:
    docs = pa.table({"e": pa.nulls(3)})
    assert lengths(docs, "e").tolist() == [0, 0, 0]
    assert not of_column(docs, "e", 4).any()


@pytest.mark.parametrize("values", [["[1, 2]"], [1.5], [["a"]], [b"12"], [[[1.0]]]])
def test_columns_of_something_else(values: list[Any]) -> None:
    with pytest.raises(TypeError, match="column 'mine' is of type .*: embeddings are lists of numbers"):
        lengths(pa.table({"mine": values}), "mine")


@given(st.lists(st.integers(0, 4), max_size=4), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_packed_and_back(sizes: list[int], dimensions: int, skipped: int) -> None:
    vectors = np.arange(sum(sizes) * dimensions, dtype=np.int16).reshape(-1, dimensions)
    bounds = np.cumsum([0, *sizes]).tolist()
    chunks = [packed(vectors[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
    column = pa.chunked_array(chunks, pa.binary(2 * dimensions))
    assert np.array_equal(unpacked(column), vectors)
    assert np.array_equal(unpacked(column.slice(skipped)), vectors[skipped:])
