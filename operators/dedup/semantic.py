"""Drop documents that say nearly the same as another one, by the cosine of their embeddings (SemDeDup: Abbas et al.
2023, arXiv 2303.09540).

k-means divides the documents; within each cluster, best first, a document goes if one that stays is as near as the
threshold. SemDeDup keeps the one farthest from the centroid; here the rule of all deduplication decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from operators.dedup.keeper import COLUMNS, ROW_BYTES, candidates, verdicts
from operators.dedup.stars import greedy_stars
from operators.document import parameters, with_columns
from operators.hashes import spread, xxh3_64
from operators.models import faiss
from operators.ordering import lexical, vectors
from operators.ordering.clusters import k_means, nearest
from operators.phases import DOCUMENTS, MEMORY, VERDICT, GlobalOperator, Phase

WHOLE = 10_000  # documents are compared without clusters, where the recipe does not say how many there are
MOST_CLUSTERS = 4096  # in that case: their sample takes 0.5 GB at 1,024 dimensions
POINTS = 64  # of the sample, for each cluster
COUNT_BYTES = 512  # a document, of the words that its unit adds to the counts


@parameters
class SemanticDedup(GlobalOperator):
    """`column` holds the user's embeddings; unset: lexical ones of the text, of `dimensions`. `clusters` unset: the
    square root of the number of documents, at most 4,096, and one below 10,000 documents."""

    name: ClassVar[str] = "semantic_dedup"
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    column: str | None = None
    dimensions: Literal[256, 512, 1024, 2048, 4096] = 1024
    clusters: Annotated[int, Field(ge=1, le=65_536)] | None = None
    revision: Literal[1] = 1

    @pydantic.model_validator(mode="after")
    def _fields_fit_together(self) -> SemanticDedup:
        if self.column is not None and self.dimensions != 1024:
            raise ValueError(f"dimensions: {self.dimensions} has no effect with column: they are its own")
        faiss.check()
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return COLUMNS if self.column is None else tuple(dict.fromkeys((*COLUMNS, self.column)))

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        vector = 2 * self.dimensions  # a guess for a column
        counts = rows * COUNT_BYTES if self.column is None else 0
        sample = min(rows, self._clusters(rows) * POINTS) * vector
        stars = rows * (ROW_BYTES + vector)
        before = ("counts", "centroids")
        return [
            Phase("counts", {DOCUMENTS: self._counts}, _total, bytes=counts),
            Phase("centroids", {DOCUMENTS: self._sample}, _fit, bytes=sample, partitions=1, whole=before[:1]),
            Phase("stars", {DOCUMENTS: self._assigned}, self._judge, bytes=stars, whole=before),
        ]

    def _clusters(self, documents: int) -> int:
        if self.clusters is not None:
            return self.clusters
        return 1 if documents < WHOLE else min(math.isqrt(documents), MOST_CLUSTERS)

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

    def _vectors(self, docs: pa.Table, counts: pa.Table) -> vectors.Vectors:
        if self.column is None:
            return lexical.embed(docs["text"], _weights(counts), self.dimensions)
        return vectors.of_column(docs, self.column, _dimensions(counts))

    def _sample(self, docs: pa.Table, counts: pa.Table) -> pa.Table:
        """The documents whose ids hash lowest, about 64 of all units for each cluster."""
        documents = _documents(counts)
        clusters = self._clusters(documents)
        wanted = clusters * POINTS if clusters > 1 else 0
        hashes = xxh3_64(docs["id"])
        low = pa.array(hashes < np.uint64(min((wanted << 64) // max(documents, 1), 2**64 - 1)))
        docs = docs.append_column("hash", pa.array(hashes)).filter(low)
        found = self._vectors(docs, counts)
        rows = docs.select(["hash", "id"]).append_column("vector", vectors.packed(found)).filter(_usable(found))
        constants = {"key": np.zeros(len(rows), np.uint64), "clusters": np.full(len(rows), clusters)}
        return with_columns(rows, {name: pa.array(column) for name, column in constants.items()})

    def _assigned(self, docs: pa.Table, counts: pa.Table, centroids: pa.Table) -> pa.Table:
        """What the keeper rule must know of each document, its nearest centroid and its vector."""
        found = self._vectors(docs, counts)
        centroid = np.zeros(len(docs), np.int64)
        if len(centroids):
            centroid = nearest(found, vectors.unpacked(centroids["vector"]))
        key = pa.array(spread(centroid.astype(np.uint64)))
        columns = {"key": key, "centroid": pa.array(centroid), "vector": vectors.packed(found)}
        return with_columns(candidates(docs), columns).filter(_usable(found))

    def _judge(self, parts: Mapping[str, pa.Table]) -> pa.Table:
        table = parts[DOCUMENTS]
        best_first = {"centroid": False, "priority": True, "length": True, "id": False, "doc": False}
        rows = pl.DataFrame(table.drop_columns(["vector"])).with_row_index("at")
        rows = rows.sort(list(best_first), descending=list(best_first.values()))
        ranks = np.empty(len(rows), np.int64)
        ranks[rows.select(pl.arg_sort_by("id", "doc")).to_series().to_numpy()] = np.arange(len(rows))
        found, at = vectors.unpacked(table["vector"]), rows["at"].to_numpy()
        star, cosine = np.zeros(len(rows), np.int64), np.zeros(len(rows))
        starts = np.flatnonzero(np.diff(rows["centroid"].to_numpy(), prepend=-1))
        for start, end in itertools.pairwise([*starts, len(rows)]):
            own, cosine[start:end] = greedy_stars(found[at[start:end]], ranks[start:end], self.threshold)
            star[start:end] = start + own
        judged = verdicts(rows.with_columns(star=pl.Series(star)).to_arrow(), ["star"], reason="similar")
        with_cosine = pl.DataFrame(judged).join(rows.select("doc", cosine=pl.Series(cosine)), on="doc")
        gone = pl.when(pl.col("drop_reason").is_not_null())
        valued = with_cosine.with_columns(
            drop_value=gone.then(pl.col("cosine")), drop_threshold=gone.then(pl.lit(self.threshold))
        )
        return valued.select(VERDICT.names).to_arrow().cast(VERDICT)


def _total(parts: Mapping[str, pa.Table]) -> pa.Table:
    total = pl.DataFrame(parts[DOCUMENTS]).group_by("number").agg(pl.col("documents").sum())
    counts: pa.Table = total.to_arrow()
    return counts


def _documents(counts: pa.Table) -> int:
    """How many documents can be compared: those with any word, or of the commonest number of dimensions."""
    return int(counts["documents"].to_numpy().max(initial=0))


def _dimensions(counts: pa.Table) -> int:
    """The commonest number of dimensions, the smallest of several."""
    ranked = counts.sort_by([("documents", "descending"), ("number", "ascending")])
    return int(ranked["number"][0].as_py()) if len(ranked) else 1


def _weights(counts: pa.Table) -> NDArray[np.float64]:
    found = np.zeros(lexical.BUCKETS, np.int64)
    found[counts["number"].to_numpy()] = counts["documents"].to_numpy()
    return lexical.weights_of(found)


def _usable(found: vectors.Vectors) -> pa.Array:
    """Which documents can be compared: their vectors are not zero."""
    return pa.array(found.any(axis=1))


def _fit(parts: Mapping[str, pa.Table]) -> pa.Table:
    """The centroids of the sample; none of no sample, where all documents are one cluster."""
    sample = parts[DOCUMENTS].sort_by([("hash", "ascending"), ("id", "ascending")])
    found = vectors.unpacked(sample["vector"])
    if len(found):
        found = k_means(found, int(sample["clusters"][0].as_py()))
    return pa.table({"vector": vectors.packed(found)})
