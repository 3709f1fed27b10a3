"""Give documents a place in one order, so that related ones share a context of the model.

In-Context Pretraining (Shi et al. 2024, arXiv 2310.10638): documents are embedded, each is linked to its nearest
neighbours, and a path through that graph (a maximum travelling salesman problem, section 2.2) is the order in which
they are packed. `greedy_edge` takes the best links first and is the better path; `icp` is the paper's Algorithm 1.
What is read is the text's words (lexical.py), or a column of embeddings.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from pydantic import Field

from operators.dedup.published import by
from operators.document import parameters
from operators.histogram import histogram
from operators.models import faiss
from operators.ordering import vectors
from operators.ordering.graph import NeighbourGraph
from operators.ordering.landscape import landscape
from operators.ordering.sorting import SortedOrder
from operators.ordering.walk import LINKS, walk, walk_bytes
from operators.phases import MEMORY, Fold, GlobalOperator, Phase

BY_LIKENESS = ("greedy_edge", "icp")
RANK, SIMILARITY = "order_rank", "order_similarity"
ROW_BYTES = 48  # of a document, where its place on the path meets its name


@parameters
class Order(GlobalOperator):
    """Adds `order_rank`, the place of each document, and where documents are ordered by likeness `order_similarity`,
    the cosine of its embedding and that of the one before it."""

    name: ClassVar[str] = "order"
    method: Literal["greedy_edge", "icp", "random", "by_field"] = "greedy_edge"
    field: str | None = None  # of by_field
    descending: bool = False
    column: str | None = None  # of embeddings; unset: lexical ones
    dimensions: Literal[256, 512, 1024, 2048, 4096] | None = None  # of lexical ones; unset: 1,024, or 512 of many
    neighbours: Annotated[int, Field(ge=2, le=128)] = 10
    lists: Annotated[int, Field(ge=1, le=1 << 18)] | None = None  # unset: by the number of documents
    probes: Annotated[int, Field(ge=1, le=1 << 12)] = 32
    pq_bytes: Annotated[int, Field(ge=1, le=1 << 12)] | None = None
    regions: Annotated[int, Field(ge=1, le=1 << 12)] = 1
    max_similarity: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_recall: Annotated[float, Field(ge=0, le=1)] = 0.5
    seed: int = Field(0, ge=0, lt=1 << 63)
    revision: Literal[1] = 1

    @pydantic.model_validator(mode="after")
    def _fields_fit_together(self) -> Order:
        if (self.method == "by_field") != (self.field is not None):
            raise ValueError(
                f"field: {self.field!r} with method {self.method}: by_field and nothing else orders by one"
            )
        if self.descending and self.method != "by_field":
            raise ValueError(f"descending: has no effect with method {self.method}")
        if self.seed and self.method not in ("icp", "random"):
            raise ValueError(f"seed: has no effect with method {self.method}: nothing is drawn")
        if not self._by_likeness:
            defaults = {field: getattr(type(self), field) for field in OF_LIKENESS}
            if said := [field for field, default in defaults.items() if getattr(self, field) != default]:
                raise ValueError(f"{said[0]}: has no effect with method {self.method}")
            return self
        if self.column is not None and self.dimensions is not None:
            raise ValueError(f"dimensions: {self.dimensions} has no effect with column: they are its own")
        faiss.check()
        return self

    @property
    def _by_likeness(self) -> bool:
        return self.method in BY_LIKENESS

    @property
    def embeddings(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    @property
    def needs(self) -> tuple[str, ...]:
        if self._by_likeness:
            return ("text",) if self.column is None else (self.column,)
        return () if self.field is None else (self.field,)

    @property
    def adds(self) -> tuple[str, ...]:
        return (RANK, SIMILARITY) if self._by_likeness else (RANK,)

    @property
    def measures(self) -> tuple[str, ...]:
        return (SIMILARITY,) if self._by_likeness else ()

    @property
    def summarised(self) -> tuple[str, ...]:
        return ("centroids", "sizes", "recall", "links", "random", "landscape") if self._by_likeness else ()

    def phases(self, rows: int, memory: int = MEMORY) -> Sequence[Phase | Fold]:
        if not self._by_likeness:
            return SortedOrder(self.field, self.descending, self.seed).phases(rows, memory)
        graph = NeighbourGraph(
            column=self.column,
            dimensions=self.dimensions,
            neighbours=self.neighbours,
            lists=self.lists,
            probes=self.probes,
            regions=self.regions,
            max_similarity=self.max_similarity,
            pq_bytes=self.pq_bytes,
        )
        path = functools.partial(
            walk,
            method=self.method,
            seed=self.seed,
            neighbours=self.neighbours,
            probes=self.probes,
            max_similarity=self.max_similarity,
        )
        held = walk_bytes(self.method, -(-rows // self.regions), self.neighbours, self.dimensions or 1024)
        sources = ("edges", "vectors")
        ranked = {"neighbours": _by_number, "path": _by_number}
        return [
            *graph.phases(rows, memory),
            Fold("path", sources, path, bytes=held, whole=("sizes", "centroids"), parts=self.regions),
            Phase("links", {"path": _links}, _total, partitions=1),
            Fold("random", ("sample",), _random_pairs),
            Fold("landscape", ("path", "vectors"), landscape, whole=("centroids",)),
            Phase("ranks", ranked, _ranks, bytes=rows * ROW_BYTES),
        ]

    def summary(self, *tables: pa.Table) -> Mapping[str, Any]:
        if not tables:
            return {"method": self.method}
        centroids, sizes, recall, links, random, drawn = tables
        of, found = (int(pc.sum(recall[name]).as_py() or 0) for name in ("of", "found"))
        share = round(found / of, 4) if of else None
        if share is not None and share < self.min_recall:
            raise ValueError(
                f"recall is {share}, the share of the {self.neighbours} nearest neighbours that were found, of "
                f"{len(recall)} documents; min_recall is {self.min_recall}: more `probes`, or fewer `lists`"
            )
        documents = int(pc.sum(sizes["documents"]).as_py() or 0)
        if self.column is not None and documents and documents == sizes["documents"][-1].as_py():
            raise ValueError(f"column {self.column!r}: none of {documents} documents has an embedding that can be used")
        exact = bool(pc.all(pc.is_null(centroids["probed"])).as_py())
        kinds = {LINKS[int(row["link"])]: row for row in links.to_pylist()}
        known = sum(row["similarities"] for row in kinds.values())
        total = sum(row["similarity"] for row in kinds.values())
        pairs = random["similarity"].to_numpy()
        return {
            "method": self.method,
            "documents": documents,
            "lists": len(sizes) - 1,  # the last are documents that are like nothing
            "exact": exact,
            "probes": None if exact else self.probes,
            "queries": len(recall),
            "recall": share,
            "adjacent": round(total / known, 4) if known else None,
            "random": round(float(pairs.mean()), 4) if len(pairs) else None,
            "random_similarity": histogram(pairs),
            "links": {name: kinds[name]["documents"] if name in kinds else 0 for name in LINKS},
            "landscape": {name: drawn[name].to_pylist() for name in ("x", "y", "context")},
        }


OF_LIKENESS = (
    "column",
    "dimensions",
    "neighbours",
    "lists",
    "probes",
    "pq_bytes",
    "regions",
    "max_similarity",
    "min_recall",
)


def _by_number(rows: pa.Table) -> pa.Table:
    wanted = ("number", "doc", "rank", "similarity")
    return by("number", rows.select([name for name in wanted if name in rows.column_names]))


def _ranks(parts: Mapping[str, pa.Table]) -> pa.Table:
    """The verdicts: each document's place on the path, under its name."""
    named, placed = (parts[source].sort_by("number") for source in ("neighbours", "path"))
    if not named["number"].equals(placed["number"]):
        raise ValueError("the path is no permutation of the documents")
    rank, similarity = placed["rank"].cast(pa.int64()), placed["similarity"].cast(pa.float32())
    return pa.table({"doc": named["doc"], RANK: rank, SIMILARITY: similarity})


