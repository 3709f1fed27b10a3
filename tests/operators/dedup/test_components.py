from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.components import CHUNK_ROWS, forest, links, roots

EDGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60)


def docs_of(values: list[int]) -> np.ndarray:
    return np.array([(v << 32) + v for v in values], np.uint64)


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


@given(EDGES)
@settings(max_examples=150, deadline=None)
def test_roots_and_forest_against_spreading_labels(edges: list[tuple[int, int]]) -> None:
    left, right = docs_of([a for a, _ in edges]), docs_of([b for _, b in edges])
    expected = components(edges)
    docs, root = roots(left, right)
    assert dict(zip((docs >> np.uint64(32)).tolist(), (root >> np.uint64(32)).tolist(), strict=True)) == expected
    kept_left, kept_right = forest(left, right)
    assert len(kept_left) == len(expected) - len(set(expected.values()))
    again, root_again = roots(kept_left, kept_right)
    joined = dict(zip(again.tolist(), root_again.tolist(), strict=True))
    assert all(joined.get(d, d) == r for d, r in zip(docs.tolist(), root.tolist(), strict=True))


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


def test_links_of_many_rows() -> None:
    random = np.random.default_rng(3)
    keys = random.integers(0, 2**64, 5 * CHUNK_ROWS, dtype=np.uint64)
    keys[::3] = keys[random.integers(0, len(keys), len(keys[::3]))]
    docs = random.permutation(len(keys)).astype(np.uint64)
    left, right = links(keys, docs)
    key_of = dict(zip(docs.tolist(), keys.tolist(), strict=True))
    assert all(key_of[a] == key_of[b] for a, b in zip(left.tolist(), right.tolist(), strict=True))
    assert len(left) == len(keys) - len(np.unique(keys))


def test_a_long_chain() -> None:
    """Label spreading would need a round for each link."""
    chain = np.arange(200_000, dtype=np.uint64)
    order = np.random.default_rng(1).permutation(len(chain) - 1)
    docs, root = roots(chain[:-1][order], chain[1:][order])
    assert len(docs) == len(chain)
    assert not root.any()


def test_nothing() -> None:
    none = np.zeros(0, np.uint64)
    for pair in (links(none, none), forest(none, none), roots(none, none)):
        assert [len(side) for side in pair] == [0, 0]
