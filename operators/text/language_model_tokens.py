"""The tokens of a language model: one normal form of text, which training and scoring share, as 64-bit hashes.

The form is CCNet's (Wenzek et al. 2019, arXiv:1911.00359; cc_net/text_normalizer.py): lower case, accents off, every
digit 0, Unicode punctuation as its ASCII likeness. A token is then a run of letters and digits, a punctuation mark or
symbol (a run of the same one counts once, so that ruled lines are short), or one character of a script without spaces
(Han, kana, Thai, ...). With `characters` each character is a token, a run of white space too. A line is a sentence;
lines without a token do not count.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.dedup.words import CLASS_SHIFT, MAPPED, buffers, frozen, tables

FORM = 1  # raise it when the form changes: models say with which one they were trained
Tokens = Literal["words", "characters"]
END = np.uint64(0)  # in place of a hash: the line ends
LONG = np.uint64(1)  # hash of all tokens of more than LONGEST characters, which no vocabulary has
LONGEST = 64
BLANK = 0x2581  # the token for white space, as SentencePiece writes it
ONE = np.uint64(1)

_LETTER, _SPACE, _VANISHES, _DIGIT, _SPACELESS, _MARK, _BREAK = range(7)  # the first five as in words.py
_LIKE = str.maketrans(
    {"。": ".", "、": ",", "…": ".", "\u00b7": ".", "•": "*"}
    | dict.fromkeys("‘’‚‛′´‹›", "'")
    | dict.fromkeys("“”„‟″«»「」『』《》", '"')
    | dict.fromkeys("‐‑‒–—―−─━", "-")
)


class Hashes(NamedTuple):
    """Tokens of a column as hashes, a line's followed by END; document d has rows offsets[d]:offsets[d + 1]. `start`
    and `end` say where in `data` each token was read."""

    hash: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


@functools.cache
def _table(tokens: Tokens) -> NDArray[np.uint32]:
    """class << 24 | code point in normal form, by code point."""
    table = tables().folded.copy()
    for first, last in MAPPED:
        for code in (np.flatnonzero(table[first:last] >> CLASS_SHIFT == _SPACE) + first).tolist():
            char = chr(code)
            if unicodedata.category(char)[0] in "PS":
                like = unicodedata.normalize("NFKC", char)
                table[code] = _MARK << 24 | ord((like if len(like) == 1 else char).translate(_LIKE))
    kinds = table >> CLASS_SHIFT
    table[kinds == _DIGIT] = ord("0")
    if tokens == "characters":
        table[(kinds == _LETTER) | (kinds == _DIGIT)] |= np.uint32(_SPACELESS << 24)
        table[kinds == _SPACE] = _MARK << 24 | BLANK
    table[ord("\n")] = _BREAK << 24
    return frozen(table)


def hashes(column: pa.ChunkedArray | pa.Array, tokens: Tokens = "words", places: bool = False) -> Hashes:
    """The tokens of each text; nulls have none. `start` and `end` are empty unless `places` are asked for."""
    data, offsets = buffers(column)
    most = int(offsets[-1] - offsets[0]) + len(offsets)  # a token has a byte, and so has the end of a line but the last
    found, bounds = np.empty(most, np.uint64), np.zeros(len(offsets), np.int64)
    start, end = (np.empty(most if places else 0, np.int64) for _ in range(2))
    n = _hashes(data, offsets, _table(tokens), found, bounds, start, end)
    return Hashes(found[:n], bounds, data, start[:n], end[:n])


def counted(column: pa.ChunkedArray | pa.Array, tokens: Tokens = "words") -> pa.Table:
    """The distinct tokens of a column: `key` (the hash), `word` (its spelling in normal form), `count`. The ends of
    lines have the empty word; tokens that are too long are left out."""
    found = hashes(column, tokens, places=True)
    rows = pl.DataFrame({"key": found.hash}).with_row_index("at").group_by("key").agg(pl.first("at"), count=pl.len())
    rows = rows.filter(pl.col("key") != int(LONG)).sort("key")
    at = rows["at"].to_numpy()
    bounds = np.zeros(len(at) + 1, np.int64)
    start, end = found.start[at], found.end[at]
    out = np.empty(int((end - start).sum()) * 5 // 3 + 4 * len(at) + 4, np.uint8)
    _spelled(found.data, start, end, _table(tokens), out, bounds)
    words = pa.Array.from_buffers(
        pa.large_string(), len(at), [None, pa.py_buffer(bounds), pa.py_buffer(out[: bounds[-1]])]
    )
    return pa.table({"key": rows["key"].to_numpy(), "word": words, "count": rows["count"].cast(pl.Int64).to_numpy()})


@njit(inline="always")
def mixed(h: Any, code: Any) -> Any:
    """The hash with one more character or word number."""
    h = (h ^ np.uint64(code)) * np.uint64(0x9E3779B97F4A7C15)
    return h ^ (h >> np.uint64(32))


@njit(inline="always")
def finished(h: Any, chars: Any) -> Any:
    """The hash of a token of so many characters; END and LONG are kept free."""
    if chars > LONGEST:
        return LONG
    h *= np.uint64(0xD6E8FEB86659FD93)
    h ^= h >> np.uint64(32)
    return h if h > LONG else h + np.uint64(2)


@njit(inline="always")
def decoded(data: Any, i: Any) -> Any:
    """(code point, position after it) of the character at byte i of valid UTF-8."""
    b = np.uint32(data[i])
    if b < np.uint32(0x80):
        return b, i + ONE
    c = np.uint32(data[i + ONE]) & np.uint32(0x3F)
    if b < np.uint32(0xE0):
        return ((b & np.uint32(0x1F)) << np.uint32(6)) | c, i + np.uint64(2)
    d = np.uint32(data[i + np.uint64(2)]) & np.uint32(0x3F)
    if b < np.uint32(0xF0):
        return ((b & np.uint32(0x0F)) << np.uint32(12)) | (c << np.uint32(6)) | d, i + np.uint64(3)
    e = np.uint32(data[i + np.uint64(3)]) & np.uint32(0x3F)
    high = ((b & np.uint32(0x07)) << np.uint32(18)) | (c << np.uint32(12)) | (d << np.uint32(6))
    return high | e, i + np.uint64(4)


@njit(inline="always")
def _put(found: Any, starts: Any, ends: Any, n: Any, h: Any, begin: Any, end: Any) -> Any:
    found[n] = h
    if n < np.uint64(starts.shape[0]):
        starts[n], ends[n] = begin, end
    return n + ONE


@njit(nogil=True, cache=True)
def _hashes(data: Any, offsets: Any, table: Any, found: Any, bounds: Any, starts: Any, ends: Any) -> Any:
    n = np.uint64(0)
    nothing = np.uint32(0)
    for d in range(offsets.shape[0] - 1):
        i, stop = np.uint64(offsets[d]), np.uint64(offsets[d + 1])
        line = n  # where the line's tokens begin
        h, chars, begin, after = np.uint64(0), 0, i, i
        run = nothing  # the mark just read
        over: Any = False
        while not over:
            at = i
            over = i >= stop
            entry = np.uint32(_BREAK << 24)
            if not over:
                code, i = decoded(data, i)
                entry = table[np.uint64(code)]
            kind = entry >> np.uint32(24)
            if kind == np.uint32(_VANISHES):
                continue
            if kind == np.uint32(_LETTER):
                begin = begin if chars else at
                h = mixed(h, entry)
                chars += 1
                after = i
                run = nothing
                continue
            if chars:
                n = _put(found, starts, ends, n, finished(h, chars), begin, after)
                h, chars = np.uint64(0), 0
            if kind == np.uint32(_BREAK):
                if n > line:
                    n = _put(found, starts, ends, n, END, at, at)
                line = n
                run = nothing
            elif kind == np.uint32(_SPACE):
                run = nothing
            elif kind == np.uint32(_SPACELESS) or entry != run:
                run = entry
                letter = mixed(np.uint64(0), entry & np.uint32(0xFFFFFF))
                n = _put(found, starts, ends, n, finished(letter, 1), at, i)
        bounds[d + 1] = n
    return n


@njit(inline="always")
def _encoded(code: Any, out: Any, n: Any) -> Any:
    """Write `code` as UTF-8 at out[n]; the place after it."""
    tail, six = np.uint32(0x80), np.uint32(0x3F)
    if code < np.uint32(0x80):
        out[n] = code
        return n + ONE
    if code < np.uint32(0x800):
        out[n] = np.uint32(0xC0) | (code >> np.uint32(6))
        out[n + ONE] = tail | (code & six)
        return n + np.uint64(2)
    if code < np.uint32(0x10000):
        out[n] = np.uint32(0xE0) | (code >> np.uint32(12))
        out[n + ONE] = tail | ((code >> np.uint32(6)) & six)
        out[n + np.uint64(2)] = tail | (code & six)
        return n + np.uint64(3)
    out[n] = np.uint32(0xF0) | (code >> np.uint32(18))
    out[n + ONE] = tail | ((code >> np.uint32(12)) & six)
    out[n + np.uint64(2)] = tail | ((code >> np.uint32(6)) & six)
    out[n + np.uint64(3)] = tail | (code & six)
    return n + np.uint64(4)


@njit(nogil=True, cache=True)
def _spelled(data: Any, starts: Any, ends: Any, table: Any, out: Any, bounds: Any) -> None:
    """The normal form of each span."""
    n = np.uint64(0)
    for k in range(starts.shape[0]):
        i, stop = np.uint64(starts[k]), np.uint64(ends[k])
        while i < stop:
            code, i = decoded(data, i)
            entry = table[np.uint64(code)]
            if entry >> np.uint32(24) != np.uint32(_VANISHES):
                n = _encoded(entry & np.uint32(0xFFFFFF), out, n)
        bounds[k + 1] = n
