"""Which document of a group of duplicates stays: a published one, else by priority, length of text and smallest id.

Every deduplication of whole documents decides here, so that they agree whichever finds a duplicate first.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from operators.phases import PUBLISHED, VERDICT

COLUMNS = ("text", "priority")  # what `candidates` reads beside `id` and `doc`
ROW_BYTES = 128  # of `candidates` with their keys, for ids up to about 80 letters


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


def verdicts(
    members: pa.Table,
    group: Sequence[str],
    reason: str,
    ties: Sequence[str] = (),
    published: pa.Table | None = None,
) -> pa.Table:
    """A verdict for each member of a group of two or more; `ties` are columns that decide between equal ids.

    `published` has the columns `group` and `id`, the latter of documents that earlier builds published: none of a group
    with such a document stays, and the smallest such id stands for them.

    Rows equal in all of that are told apart by `doc`: as nothing else differs, which one stays makes no difference.
    """
    known = _known(group, members.slice(0, 0) if published is None else published)
    frame = pl.DataFrame(members).join(known, on=group, how="left")
    shared = frame.filter(pl.struct(group).is_duplicated() | pl.col("known").is_not_null()) if frame.height else frame
    best_first = [*group, "priority", "length", "id", *ties, "doc"]
    ranked = shared.sort(best_first, descending=[name in ("priority", "length") for name in best_first])
    kept = (pl.col("doc") == pl.col("doc").first().over(group)) & pl.col("known").is_null()
    keeper = pl.coalesce("known", pl.col("id").first().over(group))
    judged = ranked.select(
        pl.col("doc"),
        pl.when(kept).then(None).otherwise(pl.lit(reason)).alias("drop_reason"),
        pl.lit(None, pl.Float64).alias("drop_value"),
        pl.lit(None, pl.Float64).alias("drop_threshold"),
        pl.when(pl.col("known").is_null()).then(None).otherwise(pl.lit(PUBLISHED)).alias("drop_detail"),
        pl.when(kept).then(None).otherwise(keeper).alias("duplicate_of"),
        pl.min_horizontal(pl.col("id").min().over(group), "known").alias("cluster"),
        (pl.len().over(group) + pl.col("others").fill_null(0)).cast(pl.Int64).alias("cluster_size"),
    )
    return judged.to_arrow().cast(VERDICT)


def _known(group: Sequence[str], published: pa.Table) -> pl.DataFrame:
    """For each group with published documents the smallest id of them (`known`) and how many they are (`others`)."""
    frame = pl.DataFrame(published.select(list(dict.fromkeys([*group, "id"]))))
    return frame.group_by(group).agg(pl.col("id").min().alias("known"), pl.col("id").n_unique().alias("others"))
