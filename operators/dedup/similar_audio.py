"""Drop clips that sound the same as another one, whatever encoded them, however loud, and wherever they were cut: by
their fingerprints (caption/fingerprint.py), as in Haitsma and Kalker 2002, with the shuffle in place of their table.

Clips that share a key meet. Pairs that share several at one lag are candidates. Every clip sends its fingerprint under
its number, and candidates theirs to those that they are laid over (acoustic.py). Of a cluster the best clip stays, and
those it is not like.

A build remembers the keys and the fingerprints of the clips that stay, and the ids of their numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from operators.caption.fingerprint import FINGERPRINT, WORDS_A_SECOND
from operators.dedup.acoustic import DIGITS, candidates_of, flat, keys_of, likeness
from operators.dedup.components import connect
from operators.dedup.keeper import COLUMNS, ROW_BYTES, candidates
from operators.dedup.published import by, named, published, published_numbers, remember_ids
from operators.dedup.scope import Scope, recalls
from operators.dedup.verify import BEST_FIRST, PUBLISHED_DOC, judge, members, pairs_of, with_root
from operators.document import parameters
from operators.hashes import spread
from operators.phases import DOCUMENTS, HISTORY, MEMORY, Fold, GlobalOperator, Phase, Rows

KEYS_BYTES = 3_000  # a clip of 10 s: 150 keys of 20 bytes
CLIP_BYTES = 2_500  # its fingerprint
HITS_BYTES = 400  # a clip, where one in ten shares its keys with another
PAIR_BYTES = 48  # a clip, for a pair and its root
PARENT_BYTES = 4  # a clip, while they are fewer than 2^32


@parameters
class SimilarAudio(GlobalOperator):
    """Two clips are alike when at most `max_error` of the bits differ where they lie over each other, in at least
    `min_overlap` seconds of sound, or 80 % of a clip that has less. `scope` is what a clip is compared with: this build
    and the published ones, this alone, or this and a list. Clips without a fingerprint are like nothing."""

    name: ClassVar[str] = "similar_audio"
    max_error: Annotated[float, Field(gt=0, le=0.4)] = 0.2
    min_overlap: Annotated[float, Field(ge=1, le=600)] = 3.0
    scope: Scope = "history"
    revision: Literal[1] = 1

    @property
    def recalls(self) -> bool | tuple[str, ...]:
        return recalls(self.scope)

    @property
    def needs(self) -> tuple[str, ...]:
        return (*COLUMNS, FINGERPRINT)

    @property
    def least_similarity(self) -> float:
        return round(1 - self.max_error, DIGITS)

    def phases(self, rows: int, memory: int = MEMORY) -> Sequence[Phase | Fold]:
        held = min(PARENT_BYTES * rows, memory // 2) + rows // 8
        alike: dict[str, Callable[..., pa.Table]] = {
            DOCUMENTS: members,
            "published": functools.partial(by, "root"),
            "similar": functools.partial(by, "root"),
        }
        judged = functools.partial(judge, reason="duplicate", min_similarity=self.least_similarity)
        pairs = {"pairs": functools.partial(by, "right"), "components": functools.partial(by, "doc")}
        return [
            Phase("keys", {DOCUMENTS: _keys}, _shared, bytes=rows * KEYS_BYTES, remember=_remember_keys),
            Phase("hits", {DOCUMENTS: _sharing, "keys": _known}, _meet, bytes=rows * HITS_BYTES, own="keys"),
            Phase("candidates", {"hits": functools.partial(by, "left")}, _candidates, bytes=rows * HITS_BYTES),
            Phase(
                "pairs",
                {DOCUMENTS: _clips},
                self._alike,
                bytes=rows * CLIP_BYTES,
                own="candidates",
                remember=_remember_clips,
            ),
            Fold("components", ("pairs",), functools.partial(connect, memory=memory // 2), bytes=held),
            Phase("published", {"components": published}, named, bytes=rows * ROW_BYTES, remember=remember_ids),
            Phase("similar", pairs, with_root, bytes=rows * PAIR_BYTES),
            Phase("keepers", alike, judged, bytes=rows * ROW_BYTES, own="components"),
        ]

    def _alike(self, parts: Rows) -> pa.Table:
        """The pairs that are like each other (`left`, `right`), and their `similarity`."""
        rows = _together(parts)
        frame = pl.DataFrame(rows.select(["key", "doc", "lag"])).with_row_index("row")
        own = frame.filter(pl.col("lag").is_null()).select("key", "row", left="doc")
        asked = frame.filter(pl.col("lag").is_not_null()).select("key", "lag", right="doc", other="row")
        pairs = own.join(asked, on="key").filter(pl.col("left") != pl.col("right"))
        clips = flat(rows[FINGERPRINT])
        left, right = (pairs[place].cast(pl.Int64).to_numpy() for place in ("row", "other"))
        found = likeness(clips, clips, (left, right, pairs["lag"].to_numpy()), self.min_overlap * WORDS_A_SECOND)
        pairs = pairs.select("left", "right", similarity=pl.Series(found, dtype=pl.Float64))
        alike: pa.Table = pairs.filter(pl.col("similarity") >= self.least_similarity).to_arrow()
        return alike


def _together(parts: Rows) -> pa.Table:
    return pa.concat_tables([parts[n] for n in (DOCUMENTS, HISTORY) if n in parts], promote_options="default")


def _keys(docs: pa.Table) -> pa.Table:
    """A row for each key of each clip: where in it (`place`)."""
    key, clip, place = keys_of(*flat(docs[FINGERPRINT]))
    return pa.table({"key": pa.array(key), "doc": docs["doc"].take(pa.array(clip)), "place": pa.array(place)})


def _shared(parts: Rows) -> pa.Table:
    """The rows whose key two clips have; the key is called `shared`."""
    frame = pl.DataFrame(_together(parts)).filter(pl.col("key").is_duplicated())
    shared: pa.Table = frame.rename({"key": "shared"}).to_arrow()
    return shared


def _remember_keys(rows: pa.Table | None, docs: pa.Table) -> pa.Table:
    """The keys of the clips that stay, by their numbers."""
    assert rows is not None
    return _numbered(rows, docs)


def _numbered(rows: pa.Table, docs: pa.Table) -> pa.Table:
    """The rows of the documents that stay, `doc` being their numbers from now on."""
    stays = docs.filter(pc.equal(docs["id"].cast(pa.string()), docs["keeper"]))
    at = pc.index_in(rows["doc"], value_set=stays["doc"].combine_chunks())
    kept = pc.is_valid(at)
    numbers = pa.array(published_numbers(stays["id"])).take(at.filter(kept))
    rows = rows.filter(kept)
    return rows.set_column(rows.schema.get_field_index("doc"), "doc", numbers)


def _sharing(docs: pa.Table, shared: pa.Table) -> pa.Table:
    """The shared keys of the unit's clips, with what ranks these."""
    ranks = pl.DataFrame(candidates(docs))
    rows: pa.Table = pl.DataFrame(shared).rename({"shared": "key"}).join(ranks, on="doc").to_arrow()
    return rows


