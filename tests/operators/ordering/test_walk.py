from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.ordering import vectors
from operators.ordering import walk as module
from operators.ordering.clustering import cosines
from operators.ordering.graph import NeighbourGraph
from operators.ordering.neighbours import nearest_neighbours
from operators.ordering.path import EDGE, JUMP, STITCH
from operators.ordering.vectors import Vectors, on_grid
from operators.ordering.walk import SCHEMA, walk, walk_bytes
from operators.phases import MEMORY, Fold, GlobalOperator, Phase, run_in_memory

LISTS = 5


class Region(NamedTuple):
    """What the phases before give to the walk, and the vectors by number from its first document on."""

    edges: list[pa.Table]
    tables: list[pa.Table]
    sizes: pa.Table
    centroids: pa.Table
    found: Vectors
    base: int

    def walked(self, method: str = "greedy_edge", seed: int = 0, max_similarity: float = 1.0) -> pa.Table:
        said = {"method": method, "seed": seed, "neighbours": 3, "probes": 4, "max_similarity": max_similarity}
        given = (self.edges, self.tables, self.sizes, self.centroids, [1])
        return pa.concat_tables(list(walk(*given, **said)))  # type: ignore[arg-type]


def region(
    found: Vectors, first: int = 0, before: int = 0, neighbours: int = 3, cuts: Sequence[int] = (), cap: float = 1.0
) -> Region:
    """The vectors in this order as lists from `first` on, those of zeros last, and the edges between neighbours; tables
    are cut at `cuts`. `before` documents are in each list of other regions."""
    found = found[np.argsort(~found.any(axis=1), kind="stable")]
    count = len(found)
    lists = np.sort(np.arange(count) * (LISTS - first) // max(count, 1)) + first
    lists[~found.any(axis=1)] = LISTS
    sizes = np.bincount(lists, minlength=LISTS + 1)
    sizes[:first] = before
    base = first * before
    rows, weights = nearest_neighbours(found, np.zeros(count, np.int64), np.zeros((1, 1), np.int64), neighbours)
    own = np.repeat(np.arange(count), neighbours)
    pairs = np.stack((np.minimum(own, rows.ravel()), np.maximum(own, rows.ravel()), weights.ravel()), axis=1)
    pairs = np.unique(pairs[(rows.ravel() >= 0) & (weights.ravel() <= cap * 65535)], axis=0)
    low, high, weight = pairs[np.lexsort((pairs[:, 1], pairs[:, 0], -pairs[:, 2]))].T
    edges = pa.table(
        {
            "lo": pa.array((low + base).astype(np.uint32)),
            "hi": pa.array((high + base).astype(np.uint32)),
            "weight": pa.array(weight.astype(np.uint16)),
        }
    )
    table = pa.table({"list": pa.array(lists.astype(np.uint32)), "vector": vectors.packed(found)})
    centroids = pa.table({"vector": vectors.packed(on_grid(np.ones((LISTS, found.shape[1]))))})
    told = pa.table({"list": pa.array(np.arange(LISTS + 1).astype(np.uint32)), "documents": sizes})
    return Region(cut(edges, cuts), cut(table, cuts), told, centroids, found, base)


def cut(table: pa.Table, cuts: Sequence[int]) -> list[pa.Table]:
    bounds = [0, *sorted(min(at, len(table)) for at in cuts), len(table)]
    return [table.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False)]


def check(region: Region, path: pa.Table) -> None:
    """What holds of every path: a permutation, ranks in order, and similarities that are true."""
    count, alike = len(region.found), int(region.found.any(axis=1).sum())
    assert path.schema == SCHEMA
    number = path["number"].to_numpy().astype(np.int64) - region.base
    assert sorted(number) == list(range(count))
    assert path["rank"].to_pylist() == list(range(region.base, region.base + count))
    assert number[alike:].tolist() == list(range(alike, count))
    similarity = path["similarity"].to_numpy()
    expected = cosines(region.found[number[:-1]], region.found[number[1:]])
    assert np.allclose(similarity[1:alike], expected[: max(alike - 1, 0)], atol=2e-4)
    assert path["similarity"].null_count == count - max(alike - 1, 0)
    link = path["link"].to_numpy()
    assert (link[:1] == JUMP).all()
    assert (link[alike:] == JUMP).all()


