from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.ordering.path import (
    EDGE,
    JUMP,
    STITCH,
    Edges,
    Fragments,
    Stretch,
    neighbours_of,
    starts,
    walk_greedily,
)

Edge = tuple[int, int, int]
Step = tuple[int, int, int]  # document, weight, link


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[Edge]]:
    """Documents, and edges of few weights, so that many are equally good, best first."""
    documents = draw(st.integers(0, 24))
    ends = st.integers(0, max(documents - 1, 0))
    pairs = draw(st.lists(st.tuples(ends, ends), max_size=90))
    weights = draw(st.lists(st.integers(1, 4), min_size=90, max_size=90))
    chosen = sorted({(a, b) for a, b in pairs if a < b})
    edges = [(a, b, w) for (a, b), w in zip(chosen, weights, strict=False)]
    return documents, sorted(edges, key=lambda e: (-e[2], e[0], e[1]))


def arrays(edges: Sequence[Edge]) -> Edges:
    low, high, weight = zip(*edges, strict=True) if edges else ((), (), ())
    return Edges(np.array(low, np.uint32), np.array(high, np.uint32), np.array(weight, np.uint16))


def steps(stretches: Sequence[Stretch]) -> list[Step]:
    return [(int(n), int(w), int(k)) for s in stretches for n, w, k in zip(*s, strict=True)]


def fragments_by_hand(documents: int, edges: Sequence[Edge]) -> list[Step]:
    """The greedy-edge heuristic with sets, as one would write it down."""
    member = [{d} for d in range(documents)]
    links: list[dict[int, int]] = [{} for _ in range(documents)]
    for a, b, weight in edges:
        if len(links[a]) < 2 and len(links[b]) < 2 and member[a] is not member[b]:
            links[a][b] = links[b][a] = weight
            union = member[a] | member[b]
            for d in union:
                member[d] = union
    path: list[Step] = []
    done: set[int] = set()
    for start in range(documents):
        if start in done or len(links[start]) == 2:
            continue
        here, weight, kind = start, 0, JUMP
        while True:
            path.append((here, weight, kind))
            done.add(here)
            onward = [d for d in links[here] if d not in done]
            if not onward:
                break
            weight, kind, here = links[here][onward[0]], EDGE, onward[0]
    return path


def algorithm_1(documents: int, edges: Sequence[Edge], order: Sequence[int]) -> list[Step]:
    """Algorithm 1 of the paper, with its arg min read as arg max; `order` draws among equal degrees."""
    weights: list[dict[int, int]] = [{} for _ in range(documents)]
    for a, b, weight in edges:
        weights[a][b] = weights[b][a] = weight
    unvisited = set(range(documents))
    path: list[Step] = []
    while unvisited:
        least = min(len(weights[d]) for d in unvisited)
        here = next(d for d in order if d in unvisited and len(weights[d]) == least)
        path.append((here, 0, JUMP))
        unvisited.remove(here)
        while near := weights[here].keys() & unvisited:
            best = max(near, key=lambda d: (weights[here][d], -d))
            path.append((best, weights[here][best], EDGE))
            unvisited.remove(best)
            here = best
    return path


