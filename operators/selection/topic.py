"""Say what each document is about: clusters of embeddings, named by their words, or by examples where the user gives
some (the topic model and cluster labels of Yi, arXiv 2403.04652, section 2.1, found automatically and by hand).

k-means divides the documents (see clustering.py). A cluster is called by the three words that most set it apart: the
share of its documents that have the word, times the squared logarithm of how much larger that is than in all documents
(after the class-based TF-IDF of BERTopic: Grootendorst 2022, arXiv 2203.05794). Words are counted in the first 2,000
characters of about 16,384 documents; those of scripts without spaces are pairs of characters.

Nothing is dropped: whoever wants less of a topic says so to the selection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from pydantic import Field

from operators.dedup.words import simplify
from operators.document import PinnedFile, parameters
from operators.hashes import spread
from operators.models import faiss
from operators.ordering import vectors
from operators.ordering.clustering import Clustering, cosines, lowest
from operators.ordering.clusters import nearest
from operators.phases import DOCUMENTS, MEMORY, GlobalOperator, Phase, as_mapped

LABELLED = 16_384  # documents whose words are counted
CHARACTERS = 2000  # of each
WORD_BYTES = 64  # with cluster and count
WORDS = 3  # of a name
COMMON = 0.25  # share of a cluster's documents that have a word of its name: a few of another language do not name it
LETTERS = r"^(?:\p{L}{3,24}|[^\x00-\x7F]{2})$"  # what a word of a name looks like
UNNAMED = "unnamed"  # a cluster without such words


@parameters
class Topic(GlobalOperator):
    """Adds `topic`, the name of the document's cluster, and `topic_score`, the cosine to its centre; null for documents
    without words or embedding.

    `column` holds the user's embeddings; unset: lexical ones of the text, of `dimensions`. `seeds`: for each name a
    file of examples, one a line. A document whose cosine to their mean is at least `min_seed_score`, and larger than
    that to any centre of the `clusters`, gets the name; the clusters are found without such documents.
    """

    name: ClassVar[str] = "topic"
    clusters: Annotated[int, Field(ge=2, le=4096)] = 64
    column: str | None = None
    dimensions: Literal[256, 512, 1024, 2048, 4096] = 1024
    min_seed_score: Annotated[float, Field(ge=0, le=1)] = 0.25
    seeds: dict[Annotated[str, Field(min_length=1)], PinnedFile] = Field(default_factory=dict)
    revision: Literal[1] = 1

    @pydantic.model_validator(mode="after")
    def _fields_fit_together(self) -> Topic:
        if self.column is not None and self.dimensions != 1024:
            raise ValueError(f"dimensions: {self.dimensions} has no effect with column: they are its own")
        if self.column is not None and self.seeds:
            raise ValueError(f"seeds: the texts of {', '.join(sorted(self.seeds))} cannot be compared with column")
        self._examples()
        faiss.check()
        return self

    def _examples(self) -> dict[str, list[str]]:
        """The texts of each seed's file. Raises ValueError for files without any."""
        found = {}
        for name, file in self.seeds.items():
            try:
                texts = file.read().decode("utf-8-sig").split("\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"seeds: {file.path} is not UTF-8") from error
            found[name] = [text for text in texts if simplify(pa.array([text], pa.large_string()))[0].as_py()]
            if not found[name]:
                raise ValueError(f"seeds: {file.path} has no line with a word")
        return found

    @property
    def embeddings(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("text",) if self.column is None else ("text", self.column)

    @property
    def adds(self) -> tuple[str, ...]:
        return ("topic", "topic_score")

    @property
    def measures(self) -> tuple[str, ...]:
        return ("topic_score",)

    @property
    def _clustering(self) -> Clustering:
        return Clustering(self.column, self.dimensions, self.clusters, self._examples(), self.min_seed_score)

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        words = min(rows, LABELLED) * CHARACTERS // 10 * WORD_BYTES
        return [
            *self._clustering.phases(rows),
            Phase("assigned", {DOCUMENTS: self._assigned}, as_mapped, bytes=rows * 32, whole=("counts", "centroids")),
            Phase(
                "names",
                {DOCUMENTS: _words},
                _names,
                bytes=words,
                partitions=1,
                own="assigned",
                whole=("counts", "centroids"),
            ),
            Phase("topics", {DOCUMENTS: _topics}, as_mapped, bytes=rows * 64, own="assigned", whole=("names",)),
        ]

    def _assigned(self, docs: pa.Table, counts: pa.Table, centroids: pa.Table) -> pa.Table:
        """Of each document its nearest centroid, and the cosine to it."""
        found = self._clustering.vectors(docs, counts)
        centres, free = vectors.unpacked(centroids["vector"]), np.flatnonzero(centroids["seed"].is_null())
        rows = np.flatnonzero(found.any(axis=1)) if len(centres) else np.zeros(0, np.int64)
        found = found[rows]
        cluster = nearest(found, centres) if len(rows) else rows
        score = cosines(found, centres[cluster])
        weak = np.isin(cluster, free, invert=True) & (score < self.min_seed_score)
        if len(free) and weak.any():
            cluster[weak] = free[nearest(found[weak], centres[free])]
            score[weak] = cosines(found[weak], centres[cluster[weak]])
            weak[:] = False
        doc = docs["doc"].to_numpy()[rows]
        columns = {"key": spread(doc), "doc": doc, "cluster": cluster, "topic_score": score.astype(np.float32)}
        return pa.table(columns).filter(pa.array(~weak))


def _words(docs: pa.Table, own: pa.Table, counts: pa.Table, centroids: pa.Table) -> pa.Table:
    """How many of the unit's documents each cluster has (`word` null), how many of them are looked at ("") and how many
    of those have each word; with the cluster's seed."""
    cluster = pl.DataFrame(own.select(["doc", "cluster"]))
    sizes = (
        cluster.group_by("cluster").agg(documents=pl.len().cast(pl.Int64)).with_columns(word=pl.lit(None, pl.String))
    )
    some = lowest(docs, counts, LABELLED)
    heads = pc.utf8_slice_codeunits(some["text"], 0, CHARACTERS)
    texts = pl.DataFrame({"doc": some["doc"].to_numpy(), "word": pl.Series(simplify(heads))}).join(cluster, on="doc")
    split = texts.with_columns(pl.col("word").str.split(" ")).explode("word")
    after = pl.col("word").shift(-1).over("doc")
    alone = (pl.col("word").str.len_chars() == 1) & (pl.col("word").str.len_bytes() > 1)
    after_alone = (after.str.len_chars() == 1) & (after.str.len_bytes() > 1)
    word = pl.when(alone & after_alone).then(pl.col("word") + after).otherwise(pl.col("word"))
    words = split.select("cluster", "doc", word=word).filter(pl.col("word").str.contains(LETTERS)).unique()
    seen = pl.concat([words, texts.select("cluster", "doc", word=pl.lit("", pl.String))])
    found = seen.group_by("cluster", "word").agg(documents=pl.len().cast(pl.Int64))
    rows = pl.concat([sizes.select(found.columns), found])
    names = pl.DataFrame(
        {"cluster": np.arange(len(centroids)), "seed": pl.Series(centroids["seed"].to_pylist(), dtype=pl.String)}
    )
    return rows.join(names, on="cluster", how="left").select(pl.lit(0, pl.UInt64).alias("key"), pl.all()).to_arrow()


def _names(parts: Mapping[str, pa.Table]) -> pa.Table:
    """The name of each cluster: its seed's, else of the words that set it apart; equal ones are numbered, the largest
    cluster first."""
    rows = pl.DataFrame(parts[DOCUMENTS]).group_by("cluster", "seed", "word").agg(pl.col("documents").sum())
    clusters = rows.filter(pl.col("word").is_null()).select("cluster", "seed", size="documents")
    looked_at = rows.filter(word="").select("cluster", looked_at="documents")
    words = rows.filter(pl.col("word") != "").join(looked_at, on="cluster")
    share = pl.col("documents") / pl.col("looked_at")
    of_all = pl.col("documents").sum().over("word") / looked_at["looked_at"].sum()
    ranked = words.with_columns(apart=(share * (share / of_all).log().clip(0) ** 2).round(6)).filter(share >= COMMON)
    ranked = ranked.sort("cluster", "apart", "documents", "word", descending=[False, True, True, False])
    label = ranked.group_by("cluster").agg(label=pl.col("word").head(WORDS).str.join("-"))
    named = clusters.join(label, on="cluster", how="left")
    named = named.with_columns(topic=pl.coalesce("seed", "label", pl.lit(UNNAMED)))
    named = named.sort(pl.col("seed").is_null(), -pl.col("size"), "topic", "cluster")
    number = pl.int_range(pl.len()).over("topic") + 1
    topic = pl.when(number > 1).then(pl.format("{}-{}", "topic", number)).otherwise("topic")
    names: pa.Table = named.select("cluster", topic=topic).to_arrow()
    return names


def _topics(_docs: pa.Table, own: pa.Table, names: pa.Table) -> pa.Table:
    at = pc.index_in(own["cluster"], value_set=names["cluster"].combine_chunks())
    columns = {"topic": names["topic"].take(at).cast(pa.string()), "topic_score": own["topic_score"]}
    return pa.table({"key": spread(own["doc"].to_numpy()), "doc": own["doc"], **columns})
