"""The path through a graph of neighbours beside the published code of In-Context Pretraining, on one core, in one run.

    python -m benchmarks.ordering [FOLDER OR FILE.parquet] [--quick]

The published code (github.com/swj0419/in-context-pretraining, sort/sort.py) is re-run from its description, on the same
neighbours, in Python with dicts, sets and lists, which is what it is. It stops with errors, so three things are mended:
a name that is not defined, the cluster of the first document, and documents that no other cluster has a neighbour of,
which are put at the end. Like it, it reads neighbours from a mapped NumPy file; no documents are written.

- speed: a million documents (with `--quick` 100,000) of a hidden order in one dimension, each with ten of those around
  it, numbers shuffled as ids are. The published code goes along lists of neighbours; ours takes edges, each once, by
  weight, which phases before make of such lists: with that time, and without.
- quality: the mean cosine of consecutive documents of a corpus, with ten exact neighbours each: of lexical vectors, and
  of dense ones, their 256 leading principal components (latent semantic analysis).

Times are CPU seconds of the process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.dedup import ROOT, read
from operators.ordering import lexical, vectors
from operators.ordering.clustering import cosines
from operators.ordering.clusters import greedy_path, k_means, nearest
from operators.ordering.edges import united
from operators.ordering.neighbours import nearest_neighbours
from operators.ordering.path import Edges, Fragments, walk_greedily
from operators.ordering.vectors import Vectors, on_grid
from operators.ordering.walk import walk

K = 10
SEED = 7
CLUSTER = 21  # documents, of the published code
LISTS = 64  # so that like documents have near numbers, as in the operator
COMPONENTS = 256
Ids = NDArray[np.int64]
T = TypeVar("T")


class Graph(NamedTuple):
    """Lists of neighbours, best first, -1 for none, and their weights, both [n, k]."""

    neighbours: Ids
    weights: NDArray[np.uint16]

    def with_itself(self) -> Ids:
        """As the published code reads neighbours."""
        return np.concatenate((np.arange(len(self.neighbours))[:, None], self.neighbours), axis=1)

    def edges(self) -> pa.Table:
        own = np.repeat(np.arange(len(self.neighbours)), self.neighbours.shape[1])
        other, weight = self.neighbours.ravel(), self.weights.ravel()
        own, other, weight = own[other >= 0], other[other >= 0], weight[other >= 0]
        low, high = np.minimum(own, other).astype(np.uint32), np.maximum(own, other).astype(np.uint32)
        return united({"neighbours": pa.table({"lo": low, "hi": high, "weight": weight})})


class Published:
    """The published sort: along lists of neighbours, without weights or edges back, cut into clusters of 21; what is in
    smaller ones is put before a neighbour elsewhere. `neighbours`: a row a document, itself first, then -1 for none."""

    def __init__(self, neighbours: Any) -> None:
        self.neighbours = neighbours
        self.clusters: dict[int, list[int]] = {}
        self.cluster_of: dict[int, int] = {}

    def sort(self) -> None:
        seen, unseen = {-1}, set(range(len(self.neighbours)))
        current, cluster, length = unseen.pop(), 0, 0
        self.clusters[0] = [current]
        self.cluster_of[current] = 0
        seen.add(current)
        while unseen:
            following = next((other for other in self.neighbours[current][1:10] if other not in seen), None)
            if following is None or length >= CLUSTER:
                current = unseen.pop()
                cluster += 1
                length = 0
                self.clusters[cluster] = []
            else:
                current = following
                unseen.remove(current)
            self.clusters[cluster].append(current)
            self.cluster_of[current] = cluster
            seen.add(current)
            length += 1

    def merge(self) -> None:
        homeless = []
        for cluster in list(self.clusters):
            if len(self.clusters[cluster]) >= CLUSTER:
                continue
            for document in self.clusters[cluster]:
                for other in self.neighbours[document][1:10]:
                    if other >= 0 and self.cluster_of[other] not in (cluster, -1):
                        members = self.clusters[self.cluster_of[other]]
                        members.insert(members.index(other), document)
                        self.cluster_of[document] = self.cluster_of[other]
                        break
                else:
                    homeless.append(document)
                    self.cluster_of[document] = -1
            del self.clusters[cluster]
        self.clusters[-1] = homeless

    def path(self) -> Ids:
        return np.array([document for members in self.clusters.values() for document in members])


def timed(work: Callable[[], T]) -> tuple[T, float]:
    begun = time.process_time()
    done = work()
    return done, time.process_time() - begun


def hidden_order(documents: int) -> Graph:
    """Neighbours at geometric distances on a circle, the nearer the more alike, both ways equally; shuffled numbers."""
    random = np.random.default_rng(SEED)
    number = random.permutation(documents)
    graph = Graph(np.full((documents, K), -1), np.zeros((documents, K), np.uint16))
    block = 100_000
    for start in range(0, documents, block):
        place = np.arange(start, min(start + block, documents))[:, None]
        away = np.sort(random.geometric(0.05, (len(place), K)), axis=1)
        away[:, 1:][np.diff(away, axis=1) == 0] = 0  # each distance once
        other = (place + np.where(random.random(away.shape) < 0.5, away, -away)) % documents
        noise = (np.minimum(place, other) * 7919 + np.maximum(place, other) * 104_729) % 2000
        weight = np.maximum(62_000 - 1300 * away + noise, 1)
        order = np.argsort(np.where(away == 0, 0, -weight), axis=1, kind="stable")
        weight, other, away = (np.take_along_axis(column, order, axis=1) for column in (weight, other, away))
        graph.neighbours[number[place[:, 0]]] = np.where(away == 0, -1, number[other])
        graph.weights[number[place[:, 0]]] = np.where(away == 0, 0, weight)
    return graph


def arrays(edges: pa.Table) -> Edges:
    return Edges(*(edges[name].to_numpy() for name in ("lo", "hi", "weight")))


def fragments_of(edges: Edges, documents: int) -> Ids:
    fragments = Fragments(documents)
    fragments.join(edges)
    return np.concatenate([stretch.number for stretch in fragments.path(1 << 20)]).astype(np.int64)


def speed(documents: int) -> None:
    small = hidden_order(1000)
    walk_greedily([arrays(small.edges())], 1000, SEED)  # compile
    fragments_of(arrays(small.edges()), 1000)
    graph = hidden_order(documents)
    table, united_in = timed(graph.edges)
    edges = arrays(table)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "neighbours.npy")
        np.save(path, graph.with_itself())
        published = Published(np.load(path, mmap_mode="r"))
        (_, sorted_in), (_, merged_in) = timed(published.sort), timed(published.merge)
    in_lists = Published(graph.with_itself().tolist())
    _, sorted_in_lists = timed(in_lists.sort)
    in_lists.merge()
    assert np.array_equal(published.path(), in_lists.path())
    assert np.array_equal(np.sort(published.path()), np.arange(documents))
    _, walked_in = timed(lambda: walk_greedily([edges], documents, SEED))
    _, joined_in = timed(lambda: fragments_of(edges, documents))
    print(f"Speed: {documents:,} documents, {len(table):,} edges, made of the lists in {united_in:.2f} s")
    print(f"{'':50} {'CPU s':>8} {'documents/s':>12} {'published is':>12}")
    rows = {
        "published, sort": sorted_in,
        "published, sort, if it held Python's numbers": sorted_in_lists,
        "published, sort and merge": sorted_in + merged_in,
        "icp": walked_in,
        "icp, from lists of neighbours": united_in + walked_in,
        "greedy_edge, unstitched": joined_in,
        "greedy_edge, unstitched, from lists of neighbours": united_in + joined_in,
    }
    for name, taken in rows.items():
        print(f"{name:50} {taken:8.2f} {documents / taken:12,.0f} {sorted_in / taken:11.1f}x")


def listed(found: Vectors) -> tuple[Vectors, pa.Table, pa.Table, pa.Table]:
    """The vectors by lists along a path, and the tables `vectors`, `sizes` and `centroids` of them."""
    found = found[found.any(axis=1)]
    sample = np.random.default_rng(SEED).permutation(found)[: LISTS * 64]
    middle = k_means(sample, LISTS)
    middle = middle[greedy_path(middle)]
    number = nearest(found, middle)
    order = np.argsort(number, kind="stable")
    found, number = np.ascontiguousarray(found[order]), number[order]
    table = pa.table({"list": number.astype(np.uint32), "vector": vectors.packed(found)})
    counts = np.bincount(number, minlength=len(middle) + 1)
    sizes = pa.table({"list": np.arange(len(counts)).astype(np.uint32), "documents": counts})
    return found, table, sizes, pa.table({"vector": vectors.packed(middle)})


def paths(found: Vectors) -> Iterator[tuple[str, Ids, Vectors, float]]:
    """Each order by name, and the CPU seconds from edges, or lists of neighbours, to it."""
    found, table, sizes, centroids = listed(found)
    count = len(found)
    alone = np.zeros(count, np.int64), np.zeros((1, 1), np.int64)
    graph, taken = timed(lambda: Graph(*nearest_neighbours(found, *alone, K)))
    edges = graph.edges()
    print(
        f"{count:,} documents of {found.shape[1]} dimensions, exact neighbours in {taken:.1f} s, {len(edges):,} edges"
    )
    yield "random", np.random.default_rng(SEED).permutation(count), found, 0.0
    published = Published(graph.with_itself())
    _, taken = timed(published.sort)
    yield "published, sort", published.path(), found, taken
    _, more = timed(published.merge)
    yield "published, sort and merge", published.path(), found, taken + more
    path, taken = timed(lambda: fragments_of(arrays(edges), count))

    def walked(method: str) -> Ids:
        said = {"method": method, "seed": SEED, "neighbours": K, "probes": 32, "max_similarity": 1.0}
        tables = walk([edges], [table], sizes, centroids, [count], **said)  # type: ignore[arg-type]
        return np.asarray(pa.concat_tables(list(tables))["number"].to_numpy(), np.int64)

    icp, taken_by_icp = timed(lambda: walked("icp"))
    yield "icp", icp, found, taken_by_icp
    yield "greedy_edge, unstitched", path, found, taken
    stitched, taken = timed(lambda: walked("greedy_edge"))
    yield "greedy_edge", stitched, found, taken


def quality(name: str, found: Vectors) -> None:
    print(f"\nQuality, {name}: ", end="")
    adjacent: dict[str, tuple[float, float]] = {}
    for order, path, placed, taken in paths(found):
        assert np.array_equal(np.sort(path), np.arange(len(placed)))
        adjacent[order] = float(cosines(placed[path[:-1]], placed[path[1:]]).mean()), taken
    print(f"{'':34} {'CPU s':>8} {'adjacent':>9} {'x icp':>7}")
    for order, (mean, taken) in adjacent.items():
        print(f"{order:34} {taken:8.2f} {mean:9.4f} {mean / adjacent['icp'][0]:7.3f}")


def components(found: Vectors) -> Vectors:
    """The leading principal components of the vectors."""
    centred = found.astype(np.float64) - found.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return on_grid(centred @ axes[:, -COMPONENTS:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", default=str(ROOT / "workflows" / "sample" / "sample.parquet"))
    parser.add_argument("--quick", action="store_true", help="100,000 documents instead of a million")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    speed(100_000 if arguments.quick else 1_000_000)
    texts = read(arguments.corpus)["text"]
    found = lexical.embed(texts, lexical.weights_of(lexical.frequencies(texts)), 1024)
    quality("lexical", found)
    quality("dense", components(found))


if __name__ == "__main__":
    main()