@given(graphs(), st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_greedy_edge_is_what_one_would_write_down(graph: tuple[int, list[Edge]], rows: int) -> None:
    documents, edges = graph
    fragments = Fragments(documents)
    joined = fragments.join(arrays(edges))
    stretches = list(fragments.path(rows))
    path = steps(stretches)
    assert path == fragments_by_hand(documents, edges)
    assert sorted(d for d, _, _ in path) == list(range(documents))
    assert [len(s.number) for s in stretches[:-1]] == [rows] * (len(stretches) - 1)
    assert joined == sum(kind == EDGE for _, _, kind in path)
    before, after = fragments.seams()
    jumps = [i for i, step in enumerate(path) if step[2] == JUMP and i]
    assert before.tolist() == [path[i - 1][0] for i in jumps]
    assert after.tolist() == [path[i][0] for i in jumps]


@given(graphs(), st.lists(st.integers(0, 90), max_size=4), st.integers(0, 90))
@settings(max_examples=100, deadline=None)
def test_how_the_stream_is_cut_does_not_matter(graph: tuple[int, list[Edge]], cuts: list[int], stitched: int) -> None:
    documents, edges = graph
    bounds = [0, *sorted(cuts), len(edges)]
    parts = [arrays(edges[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
    once, again = Fragments(documents), Fragments(documents)
    once.join(arrays(edges))
    joined = [again.join(part) for part in parts]
    assert steps(list(once.path(7))) == steps(list(again.path(11)))
    assert sum(joined) == once.join(arrays([])) + sum(k == EDGE for _, _, k in steps(list(once.path(99))))
    in_parts, whole = neighbours_of(parts, documents), neighbours_of([arrays(edges)], documents)
    assert [column.tolist() for column in in_parts] == [column.tolist() for column in whole]

    # links made after `stitched_from_now_on` are told apart, and nothing else changes
    late = Fragments(documents)
    early = late.join(arrays(edges[:stitched]))
    late.stitched_from_now_on()
    late.join(arrays(edges[stitched:]))
    path = steps(list(late.path(5)))
    assert [step[:2] for step in path] == [step[:2] for step in steps(list(once.path(5)))]
    assert sum(kind == EDGE for _, _, kind in path) == early
    assert sum(kind == STITCH for _, _, kind in path) == sum(joined) - early


@given(graphs(), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_icp_is_algorithm_1(graph: tuple[int, list[Edge]], seed: int) -> None:
    documents, edges = graph
    neighbours = neighbours_of([arrays(edges)], documents)
    for d in range(documents):
        row = slice(neighbours.bounds[d], neighbours.bounds[d + 1])
        own = [(-w, b if a == d else a) for a, b, w in edges if d in (a, b)]
        assert neighbours.number[row].tolist() == [other for _, other in sorted(own)]
    order = starts(neighbours, seed)
    path = steps([walk_greedily([arrays(edges)], documents, seed)])
    assert path == algorithm_1(documents, edges, order.tolist())
    assert sorted(d for d, _, _ in path) == list(range(documents))


def test_starts_are_drawn() -> None:
    """Among equal degrees every document has its turn to be the first, and the seed decides."""
    alone = neighbours_of([arrays([(3, 4, 1)])], 6)
    orders = [starts(alone, seed).tolist() for seed in range(300)]
    assert {tuple(sorted(order[4:])) for order in orders} == {(3, 4)}
    firsts = np.bincount([order[0] for order in orders], minlength=6)
    assert firsts[[3, 4]].tolist() == [0, 0]
    assert firsts[[0, 1, 2, 5]].min() > 40
    assert orders[7] == starts(alone, 7).tolist()


def test_a_star_is_a_path_of_three() -> None:
    """Everybody's neighbour can be next to two only."""
    star = arrays([(0, d, 9) for d in range(1, 8)])
    fragments = Fragments(8)
    assert fragments.join(star) == 2
    assert steps(list(fragments.path(99)))[:3] == [(1, 0, JUMP), (0, 9, EDGE), (2, 9, EDGE)]
    path = steps([walk_greedily([star], 8, 0)])
    assert [kind for _, _, kind in path].count(EDGE) == 2


def test_a_circle_loses_its_weakest_edge() -> None:
    circle = [(d, d + 1, 50 - d) for d in range(9)] + [(0, 9, 60)]
    fragments = Fragments(10)
    assert fragments.join(arrays(sorted(circle, key=lambda e: -e[2]))) == 9
    assert [d for d, _, _ in steps(list(fragments.path(99)))] == [8, 7, 6, 5, 4, 3, 2, 1, 0, 9]
    assert fragments.join(arrays(circle)) == 0


@pytest.mark.parametrize("documents", [0, 1, 2])
def test_without_edges(documents: int) -> None:
    expected = [(d, 0, JUMP) for d in range(documents)]
    assert steps(list(Fragments(documents).path(4))) == expected
    path = steps([walk_greedily([], documents, 5)])
    assert sorted(path) == expected


def test_a_long_path() -> None:
    """A hidden order of 200,000 documents is found again, whatever their numbers."""
    size = 200_000
    random = np.random.default_rng(3)
    hidden = random.permutation(size).astype(np.uint32)
    low, high = np.minimum(hidden[:-1], hidden[1:]), np.maximum(hidden[:-1], hidden[1:])
    fragments = Fragments(size)
    shuffled = random.permutation(size - 1)
    fragments.join(Edges(low[shuffled], high[shuffled], np.full(size - 1, 77, np.uint16)))
    found = np.concatenate([stretch.number for stretch in fragments.path(30_000)])
    assert np.array_equal(found, hidden if hidden[0] < hidden[-1] else hidden[::-1])
    assert len(fragments.seams()[0]) == 0
