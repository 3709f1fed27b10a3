"""The phases that divide a corpus by meaning: documents as vectors, and k-means on a sample of them.

Vectors are a column of the user's or lexical (see lexical.py), which takes a phase that counts words. The sample are
the documents whose ids hash lowest, so it does not depend on how documents were cut into units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.document import with_columns
from operators.hashes import spread, xxh3_64
from operators.ordering import lexical, vectors
from operators.ordering.clusters import k_means, nearest
from operators.phases import DOCUMENTS, Phase

WHOLE = 10_000  # documents are one cluster, where nobody says how many there are
MOST_CLUSTERS = 4096  # in that case: their sample takes 0.5 GB at 1,024 dimensions
POINTS = 64  # of the sample, for each cluster
MANY = 100_000  # documents, of which lexical vectors are shorter where nobody says how long they are
COUNT_BYTES = 512  # a document, of the words that its unit adds to the counts


@dataclass(frozen=True)
class Clustering:
    """`column` holds the user's embeddings; unset: lexical ones of the text, of `dimensions`, which unset are 1,024, or
    512 of more than 100,000 documents. `clusters` unset: the square root of the number of documents, at most 4,096, and
    one below 10,000 documents. `seeds`: texts by name, whose means are further centroids, the first ones, by name;
    documents with a cosine of `min_seed_score` to one of them do not take part in finding the others."""

    column: str | None
    dimensions: int | None
    clusters: int | None
    seeds: Mapping[str, Sequence[str]] | None = None
    min_seed_score: float = 0.0

    def phases(self, rows: int) -> tuple[Phase, Phase]:
        """`counts`, how many documents have each word, and `centroids`, the one table of them."""
        counts = rows * COUNT_BYTES if self.column is None else 0
        sample = min(rows, self.number(rows) * POINTS) * self.vector_bytes
        return (
            Phase("counts", {DOCUMENTS: self._counts}, _total, bytes=counts),
            Phase("centroids", {DOCUMENTS: self._sample}, fitted, bytes=sample, partitions=1, whole=("counts",)),
        )

    @property
    def vector_bytes(self) -> int:
        return 2 * (self.dimensions or 1024)  # a guess for a column

    def _lexical_dimensions(self, counts: pa.Table) -> int:
        return self.dimensions or (1024 if documents_of(counts) <= MANY else 512)

    def number(self, documents: int) -> int:
        """How many clusters there are to be."""
        if self.clusters is not None:
            return self.clusters
        return 1 if documents < WHOLE else min(math.isqrt(documents), MOST_CLUSTERS)

    def vectors(self, docs: pa.Table, counts: pa.Table) -> vectors.Vectors:
        if self.column is None:
            return lexical.embed(docs["text"], _weights(counts), self._lexical_dimensions(counts))
        return vectors.of_column(docs, self.column, _dimensions(counts))

    def _counts(self, docs: pa.Table) -> pa.Table:
        """How many documents have each word, or each number of dimensions."""
        if self.column is None:
            found = lexical.frequencies(docs["text"])
            number = np.flatnonzero(found)
            documents = found[number]
        else:
            lengths = vectors.lengths(docs, self.column)
            number, documents = np.unique(lengths[lengths > 0], return_counts=True)
        keys = spread(number.astype(np.uint64))
        return pa.table({"key": keys, "number": number.astype(np.uint32), "documents": documents})

    def _sample(self, docs: pa.Table, counts: pa.Table) -> pa.Table:
        """About 64 documents of all units for each cluster, and the seeds, which each unit yields anew."""
        clusters = self.number(documents_of(counts))
        docs = lowest(docs, counts, clusters * POINTS if clusters > 1 else 0)
        found = self.vectors(docs, counts)
        rows = docs.select(["hash", "id"]).append_column("vector", vectors.packed(found))
        rows = rows.append_column("seed", pa.nulls(len(rows), pa.string())).filter(usable(found))
        if self.seeds:
            seeds = self._seeded(counts, rows.schema)
            centres, found = vectors.unpacked(seeds["vector"]), vectors.unpacked(rows["vector"])
            far = cosines(found, centres[nearest(found, centres)]) < self.min_seed_score
            rows = pa.concat_tables([rows.filter(pa.array(far)), seeds])
        constants = {"key": np.zeros(len(rows), np.uint64), "clusters": np.full(len(rows), clusters)}
        return with_columns(rows, {name: pa.array(column) for name, column in constants.items()})

    def _seeded(self, counts: pa.Table, schema: pa.Schema) -> pa.Table:
        """The mean vector of each seed's texts."""
        names, means = [], []
        dimensions = self._lexical_dimensions(counts)
        for name, texts in sorted((self.seeds or {}).items()):
            found = lexical.embed(pa.array(texts, pa.large_string()), _weights(counts), dimensions)
            names.append(name)
            means.append(vectors.on_grid(found.sum(axis=0, dtype=np.int64)[None])[0])
        columns = {"vector": vectors.packed(np.stack(means)), "seed": pa.array(names)}
        nothing = pa.nulls(len(names))
        return pa.table({field.name: columns.get(field.name, nothing.cast(field.type)) for field in schema})


