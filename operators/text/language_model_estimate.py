"""Estimating a language model from its counts (language_model.py), and writing it as an ARPA file.

Interpolated modified Kneser-Ney, the uniform distribution below words (Chen & Goodman 1998, TR-10-98): for an n-gram
w of context h and adjusted count c, with h' the context without its first word,

    p(w | h) = (c - D(c)) / sum_x c(h x) + backoff(h) p(w | h')

where backoff(h) is what the discounts D, and n-grams that were pruned, left of the sum. What follows h in the file and
what does not thus add up to 1.
"""

from __future__ import annotations

import gzip
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.document import utf8
from operators.text.language_model import (
    BITS,
    START,
    UNKNOWN,
    WORD,
    LanguageModel,
    Vocabulary,
    adjusted,
    context_of,
    suffix_of,
    summed,
    top_words,
    totals,
    vocabulary,
    windows,
    word_at,
)
from operators.text.language_model_tokens import FORM, counted, hashes

FALLBACK = (0.5, 1.0, 1.5)  # discounts where counts of counts give none, as lmplz --discount_fallback
DIGITS = 6  # of log10 p after the point
NONE = 1  # in place of a logarithm
ROWS_A_WRITE = 1 << 20
GZIP_LEVEL = 6


class Counts(NamedTuple):
    """What there is of all texts. Tables may come in any order."""

    kept: Callable[[int], pl.DataFrame]  # n-grams of an order (language_model.Adjusted), words as parts of sums
    contexts: Callable[[int], pl.DataFrame]  # contexts of an order with their totals (language_model.totals)
    histogram: NDArray[np.int64]  # counts of counts of order 2 and up
    sizes: tuple[int, ...]  # n-grams that stay, by order - 1
    lines: int
    tokens: int  # ends of lines too


def discounts(histogram: NDArray[np.int64]) -> tuple[float, float, float] | None:
    """D1, D2 and D3+ of one order from its counts of counts (Chen & Goodman, equation 26); None where these are too
    few or too odd."""
    t1, t2, t3, t4 = (int(n) for n in histogram[1:5])
    if min(t1, t2, t3, t4) == 0:
        return None
    y = t1 / (t1 + 2 * t2)
    found = (1 - 2 * y * t2 / t1, 2 - 3 * y * t3 / t2, 3 - 4 * y * t4 / t3)
    return found if all(0 < d <= k for k, d in enumerate(found, 1)) else None


class Order(NamedTuple):
    """The n-grams of one order, sorted by their packed words; `backoff` is 0 where nothing follows."""

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    p: NDArray[np.float64]
    backoff: NDArray[np.float64]


def estimate(counts: Counts, words: int, model: LanguageModel) -> Iterator[Order]:
    """The orders' probabilities and backoffs, from 1 up, of a vocabulary of `words`. Two orders are in memory at a
    time."""
    below = _unigrams(counts.kept(1), counts.lines, words)
    for k in range(2, model.order + 1):
        rows = counts.kept(k).sort("a", "b")
        a, b, own = (rows[name].to_numpy() for name in ("a", "b", "adjusted"))
        taken = _discount(own, counts.histogram[k - 2])
        context = _places(*context_of(a, b), below.row)
        total = below.raw if k == model.order else _totals(below, counts.contexts(k - 1), k - 1)
        places = len(total)
        left = np.bincount(context, taken, places) + (total - np.bincount(context, own, places))
        followed = np.bincount(context, minlength=places) > 0
        gamma = np.divide(left, total, out=np.zeros(places), where=followed)
        yield below.row._replace(backoff=gamma)
        suffix = _places(*suffix_of(a, b, k), below.row)
        p = (own - taken) / total[context] + gamma[context] * below.row.p[suffix]
        below = _Below(Order(a, b, p, np.zeros(len(p))), rows["raw"].to_numpy())
    yield below.row


class _Below(NamedTuple):
    row: Order
    raw: NDArray[np.int64]


def _unigrams(rows: pl.DataFrame, lines: int, words: int) -> _Below:
    """All words, by number. Unknown ones have what is left, spread evenly, as one of them."""
    number = (rows["a"].to_numpy() >> np.uint64(2 * BITS)).astype(np.int64)
    own, raw = (np.bincount(number, rows[name].to_numpy(), words).astype(np.int64) for name in ("adjusted", "raw"))
    raw[START] = lines
    total, unknown = own.sum(), own[UNKNOWN]
    own[UNKNOWN] = 0
    taken = _discount(own, np.bincount(own[own < 5], minlength=5))
    left = (taken.sum() + unknown) / total
    p = (own - taken) / total + left / (words - 1)
    p[START] = 0.0
    a = np.arange(words, dtype=np.uint64) << np.uint64(2 * BITS)
    return _Below(Order(a, np.zeros(words, np.uint64), p, np.zeros(words)), raw)


