"""What goes into partitions comes out of them, whatever the rows and however many partitions."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
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


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pa.array([1], pa.int32()), pa.array([2**40]), [1, 2**40]),
        (pa.array([1.5], pa.float32()), pa.array([2.5]), [1.5, 2.5]),
        (pa.array([2**60 + 1]), pa.array([2.5]), [str(2**60 + 1), "2.5"]),
        (pa.array([1]), pa.array(["two"]), ["1", "two"]),
        (pa.array([{"k": [1]}]), pa.array(["two"]), ['{"k":[1]}', "two"]),
        (pa.array([[1, 2]]), pa.array([{"k": 1}]), ["[1,2]", '{"k":1}']),
        (pa.array([True]), pa.array([1]), ["true", "1"]),
        (pa.array([b"\xff"]), pa.array(["two"]), ["ff", "two"]),
    ],
)
def test_a_column_of_several_types_gets_one_that_holds_all(one: pa.Array, other: pa.Array, expected: list[Any]) -> None:
    for tables in ([one, other], [other, one]):
        found = concatenate([pa.table({"a": column}) for column in tables])["a"].to_pylist()
        assert found == (expected if tables[0] is one else expected[::-1])


def test_a_column_that_some_tables_lack_is_null_there() -> None:
    found = concatenate([pa.table({"a": [1], "c": ["x"]}), pa.table({"a": [2]})])
    assert found.to_pylist() == [{"a": 1, "c": "x"}, {"a": 2, "c": None}]