def assigned(found: vectors.Vectors, centroids: pa.Table) -> NDArray[np.int64]:
    """The nearest centroid of each vector; all have the one where there are none."""
    if not len(centroids):
        return np.zeros(len(found), np.int64)
    return nearest(found, vectors.unpacked(centroids["vector"]))


def cosines(found: vectors.Vectors, others: vectors.Vectors) -> NDArray[np.float64]:
    """Of each vector and the other in its row, to four decimals; 0 for zero vectors."""
    products = np.einsum("ij,ij->i", found, others, dtype=np.float64, casting="unsafe")
    lengths = np.sqrt(vectors.squares(found) * vectors.squares(others))
    found_cosines: NDArray[np.float64] = np.round(products / np.where(lengths > 0, lengths, 1), 4)
    return found_cosines


def documents_of(counts: pa.Table) -> int:
    """How many documents can be compared: those with any word, or of the commonest number of dimensions."""
    return int(counts["documents"].to_numpy().max(initial=0))


def lowest(docs: pa.Table, counts: pa.Table, wanted: int) -> pa.Table:
    """The documents whose ids hash lowest, about `wanted` of all units, with `hash`."""
    hashes = xxh3_64(docs["id"])
    low = hashes < np.uint64(min((wanted << 64) // max(documents_of(counts), 1), 2**64 - 1))
    return docs.append_column("hash", pa.array(hashes)).filter(pa.array(low))


def usable(found: vectors.Vectors) -> pa.Array:
    """Which documents can be compared: their vectors are not zero."""
    return pa.array(found.any(axis=1))


def _total(parts: Mapping[str, pa.Table]) -> pa.Table:
    total = pl.DataFrame(parts[DOCUMENTS]).group_by("number").agg(pl.col("documents").sum())
    counts: pa.Table = total.to_arrow()
    return counts


def _dimensions(counts: pa.Table) -> int:
    """The commonest number of dimensions, the smallest of several."""
    ranked = counts.sort_by([("documents", "descending"), ("number", "ascending")])
    return int(ranked["number"][0].as_py()) if len(ranked) else 1


def _weights(counts: pa.Table) -> NDArray[np.float64]:
    found = np.zeros(lexical.BUCKETS, np.int64)
    found[counts["number"].to_numpy()] = counts["documents"].to_numpy()
    return lexical.weights_of(found)


def fitted(parts: Mapping[str, pa.Table]) -> pa.Table:
    """The centroids, those of seeds first; none of no sample, where all documents are one cluster."""
    rows = parts[DOCUMENTS].sort_by([("hash", "ascending"), ("id", "ascending")])
    seeded = pc.is_valid(rows["seed"])
    sample, of_units = rows.filter(pc.invert(seeded)), rows.filter(seeded)
    names = pc.unique(of_units["seed"]).sort()
    seeds = vectors.unpacked(of_units["vector"].take(pc.index_in(names, value_set=of_units["seed"])))
    found = vectors.unpacked(sample["vector"])
    if len(found):
        found = k_means(found, int(sample["clusters"][0].as_py()))
    names = pa.concat_arrays([names, pa.nulls(len(found), names.type)])
    return pa.table({"vector": vectors.packed(np.concatenate([seeds, found])), "seed": names})