def _discount(own: NDArray[np.int64], histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    d = (0.0, *(discounts(histogram) or FALLBACK))
    return np.asarray(d)[np.minimum(own, 3)]


def _places(a: NDArray[np.uint64], b: NDArray[np.uint64], rows: Order) -> NDArray[np.int64]:
    """Where n-grams stand among `rows`, which have all of them."""
    found = np.empty(len(a), np.int64)
    _search(a, b, rows.a, rows.b, found)
    return found


@njit(nogil=True, cache=True)
def _search(a: Any, b: Any, all_a: Any, all_b: Any, found: Any) -> None:
    for k in range(a.shape[0]):
        low, high = np.uint64(0), np.uint64(all_a.shape[0])
        while low < high:
            middle = (low + high) >> np.uint64(1)
            if all_a[middle] < a[k] or (all_a[middle] == a[k] and all_b[middle] < b[k]):
                low = middle + np.uint64(1)
            else:
                high = middle
        found[k] = low


def _totals(below: _Below, sums: pl.DataFrame, order: int) -> NDArray[np.int64]:
    """The sum of the adjusted counts of all that follows each n-gram of an order below the highest but one: at the
    start of a line its occurrences."""
    total: NDArray[np.int64] = np.where(word_at(below.row.a, below.row.b, order - 1) == START, below.raw, 0)
    total[_places(sums["a"].to_numpy(), sums["b"].to_numpy(), below.row)] = sums["total"].to_numpy()
    return total


def save(path: str | Path, counts: Counts, words: Vocabulary, model: LanguageModel) -> Path:
    """Estimate the model and write it, gzipped where the name ends in .gz, whole or not at all.

    Probabilities and backoffs are log10; the first line is a comment in JSON that says what was trained. Equal counts
    give equal bytes."""
    path = Path(path)
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(made, "wb") as file:
            if path.name.endswith(".gz"):
                with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
                    _write(packed, counts, words.words, model)
            else:
                _write(file, counts, words.words, model)
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)
    return path


def _write(out: BinaryIO | gzip.GzipFile, counts: Counts, words: pa.LargeStringArray, model: LanguageModel) -> None:
    about = {
        "corpusmill": "perplexity",
        "form": FORM,
        "tokens": model.tokens,
        "order": model.order,
        "prune": list(model.prune),
        "trained_on": {"lines": counts.lines, "tokens": counts.tokens},
    }
    out.write(b"# " + orjson.dumps(about, option=orjson.OPT_SORT_KEYS) + b"\n\n\\data\\\n")
    sizes = (len(words), *counts.sizes[1:])
    out.write("".join(f"ngram {k}={size}\n" for k, size in enumerate(sizes, 1)).encode())
    orders = estimate(counts, len(words), model)
    data, bounds = utf8(words)
    for k, order in enumerate(orders, 1):
        out.write(f"\n\\{k}-grams:\n".encode())
        p, backoff = _micros(order.p), _micros(order.backoff)
        if k == 1:
            p[START] = -99 * 10**DIGITS
        for at in range(0, len(order.a), ROWS_A_WRITE):
            part = slice(at, at + ROWS_A_WRITE)
            a, b = order.a[part], order.b[part]
            lengths = np.full(len(a), 64, np.int64)
            for place in range(k):
                number = word_at(a, b, place).astype(np.int64)
                lengths += bounds[number + 1] - bounds[number] + 1
            buffer = np.empty(int(lengths.sum()), np.uint8)
            size = _lines(a, b, p[part], backoff[part], np.uint64(k), data, bounds, buffer)
            out.write(buffer[:size].data)
    out.write(b"\n\\end\\\n")


def _micros(p: NDArray[np.float64]) -> NDArray[np.int64]:
    """log10 in millionths, none of them positive; NONE where there is nothing."""
    log = np.zeros(len(p))
    np.log10(p, out=log, where=p > 0)
    micros: NDArray[np.int64] = np.minimum(np.rint(log * 10**DIGITS), 0).astype(np.int64)
    micros[p <= 0] = NONE
    return micros


@njit(inline="always")
def _number(value: Any, out: Any, n: Any) -> Any:
    """Write millionths, none of them positive, as a decimal."""
    if value == 0:
        out[n] = np.uint8(48)
        return n + 1
    out[n] = np.uint8(45)
    whole, rest = -value // 1_000_000, -value % 1_000_000
    if whole >= 10:
        out[n + 1] = np.uint8(48 + whole // 10)
        n += 1
    out[n + 1], out[n + 2] = np.uint8(48 + whole % 10), np.uint8(46)
    for k in range(DIGITS):
        out[n + 2 + DIGITS - k] = np.uint8(48 + rest % 10)
        rest //= 10
    return n + 3 + DIGITS


@njit(nogil=True, cache=True)
def _lines(a: Any, b: Any, p: Any, backoff: Any, order: Any, data: Any, bounds: Any, out: Any) -> Any:
    n = 0
    for row in range(a.shape[0]):
        n = _number(p[row], out, n)
        for k in range(order):
            out[n] = np.uint8(32 if k else 9)
            n += 1
            place = order - np.uint64(1) - np.uint64(k)
            half, shift = (a[row], np.uint64(2) - place) if place < np.uint64(3) else (b[row], np.uint64(5) - place)
            number = (half >> (shift * np.uint64(BITS))) & np.uint64(WORD)
            for i in range(bounds[number], bounds[number + np.uint64(1)]):
                out[n] = data[i]
                n += 1
        if backoff[row] != NONE:
            out[n] = np.uint8(9)
            n = _number(backoff[row], out, n + 1)
        out[n] = np.uint8(10)
        n += 1
    return n


def train(texts: pa.ChunkedArray | pa.Array, path: str | Path, model: LanguageModel | None = None) -> Path:
    """Train on texts in memory, in this process, and write the model to `path`. Raises ValueError where there is not
    one token."""
    model = model or LanguageModel()
    top = top_words([counted(texts, model.tokens)], model.vocabulary)
    if not top.num_rows:
        raise ValueError("the texts hold no token to train on")
    words = vocabulary(top)
    found = hashes(texts, model.tokens)
    result = adjusted(summed([windows(found, words, model.order)]), model)
    sums = totals([result.contexts])
    counts = Counts(
        lambda k: result.kept[k - 1],
        lambda k: sums.filter(pl.col("order") == k),
        result.histogram,
        tuple(len(table) for table in result.kept),
        result.lines,
        len(found.hash),
    )
    return save(path, counts, words, model)
