from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.ordering import clustering
from operators.ordering.graph import NeighbourGraph, lists_for, unpacked
from operators.ordering.numbering import NONE, keys_of, part_of, starts_of
from operators.ordering.vectors import of_column, squares
from operators.ordering.vectors import unpacked as unpacked_whole
from operators.phases import MEMORY, Fold, GlobalOperator, Phase, partition_of, run_in_memory

DENSE = NeighbourGraph(
    column="embedding",
    dimensions=None,
    neighbours=5,
    lists=None,
    probes=8,
    regions=1,
    max_similarity=1.0,
    pq_bytes=None,
)
LEXICAL = replace(DENSE, column=None, dimensions=256)
LISTED = replace(DENSE, lists=24, probes=6)


class _Until(GlobalOperator):
    """The phases of a graph up to the one that is asked for, which comes last."""

    name = "graph"

    def __init__(self, graph: NeighbourGraph, last: str, memory: int) -> None:
        self.graph, self.last, self.memory = graph, last, memory

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase | Fold]:
        found = self.graph.phases(rows, self.memory)
        return found[: [phase.name for phase in found].index(self.last) + 1]


def output(graph: NeighbourGraph, units: Sequence[pa.Table], phase: str, memory: int = MEMORY) -> pa.Table:
    return run_in_memory(_Until(graph, phase, memory), units)


def documents(embeddings: Sequence[object]) -> pa.Table:
    ids = [f"document {i}" for i in range(len(embeddings))]
    return pa.table({"id": ids, "embedding": pa.array(embeddings, pa.list_(pa.float32()))})


def clustered(rows: int, seed: int = 0, clusters: int = 30, dimensions: int = 24, spread: float = 0.6) -> pa.Table:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(clusters, dimensions))
    found = centres[random.integers(0, clusters, rows)] + spread * random.normal(size=(rows, dimensions))
    return documents(list(found))


def cut(table: pa.Table, bounds: Sequence[int]) -> list[pa.Table]:
    edges = [0, *sorted(min(b, len(table)) for b in bounds), len(table)]
    return [table.slice(a, b - a) for a, b in zip(edges, edges[1:], strict=False)]


def lists_of(table: pa.Table, name: str) -> NDArray[np.int64]:
    k = table[name].type.list_size
    flat: NDArray[np.int64] = table[name].combine_chunks().flatten().to_numpy().reshape(-1, k).astype(np.int64)
    return flat


def named(graph: NeighbourGraph, units: Sequence[pa.Table], memory: int = MEMORY) -> dict[str, list[tuple[str, int]]]:
    """The neighbours of each document by id, with weights."""
    found = output(graph, units, "neighbours", memory)
    assert found["number"].to_pylist() == list(range(len(found)))
    ids = {(u << 32) + row: name for u, t in enumerate(units) for row, name in enumerate(t["id"].to_pylist())}
    docs = [ids[doc] for doc in found["doc"].to_pylist()]
    assert sorted(docs) == sorted(ids.values())
    pairs = zip(lists_of(found, "neighbours").tolist(), lists_of(found, "weights").tolist(), strict=True)
    return {
        docs[i]: [(docs[n], w) for n, w in zip(near, weights, strict=True) if n != int(NONE)]
        for i, (near, weights) in enumerate(pairs)
    }


def recall(graph: NeighbourGraph, units: Sequence[pa.Table]) -> float:
    counts = output(graph, units, "recall")
    return float(pc.sum(counts["found"]).as_py() / pc.sum(counts["of"]).as_py())


