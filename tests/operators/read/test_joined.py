"""Batches of small files are joined: the same rows in the same order, in fewer tables of one schema each."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from operators.read.reader import joined
from operators.read.span import BATCH_ROWS, QUARANTINE, Batch


def batch(rows: int, column: str) -> Batch:
    return Batch(pa.table({column: list(range(rows))}), QUARANTINE.empty_table())


@given(st.lists(st.tuples(st.sampled_from([0, 1, 900, 1500]), st.sampled_from("ab")), max_size=12))
def test_rows_and_order_stay_and_bounds_hold(parts: list[tuple[int, str]]) -> None:
    batches = [batch(rows, column) for rows, column in parts]
    found = list(joined(iter(batches)))
    flat = [row for b in batches for row in b.docs.to_pylist()]
    assert [row for b in found for row in b.docs.to_pylist()] == flat
    assert all(b.docs.num_rows <= BATCH_ROWS for b in found)
    assert len(found) <= len(batches)