def _known(shared: pa.Table) -> pa.Table:
    """Those of published clips."""
    rows: pa.Table = pl.DataFrame(shared).filter(PUBLISHED_DOC).rename({"shared": "key"}).to_arrow()
    return rows


def _meet(parts: Rows) -> pa.Table:
    """Who is compared with whom because of a key: `right` (a new clip) with `left` (number of a better one), and the
    `lag` between their places. All pairs of a small group; of a larger one each with the best few, so that pairs do not
    grow with the square of a word that is in everything."""
    rows = pa.concat_tables(list(parts.values()), promote_options="default")
    frame = pl.DataFrame(rows).with_columns(known=PUBLISHED_DOC)
    frame = frame.sort("key", *BEST_FIRST, descending=[False, *BEST_FIRST.values()])
    left, right = pairs_of(frame["key"].rle().struct.field("len").to_numpy().astype("int64"))
    better, other = frame[left], frame[right].select(place_right="place", right="doc", new=~pl.col("known"))
    number = pl.when("known").then("doc").otherwise(pl.Series(published_numbers(better.to_arrow()["id"])))
    lag = pl.col("place_right") - pl.col("place")
    met: pa.Table = (
        better.with_columns(left=number).hstack(other).filter("new").select("left", "right", lag=lag).to_arrow()
    )
    return met


def _candidates(parts: Rows) -> pa.Table:
    """The pairs that meet often enough at one lag, `doc` being the right one."""
    found: pa.Table = candidates_of(pl.DataFrame(parts["hits"])).rename({"right": "doc"}).to_arrow()
    return found


def _clips(docs: pa.Table, asked: pa.Table | None = None) -> pa.Table:
    """A row for each clip's fingerprint under its number, where others find it, and one for each clip it is compared
    with, under the number of that one, with the `lag`."""
    docs = docs.filter(pc.is_valid(docs[FINGERPRINT]))
    rows = docs.select(["doc", FINGERPRINT])
    own = rows.append_column("key", pa.array(spread(published_numbers(docs["id"]))))
    own = own.append_column("lag", pa.nulls(len(own), pa.int32()))
    if asked is None:
        return own
    at = pc.index_in(asked["doc"], value_set=docs["doc"].combine_chunks())
    sent = rows.take(at).append_column("key", pa.array(spread(asked["left"].to_numpy())))
    return pa.concat_tables([own, sent.append_column("lag", asked["lag"])])


def _remember_clips(rows: pa.Table | None, docs: pa.Table) -> pa.Table:
    """The fingerprints of the clips that stay, by their numbers."""
    assert rows is not None
    own = rows.filter(pc.is_null(rows["lag"]))
    return _numbered(own.drop_columns(["lag"]), docs)
