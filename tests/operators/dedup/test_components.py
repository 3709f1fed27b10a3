from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup import components as module
from operators.dedup.components import CHUNK_ROWS, connect, first_rows, forest, links
from operators.phases import PUBLISHED_NUMBER

EDGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60)
SIZES = [3, 0, 12, 16]  # documents of each unit: 31 in all
PLENTY = 1 << 30


def doc(number: int) -> int:
    """Nodes 0 to 30 as documents of SIZES, above them as published ones, far apart."""
    if number > 30:
        return int(PUBLISHED_NUMBER) + number * 10**15
    ends = np.cumsum(SIZES)
    unit = int(ends.searchsorted(number, side="right"))
    return (unit << 32) + number - int(ends[unit] - SIZES[unit])


def table(edges: list[tuple[int, int]]) -> pa.Table:
    sides = [pa.array([doc(edge[k]) for edge in edges], pa.uint64()) for k in range(2)]
    return pa.table({"left": sides[0], "right": sides[1]})


def components(edges: list[tuple[int, int]]) -> dict[int, int]:
    """Smallest member by node, found by spreading labels until nothing changes."""
    label = {node: node for edge in edges for node in edge}
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            low = min(label[a], label[b])
            changed |= (label[a], label[b]) != (low, low)
            label[a] = label[b] = low
    return label


def connected(tables: list[pa.Table], sizes: list[int], memory: int) -> dict[int, int]:
    found = pa.concat_tables(list(connect(tables, sizes, memory)))
    docs, roots = found["doc"].to_pylist(), found["root"].to_pylist()
    assert len(set(docs)) == len(docs)
    return dict(zip(docs, roots, strict=True))


@pytest.mark.parametrize("memory", [PLENTY, 200, 100, 40, 1])  # bytes: all at once, in blocks of 25, 12, 5 and 1
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=30), max_size=3),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_connect_against_spreading_labels(memory: int, parts: list[list[tuple[int, int]]], shuffle: object) -> None:
    """Whatever the order of the links, and however few documents fit the memory."""
    edges = [edge for part in parts for edge in part]
    expected = {doc(a): doc(b) for a, b in components(edges).items()}
    alone = {root for root, n in zip(*np.unique(list(expected.values()), return_counts=True), strict=True) if n == 1}
    expected = {a: b for a, b in expected.items() if b not in alone}  # linked to themselves only
    tables = [table(part) for part in parts]
    shuffle.shuffle(tables)  # type: ignore[attr-defined]
    assert connected(tables, SIZES, memory) == expected
    with pytest.MonkeyPatch.context() as patch:  # as if there were more documents than uint32 can count
        patch.setattr(module, "NARROW", 1)
        assert connected(tables, SIZES, 2 * memory) == expected


@given(EDGES)
@settings(max_examples=100, deadline=None)
def test_a_forest_connects_the_same_with_the_fewest_edges(edges: list[tuple[int, int]]) -> None:
    left, right = (np.array([doc(edge[k]) for edge in edges], np.uint64) for k in range(2))
    expected = components(edges)
    kept_left, kept_right = forest(left, right)
    assert len(kept_left) == len(expected) - len(set(expected.values()))
    again = pa.table({"left": pa.array(kept_left), "right": pa.array(kept_right)})
    assert connected([again], SIZES, PLENTY) == connected([table(edges)], SIZES, PLENTY)


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(0, 63))
@settings(max_examples=150, deadline=None)
def test_links_are_a_star_for_each_key(values: list[int], shift: int) -> None:
    """Whichever bits the keys differ in."""
    keys = np.array([(v << shift) % 2**64 for v in values], np.uint64)
    docs = np.arange(100, 100 + len(values), dtype=np.uint64)
    left, right = links(keys, docs)
    listed = keys.tolist()
    expected = [(100 + listed.index(k), 100 + row) for row, k in enumerate(listed) if listed.index(k) != row]
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == expected


def test_more_rows_than_can_be_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NARROW", 3)
    with pytest.raises(ValueError, match="3 rows in one partition"):
        first_rows(np.zeros(3, np.uint64))


def test_links_of_many_rows() -> None:
    random = np.random.default_rng(3)
    keys = random.integers(0, 2**64, 5 * CHUNK_ROWS, dtype=np.uint64)
    keys[::3] = keys[random.integers(0, len(keys), len(keys[::3]))]
    docs = random.permutation(len(keys)).astype(np.uint64)
    left, right = links(keys, docs)
    key_of = dict(zip(docs.tolist(), keys.tolist(), strict=True))
    assert all(key_of[a] == key_of[b] for a, b in zip(left.tolist(), right.tolist(), strict=True))
    assert len(left) == len(keys) - len(np.unique(keys))


def test_one_bucket_of_a_million_rows() -> None:
    keys = np.full(1_000_000, 7, np.uint64)
    left, right = forest(*links(keys, np.arange(len(keys), dtype=np.uint64)))
    assert len(left) == len(keys) - 1
    edges = pa.table({"left": left, "right": right})
    found = pa.concat_tables(list(connect([edges], [len(keys)], PLENTY)))
    assert found.num_rows == len(keys)
    assert not found["root"].to_numpy().any()


@pytest.mark.parametrize("memory", [PLENTY, 300_000])
def test_a_long_chain(memory: int) -> None:
    """Label spreading would need a round for each link; in blocks, links wait for one another."""
    chain = np.arange(200_000, dtype=np.uint64)
    order = np.random.default_rng(1).permutation(len(chain) - 1)
    edges = pa.table({"left": chain[:-1][order], "right": chain[1:][order]})
    found = pa.concat_tables(list(connect([edges.slice(0, 70_000), edges.slice(70_000)], [len(chain)], memory)))
    assert found["doc"].to_numpy().tolist() == chain.tolist()
    assert not found["root"].to_numpy().any()


def test_nothing() -> None:
    none = np.zeros(0, np.uint64)
    for pair in (links(none, none), forest(none, none)):
        assert [len(side) for side in pair] == [0, 0]
    for sizes in ([], [0], [5]):
        assert [t.num_rows for t in connect([], sizes, PLENTY)] == [0]
        assert connected([table([])], sizes, 1) == {}
