"""Which document of a group of duplicates stays: highest priority, then longest text, then smallest id.

Every deduplication of whole documents decides here, so that they agree whichever finds a duplicate first.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from operators.phases import VERDICT

COLUMNS = ("text", "priority")  # what `candidates` reads beside `id` and `doc`


def candidates(docs: pa.Table) -> pa.Table:
    """What the rule must know of a document: `doc`, `id`, `priority` (null counts as 0), `length` in characters."""
    length = pc.utf8_length(docs["text"]).cast(pa.int64())
    columns = {
        "doc": docs["doc"],
        "id": docs["id"].cast(pa.string()),
        "priority": pc.fill_null(docs["priority"].cast(pa.int32()), 0),
        "length": pc.fill_null(length, 0),
    }
    return pa.table(columns)


def verdicts(members: pa.Table, group: Sequence[str], reason: str, ties: Sequence[str] = ()) -> pa.Table:
    """A verdict for each member of a group of two or more; `ties` are columns that decide between equal ids.

    Rows equal in all of that are told apart by `doc`: as nothing else differs, which one stays makes no difference.
    """
    frame = pl.DataFrame(members)
    shared = frame.filter(pl.struct(group).is_duplicated()) if frame.height else frame
    best_first = [*group, "priority", "length", "id", *ties, "doc"]
    ranked = shared.sort(best_first, descending=[name in ("priority", "length") for name in best_first])
    kept = pl.col("doc") == pl.col("doc").first().over(group)
    judged = ranked.select(
        pl.col("doc"),
        pl.when(kept).then(None).otherwise(pl.lit(reason)).alias("drop_reason"),
        pl.lit(None, pl.Float64).alias("drop_value"),
        pl.lit(None, pl.Float64).alias("drop_threshold"),
        pl.lit(None, pl.String).alias("drop_detail"),
        pl.when(kept).then(None).otherwise(pl.col("id").first().over(group)).alias("duplicate_of"),
        pl.col("id").min().over(group).alias("cluster"),
        pl.len().over(group).cast(pl.Int64).alias("cluster_size"),
    )
    return judged.to_arrow().cast(VERDICT)
