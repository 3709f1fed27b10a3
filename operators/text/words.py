"""What the words of one document are: their kinds and lengths, stop words, and words that are symbols."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.document import utf8
from operators.text.lines import NEMO, ends_in_ellipsis
from operators.text.segment import ONE, SOLID, frozen, hash_bytes
from operators.text.unicode_classes import LETTER, UNSPACED


class WordCounts(NamedTuple):
    """Names of what `count_words` returns."""

    chars: Any  # of all words
    solid_words: Any  # words with a character that is no symbol
    solid_chars: Any
    alpha_words: Any  # words with a letter
    character_words: Any  # words that begin with a letter of a script without spaces
    longest: Any
    symbol_words: Any  # (NEMO) words that are an ellipsis, or of which runs of "#" make up more than half


class StopWords(NamedTuple):
    """Words to be counted, as kernels take them."""

    hashes: NDArray[np.uint64]
    tops: np.uint64  # the bit of the highest 6 bits of each hash: most words are none of these
    longest: int
    fold_case: bool


def stop_words(words: tuple[str, ...], fold_case: bool) -> StopWords:
    """At most 64 words, without regard to ASCII case if `fold_case`."""
    data, bounds = utf8(pa.array([word.lower() if fold_case else word for word in words], pa.large_string()))
    hashes = [hash_bytes(frozen(data), a, b, fold_case) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    tops = sum({1 << (int(h) >> 58) for h in hashes})
    return StopWords(np.array(hashes, np.uint64), np.uint64(tops), int(np.diff(bounds).max(initial=0)), fold_case)


@njit(nogil=True, cache=True)
def count_words(data, begin, words, n, marks):  # type: ignore[no-untyped-def]
    """The fields of WordCounts for the `n` words of the document that begins at `begin`."""
    starts, ends, all_chars, kinds, _ = words
    total = solid = solid_chars = alpha = single = longest = symbols = np.int64(0)
    for place in range(n):
        k = np.uint64(place)
        kind, chars = np.int64(kinds[k]), np.int64(all_chars[k])
        total += chars
        solid += np.int64(kind & SOLID != 0)
        solid_chars += chars if kind & SOLID else 0
        alpha += np.int64(kind & LETTER != 0)
        single += np.int64(kind & UNSPACED != 0)
        longest = max(longest, chars)
    if marks.reading == NEMO:
        for place in range(n):
            k = np.uint64(place)
            symbols += np.int64(_is_symbol(data, begin + starts[k], begin + ends[k], np.int64(all_chars[k]), marks))
    return total, solid, solid_chars, alpha, single, longest, symbols


@njit(nogil=True, cache=True)
def count_stop_words(data, begin, words, n, wanted):  # type: ignore[no-untyped-def]
    """(stop words, how many different ones)."""
    starts, ends, _, _, word_hashes = words
    hashes, tops, longest, fold_case = wanted
    found, seen, different = np.int64(0), np.uint64(0), np.int64(0)
    for place in range(n):
        k = np.uint64(place)
        if ends[k] - starts[k] > longest:
            continue
        h = word_hashes[k]
        if fold_case:
            h = hash_bytes(data, begin + starts[k], begin + ends[k], True)
        if not tops >> (h >> np.uint64(58)) & ONE:
            continue
        for s in range(hashes.shape[0]):
            if hashes[np.uint64(s)] == h:
                found += 1
                seen |= ONE << np.uint64(s)
    while seen:
        seen &= seen - ONE
        different += 1
    return found, different


@njit(nogil=True, cache=True)
def _is_symbol(data, begin, end, chars, marks):  # type: ignore[no-untyped-def]
    runs = 0
    for i in range(begin, end):
        runs += data[np.uint64(i)] == 35 and (i == begin or data[np.uint64(i - 1)] != 35)
    return 2 * runs > chars or ends_in_ellipsis(data, begin, end, marks, True)
