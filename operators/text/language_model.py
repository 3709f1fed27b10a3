"""Counting n-grams for a language model with modified Kneser-Ney smoothing (Chen & Goodman 1998, TR-10-98, section
3.3; adjusted counts and pruning as Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model Estimation").

Pure functions over tables, of which workflows/train_perplexity.py makes passes over many workers:

    windows   of each token the n-gram of the highest order that ends there, as two numbers
    adjusted  all windows with the same last two words: how often each n-gram of every order occurs, its adjusted count
              (the different words before it; for the highest order and at the start of a line, its occurrences),
              which n-grams stay, and the sums of adjusted counts for each context
    totals    the sums for each context that n-grams which stay have

What follows is in language_model_estimate.py.

N-grams are packed 21 bits a word, last word first, so that sorting brings those of a suffix together. Adjusted counts,
sums and order depend on the windows alone, so the model is the same however the texts were cut and spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray
from pydantic import Field, field_validator

from operators.document import parameters
from operators.text.language_model_tokens import END, Hashes, Tokens

BITS = 21
WORD = (1 << BITS) - 1
KEY = (1 << 3 * BITS) - 1
UNKNOWN, START, STOP, FIRST = 0, 1, 2, 3  # numbers of <unk>, <s>, </s> and the most frequent word
SPECIAL = ("<unk>", "<s>", "</s>")
CONTEXTS = {"order": pl.UInt8, "a": pl.UInt64, "b": pl.UInt64, "total": pl.Int64, "kept": pl.Boolean}
ROW_BYTES = 20  # of a window in an exchange


@parameters
class LanguageModel:
    """What is trained. `prune[k - 1]` is the number of occurrences up to which n-grams of order k are left out, the
    last one for all higher orders; `vocabulary` keeps the most frequent words, and the others are unknown."""

    order: Annotated[int, Field(ge=2, le=6)] = 5
    prune: tuple[Annotated[int, Field(ge=0)], ...] = (0, 0, 1)
    vocabulary: Annotated[int, Field(ge=1, le=WORD - FIRST)] = 1_000_000
    tokens: Tokens = "words"

    @field_validator("prune")
    @classmethod
    def _rising(cls, prune: tuple[int, ...]) -> tuple[int, ...]:
        if not prune or prune[0] != 0 or list(prune) != sorted(prune):
            raise ValueError(
                f"prune: {' '.join(map(str, prune))} does not start with 0 and rise: words are never pruned"
            )
        return prune

    def least(self, order: int) -> int:
        """Occurrences that an n-gram needs to stay."""
        return self.prune[min(order, len(self.prune)) - 1] + 1


class Vocabulary(NamedTuple):
    """Words by number, and a hash table from their hashes to the numbers (a slot is hash, number)."""

    words: pa.LargeStringArray
    slots: NDArray[np.uint64]


def top_words(tables: Iterable[pa.Table], most: int) -> pa.Table:
    """Of rows (`key`, `word`, `count`) from whichever texts the `most` frequent words; ties by spelling."""
    rows = pl.concat([pl.DataFrame(table) for table in tables])
    rows = rows.filter(pl.col("word") != "").group_by("key").agg(pl.min("word"), pl.sum("count"))
    table: pa.Table = rows.sort("count", "word", descending=[True, False]).head(most).to_arrow()
    return table


def vocabulary(top: pa.Table) -> Vocabulary:
    """The words in that order, after the three special ones."""
    words = pa.concat_arrays(
        [pa.array(SPECIAL, pa.large_string()), *(chunk.cast(pa.large_string()) for chunk in top["word"].chunks)]
    )
    keys = top["key"].to_numpy()
    return Vocabulary(words, hash_table(keys, np.arange(FIRST, FIRST + len(keys), dtype=np.uint64)))


def hash_table(keys: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """An open hash table for `find`; keys are hashes, none is 0."""
    slots = np.zeros((1 << max(4, int(len(keys) * 3 // 2).bit_length()), 2), np.uint64)
    _insert(slots, keys, values)
    return slots


@njit(nogil=True, cache=True)
def _insert(slots: Any, keys: Any, values: Any) -> None:
    mask = np.uint64(slots.shape[0] - 1)
    for k in range(keys.shape[0]):
        at = keys[k] & mask
        while slots[at, 0] != np.uint64(0):
            at = (at + np.uint64(1)) & mask
        slots[at, 0], slots[at, 1] = keys[k], values[k]


@njit(inline="always")
def find(slots: Any, key: Any) -> Any:
    """The place of `key`, or of the empty slot where it would be."""
    mask = np.uint64(slots.shape[0] - 1)
    at = key & mask
    while slots[at, 0] != key and slots[at, 0] != np.uint64(0):
        at = (at + np.uint64(1)) & mask
    return at


@njit(nogil=True, cache=True)
def _windows(found: Any, slots: Any, order: Any, a: Any, b: Any) -> None:
    bits, word = np.uint64(BITS), np.uint64(WORD)
    start = np.uint64(START)
    whole = start | start << bits | start << (bits + bits)
    mask_a = mask_b = np.uint64(0)
    for k in range(3):
        if k < order:
            mask_a |= word << np.uint64(BITS * (2 - k))
        if k + 3 < order:
            mask_b |= word << np.uint64(BITS * (2 - k))
    high, low = whole, whole
    for k in range(found.shape[0]):
        h = found[k]
        number = np.uint64(STOP)
        if h != END:
            at = find(slots, h)
            number = slots[at, 1] if slots[at, 0] == h else np.uint64(UNKNOWN)
        low = ((high & word) << np.uint64(2 * BITS)) | (low >> bits)
        high = (number << np.uint64(2 * BITS)) | (high >> bits)
        a[k], b[k] = high & mask_a, low & mask_b
        if h == END:
            high, low = whole, whole


def windows(found: Hashes, words: Vocabulary, order: int) -> pl.DataFrame:
    """The n-gram of `order` that ends at each token, packed in `a` and `b`; <s> fills what is before a line."""
    a, b = (np.empty(len(found.hash), np.uint64) for _ in range(2))
    _windows(found.hash, words.slots, order, a, b)
    return pl.DataFrame({"a": a, "b": b})


def summed(rows: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Each n-gram once, with `count`: as many as there are, or the sum of counts."""
    together = pl.concat(rows)
    count = pl.col("count").cast(pl.UInt64).sum() if "count" in together.columns else pl.len().alias("count")
    return together.group_by("a", "b").agg(count)


