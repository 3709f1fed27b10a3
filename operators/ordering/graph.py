"""The graph of nearest neighbours that In-Context Pretraining orders documents by (Shi et al. 2024, arXiv 2310.10638).

Documents are embedded, and divided by k-means into lists; each is compared with the documents of the lists nearest to
its own (an inverted file, as in the paper's appendix A.2), or with all, where these are not many. How many of the true
neighbours that finds is measured.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from operators.document import with_columns
from operators.hashes import xxh3_64
from operators.ordering import edges, exact, join, recall, vectors
from operators.ordering.clustering import MANY, Clustering, assigned, fitted, lowest, usable
from operators.ordering.clusters import greedy_path
from operators.ordering.compression import codebook_from, codebook_of, decoded, encoded, unpacked_codes
from operators.ordering.neighbours import nearest_neighbours, weights_of
from operators.ordering.numbering import keys_of, part_of, starts_of
from operators.phases import DOCUMENTS, MEMORY, SHARE, Phase

LIST_ROWS = 1024  # about, where every list is compared with every other
MOST_EXACT, MOST_LISTS = 64, 65_536
PARTITIONS = 8  # at least, so that as many workers have something to do; of more documents, one for each
PARTITION_ROWS = 16_384  # of them, up to
MOST_PARTITIONS = 1024  # but for want of memory
REACH = 6  # times all documents is about what is sent to all partitions that find neighbours
DOCUMENT_BYTES = 80  # of what else is known of a document than its vector


def lists_for(documents: int) -> int:
    """How many lists there are where nobody says: a few of up to 100,000 documents, of more the power of two nearest to
    twice the square root of their number."""
    if documents <= MANY:
        return min(max(documents // LIST_ROWS, 2), MOST_EXACT)
    return min(1 << round(math.log2(2 * math.sqrt(documents))), MOST_LISTS)


def unpacked(table: pa.Table, centroids: pa.Table) -> vectors.Vectors:
    """The vectors [n, d] of documents (`list`, `vector`) as `vectors` returns them, compressed or not."""
    if "codebook" not in centroids.column_names:
        return vectors.unpacked(table["vector"])
    codes = unpacked_codes(table["vector"])
    codebook = codebook_from(centroids["codebook"][0].as_py(), codes.shape[1])
    lists = table["list"].to_numpy().astype(np.int64)
    return decoded(codes, lists, vectors.unpacked(centroids["vector"]), codebook)


class _Lists(Clustering):
    def number(self, documents: int) -> int:
        return self.clusters or lists_for(documents)


@dataclass(frozen=True)
class NeighbourGraph:
    """`column` holds the user's embeddings; unset: lexical ones of the text, of `dimensions`, which unset are 1,024, or
    512 of more than 100,000 documents. Each document gets `neighbours` of them, at least 1.

    `lists` unset: all documents are compared with all up to 100,000; of more there are twice the square root of their
    number, of which each probes `probes`. Links are kept within each of `regions`, which are ranges of lists, and up to
    the cosine `max_similarity`. With `pq_bytes`, vectors are compressed to so many bytes, and neighbours are those of
    the compressed ones.
    """

    column: str | None
    dimensions: int | None
    neighbours: int
    lists: int | None
    probes: int
    regions: int
    max_similarity: float
    pq_bytes: int | None

    def phases(self, rows: int, memory: int = MEMORY) -> list[Phase]:
        """`counts`, `centroids`, `vectors`, `sizes`, `neighbours`, `sample`, `exact`, `recall` and `edges`."""
        counts, centroids = self._clustering.phases(rows)
        return [counts, replace(centroids, reduce=self._centroids), *self._joined(rows, memory), *self._recall(rows)]

    def _joined(self, rows: int, memory: int) -> list[Phase]:
        whole = self._clustering.vector_bytes + DOCUMENT_BYTES
        tables = _parts(2 * rows * whole, rows, memory, self.regions)
        joins = _parts(REACH * rows * whole, rows, memory)
        # most edges may have weights of a small part of the range
        pairs = _parts(4 * rows * self.neighbours * edges.BYTES, 0, memory, self.regions)
        most = int(weights_of(np.array([self.max_similarity]))[0])
        mapped = functools.partial(self._vectors, partitions=tables)
        sent = functools.partial(join.sent, partitions=joins)
        joined = functools.partial(join.joined, k=self.neighbours)
        listed = functools.partial(edges.listed, regions=self.regions, most=most)
        known = ("centroids", "sizes")
        return [
            Phase("vectors", {DOCUMENTS: mapped}, _by_list, partitions=tables, whole=("counts", "centroids")),
            Phase("sizes", {"vectors": _sizes}, _all_sizes, partitions=1, whole=("centroids",)),
            Phase("neighbours", {"vectors": sent}, joined, partitions=joins, whole=known, gpu=True),
            Phase("edges", {"neighbours": listed}, edges.united, partitions=pairs, whole=("sizes",)),
        ]

    def _recall(self, rows: int) -> list[Phase]:
        """Neighbours of compressed vectors are measured against those of the vectors before."""
        k, packed = self.neighbours, self.pq_bytes is not None
        answers = _parts(0, rows, MEMORY) * recall.QUERIES * k * exact.ROW_BYTES
        listed = functools.partial(recall.listed, weighed=not packed)
        source = {DOCUMENTS: self._nearest_of_documents} if packed else {"vectors": self._nearest}
        known = ("sample", "counts") if packed else ("sample",)
        return [
            Phase("sample", {DOCUMENTS: self._sample}, recall.sampled, partitions=1, whole=("counts",)),
            Phase("exact", source, functools.partial(recall.merged, k=k), bytes=answers, whole=known),
            Phase(
                "recall",
                {"neighbours": listed, "exact": recall.expected},
                recall.counted,
                partitions=1,
                whole=("sample", "exact"),
            ),
        ]

    @property
    def _clustering(self) -> Clustering:
        return _Lists(self.column, self.dimensions, self.lists)

    def _centroids(self, parts: Mapping[str, pa.Table]) -> pa.Table:
        """The lists' centroids (`vector`), numbered along a path; `probed`: the numbers of the lists that a list
        probes, as unsigned 32-bit ones, ascending, or null for all; `codebook`, of compressed vectors, in the first."""
        found = vectors.unpacked(fitted(parts)["vector"])
        if not len(found):  # nobody is like anybody, or one list is wanted
            found = vectors.on_grid(np.ones((1, found.shape[1])))
        found = found[greedy_path(found)]
        rows = parts[DOCUMENTS].sort_by([("hash", "ascending"), ("id", "ascending")])
        few = self.lists is None and pc.max(rows["clusters"]).as_py() <= MOST_EXACT if len(rows) else True
        probed = _probed(found, len(found) if few else self.probes)
        table = pa.table({"vector": vectors.packed(found), "probed": probed})
        if self.pq_bytes is None:
            return table
        sample = vectors.unpacked(rows["vector"])
        codebook = codebook_of(sample, found[assigned(sample, table)], self.pq_bytes)
        held = [codebook.tobytes(), *[None] * (len(found) - 1)]
        return table.append_column("codebook", pa.array(held, pa.large_binary()))

    def _vectors(self, docs: pa.Table, counts: pa.Table, centroids: pa.Table, partitions: int) -> pa.Table:
        """The documents with their lists and vectors; those that are like nothing are in one list more."""
        found, lists = self._clustering.vectors(docs, counts), len(centroids)
        alike = found.any(axis=1)
        number = np.full(len(docs), lists)
        number[alike] = assigned(found[alike], centroids)
        held = vectors.packed(found)
        if "codebook" in centroids.column_names:
            codebook = codebook_from(centroids["codebook"][0].as_py(), self.pq_bytes or 1)
            of_lists = vectors.unpacked(centroids["vector"])
            codes = encoded(found, of_lists[np.minimum(number, lists - 1)], codebook)
            held = pa.Array.from_buffers(pa.binary(codes.shape[1]), len(codes), [None, pa.py_buffer(codes)])
        columns = {
            "key": pa.array(keys_of(part_of(number, partitions, lists), partitions)),
            "list": pa.array(number.astype(np.uint32)),
            "hash": pa.array(xxh3_64(docs["id"])),
            "vector": held,
        }
        return with_columns(docs.select(["doc", "id"]), columns)

    def _sample(self, docs: pa.Table, counts: pa.Table) -> pa.Table:
        docs = lowest(docs, counts, recall.QUERIES)
        found = self._clustering.vectors(docs, counts)
        columns = {"key": pa.array(np.zeros(len(docs), np.uint64)), "vector": vectors.packed(found)}
        return with_columns(docs.select(["doc", "id", "hash"]), columns).filter(usable(found))

    def _nearest(self, table: pa.Table, sample: pa.Table) -> pa.Table:
        return recall.measured(vectors.unpacked(table["vector"]), table, sample, self.neighbours)

    def _nearest_of_documents(self, docs: pa.Table, sample: pa.Table, counts: pa.Table) -> pa.Table:
        return recall.measured(self._clustering.vectors(docs, counts), docs, sample, self.neighbours)


def _parts(size: int, rows: int, memory: int, multiple: int = 1) -> int:
    """The number of partitions that rows of `size` bytes are cut into, a multiple of `multiple`."""
    parts = max(-(-size * SHARE // memory), 1)
    if rows:
        parts = max(parts, PARTITIONS, min(rows // PARTITION_ROWS, MOST_PARTITIONS))
    return multiple * -(-parts // multiple)


def _probed(centroids: vectors.Vectors, probes: int) -> pa.Array:
    """The lists that each list probes."""
    if probes >= len(centroids):
        return pa.nulls(len(centroids), pa.large_binary())
    own = np.arange(len(centroids))
    near, _ = nearest_neighbours(centroids, np.zeros_like(own), np.zeros((1, 1), np.int64), probes - 1)
    rows = np.sort(np.column_stack([own, np.where(near < 0, own[:, None], near)]), axis=1).astype("<u4")
    return pa.array([row.tobytes() for row in rows], pa.large_binary())


def _by_list(parts: Mapping[str, pa.Table]) -> pa.Table:
    rows = parts[DOCUMENTS]
    order = pl.DataFrame(rows.select(["list", "hash", "id"])).select(pl.arg_sort_by("list", "hash", "id")).to_series()
    return rows.select(["list", "doc", "vector"]).take(order.to_arrow())


def _sizes(table: pa.Table, centroids: pa.Table) -> pa.Table:
    """How many documents of each list a table has; the last list, in any case, says how many lists there are."""
    counts = np.bincount(table["list"].to_numpy(), minlength=len(centroids) + 1)
    told = np.union1d(np.flatnonzero(counts), [len(centroids)])
    return pa.table({"key": np.zeros(len(told), np.uint64), "list": told.astype(np.uint32), "documents": counts[told]})


def _all_sizes(parts: Mapping[str, pa.Table]) -> pa.Table:
    rows = parts["vectors"]
    lists = rows["list"].to_numpy()
    counts = np.zeros(int(lists.max()) + 1, np.int64)
    np.add.at(counts, lists, rows["documents"].to_numpy())
    sizes = pa.table({"list": np.arange(len(counts), dtype=np.uint32), "documents": counts})
    starts_of(sizes)  # says if these are too many
    return sizes