def documents(random: np.random.Generator, count: int, dimensions: int = 8) -> Vectors:
    """Of few directions and many: some equal, some without a vector."""
    found = np.where(random.random((count, 1)) < 0.5, random.integers(-1, 2, (count, dimensions)), 0).astype(float)
    found += np.where(random.random((count, 1)) < 0.4, random.normal(size=(count, dimensions)), 0)
    return on_grid(found)


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 40),
    method=st.sampled_from(["greedy_edge", "icp"]),
    first=st.integers(0, LISTS - 1),
    cuts=st.lists(st.integers(0, 120), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_any_graph_gives_a_permutation(seed: int, count: int, method: str, first: int, cuts: list[int]) -> None:
    found = documents(np.random.default_rng(seed), count)
    whole, parts = region(found, first, 7), region(found, first, 7, cuts=cuts)
    path = whole.walked(method)
    check(whole, path)
    assert parts.walked(method).equals(path)


@pytest.mark.parametrize("method", ["greedy_edge", "icp"])
def test_nothing_to_order(method: str) -> None:
    dimensions = np.zeros((0, 4), np.int16)
    empty = region(dimensions, 2, 3).walked(method)
    assert empty.schema == SCHEMA
    assert len(empty) == 0
    none = region(dimensions)
    assert len(none._replace(tables=[], edges=[]).walked(method)) == 0
    alone = region(on_grid(np.ones((1, 4))), 2, 3)
    assert alone.walked(method).to_pylist() == [{"number": 6, "rank": 6, "similarity": None, "link": JUMP}]
    unlike = region(np.zeros((2, 4), np.int16))
    check(unlike, unlike.walked(method))


@pytest.mark.parametrize("method", ["greedy_edge", "icp"])
def test_equal_documents_follow_each_other(method: str) -> None:
    twins = region(on_grid(np.ones((2, 4))))
    path = twins.walked(method)
    check(twins, path)
    assert path["similarity"].to_pylist() == [None, 1.0]
    assert path["link"].to_pylist() == [JUMP, EDGE]
    many = region(on_grid(np.ones((700, 4))))
    path = many.walked(method)
    check(many, path)
    assert path["similarity"].to_pylist()[1:] == [1.0] * 699


def arc(random: np.random.Generator, count: int) -> Vectors:
    """Points on a quarter of a circle, in no order, at distances that differ."""
    angle = np.cumsum(1 + random.random(count))
    angle *= np.pi / 2 / angle[-1]
    return on_grid(np.stack((np.cos(angle), np.sin(angle)), axis=1)[random.permutation(count)])


def test_fragments_are_stitched_into_the_hidden_order() -> None:
    """With one neighbour each there are hardly more edges than pairs; the ends find each other."""
    hidden = region(arc(np.random.default_rng(1), 60), neighbours=1)
    path = hidden.walked()
    check(hidden, path)
    link = path["link"].to_numpy()
    assert (link == JUMP).sum() == 1
    assert (link == STITCH).sum() > 10
    angle = np.arctan2(*hidden.found[path["number"].to_numpy()].T.astype(float))
    along = angle[0] < angle[-1]
    assert (np.diff(angle if along else -angle) > 0).mean() > 0.95  # the last stitches are those left over
    assert path["similarity"].to_numpy()[1:].mean() > hidden.walked("icp")["similarity"].to_numpy()[1:].mean()


def test_what_is_not_alike_is_not_stitched() -> None:
    """Ends with right angles between them are put one after the other, by their numbers."""
    pairs = region(on_grid(np.repeat(np.eye(6), 2, axis=0)))
    path = pairs.walked()
    check(pairs, path)
    assert path["number"].to_pylist() == list(range(12))
    assert path["link"].to_pylist() == [JUMP, EDGE] * 6
    assert path["similarity"].to_pylist() == [None, *[1.0, 0.0] * 5, 1.0]


@given(st.integers(0, 2**32), st.sampled_from([0.5, 0.9, 0.99]))
@settings(max_examples=40, deadline=None)
def test_redundant_documents_are_not_linked(seed: int, most: float) -> None:
    """An edge or a stitch above the bound is none; only a jump may happen to bring such documents together."""
    redundant = region(documents(np.random.default_rng(seed), 40), cap=most)
    path = redundant.walked(max_similarity=most)
    check(redundant, path)
    linked = path.filter(pc.not_equal(path["link"], JUMP))
    assert (linked["similarity"].to_numpy() <= most + 1e-4).all()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (("ROWS", 7), ("EDGES_AT_ONCE", 5), ("SEAMS_AT_ONCE", 3)):
        monkeypatch.setattr(module, name, value)
    return monkeypatch


@pytest.mark.parametrize("method", ["greedy_edge", "icp"])
@pytest.mark.parametrize("count", [1, 7, 50])
def test_blocks_do_not_matter(small: pytest.MonkeyPatch, method: str, count: int) -> None:
    given = region(documents(np.random.default_rng(count), count), cuts=(3, 20, 21))
    in_blocks = given.walked(method)
    assert len(in_blocks.column(0).chunks) == -(-int(given.found.any(axis=1).sum()) // 7) + -(
        -int((~given.found.any(axis=1)).sum()) // 7
    )
    small.undo()
    assert given.walked(method).equals(in_blocks)


def test_more_ends_than_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and groups of ends: the same path however tables are cut, and nearly as good as one window's."""
    found = on_grid(np.random.default_rng(4).normal(size=(400, 6)))
    found = found[np.lexsort((found[:, 1] // 1024, found[:, 0] // 1024))]  # near numbers are near each other
    once, parts = region(found, neighbours=1), region(found, neighbours=1, cuts=(33, 34, 200))
    whole = once.walked()["similarity"].to_numpy()[1:].mean()
    for ends, group, least in ((1 << 20, 8, 0.95), (64, 256, 0.95), (64, 8, 0.95), (1, 8, 0.5)):
        monkeypatch.setattr(module, "ENDS_AT_ONCE", ends)
        monkeypatch.setattr(module, "GROUP", group)
        path = once.walked()
        check(once, path)
        assert parts.walked().equals(path)
        assert path["similarity"].to_numpy()[1:].mean() > least * whole


def test_seeds_draw_the_starts_of_icp_only() -> None:
    given = region(documents(np.random.default_rng(9), 200))
    assert given.walked("icp", 1).equals(given.walked("icp", 1))
    assert not given.walked("icp", 1).equals(given.walked("icp", 2))
    assert given.walked("greedy_edge", 1).equals(given.walked("greedy_edge", 2))


def test_greedy_edge_is_the_better_path() -> None:
    """By a few per cent, as in the prototypes; and far from chance."""
    random = np.random.default_rng(11)
    topics = random.normal(size=(60, 32))
    found = on_grid(topics[random.integers(0, 60, 3000)] + random.normal(size=(3000, 32)))
    given = region(found, neighbours=8)
    means = {method: given.walked(method)["similarity"].to_numpy()[1:].mean() for method in ("greedy_edge", "icp")}
    assert means["greedy_edge"] > 1.03 * means["icp"]
    assert means["icp"] > 10 * abs(cosines(found[:-1], found[1:]).mean())


class Walked(GlobalOperator):
    """The graph's own phases, and the path through it."""

    def __init__(self, method: str, regions: int, pq_bytes: int | None) -> None:
        self.method, self.regions = method, regions
        self.graph = NeighbourGraph("vector", None, 5, 9, 4, regions, 1.0, pq_bytes)

    def phases(self, rows: int, memory: int = MEMORY) -> Sequence[Phase | Fold]:
        said = {"method": self.method, "seed": 3, "neighbours": 5, "probes": 4, "max_similarity": 1.0}
        fold = functools.partial(walk, **said)  # type: ignore[arg-type]
        whole = ("sizes", "centroids")
        return [
            *self.graph.phases(rows, memory),
            Fold("path", ("edges", "vectors"), fold, whole=whole, parts=self.regions),
        ]


def units(found: NDArray[np.float64], size: int) -> list[pa.Table]:
    ids = pa.array([f"document {i}" for i in range(len(found))])
    texts = pa.nulls(len(found), pa.large_string())
    table = pa.table({"id": ids, "text": texts, "vector": pa.array(list(found), pa.list_(pa.float64()))})
    return [table.slice(at, size) for at in range(0, len(found), size)]


@pytest.mark.parametrize(
    ("method", "regions", "pq_bytes"), [("greedy_edge", 1, None), ("icp", 4, None), ("greedy_edge", 3, 4)]
)
def test_through_the_phases(method: str, regions: int, pq_bytes: int | None) -> None:
    random = np.random.default_rng(5)
    found = random.normal(size=(30, 16))[random.integers(0, 30, 300)] + 0.5 * random.normal(size=(300, 16))
    found[::50] = 0
    operator = Walked(method, regions, pq_bytes)
    path = run_in_memory(operator, units(found, 300))
    assert sorted(path["number"].to_pylist()) == list(range(300))
    assert path["rank"].to_pylist() == list(range(300))
    assert path["similarity"].null_count == regions + 6
    assert path["link"].to_numpy()[-6:].tolist() == [JUMP] * 6
    assert np.nanmean(path["similarity"].to_numpy()) > 0.5
    assert run_in_memory(operator, units(found, 77)).num_rows == 300


def test_memory_is_a_few_bytes_a_document() -> None:
    assert walk_bytes("greedy_edge", 10**9) < 20 * 10**9
    assert walk_bytes("icp", 10**9, 20) > walk_bytes("icp", 10**9, 10) > 100 * 10**9
