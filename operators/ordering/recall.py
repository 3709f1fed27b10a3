"""How many of the nearest neighbours a graph has: those of a few hundred documents are found among all, exactly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from operators.hashes import spread
from operators.ordering import exact, vectors

QUERIES = 256  # whose neighbours are found exactly


def sampled(parts: Mapping[str, pa.Table]) -> pa.Table:
    """The documents (`doc`, `vector`) that the units' maps took, in an order that does not depend on units."""
    (rows,) = parts.values()
    return rows.sort_by([("hash", "ascending"), ("id", "ascending")]).select(["doc", "vector"])


def measured(found: vectors.Vectors, docs: pa.Table, sample: pa.Table, k: int) -> pa.Table:
    """The `k` documents of a table that are nearest to each of the sample."""
    named = (sample["doc"].to_numpy(), found, docs["doc"].to_numpy())
    rows = exact.nearest_of(vectors.unpacked(sample["vector"]), *named, k)
    return rows.append_column("key", pa.array(spread(rows["query"].to_numpy())))


def merged(parts: Mapping[str, pa.Table], k: int) -> pa.Table:
    """The `k` nearest documents of all tables."""
    (rows,) = parts.values()
    return exact.merged(rows, k)


def expected(rows: pa.Table, _sample: pa.Table, _exact: pa.Table) -> pa.Table:
    """The exact neighbours."""
    return rows.append_column("key", pa.array(np.zeros(len(rows), np.uint64)))


def listed(table: pa.Table, sample: pa.Table, near: pa.Table, weighed: bool) -> pa.Table:
    """The neighbours that the graph has of the sample's documents (`query`), and of all that are asked for the number
    (`query` null). Weights are null unless `weighed`: those of compressed vectors do not compare with exact ones."""
    frame = pl.DataFrame(table).filter(pl.col("doc").is_in(pl.Series(sample["doc"]).implode()))
    lists = frame.select(query="doc", number="neighbours", weight="weights").explode("number", "weight")
    if not weighed:
        lists = lists.with_columns(weight=pl.lit(None, pl.UInt16))
    asked = np.union1d(sample["doc"].to_numpy(), near["name"].to_numpy())
    known = np.flatnonzero(np.isin(table["doc"].to_numpy(), asked))
    names = pl.DataFrame(table.select(["doc", "number"]).take(pa.array(known)))
    rows = pl.concat([lists, names], how="diagonal").with_columns(key=pl.lit(0, pl.UInt64))
    told: pa.Table = rows.select("key", "query", "number", "weight", "doc").to_arrow()
    return told


def counted(parts: Mapping[str, pa.Table]) -> pa.Table:
    """Of each of the sample's documents (`number`) how many neighbours the graph has (`found`) of those nearest (`of`).
    One that is as near as the last of these counts too."""
    near, graph = pl.DataFrame(parts["exact"]), pl.DataFrame(parts["neighbours"])
    names = graph.filter(pl.col("query").is_null()).select("doc", "number")
    lists = graph.filter(pl.col("query").is_not_null()).select("query", "number", "weight")
    right = near.join(names, left_on="name", right_on="doc").select("query", "number", right=True)
    last = near.group_by("query").agg(of=pl.len().cast(pl.Int64), least=pl.col("weight").min())
    hit = pl.col("right").is_not_null() | (pl.col("weight") >= pl.col("least")).fill_null(False)
    found = (
        lists.join(right, on=["query", "number"], how="left")
        .join(last, on="query")
        .group_by("query")
        .agg(found=hit.sum().cast(pl.Int64))
    )
    queries = lists.select("query").unique().join(names, left_on="query", right_on="doc")
    counts = queries.join(last, on="query", how="left").join(found, on="query", how="left")
    rows = counts.select("number", pl.min_horizontal("found", "of").fill_null(0), pl.col("of").fill_null(0))
    share: pa.Table = rows.sort("number").to_arrow()
    return share
