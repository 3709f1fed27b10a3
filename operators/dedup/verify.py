"""Near-duplicates compared before they count: a document goes only if it is like the one that stays in its place.

Bands find candidates. Documents that share one send sketches to where they are compared: all pairs of a small group,
of a larger one each document with the best few by the keeper rule, so that pairs do not grow with the square. Pairs
that are similar enough make clusters. In each, from the best document to the last, a document goes for the first one
that stays and is like it, and else stays: no chain of likenesses takes away what is like nothing that is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.dedup.components import first_rows
from operators.dedup.keeper import candidates
from operators.dedup.published import by, published_numbers
from operators.dedup.similarity import similarities, sketches
from operators.hashes import spread
from operators.phases import DOCUMENTS, HISTORY, PUBLISHED, PUBLISHED_NUMBER, VERDICT, Rows

ALL_PAIRS = 8  # documents of a group that are all compared with one another
BEST = 4  # of a larger one, those that all are compared with; also published documents asked for by a band
BEST_FIRST = {"known": True, "priority": True, "length": True, "id": False, "doc": False}  # descending or not
PUBLISHED_DOC = pl.col("doc") >= int(PUBLISHED_NUMBER)


def groups(parts: Rows) -> pa.Table:
    """From rows of bands to who (`doc`) is compared where (`group`): bands that the same documents share are one group,
    and each published document has its own."""
    rows = pa.concat_tables([parts[name].select(["key", "doc"]) for name in (DOCUMENTS, HISTORY) if name in parts])
    first = first_rows(rows["key"].to_numpy())
    shared = first != np.arange(len(first), dtype=np.uint32)
    shared[first[shared]] = True
    frame = pl.DataFrame({"band": first[shared], "doc": rows["doc"].to_numpy()[shared]}).unique()
    new, known = frame.filter(~PUBLISHED_DOC).sort("band"), frame.filter(PUBLISHED_DOC).sort("doc")
    asked = new.join(known.group_by("band").head(BEST), on="band").select("doc", group="doc_right")
    asked = asked.with_columns(pl.Series("group", spread(asked["group"].to_numpy())))
    new = new.filter(pl.len().over("band") > 1)
    size = new["band"].rle().struct.field("len").to_numpy().astype(np.int64)
    names = np.add.reduceat(spread(new["doc"].to_numpy()), np.cumsum(size) - size) if len(size) else size
    new = new.select("doc", group=pl.Series(np.repeat(names.astype(np.uint64), size)))
    met: pa.Table = pl.concat([new, asked]).unique().to_arrow()
    return met


def sketch_rows(
    docs: pa.Table,
    signatures: NDArray[Any],
    signed: NDArray[np.bool_],
    met: pa.Table | None,
    sets: Callable[[pa.ChunkedArray], pa.Array] | None,
) -> pa.Table:
    """A row for each document that has a signature, under the key by which later builds ask for its sketch, and one for
    each of the groups where it is compared, with what ranks it there; with `sets`, its shingles as well."""
    rows = candidates(docs).append_column("sketch", sketches(signatures))
    numbers = pa.array(spread(published_numbers(docs["id"])))
    own = rows.select(["doc", "sketch"]).append_column("key", numbers).filter(pa.array(signed))
    if met is None:
        return own
    met = met.group_by(["doc", "group"]).aggregate([])  # other partitions of bands may have found the same group
    at = docs["doc"].to_numpy().searchsorted(met["doc"].to_numpy())
    sent = rows.take(pa.array(at)).append_column("key", met["group"])
    if sets:
        alike, place = np.unique(at, return_inverse=True)
        sent = sent.append_column("shingles", sets(docs["text"].take(pa.array(alike))).take(pa.array(place)))
    return pa.concat_tables([own, sent], promote_options="default")


def remember_sketches(rows: pa.Table | None, docs: pa.Table) -> pa.Table:
    """The sketches of the documents that stay, by number."""
    assert rows is not None
    stays = docs.filter(pc.equal(docs["id"].cast(pa.string()), docs["keeper"]))
    own = rows.filter(pc.is_null(rows["id"])) if "id" in rows.column_names else rows
    own = own.filter(pc.is_in(own["doc"], value_set=stays["doc"].combine_chunks()))
    ids = stays["id"].take(pc.index_in(own["doc"], value_set=stays["doc"].combine_chunks()))
    return pa.table({"key": own["key"], "doc": pa.array(published_numbers(ids)), "sketch": own["sketch"]})


def compare(parts: Rows, min_similarity: float) -> pa.Table:
    """The pairs that are similar enough (`left`, the better one, and `right`), and their `similarity`."""
    rows = pa.concat_tables([parts[n] for n in (DOCUMENTS, HISTORY) if n in parts], promote_options="default")
    frame = pl.DataFrame(rows.select(["key", "doc", "id", "priority", "length"])).with_row_index("row")
    frame = frame.filter(pl.col("key").is_duplicated()).with_columns(known=PUBLISHED_DOC)
    frame = frame.sort("key", *BEST_FIRST, descending=[False, *BEST_FIRST.values()])
    size = frame["key"].rle().struct.field("len").to_numpy().astype(np.int64)
    left, right = pairs_of(size)
    order = frame["row"].to_numpy().astype(np.int64)
    a, b = order[left], order[right]
    similarity = similarities(rows, a, b)
    alike = similarity >= min_similarity
    doc = rows["doc"].to_numpy()
    columns = {"left": doc[a[alike]], "right": doc[b[alike]], "similarity": similarity[alike]}
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def pairs_of(size: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which rows to compare, of groups of these sizes one after the other: a row and one before it in its group."""
    start = np.repeat(np.cumsum(size) - size, size)
    place = np.arange(len(start)) - start
    before = np.minimum(place, np.repeat(np.where(size <= ALL_PAIRS, ALL_PAIRS, BEST), size))
    right = np.repeat(np.arange(len(start)), before)
    left = np.arange(len(right)) - np.repeat(np.cumsum(before) - before, before) + start[right]
    return left, right


