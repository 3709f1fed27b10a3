"""What goes into partitions comes out of them, whatever the rows and however many partitions."""

from __future__ import annotations

import tempfile

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.exchange import concatenate, open_partition, write_partitions
from cluster.storage import open_store


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 6), max_size=20), min_size=1, max_size=4))
def test_each_row_comes_out_of_its_partition_once(units: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        keys = []
        for number, partition in enumerate(units):
            rows = [f"{number}-{i}" for i in range(len(partition))]
            table = pa.table({"name": pa.array(rows, pa.string()), "p": pa.array(partition, pa.int64())})
            keys.append(f"x/{number}.arrow")
            write_partitions(store, keys[-1], table, np.array(partition, np.int64), 7)
        found = []
        for p in range(7):
            with open_partition(store, keys, p) as table:
                assert set(table["p"].to_pylist()) <= {p}
                found += table["name"].to_pylist()
        assert sorted(found) == sorted(f"{n}-{i}" for n, unit in enumerate(units) for i in range(len(unit)))


def test_a_column_of_several_types_gets_one_that_holds_all() -> None:
    tables = [
        pa.table({"a": [1], "b": pa.array([1], pa.int32()), "c": ["x"]}),
        pa.table({"a": ["two"], "b": pa.array([2.5])}),
    ]
    found = concatenate(tables)
    assert found.to_pylist() == [{"a": "1", "b": 1.0, "c": "x"}, {"a": "two", "b": 2.5, "c": None}]
