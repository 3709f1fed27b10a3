"""How documents find their split, partition and shard. Without Ray."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.shard_task import cut_evenly, sorted_columns
from workflows.token_stage import BLOCK, assign, cut_splits


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 100))
def test_parts_are_contiguous_cover_all_and_stay_near_the_bound(sizes: list[int], most: int) -> None:
    bounds = cut_evenly(np.array(sizes, np.int64), most)
    assert bounds[0] == 0
    assert bounds[-1] == len(sizes)
    assert bounds == sorted(set(bounds))
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        assert sum(sizes[first:last]) <= most + max(sizes, default=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=50), st.integers(1, 10**7))
def test_a_document_goes_to_the_same_place_in_any_company(ids: list[str], characters: int) -> None:
    cuts = cut_splits({"validation": 0.2, "test": 0.1}, characters, 1000)
    keys, partitions = assign(pa.array(ids), pa.array(ids), cuts)
    assert partitions.max() < cuts[-1].first + cuts[-1].partitions
    for n, one in enumerate(ids):
        key, partition = assign(pa.array([one]), pa.array([one]), cuts)
        assert (key[0], partition[0]) == (keys[n], partitions[n])


def test_a_cluster_stays_in_one_split_and_shares_are_about_right() -> None:
    cuts = cut_splits({"validation": 0.1}, 4_000_000, 100_000)
    assert [(cut.split, cut.first, cut.partitions) for cut in cuts] == [("validation", 0, 1), ("train", 1, 9)]
    ids = [str(n) for n in range(20_000)]
    clusters = [str(n // 2) for n in range(20_000)]
    _, partitions = assign(pa.array(ids), pa.array(clusters), cuts)
    held_out = partitions < 1
    assert (held_out[0::2] == held_out[1::2]).all()
    assert 0.08 < held_out.mean() < 0.12
    assert np.bincount(partitions).min() > 1500


def test_documents_that_follow_each_other_stay_together() -> None:
    """Blocks go to partitions by hash, within them ranks decide; what belongs to another split is not affected."""
    cuts = cut_splits({"validation": 0.1}, 40_000_000, 100_000)
    ids, ranks = pa.array([str(n) for n in range(40_000)]), np.random.default_rng(0).permutation(40_000)
    keys, partitions = assign(ids, ids, cuts, pa.chunked_array([pa.array(ranks)]), BLOCK)
    assert keys.tolist() == ranks.tolist()
    trained = partitions >= cuts[1].first
    assert 0.08 < 1 - trained.mean() < 0.12
    homes = {block: set(partitions[trained & (ranks // BLOCK == block)].tolist()) for block in range(40_000 // BLOCK)}
    assert {len(found) for found in homes.values()} == {1}
    assert len(set.union(*homes.values())) > 10


def test_columns_have_one_order_and_empty_ones_are_left_out() -> None:
    table = pa.table({"b": [1], "url": ["u"], "a": [2], "id": ["1"], "none": pa.nulls(1), "text": [None]})
    assert sorted_columns(table, {"id", "url", "a", "b"}).column_names == ["id", "text", "url", "a", "b"]