def test_exact_neighbours_are_those_of_all_pairs() -> None:
    table = clustered(700)
    table = pa.concat_tables(
        [table, table.slice(3, 40).set_column(0, "id", pa.array([f"again {i}" for i in range(40)]))]
    )
    found = named(DENSE, cut(table, [100, 101, 500]))
    vectors = of_column(table, "embedding", 24).astype(np.int64)
    lengths = np.sqrt(np.outer(squares(vectors.astype(np.int16)), squares(vectors.astype(np.int16))))
    weights = np.rint(np.clip(vectors @ vectors.T / lengths, 0, 1) * 65535).astype(np.int64)
    np.fill_diagonal(weights, -1)
    ids = table["id"].to_pylist()
    at = {name: i for i, name in enumerate(ids)}
    for i, name in enumerate(ids):
        assert [w for _, w in found[name]] == sorted(weights[i].tolist(), reverse=True)[:5]
        assert all(weights[i, at[other]] == w for other, w in found[name])
        assert len({other for other, _ in found[name]}) == 5


def test_recall_is_1_of_exact_neighbours_even_of_many_equal_ones() -> None:
    table = pa.concat_tables([clustered(400), *[clustered(5, seed=9)] * 12])
    table = table.set_column(0, "id", pa.array([f"document {i}" for i in range(len(table))]))
    assert recall(DENSE, [table]) == 1
    counts = output(DENSE, [table], "recall")
    assert counts["of"].to_pylist() == [5] * len(counts)
    assert 150 < len(counts) < 350


def test_recall_of_lists_is_measured() -> None:
    units = cut(clustered(3000, spread=1.0), [1000])
    close, few = recall(LISTED, units), recall(replace(LISTED, probes=1), units)
    assert 0.8 < close < 1
    assert few < close


def test_recall_is_that_of_all_pairs() -> None:
    table = clustered(900, spread=1.0)
    graph = replace(LISTED, probes=2)
    exact, found = named(DENSE, [table]), named(graph, [table])
    counts = output(graph, [table], "recall")
    names = output(graph, [table], "neighbours")["doc"].to_pylist()
    ids = table["id"].to_pylist()
    for number, right, of in zip(*(counts[c].to_pylist() for c in ("number", "found", "of")), strict=True):
        name = ids[names[number]]
        least = exact[name][-1][1]
        assert of == len(exact[name])
        assert right == sum(weight >= least for _, weight in found[name])


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 260), max_size=4),
    st.integers(1 << 19, 1 << 24),
    st.sampled_from(
        [DENSE, LISTED, replace(LISTED, regions=3), replace(LISTED, pq_bytes=6), replace(DENSE, regions=2)]
    ),
)
@settings(max_examples=12, deadline=None)
def test_units_and_memory_do_not_matter(seed: int, bounds: list[int], memory: int, graph: NeighbourGraph) -> None:
    table = clustered(260, seed, clusters=12, dimensions=10)
    units = cut(table, bounds)
    assert named(graph, [table]) == named(graph, units, memory)
    assert output(graph, [table], "edges").equals(output(graph, units, "edges", memory))
    assert output(graph, [table], "recall").equals(output(graph, units, "recall"))
    for phase in ("centroids", "sizes"):
        assert output(graph, [table], phase).equals(output(graph, units, phase, memory))


