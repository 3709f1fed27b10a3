from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.ordering import exact
from operators.ordering.exact import merged, nearest_of
from operators.ordering.vectors import Vectors, on_grid

Row = tuple[int, int, int]


def rows_of(table: pa.Table) -> list[Row]:
    return list(zip(*(table[name].to_pylist() for name in ("query", "name", "weight")), strict=True))


def by_hand(sample: Vectors, names: list[int], found: Vectors, found_names: list[int], k: int) -> list[Row]:
    """Comparing every pair in whole numbers."""

    def product(a: list[int], b: list[int]) -> int:
        return sum(x * y for x, y in zip(a, b, strict=True))

    rows = []
    for query, a in sorted(zip(names, sample.tolist(), strict=True)):
        near = []
        for name, b in zip(found_names, found.tolist(), strict=True):
            if name != query and product(a, b) > 0:
                near.append((-round(product(a, b) / math.sqrt(product(a, a) * product(b, b)) * 65_535), name))
        rows += [(query, name, -weight) for weight, name in sorted(near)[:k] if weight]
    return rows


@given(
    st.integers(0, 2**32),
    st.integers(1, 6),
    st.integers(1, 7),
    st.lists(st.integers(0, 70), max_size=4),
    st.sampled_from([1, 3, 16, 4096]),
)
@settings(max_examples=60, deadline=None)
def test_against_every_pair(seed: int, k: int, dimensions: int, cuts: list[int], block: int) -> None:
    """Whatever the tables and blocks, with zero vectors, equal vectors and names of any size."""
    random = np.random.default_rng(seed)
    vectors = on_grid(random.integers(-2, 3, (70, dimensions)))
    names = np.asarray(random.permutation(70), np.uint64) * np.uint64(2**57 if seed % 2 else 1)
    chosen = random.permutation(70)[: random.integers(0, 20)]
    bounds = sorted({0, 70, *cuts})
    parts = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "BLOCK_ROWS", block)
        found = [nearest_of(vectors[chosen], names[chosen], vectors[p], names[p], k) for p in parts]
    expected = by_hand(vectors[chosen], names[chosen].tolist(), vectors, names.tolist(), k)
    assert rows_of(merged(pa.concat_tables(found[::-1]), k)) == expected


def test_more_rows_than_a_block_takes() -> None:
    random = np.random.default_rng(3)
    vectors, names = on_grid(random.normal(size=(9000, 16))), np.asarray(random.permutation(9000), np.uint64)
    found = nearest_of(vectors[:4500], names[:4500], vectors, names, 3)
    assert found.schema == pa.schema([("query", pa.uint64()), ("name", pa.uint64()), ("weight", pa.uint16())])
    picked = [0, 4095, 4096, 4499]
    expected = by_hand(vectors[picked], names[picked].tolist(), vectors, names.tolist(), 3)
    assert [row for row in rows_of(found) if row[0] in names[picked].tolist()] == expected
    assert len(found) == 3 * 4500


def test_nothing_to_compare() -> None:
    none, no_names = np.zeros((0, 4), np.int16), np.zeros(0, np.uint64)
    one, name = on_grid(np.ones((1, 4))), np.array([5], np.uint64)
    for sample, names, found, found_names in (
        (none, no_names, none, no_names),
        (one, name, none, no_names),
        (none, no_names, one, name),
        (one, name, one, name),  # itself only
        (one, name, -one, name + np.uint64(1)),  # on the other side
        (one, name, one * 0, name + np.uint64(1)),
    ):
        found_rows = nearest_of(sample, names, found, found_names, 2)
        assert rows_of(found_rows) == rows_of(merged(found_rows, 2)) == []
        assert found_rows.schema.types == [pa.uint64(), pa.uint64(), pa.uint16()]


def test_the_largest_weight() -> None:
    same = on_grid(np.ones((3, 8)))
    found = nearest_of(same[:1], np.array([7], np.uint64), same, np.array([9, 7, 2**64 - 1], np.uint64), 2)
    assert rows_of(found) == [(7, 9, 65_535), (7, 2**64 - 1, 65_535)]
