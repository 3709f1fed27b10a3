"""Drop documents that say nearly the same as another one, by the cosine of their embeddings (SemDeDup: Abbas et al.
2023, arXiv 2303.09540).

k-means divides the documents; within each cluster, best first, a document goes if one that stays is as near as the
threshold. SemDeDup keeps the one farthest from the centroid; here the rule of all deduplication decides.

How similar "nearly the same" is differs from one model of embeddings to another. `max_share` finds it out: of a sample
of documents the nearest neighbour among all is found exactly. A document goes only if it has one at least as near as
the threshold, so the share of the sample that has bounds the share that goes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from pydantic import Field

from operators.dedup.keeper import COLUMNS, ROW_BYTES, candidates, verdicts
from operators.dedup.stars import greedy_stars
from operators.document import parameters, with_columns
from operators.hashes import spread
from operators.models import faiss
from operators.ordering import vectors
from operators.ordering.clustering import Clustering, assigned, lowest, usable
from operators.ordering.exact import ROW_BYTES as NEIGHBOUR_BYTES
from operators.ordering.exact import merged, nearest_of
from operators.ordering.neighbours import WEIGHTS, cosines_of
from operators.phases import DOCUMENTS, MEMORY, VERDICT, Fold, GlobalOperator, Phase, as_mapped

SAMPLED = 2000  # documents: a share of 2% is known to 0.3 points (one standard error)
UNIT_ROWS = 1000  # documents of a unit, at the least, from which the sample's neighbours come
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # whose similarity the summary states


@parameters
class SemanticDedup(GlobalOperator):
    """`column` holds the user's embeddings (`embedding`, where `embed` made them); unset: lexical ones of the text, of
    `dimensions`. `clusters` unset: the square root of the number of documents, at most 4,096, and one below 10,000
    documents. `max_share` raises the threshold, and never lowers it, to where at most this share of the documents has
    another one as similar; those with equal vectors go in any case."""

    name: ClassVar[str] = "semantic_dedup"
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_share: Annotated[float, Field(gt=0, lt=1)] | None = None
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
    def embeddings(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    @property
    def needs(self) -> tuple[str, ...]:
        return COLUMNS if self.column is None else tuple(dict.fromkeys((*COLUMNS, self.column)))

    @property
    def _clustering(self) -> Clustering:
        return Clustering(self.column, self.dimensions, self.clusters)

    @property
    def summarised(self) -> tuple[str, ...]:
        return () if self.max_share is None else ("threshold",)

    def summary(self, *tables: pa.Table) -> Mapping[str, Any]:
        """The threshold used, and for some shares of the sample how similar its most similar documents are, at least,
        to their nearest."""
        if not tables or not len(tables[0]):
            return {}
        cosines = cosines_of(tables[0]["weight"].to_numpy()).astype(np.float64).round(4)  # the largest first
        last = {share: math.ceil(share * len(cosines)) - 1 for share in SHARES}
        return {
            "threshold": tables[0]["threshold"][0].as_py(),
            "sampled": len(cosines),
            "similar": {str(share): float(cosines[at]) for share, at in last.items()},
        }

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase | Fold]:
        stars = rows * (ROW_BYTES + self._clustering.vector_bytes)
        before = ("counts", "centroids", *self.summarised)
        return [
            *self._clustering.phases(rows),
            *(self._calibration(rows) if self.max_share is not None else ()),
            Phase("stars", {DOCUMENTS: self._assigned}, self._judge, bytes=stars, whole=before),
        ]

    def _calibration(self, rows: int) -> Sequence[Phase | Fold]:
        sample = SAMPLED * (self._clustering.vector_bytes + ROW_BYTES)
        found = SAMPLED * NEIGHBOUR_BYTES * -(-rows // UNIT_ROWS)
        before = ("counts", "sample")
        return [
            Phase("sample", {DOCUMENTS: self._sample}, as_mapped, bytes=sample, partitions=1, whole=before[:1]),
            Phase("nearest", {DOCUMENTS: self._nearest}, _merged, bytes=found, whole=before),
            Fold("threshold", ("nearest",), self._calibrated, whole=("sample",)),
        ]

    def _sample(self, docs: pa.Table, counts: pa.Table) -> pa.Table:
        docs = lowest(docs, counts, SAMPLED)
        found = self._clustering.vectors(docs, counts)
        columns = {"key": np.zeros(len(docs), np.uint64), "doc": docs["doc"], "vector": vectors.packed(found)}
        return pa.table(columns).filter(usable(found))

    def _nearest(self, docs: pa.Table, counts: pa.Table, sample: pa.Table) -> pa.Table:
        """The nearest document of the unit to each of the sample."""
        found, queries = self._clustering.vectors(docs, counts), vectors.unpacked(sample["vector"])
        nearest = nearest_of(queries, sample["doc"].to_numpy(), found, docs["doc"].to_numpy(), 1)
        return nearest.append_column("key", pa.array(spread(nearest["query"].to_numpy())))

    def _calibrated(self, nearest: Iterable[pa.Table], sample: pa.Table, _sizes: Sequence[int]) -> Iterator[pa.Table]:
        """The weight of each sampled document's nearest one, the largest first, with the threshold that follows."""
        weights = np.concatenate([table["weight"].to_numpy() for table in nearest])
        weights = np.concatenate([np.sort(weights)[::-1], np.zeros(len(sample) - len(weights), np.uint16)])
        going = math.floor((self.max_share or 1) * len(weights))
        threshold = self.threshold
        if going < len(weights):
            below = (int(weights[going]) + 0.5) / WEIGHTS  # that of the first to stay, and of all like it
            threshold = min(max(threshold, math.ceil(below * 10_000) / 10_000), 1.0)
        yield pa.table({"weight": weights, "threshold": np.full(len(weights), threshold)})

    def _assigned(
        self, docs: pa.Table, counts: pa.Table, centroids: pa.Table, calibrated: pa.Table | None = None
    ) -> pa.Table:
        """What the keeper rule must know of each document, its nearest centroid, its vector, and the threshold."""
        found = self._clustering.vectors(docs, counts)
        centroid = assigned(found, centroids)
        threshold = calibrated["threshold"][0].as_py() if calibrated is not None and len(calibrated) else self.threshold
        columns = {
            "key": pa.array(spread(centroid.astype(np.uint64))),
            "centroid": pa.array(centroid),
            "vector": vectors.packed(found),
            "threshold": pa.array(np.full(len(docs), threshold)),
        }
        return with_columns(candidates(docs), columns).filter(usable(found))

    def _judge(self, parts: Mapping[str, pa.Table]) -> pa.Table:
        table = parts[DOCUMENTS]
        best_first = {"centroid": False, "priority": True, "length": True, "id": False, "doc": False}
        rows = pl.DataFrame(table.drop_columns(["vector"])).with_row_index("at")
        rows = rows.sort(list(best_first), descending=list(best_first.values()))
        ranks = np.empty(len(rows), np.int64)
        ranks[rows.select(pl.arg_sort_by("id", "doc")).to_series().to_numpy()] = np.arange(len(rows))
        found, at = vectors.unpacked(table["vector"]), rows["at"].to_numpy()
        threshold = pc.max(table["threshold"]).as_py()  # the same in all rows
        star, cosine = np.zeros(len(rows), np.int64), np.zeros(len(rows))
        starts = np.flatnonzero(np.diff(rows["centroid"].to_numpy(), prepend=-1))
        for start, end in itertools.pairwise([*starts, len(rows)]):
            own, cosine[start:end] = greedy_stars(found[at[start:end]], ranks[start:end], threshold)
            star[start:end] = start + own
        judged = verdicts(rows.with_columns(star=pl.Series(star)).to_arrow(), ["star"], reason="similar")
        with_cosine = pl.DataFrame(judged).join(rows.select("doc", cosine=pl.Series(cosine)), on="doc")
        gone = pl.when(pl.col("drop_reason").is_not_null())
        valued = with_cosine.with_columns(
            drop_value=gone.then(pl.col("cosine")), drop_threshold=gone.then(pl.lit(threshold))
        )
        return valued.select(VERDICT.names).to_arrow().cast(VERDICT)


def _merged(parts: Mapping[str, pa.Table]) -> pa.Table:
    return merged(parts[DOCUMENTS], 1)
