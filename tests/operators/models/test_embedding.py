from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from operators.models.embedding import unit

ROWS = hnp.arrays(np.float64, st.tuples(st.integers(0, 5), st.integers(1, 6)), elements=st.floats(width=64))


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_rows_have_length_one_or_are_zero(values: np.ndarray) -> None:
    found = unit(values)
    assert found.dtype == np.float16
    usable = np.isfinite(values).all(axis=1) & values.any(axis=1)
    lengths = np.linalg.norm(found.astype(np.float64), axis=1)
    assert (np.abs(lengths[usable] - 1) < 0.002).all()
    assert not found[~usable].any()
    for row, one in zip(values, found, strict=True):
        assert (unit(row[None])[0] == one).all()


def test_it_leaves_what_it_is_given() -> None:
    values = np.array([[3.0, 4.0], [np.nan, 1.0]])
    assert unit(values).tolist() == [[np.float16(0.6), np.float16(0.8)], [0.0, 0.0]]
    assert values[0].tolist() == [3.0, 4.0]
    assert unit(np.array([[300, 400]], np.float16)).tolist() == [[np.float16(0.6), np.float16(0.8)]]