class Adjusted(NamedTuple):
    """What the windows of a partition come to."""

    kept: list[pl.DataFrame]  # by order - 1: a, b, `raw` occurrences, `adjusted` count; of order 1 parts of sums
    contexts: pl.DataFrame  # order, a, b of contexts, `total` of adjusted counts, `kept`: an n-gram that has it stays
    histogram: NDArray[np.int64]  # [order - 2, n]: n-grams of the order whose adjusted count is n, for n below 5
    lines: int


def adjusted(rows: pl.DataFrame, model: LanguageModel) -> Adjusted:
    """Count n-grams of all orders. Needs all windows (a, b, count) with the same last two words, in any order."""
    rows = rows.sort("a", "b")
    a, b, count = (rows[name].to_numpy() for name in ("a", "b", "count"))
    count = count.astype(np.int64)
    shared = _shared(a, b)  # words that a row has in common with the one before, from the last word on
    kept, contexts = [], []
    histogram = np.zeros((model.order - 1, 5), np.int64)
    for k in range(1, model.order + 1):
        first = np.flatnonzero(shared < k)  # row of each different one
        raw = _sums(count, first)
        longer = _sums((shared < k + 1).astype(np.int64), first)
        real = word_at(a[first], b[first], k - 2) != START if k > 1 else np.ones(len(first), bool)  # one <s> at most
        first, raw, longer = first[real], raw[real], longer[real]
        high, low = a[first] & _mask(k, 0), b[first] & _mask(k, 3)
        at_start = word_at(high, low, k - 1) == START
        own = raw if k == model.order else np.where(at_start, raw, longer)
        known = np.all([word_at(high, low, place) != UNKNOWN for place in range(k)], axis=0)
        if k > 1:
            histogram[k - 2] = np.bincount(own[known & (own < 5)], minlength=5)
        stays = (known & (raw >= model.least(k))) | (k == 1)
        kept.append(pl.DataFrame({"a": high, "b": low, "raw": raw, "adjusted": own}).filter(stays))
        if 1 < k < model.order:  # elsewhere, and at the start of a line, the sum is how often the context occurs
            up, down = context_of(high[~at_start], low[~at_start])
            sums = pl.DataFrame({"a": up, "b": down, "total": own[~at_start], "kept": stays[~at_start]})
            sums = sums.group_by("a", "b").agg(pl.sum("total"), pl.any("kept"))
            contexts.append(sums.select(pl.lit(k - 1, pl.UInt8).alias("order"), "a", "b", "total", "kept"))
    lines = int(count[word_at(a, b, 0) == STOP].sum())
    return Adjusted(kept, pl.concat([pl.DataFrame(schema=CONTEXTS), *contexts]), histogram, lines)


def _sums(values: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of each run of values, by where runs begin."""
    return np.add.reduceat(values, first) if len(first) else np.zeros(0, np.int64)


def word_at(a: NDArray[np.uint64], b: NDArray[np.uint64], place: int) -> NDArray[np.uint64]:
    """The word at a place, counted from the last one of the n-gram."""
    half, shift = (a, 2 - place) if place < 3 else (b, 5 - place)
    return (half >> np.uint64(BITS * shift)) & np.uint64(WORD)


def context_of(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The n-grams without their last words."""
    one, two, key = np.uint64(BITS), np.uint64(2 * BITS), np.uint64(KEY)
    return (a << one) & key | b >> two, (b << one) & key


def suffix_of(
    a: NDArray[np.uint64], b: NDArray[np.uint64], order: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """N-grams of `order` without their first words."""
    return a & _mask(order - 1, 0), b & _mask(order - 1, 3)


def _mask(words: int, before: int) -> np.uint64:
    """Of three words that stand after `before` others, those that an n-gram of so many words has."""
    return np.uint64(sum(WORD << BITS * (2 - k) for k in range(3) if before + k < words))


def _shared(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many words from the last one on each row has in common with the row before; the first row none."""
    if not len(a):
        return np.zeros(0, np.int64)
    high, low = a[1:] ^ a[:-1], b[1:] ^ b[:-1]

    def same(difference: NDArray[np.uint64]) -> NDArray[np.int64]:
        return np.select([difference >> np.uint64(BITS * k) != 0 for k in (2, 1, 0)], [0, 1, 2], 3)

    return np.concatenate([[0], np.where(high != 0, same(high), 3 + same(low))]).astype(np.int64)


def totals(rows: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Of `Adjusted.contexts` from everywhere those that n-grams which stay have, each once."""
    sums = pl.concat(rows).group_by("order", "a", "b").agg(pl.sum("total"), pl.any("kept"))
    return sums.filter("kept").drop("kept").sort("order", "a", "b")
