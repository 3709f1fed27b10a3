"""Words and lines of UTF-8 text in Arrow buffers, for the kernels of statistics.py, c4.py and their neighbours: what
cuts and hashes bytes is in this one file, which makes it long. ASCII is read eight bytes at a time.

Words are cut in one of two ways, or given from outside (`WordSpans`: another tool's tokenizer):
- `whitespace`: str.split();
- `words`: the regular expression `\\w+(?:[-'’.]\\w+)*|[^\\w\\s]` (words with inner hyphens, apostrophes and points, and
  each punctuation mark by itself): near spaCy's English tokens without spaCy.
`by_character` also makes each letter of a script without spaces (Han, kana, Thai, Lao, Khmer, Myanmar) a word of its
own, so that counts of words mean something there; marks that follow a letter stay with it.

Equality of words and lines is equality of a 64-bit hash of their bytes.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.document import utf8
from operators.text.unicode_classes import BREAK, LETTER, SPACE, SYMBOL, UNSPACED, WORD, flags

Segmenter = Literal["whitespace", "words"]
WHITESPACE, WORDS, GIVEN = 0, 1, 2
SOLID = 256  # beside the flags of unicode_classes: some character of the word is no symbol
ONE = np.uint64(1)
EACH = np.uint64(0x0101010101010101)  # times a byte: 8 of it
HIGH = np.uint64(0x8080808080808080)
MIX = np.uint64(0x9E3779B97F4A7C15)


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
    """The words of one document, as rows 0:n of buffers that kernels use again for the next document. Positions count
    from where the document begins: a document has less than 4 GiB."""

    start: NDArray[np.uint32]
    end: NDArray[np.uint32]
    chars: NDArray[np.uint32]
    kind: NDArray[np.uint16]  # LETTER and SOLID of all its characters together; UNSPACED of its first only
    hash: NDArray[np.uint64]


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
def eight(data, i):  # type: ignore[no-untyped-def]
    """The 8 bytes from i on, the first one lowest: LLVM makes one load of it. i + 8 must not be behind the data."""
    x = np.uint64(data[np.uint64(i)]) | np.uint64(data[np.uint64(i + 1)]) << np.uint64(8)
    x |= np.uint64(data[np.uint64(i + 2)]) << np.uint64(16) | np.uint64(data[np.uint64(i + 3)]) << np.uint64(24)
    x |= np.uint64(data[np.uint64(i + 4)]) << np.uint64(32) | np.uint64(data[np.uint64(i + 5)]) << np.uint64(40)
    return x | np.uint64(data[np.uint64(i + 6)]) << np.uint64(48) | np.uint64(data[np.uint64(i + 7)]) << np.uint64(56)


@njit(inline="always")
def up_to(data, i, size):  # type: ignore[no-untyped-def]
    """The bytes i:i + size, fewer than 8, as `eight` has them."""
    if i + 8 <= data.shape[0]:
        return eight(data, i) & ((ONE << np.uint64(8 * size)) - ONE)
    x = np.uint64(0)
    for k in range(size):
        x |= np.uint64(data[np.uint64(i + k)]) << np.uint64(8 * k)
    return x


@njit(inline="always")
def before_first(marks):  # type: ignore[no-untyped-def]
    """(a mask of the bytes before the first one whose high bit is set, their number); all 8 where none is."""
    mask = ((marks & (~marks + ONE)) >> np.uint64(7)) - ONE
    return mask, np.int64(((mask & EACH) * EACH) >> np.uint64(56))


@njit(inline="always")
def within(x, first, last):  # type: ignore[no-untyped-def]
    """The high bit of each byte of x between two ASCII characters; x must be ASCII."""
    return (x + (np.uint64(128) - np.uint64(first)) * EACH) & ~(x + (np.uint64(127) - np.uint64(last)) * EACH) & HIGH


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


@njit(inline="always")
def folded(x):  # type: ignore[no-untyped-def]
    """8 bytes with ASCII capitals as small letters."""
    return x + ((within(x & ~HIGH, 65, 90) & ~x) >> np.uint64(2))


@njit(inline="always")
def stirred(h, x):  # type: ignore[no-untyped-def]
    h = (h ^ x) * MIX
    return h ^ (h >> np.uint64(32))


@njit(inline="always", cache=True)
def hash_bytes(data, begin, end, fold_case):  # type: ignore[no-untyped-def]
    """A 64-bit hash of the span, `fold_case`: with ASCII capitals as small letters."""
    h, at = np.uint64(0), begin
    while at + 8 <= end:
        x = eight(data, at)
        h = stirred(h, folded(x) if fold_case else x)
        at += 8
    if at < end:
        x = up_to(data, at, end - at)
        h = stirred(h, folded(x) if fold_case else x)
    return h ^ np.uint64(end - begin)


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
        np.empty(most, np.uint32),
        np.empty(most, np.uint32),
        np.empty(most, np.uint32),
        np.empty(most, np.uint16),
        np.empty(most, np.uint64),
    )


# A field of a NamedTuple is reference-counted each time that it is read: loops over bytes, words and n-grams work on
# local names of the arrays (measured: cutting words took 26 ns a byte, and takes 1 to 2).


@njit(nogil=True, cache=True)
def cut_words(src, d, words):  # type: ignore[no-untyped-def]
    """Fill `words` with those of document d; returns how many."""
    data, flags, segmenter, by_character = src.data, src.flags, src.segmenter, src.by_character
    starts, ends, all_chars, kinds, hashes = words
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
            at = _after_space(data, flags, at, end)
            if at >= end:
                return np.int64(n)
            if segmenter == WORDS:
                limit = _end_of_token(data, flags, at, end, by_character)
            else:
                until_space = True
        starts[n] = at - begin
        at, all_chars[n], kinds[n], hashes[n] = _take_word(data, flags, at, limit, until_space, by_character)
        ends[n] = at - begin
        n += ONE


@njit(nogil=True, cache=True)
def number_of_words(src, d, words):  # type: ignore[no-untyped-def]
    """How many words cut_words would find; where white space parts them, without keeping them."""
    if src.segmenter != WHITESPACE:
        return cut_words(src, d, words)
    data, flags = src.data, src.flags
    parts = SPACE | UNSPACED if src.by_character else SPACE
    at, end = src.offsets[d], src.offsets[d + 1]
    n, inside, after_letter = np.int64(0), False, False
    while at < end:
        if at + 8 <= end and not after_letter:
            x = eight(data, at)
            if not (x & HIGH or within(x, 0, 8) | within(x, 14, 27)):  # what is below "!" then is white space
                solid = (x + np.uint64(0x5F) * EACH) & HIGH
                begins = solid & ~(solid << np.uint64(8) | np.uint64(0x80 if inside else 0))
                n += np.int64(((begins >> np.uint64(7)) * EACH) >> np.uint64(56))
                inside = solid >> np.uint64(63) != 0
                at += 8
                continue
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
def _after_space(data, flags, at, end):  # type: ignore[no-untyped-def]
    if at + 1 < end and data[np.uint64(at)] == 32 and 32 < data[np.uint64(at + 1)] < 128:
        return at + 1
    while at < end:
        point, after = decode(data, at)
        if not flags[np.uint64(point)] & SPACE:
            break
        at = after
    return at


@njit(inline="always")
def _take_word(data, flags, begin, end, until_space, by_character):  # type: ignore[no-untyped-def]
    """(end, characters, kind, hash) of the word begin:end or, `until_space`, of what stands before white space in it.

    Eight bytes at a time as far as they are ASCII and above the space, where a symbol is what is no letter or digit;
    then character by character."""
    kind, at, size, h = np.int64(0), begin, 8, np.uint64(0)
    while size == 8 and at < end and at + 8 <= data.shape[0]:
        x = eight(data, at)
        other = ((x - np.uint64(0x21) * EACH) | x) & HIGH  # below "!" or not ASCII; the first one is exact
        if end - at < 8:
            other |= np.uint64(0x80) << np.uint64(8 * (end - at))
        mask, size = before_first(other)
        x &= mask
        kind |= (LETTER | SOLID) if within(x | np.uint64(0x20) * EACH, 97, 122) else 0
        kind |= SOLID if within(x, 48, 57) else 0
        h = stirred(h, x) if size else h
        at += size
    if size < 8 and (at == end or (until_space and data[np.uint64(at)] == 32)):
        return at, at - begin, kind, h ^ np.uint64(at - begin)
    chars = at - begin
    parts_before = UNSPACED if by_character else 0  # flags of characters that begin a new word
    while at < end:
        point, after = decode(data, at)
        flag = np.int64(flags[np.uint64(point)])
        if at == begin:
            if flag & parts_before:
                parts_before = UNSPACED | WORD
        else:
            if until_space and flag & (SPACE | parts_before):
                break
            flag &= ~UNSPACED
        kind |= flag & (LETTER | UNSPACED)
        if not flag & SYMBOL:
            kind |= SOLID
        chars += 1
        at = after
    return at, chars, kind, hash_bytes(data, begin, at, False)


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
    while at + 8 <= end:
        x = eight(data, at) ^ (np.uint64(10) * EACH)
        marks = (x - EACH) & ~x & HIGH
        if marks:
            return at + before_first(marks)[1]
        at += 8
    while at < end and data[np.uint64(at)] != 10:
        at += 1
    return at


@njit(nogil=True, cache=True)
def any_line_end(data, at, end, flags):  # type: ignore[no-untyped-def]
    """(end of the line, start of the next) by all the marks that str.splitlines knows."""
    while at < end:
        if at + 8 <= end:
            x = eight(data, at)
            if not ((x - np.uint64(0x20) * EACH) | x) & HIGH:  # ASCII without controls
                at += 8
                continue
        point, after = decode(data, at)
        if flags[np.uint64(point)] & BREAK:
            if point == 13 and after < end and data[np.uint64(after)] == 10:
                return at, after + 1
            return at, after
        at = after
    return end, end
