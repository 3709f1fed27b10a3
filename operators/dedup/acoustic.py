"""Clips compared by their fingerprints (caption/fingerprint.py): by some words who may be alike, by all words who is.

Of the words of a clip one in SELECTED is a key, by its own hash, so two copies choose the same ones wherever each was
cut. Clips that share keys with one time between them (a lag) are candidates. Laid over each other at that lag, copies
differ in few bits; other recordings in half of them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.hashes import spread

SELECTED = np.uint64(4)
LEAST_HITS = 2  # keys with the same lag, within a word
SHORT = 0.8  # of a clip shorter than the overlap asked for: so much of it must be laid over the other
LEAST_WORDS = 32  # half a second: less is too little to tell by
DIGITS = 4  # of a similarity, so that what is compared with a bound is what is reported
Words = NDArray[np.uint32]
Offsets = NDArray[np.int64]


def flat(column: pa.ChunkedArray) -> tuple[Words, Offsets]:
    """A column of fingerprints as (words, offsets[n + 1] into them); nulls have none."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    words = pc.list_flatten(column).to_numpy()
    return np.array(words, np.uint32), np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def keys_of(words: Words, offsets: Offsets) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int32]]:
    """(key, clip, place) of the words that are keys: of each clip every key once, where it comes first."""
    clip = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    keys = spread(words.astype(np.uint64))
    at = np.flatnonzero((words > 0) & (keys % SELECTED == 0))
    order = at[np.lexsort((at, keys[at], clip[at]))]
    again = (clip[order][1:] == clip[order][:-1]) & (keys[order][1:] == keys[order][:-1])
    first = order[np.concatenate((np.ones(min(1, len(order)), bool), ~again))]
    return keys[first], clip[first], (first - offsets[clip[first]]).astype(np.int32)


def candidates_of(hits: pl.DataFrame) -> pl.DataFrame:
    """From a row for each key that `left` and `right` share, with the `lag` (place in the right one less that in the
    left), to a row for each pair that shares enough of them with one lag: the one that most keys have."""
    counted = hits.group_by("left", "right", "lag").agg(own=pl.len().cast(pl.Int64)).with_columns(hits="own")
    beside = [counted.with_columns(pl.col("lag") + shift, own=pl.lit(0, pl.Int64)) for shift in (-1, 1)]
    summed = pl.concat([counted, *beside]).group_by("left", "right", "lag").agg(pl.col("own", "hits").sum())
    best_first = summed.filter(pl.col("hits") >= LEAST_HITS).sort(
        "left", "right", "hits", "own", "lag", descending=[False, False, True, True, False]
    )
    return best_first.unique(["left", "right"], keep="first", maintain_order=True).select("left", "right", "lag")


def likeness(
    left: tuple[Words, Offsets],
    right: tuple[Words, Offsets],
    pairs: tuple[NDArray[np.integer[Any]], ...],
    min_overlap: float,
) -> NDArray[np.float64]:
    """How alike each of `pairs` (clip on the left, clip on the right, lag) is: the share of equal bits in what is heard
    in both where they lie over each other, at the lag or one word from it; 0 where that is less than `min_overlap`
    words, or for shorter clips than SHORT of them."""
    pairs = tuple(np.array(column, np.int64) for column in pairs)  # one type of arguments: compiled once
    equal, heard, shorter = _compare(*left, *right, *pairs)
    enough = heard >= np.maximum(np.minimum(min_overlap, SHORT * shorter), LEAST_WORDS)
    return np.where(enough, np.round(equal, DIGITS), 0.0)


@numba.njit(inline="always")
def _differing(a: Any, b: Any) -> Any:
    """Bits."""
    x = a ^ b
    x = x - ((x >> np.uint32(1)) & np.uint32(0x55555555))
    x = (x & np.uint32(0x33333333)) + ((x >> np.uint32(2)) & np.uint32(0x33333333))
    x = (x + (x >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
    return ((x * np.uint32(0x01010101)) & np.uint32(0xFFFFFFFF)) >> np.uint32(24)


@numba.njit(nogil=True, cache=True)
def _compare(a_words: Any, a_offsets: Any, b_words: Any, b_offsets: Any, left: Any, right: Any, lags: Any) -> Any:
    """Of each pair the share of equal bits at the best lag, the words compared, and the words heard in the shorter."""
    equal = np.zeros(left.shape[0])
    heard = np.zeros(left.shape[0], np.int64)
    shorter = np.zeros(left.shape[0], np.int64)
    for k in range(left.shape[0]):
        a = a_words[a_offsets[left[k]] : a_offsets[left[k] + 1]]
        b = b_words[b_offsets[right[k]] : b_offsets[right[k] + 1]]
        shorter[k] = min((a != 0).sum(), (b != 0).sum())
        for lag in range(lags[k] - 1, lags[k] + 2):
            bits = 0
            words = 0
            for at in range(max(0, lag), min(len(b), len(a) + lag)):
                if b[at] != 0 and a[at - lag] != 0:
                    bits += _differing(b[at], a[at - lag])
                    words += 1
            if words > 0 and 1 - bits / (32 * words) > equal[k]:
                equal[k] = 1 - bits / (32 * words)
                heard[k] = words
    return equal, heard, shorter