def with_root(parts: Rows) -> pa.Table:
    """Each pair with the root of its cluster."""
    roots = pl.DataFrame(parts["components"]).select("root", right="doc")
    found: pa.Table = pl.DataFrame(parts["pairs"]).drop("key").unique().join(roots, on="right").to_arrow()
    return found


def members(docs: pa.Table, components: pa.Table) -> pa.Table:
    """What the keeper rule must know of the documents that are alike others."""
    at = pc.index_in(docs["doc"], value_set=components["doc"].combine_chunks())
    alike = pc.is_valid(at)
    rows = candidates(docs.filter(alike))
    return by("root", rows.append_column("root", components["root"].take(at.filter(alike))))


def judge(parts: Rows, reason: str, min_similarity: float) -> pa.Table:
    """A verdict for each new member of a cluster."""
    known = pl.DataFrame(parts["published"]).sort("id").unique("doc", keep="first").with_columns(known=True)
    new = pl.DataFrame(parts[DOCUMENTS]).with_columns(known=False)
    members = pl.concat([known.drop("key"), new.drop("key")], how="diagonal").filter(pl.len().over("root") > 1)
    members = members.sort("root", *BEST_FIRST, descending=[False, *BEST_FIRST.values()])
    members = members.with_row_index("place")
    pairs = pl.DataFrame(parts["similar"]).select("left", "right", "similarity")
    for side in ("left", "right"):
        pairs = pairs.join(members.select(pl.col("doc").alias(side), pl.col("place").alias(f"{side}_place")), on=side)
    ends = pl.min_horizontal("left_place", "right_place"), pl.max_horizontal("left_place", "right_place")
    pairs = pairs.select("similarity", first=ends[0], place=ends[1]).sort("place", "first")
    leader = np.full(members.height, -1, np.int64)
    _lead(pairs["first"].to_numpy(writable=True), pairs["place"].to_numpy(writable=True), leader)
    leaders = members.select(pl.col("place").alias("first"), pl.col("id").alias("leader"), pl.col("known").alias("old"))
    gone = pairs[leader[leader >= 0]].join(leaders, on="first")
    goes = pl.col("leader").is_not_null()
    judged = members.join(gone, on="place", how="left").select(
        pl.col("doc", "known"),
        pl.when(goes).then(pl.lit(reason)).alias("drop_reason"),
        pl.col("similarity").alias("drop_value"),
        pl.when(goes).then(pl.lit(min_similarity)).alias("drop_threshold"),
        pl.when("old").then(pl.lit(PUBLISHED)).alias("drop_detail"),
        pl.col("leader").alias("duplicate_of"),
        pl.col("id").min().over("root").alias("cluster"),
        pl.len().over("root").cast(pl.Int64).alias("cluster_size"),
    )
    return judged.filter(~pl.col("known")).drop("known").to_arrow().cast(VERDICT)


@numba.njit(nogil=True, cache=True)
def _lead(first: Any, place: Any, leader: Any) -> None:
    """For each place the first pair with one before it that stays; pairs are in the order of `place`, `first`."""
    for pair in range(first.shape[0]):
        if leader[place[pair]] < 0 and leader[first[pair]] < 0:
            leader[place[pair]] = pair