@pytest.mark.parametrize("regions", [1, 2, 5])
@pytest.mark.parametrize("max_similarity", [1.0, 0.9])
def test_edges_are_the_lists_made_symmetric(regions: int, max_similarity: float) -> None:
    graph = replace(LISTED, regions=regions, max_similarity=max_similarity)
    units = cut(clustered(800), [300])
    found, sizes = output(graph, units, "neighbours"), output(graph, units, "sizes")
    starts, lists = starts_of(sizes), len(sizes) - 1
    bounds = [int(starts[lists * r // regions]) for r in range(regions)]
    region = np.searchsorted(bounds, np.arange(800), side="right") - 1
    expected = {
        (region[i], -w, min(i, n), max(i, n))
        for i, (near, weights) in enumerate(
            zip(lists_of(found, "neighbours").tolist(), lists_of(found, "weights").tolist(), strict=True)
        )
        for n, w in zip(near, weights, strict=True)
        if n != int(NONE) and region[i] == region[n] and w <= round(max_similarity * 65535)
    }
    for memory in (MEMORY, 1 << 20):
        edges = output(graph, units, "edges", memory)
        lo, hi, weight = (edges[name].to_numpy().astype(np.int64) for name in ("lo", "hi", "weight"))
        assert list(zip(region[lo], -weight, lo, hi, strict=True)) == sorted(expected)


def test_partitions_of_edges_and_vectors_are_whole_regions() -> None:
    phases = {phase.name: phase for phase in replace(LISTED, regions=7).phases(1_000_000, 1 << 26)}
    for name in ("vectors", "edges"):
        assert phases[name].partitions_in(MEMORY) % 7 == 0
    assert phases["neighbours"].partitions_in(MEMORY) >= 8


def test_vectors_come_by_list_and_hash() -> None:
    units = cut(clustered(500), [200])
    found, sizes = output(LISTED, units, "vectors"), output(LISTED, units, "sizes")
    lists = found["list"].to_numpy()
    assert (np.diff(lists.astype(np.int64)) >= 0).all()
    assert np.bincount(lists, minlength=len(sizes)).tolist() == sizes["documents"].to_pylist()
    assert sizes["list"].to_pylist() == list(range(len(sizes)))
    centroids = output(LISTED, units, "centroids")
    assert len(sizes) == len(centroids) + 1
    centres, own = unpacked_whole(centroids["vector"]).astype(np.int64), unpacked(found, centroids).astype(np.int64)
    assert ((own @ centres.T).argmax(axis=1) == lists).all()


def test_neighbouring_lists_are_near() -> None:
    """Numbers along the path make those in sequence nearer than those by chance."""
    centroids = output(LISTED, [clustered(1500, clusters=300, dimensions=6)], "centroids")
    found = unpacked_whole(centroids["vector"]).astype(np.float64) / 4096
    cosines = found @ found.T
    assert np.diag(cosines, 1).mean() > cosines[np.triu_indices(len(found), 1)].mean() + 0.3


def test_compressed_vectors_are_near_the_whole_ones() -> None:
    table = clustered(900)
    units = cut(table, [400])
    graph = replace(LISTED, pq_bytes=12)
    centroids, found = output(graph, units, "centroids"), output(graph, units, "vectors")
    assert found["vector"].type.byte_width == 12
    assert centroids["codebook"].null_count == len(centroids) - 1
    docs = found["doc"].to_numpy()
    whole = of_column(table, "embedding", 24)[(docs >> np.uint64(32)) * np.uint64(400) + (docs & np.uint64(2**32 - 1))]
    cosines = (whole.astype(np.float64) * unpacked(found, centroids)).sum(axis=1) / 4096**2
    centres = unpacked_whole(centroids["vector"])[found["list"].to_numpy()]
    assert np.median(cosines) > 0.97
    assert np.median(cosines) > np.median((whole.astype(np.float64) * centres).sum(axis=1) / 4096**2)
    assert 0.4 < recall(graph, units) < recall(LISTED, units)


def test_dimensions_that_do_not_divide_and_few_documents_to_learn_from() -> None:
    for rows, width in ((3, 5), (60, 7), (200, 48)):
        found = named(replace(DENSE, pq_bytes=width), [clustered(rows)])
        assert all(len(near) <= 5 for near in found.values())
        assert len(found) == rows


@pytest.mark.parametrize("graph", [DENSE, replace(DENSE, lists=1), LISTED, replace(LISTED, pq_bytes=3)])
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_documents(graph: NeighbourGraph, rows: int) -> None:
    table = documents([[1.0, 0.2, 0.1], [0.9, 0.3, 0.1]][:rows])
    found = named(graph, [table])
    assert [len(near) for near in found.values()] == [rows - 1] * rows
    assert len(output(graph, [table], "edges")) == rows // 2
    assert len(output(graph, [table], "recall")) == rows
    assert sum(output(graph, [table], "sizes")["documents"].to_pylist()) == rows


@pytest.mark.parametrize("graph", [DENSE, LISTED, replace(DENSE, pq_bytes=2), replace(DENSE, regions=3)])
def test_bad_vectors_have_no_neighbours_and_come_last(graph: NeighbourGraph) -> None:
    good = [list(v) for v in np.random.default_rng(1).normal(size=(40, 4)) + 1]
    bad: list[object] = [
        None,
        [],
        [0.0] * 4,
        [1.0],
        [float("nan")] * 4,
        [1.0, None, 1.0, 1.0],
        [float("inf"), 1.0, 1.0, 1.0],
    ]
    table = documents([*bad, *good])
    found = named(graph, cut(table, [3, 20]))
    for i in range(len(bad)):
        assert found[f"document {i}"] == []
    lost = {f"document {i}" for i in range(len(bad))}
    assert not any(other in lost for near in found.values() for other, _ in near)
    assert list(found)[-len(bad) :] == sorted(lost, key=list(found).index)
    sizes = output(graph, [table], "sizes")["documents"].to_pylist()
    assert sizes[-1] == len(bad)
    assert len(output(graph, [documents(bad)], "neighbours")) == len(bad)
    assert len(output(graph, [documents(bad)], "edges")) == 0


def test_equal_documents() -> None:
    table = documents([[0.5, 1.0, 2.0]] * 700)
    found = named(DENSE, [table])
    assert all(len(near) == 5 and near[0][1] == 65535 for near in found.values())
    assert recall(DENSE, [table]) == 1


def test_texts() -> None:
    words = {"bread": "flour water yeast oven dough", "boats": "sail mast keel harbour wind", "none": "!!! ???"}
    random = np.random.default_rng(0)
    topics = [("bread", "boats", "none")[i % 3] for i in range(90)]
    texts = [" ".join(random.permutation(words[t].split())[:4].tolist()) for t in topics]
    table = pa.table({"id": [f"{t} {i}" for i, t in enumerate(topics)], "text": pa.array(texts, pa.large_string())})
    found = named(LEXICAL, [table])
    for name, near in found.items():
        topic = name.split()[0]
        assert len(near) == (0 if topic == "none" else 5)
        assert {other.split()[0] for other, _ in near} <= {topic}


def test_dimensions_follow_from_the_number_of_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"id": ["a", "b", "c"], "text": pa.array(["one two", "two three", "four"], pa.large_string())})
    graph = replace(LEXICAL, dimensions=None)
    assert output(graph, [table], "vectors")["vector"].type.byte_width == 2 * 1024
    monkeypatch.setattr(clustering, "MANY", 2)
    assert output(graph, [table], "vectors")["vector"].type.byte_width == 2 * 512


def test_lists_for() -> None:
    counts = [0, 5000, 50_000, 100_000, 100_001, 1_000_000, 4_000_000, 10**9, 10**12]
    assert [lists_for(n) for n in counts] == [2, 4, 48, 64, 512, 2048, 4096, 65_536, 65_536]


def test_too_many_documents() -> None:
    sizes = pa.table({"list": pa.array([0, 1], pa.uint32()), "documents": [2**32 - 1, 1]})
    with pytest.raises(ValueError, match="4294967296 documents are too many"):
        starts_of(sizes)
    assert starts_of(sizes.slice(0, 1))[-1] == 2**32 - 1


@given(st.integers(1, 5000), st.integers(0, 20_000), st.lists(st.integers(0, 30_000), min_size=1))
def test_keys_belong_to_their_partitions(parts: int, total: int, things: list[int]) -> None:
    part = part_of(np.array(things), parts, total)
    assert np.array_equal(partition_of(keys_of(part, parts), parts), part)
    for thing, p in zip(things, part.tolist(), strict=True):
        if thing < total:
            assert p * total // parts <= thing < (p + 1) * total // parts
        else:
            assert p == parts - 1
