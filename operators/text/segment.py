"""Words and lines of UTF-8 text in Arrow buffers, for the kernels of statistics.py, ngrams.py and c4.py: all that
reads bytes one by one is in this one file, which makes it long.

Words are cut in one of two ways, or given from outside (`WordSpans`: another tool's tokenizer):
- `whitespace`: str.split();
- `words`: the regular expression `\\w+(?:[-'’.]\\w+)*|[^\\w\\s]` (words with inner hyphens, apostrophes and points, and
  each punctuation mark by itself): near spaCy's English tokens without spaCy.
`by_character` also makes each letter of a script without spaces (Han, kana, Thai, Lao, Khmer, Myanmar) a word of its
own, so that counts of words mean something there; marks that follow a letter stay with it.

Equality of words, lines and n-grams is equality of a 64-bit polynomial hash of their bytes.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.document import utf8
from operators.text.unicode_classes import BREAK, SPACE, SYMBOL, UNSPACED, WORD, flags

Segmenter = Literal["whitespace", "words"]
WHITESPACE, WORDS, GIVEN = 0, 1, 2
SOLID = 256  # beside the flags of unicode_classes: some character of the word is no symbol
BASE = np.uint64(0x9E3779B97F4A7C15)
ONE = np.uint64(1)


class WordSpans(NamedTuple):
    """Words found elsewhere: those of document d are rows offsets[d]:offsets[d + 1], as byte positions in its text."""

    offsets: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


class Source(NamedTuple):
    """Texts and the way to cut them into words, as kernels take them."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    flags: NDArray[np.uint8]
    segmenter: int
    by_character: bool
    spans: WordSpans