def _links(path: pa.Table) -> pa.Table:
    """How many documents follow another by each kind of link, and how like they are."""
    frame = pl.DataFrame(path.select(["link", "similarity"])).with_columns(pl.col("similarity").cast(pl.Float64))
    told = [pl.len().alias("documents"), pl.col("similarity").count().alias("similarities")]
    # whole numbers, so that the order of sums does not show
    total = (pl.col("similarity") * 1e6).round().cast(pl.Int64).sum()
    counted = frame.group_by("link").agg(*told, similarity=total).with_columns(key=pl.lit(0, pl.UInt64))
    found: pa.Table = counted.to_arrow()
    return found


def _total(parts: Mapping[str, pa.Table]) -> pa.Table:
    frame = pl.DataFrame(parts["path"]).group_by("link").agg(pl.col("documents", "similarities", "similarity").sum())
    total: pa.Table = frame.with_columns(similarity=pl.col("similarity") / 1e6).sort("link").to_arrow()
    return total


def _random_pairs(sample: Iterable[pa.Table], _units: Sequence[int]) -> Iterator[pa.Table]:
    """The cosines of all pairs of the sampled documents: what an order by chance would give."""
    [table] = sample
    found = vectors.unpacked(table["vector"])
    lengths = np.sqrt(vectors.squares(found))
    products = found.astype(np.float64) @ found.T
    cosines = np.round(products / np.maximum(np.outer(lengths, lengths), 1), 4)
    yield pa.table({"similarity": cosines[np.triu_indices(len(found), 1)]})
