from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.unique_id import UniqueId
from operators.phases import VERDICT, run_in_memory
from tests.operators.dedup.rows import Repartitioned, documents, fates


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([{"text": "a"}, {"text": "long"}], 1),  # the longest
        ([{"text": "a", "priority": 1}, {"text": "long"}], 0),  # priority before length; null is 0
        ([{"text": "a", "priority": -1}, {"text": "b"}], 1),
        ([{"text": "éé"}, {"text": "abc"}], 1),  # characters, not bytes
        ([{"text": None}, {"text": "x"}], 1),
        ([{"text": "same"}, {"text": "same"}], 0),  # equal in all: the first
    ],
)
def test_which_one_stays(rows: list[dict[str, Any]], kept: int) -> None:
    for order in ([0, 1], [1, 0]):
        table = documents([{"id": "x", **row} for row in rows]).take(order)
        found = run_in_memory(UniqueId(), [table]).sort_by("doc")
        stays = [reason is None for reason in found["drop_reason"].to_pylist()]
        assert sum(stays) == 1
        if rows[0] != rows[1]:
            assert order[stays.index(True)] == kept
        assert set(found["drop_reason"].to_pylist()) == {None, "duplicate_id"}
        assert set(found["duplicate_of"].to_pylist()) == {None, "x"}
        assert found["cluster_size"].to_pylist() == [2, 2]


def test_a_missing_id_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 of 2 documents have no id"):
        run_in_memory(UniqueId(), [documents([{"text": "a"}, {"id": None, "text": "b"}])])


def test_no_rows() -> None:
    verdict = run_in_memory(UniqueId(), [documents([])])
    assert verdict.schema.equals(VERDICT)
    assert verdict.num_rows == 0


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.sampled_from(["", "a", "b", "ab"])), max_size=25),
    st.lists(st.integers(0, 25), max_size=3),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_cuts_and_partitions_do_not_matter(rows: list[tuple[int, int, str]], cuts: list[int], partitions: int) -> None:
    table = documents([{"id": f"d{i}", "priority": p, "text": t} for i, p, t in rows])
    bounds = sorted({0, table.num_rows, *(min(c, table.num_rows) for c in cuts)})
    units = [table.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False)] or [table]
    found = fates(Repartitioned(UniqueId(), [partitions]), units[::-1])
    assert found == fates(UniqueId(), [table])
    verdict = run_in_memory(UniqueId(), units)
    repeats = table.num_rows - len({i for i, _, _ in rows})
    assert verdict.num_rows - verdict["drop_reason"].null_count == repeats
    # The texts that stay depend on the rows alone.
    whole = pa.concat_tables(units)
    best = {i: max((p, len(t)) for j, p, t in rows if j == i) for i, _, _ in rows}
    numbers = [(u << 32) + r for u, t in enumerate(units) for r in range(t.num_rows)]
    gone = {r["doc"] for r in verdict.to_pylist() if r["drop_reason"]}
    for number, row in zip(numbers, whole.to_pylist(), strict=True):
        if number not in gone:
            assert (row["priority"], len(row["text"])) == best[int(row["id"][1:])]
