"""Drop documents that say nearly the same as another one, by the cosine of their embeddings (SemDeDup: Abbas et al.
2023, arXiv 2303.09540).

k-means divides the documents; within each cluster, best first, a document goes if one that stays is as near as the
threshold. SemDeDup keeps the one farthest from the centroid; here the rule of all deduplication decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pydantic
from pydantic import Field

from operators.dedup.keeper import COLUMNS, ROW_BYTES, candidates, verdicts
from operators.dedup.stars import greedy_stars
from operators.document import parameters, with_columns
from operators.hashes import spread
from operators.models import faiss
from operators.ordering import vectors
from operators.ordering.clustering import Clustering, assigned, usable
from operators.phases import DOCUMENTS, MEMORY, VERDICT, GlobalOperator, Phase


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

    @property
    def _clustering(self) -> Clustering:
        return Clustering(self.column, self.dimensions, self.clusters)

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        stars = rows * (ROW_BYTES + self._clustering.vector_bytes)
        before = ("counts", "centroids")
        return [
            *self._clustering.phases(rows),
            Phase("stars", {DOCUMENTS: self._assigned}, self._judge, bytes=stars, whole=before),
        ]

    def _assigned(self, docs: pa.Table, counts: pa.Table, centroids: pa.Table) -> pa.Table:
        """What the keeper rule must know of each document, its nearest centroid and its vector."""
        found = self._clustering.vectors(docs, counts)
        centroid = assigned(found, centroids)
        key = pa.array(spread(centroid.astype(np.uint64)))
        columns = {"key": key, "centroid": pa.array(centroid), "vector": vectors.packed(found)}
        return with_columns(candidates(docs), columns).filter(usable(found))

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