class Words(NamedTuple):
    """The words of one document, as rows 0:n of buffers that kernels use again for the next document."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    chars: NDArray[np.int64]
    kind: NDArray[np.int64]  # flags of all its characters together; UNSPACED of its first only
    hash: NDArray[np.uint64]
    power: NDArray[np.uint64]  # BASE ** bytes: joins hashes


def source(
    texts: pa.ChunkedArray | pa.Array,
    words: Segmenter = "whitespace",
    by_character: bool = False,
    spans: WordSpans | None = None,
) -> Source:
    """A string column (nulls read as empty) cut by `words`, or by `spans` where they are given."""
    data, offsets = utf8(texts)
    segmenter = {"whitespace": WHITESPACE, "words": WORDS}[words] if spans is None else GIVEN
    nothing = np.zeros(1, np.int64)
    given = WordSpans(nothing, nothing, nothing) if spans is None else spans
    return Source(
        frozen(data), frozen(offsets), flags(), segmenter, by_character, WordSpans(*(frozen(a) for a in given))
    )


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Read-only, as buffers of Arrow are: kernels are compiled once for each kind of array they meet."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


@njit(inline="always")
def decode(data, i):  # type: ignore[no-untyped-def]
    """(code point, position after it) of the character at byte i; Arrow strings are valid UTF-8."""
    b = np.int64(data[np.uint64(i)])
    if b < 0x80:
        return b, i + 1
    c = np.int64(data[np.uint64(i + 1)]) & 0x3F
    if b < 0xE0:
        return ((b & 0x1F) << 6) | c, i + 2
    d = np.int64(data[np.uint64(i + 2)]) & 0x3F
    if b < 0xF0:
        return ((b & 0x0F) << 12) | (c << 6) | d, i + 3
    return ((b & 0x07) << 18) | (c << 12) | (d << 6) | (np.int64(data[np.uint64(i + 3)]) & 0x3F), i + 4


@njit(nogil=True, cache=True)
def first_byte(data, begin, i):  # type: ignore[no-untyped-def]
    """Where the character that ends before byte i begins, not before `begin`."""
    i -= 1
    while i > begin and data[np.uint64(i)] & 0xC0 == 0x80:
        i -= 1
    return i


@njit(nogil=True, cache=True)
def strip(data, begin, end, flags):  # type: ignore[no-untyped-def]
    """The span without white space at either end, as str.strip."""
    while begin < end:
        point, after = decode(data, begin)
        if not flags[np.uint64(point)] & SPACE:
            break
        begin = after
    while end > begin:
        at = first_byte(data, begin, end)
        if not flags[np.uint64(decode(data, at)[0])] & SPACE:
            break
        end = at
    return begin, end


@njit(nogil=True, cache=True)
def character_count(data, begin, end):  # type: ignore[no-untyped-def]
    n = np.int64(0)
    for i in range(begin, end):
        n += np.int64((data[np.uint64(i)] & 0xC0) != 0x80)
    return n


@njit(nogil=True, cache=True)
def hash_bytes(data, begin, end):  # type: ignore[no-untyped-def]
    """(hash, characters) of the span."""
    h, chars = np.uint64(0), np.int64(0)
    for i in range(begin, end):
        b = np.uint64(data[np.uint64(i)])
        h = h * BASE + b + ONE
        chars += (b & np.uint64(0xC0)) != np.uint64(0x80)
    return h, chars


@njit(nogil=True, cache=True)
def word_buffers(src):  # type: ignore[no-untyped-def]
    """Buffers that hold the words of any one document: a word has a byte at least. Unused pages cost nothing."""
    most = 1
    for d in range(src.offsets.shape[0] - 1):
        size = src.offsets[d + 1] - src.offsets[d]
        if src.segmenter == GIVEN:
            size = src.spans.offsets[d + 1] - src.spans.offsets[d]
        most = max(most, size)
    return Words(
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.uint64),
        np.empty(most, np.uint64),
    )


# A field of a NamedTuple is reference-counted each time that it is read: loops over bytes, words and n-grams work on
# local names of the arrays (measured: cutting words took 26 ns a byte, and takes 7).


@njit(nogil=True, cache=True)
def cut_words(src, d, words):  # type: ignore[no-untyped-def]
    """Fill `words` with those of document d; returns how many."""
    data, flags, segmenter, by_character = src.data, src.flags, src.segmenter, src.by_character
    starts, ends, all_chars, kinds, hashes, powers = words
    begin, end = src.offsets[d], src.offsets[d + 1]
    given, last, given_start, given_end = np.int64(0), np.int64(0), src.spans.start, src.spans.end
    if segmenter == GIVEN:
        given, last = src.spans.offsets[d], src.spans.offsets[d + 1]
    n = np.uint64(0)
    at = begin
    while True:
        limit, until_space = end, False
        if segmenter == GIVEN:
            if given == last:
                return np.int64(n)
            at, limit = begin + given_start[given], begin + given_end[given]
            given += 1
        else:
            while at < end:
                point, after = decode(data, at)
                if not flags[np.uint64(point)] & SPACE:
                    break
                at = after
            if at >= end:
                return np.int64(n)
            if segmenter == WORDS:
                limit = _end_of_token(data, flags, at, end, by_character)
            else:
                until_space = True
        starts[n] = at
        at, all_chars[n], kinds[n], hashes[n], powers[n] = _take_word(data, flags, at, limit, until_space, by_character)
        ends[n] = at
        n += ONE


@njit(nogil=True, cache=True)
def count_words(src, d, words):  # type: ignore[no-untyped-def]
    """How many words cut_words would find; where white space parts them, without measuring and hashing them."""
    if src.segmenter != WHITESPACE:
        return cut_words(src, d, words)
    data, flags = src.data, src.flags
    parts = SPACE | UNSPACED if src.by_character else SPACE
    at, end = src.offsets[d], src.offsets[d + 1]
    n, inside, after_letter = np.int64(0), False, False
    while at < end:
        b = np.uint64(data[np.uint64(at)])
        if b < 128:
            flag = flags[b]
            at += 1
        else:
            point, at = decode(data, at)
            flag = flags[np.uint64(point)]
        if flag & parts:
            inside = flag & UNSPACED != 0
            after_letter = inside
            n += inside
        elif not inside or (after_letter and flag & WORD):
            n += 1
            inside, after_letter = True, False
    return n


@njit(inline="always")
def _take_word(data, flags, begin, end, until_space, by_character):  # type: ignore[no-untyped-def]
    """(end, characters, kind, hash, power) of the word begin:end or, `until_space`, of what stands before white space
    in it."""
    chars, kind, solid, h, power = np.int64(0), np.int64(0), np.int64(0), np.uint64(0), ONE
    parts_before = UNSPACED if by_character else 0  # flags of characters that begin a new word
    at = begin
    while at < end:
        b = np.uint64(data[np.uint64(at)])
        after = at + 1
        if b < 128:
            flag = np.int64(flags[b])
        else:
            point, after = decode(data, at)
            flag = np.int64(flags[np.uint64(point)])
        if at == begin:
            if flag & parts_before:
                parts_before = UNSPACED | WORD
        else:
            if until_space and flag & (SPACE | parts_before):
                break
            flag &= ~UNSPACED
        kind |= flag
        solid |= ~flag
        chars += 1
        h = h * BASE + b + ONE
        power *= BASE
        for i in range(at + 1, after):
            h = h * BASE + np.uint64(data[np.uint64(i)]) + ONE
            power *= BASE
        at = after
    return at, chars, kind | (SOLID if solid & SYMBOL else 0), h, power


@njit(inline="always")
def _end_of_token(data, flags, begin, end, by_character):  # type: ignore[no-untyped-def]
    """The end of the match of `\\w+(?:[-'’.]\\w+)*|[^\\w\\s]`."""
    point, at = decode(data, begin)
    flag = flags[np.uint64(point)]
    if flag & WORD:
        parts_before = 0
        if by_character:
            parts_before = UNSPACED | WORD if flag & UNSPACED else UNSPACED
        while at < end:
            point, after = decode(data, at)
            flag = flags[np.uint64(point)]
            if not flag & WORD and after < end and (point in (0x2D, 0x27, 0x2E, 0x2019)):
                point, after = decode(data, after)
                flag = flags[np.uint64(point)]
            if not flag & WORD or flag & parts_before:
                break
            at = after
    return at


@njit(nogil=True, cache=True)
def line_end(data, at, end):  # type: ignore[no-untyped-def]
    """Position of the next line feed, or `end`."""
    while at < end and data[np.uint64(at)] != 10:
        at += 1
    return at


@njit(nogil=True, cache=True)
def any_line_end(data, at, end, flags):  # type: ignore[no-untyped-def]
    """(end of the line, start of the next) by all the marks that str.splitlines knows."""
    while at < end:
        point, after = decode(data, at)
        if flags[np.uint64(point)] & BREAK:
            if point == 13 and after < end and data[np.uint64(after)] == 10:
                return at, after + 1
            return at, after
        at = after
    return end, end
