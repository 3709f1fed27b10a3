"""The words of a text as deduplication sees them: lower case, no accents, no punctuation, straight from Arrow buffers.

The normal form is that of datatrove's `simplify_text` (FineWeb, arXiv 2406.17557): lower-case, canonical
decomposition with combining marks removed, punctuation, symbols, white space and control characters between words,
and, where words are hashed, every digit read as 0. Beyond it: invisible format characters vanish, and a character
of a script that is written without spaces (Han, kana, Thai, ...) is a word of its own.

`simplify` writes that form out (digits kept), `word_hashes` hashes it on the fly; both read one table.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.document import utf8

LETTER, SEPARATOR, VANISHES, DIGIT, SPACELESS = (np.uint32(k) for k in range(5))
CLASS_SHIFT = np.uint32(24)
CODE = np.uint32(0xFFFFFF)
# Characters with entries of their own; beyond them are unassigned and private code points, which are letters.
MAPPED = ((0, 0x31400), (0xE0000, 0xE0200))
# Line-break classes ID and SA of UAX #14, by block: scripts that put no space between words.
WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # CJK and Kangxi radicals
    (0x3005, 0x3007),  # Han iteration mark, closing mark, zero
    (0x3021, 0x312F),  # Hangzhou numerals, kana, Bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),  # Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Han
    (0xFF66, 0xFF9F),  # half-width katakana
    (0x20000, 0x3FFFF),  # Han
)

SIX, TWELVE, EIGHTEEN = (np.uint32(k) for k in (6, 12, 18))
STEP = np.uint64(1)
NOTHING = np.uint64(0)
BLOCK = np.uint64(64)
WIDE_LETTER = np.uint64(0xD6E8FEB86659FD93)  # an odd constant without structure
GOLDEN = 0x9E3779B97F4A7C15


class Tables(NamedTuple):
    """`folded[code point]` = class << 24 | folded code point; the rest gives hashes of letters and of ASCII bytes."""

    folded: NDArray[np.uint32]
    letter_hash: NDArray[np.uint64]  # by folded code point, below 256
    byte_hash: NDArray[np.uint64]
    byte_mask: NDArray[np.uint64]  # all ones for letters and digits, zero for separators: resets a word's hash


def splitmix(seed: int, count: int) -> NDArray[np.uint64]:
    """`count` values of SplitMix64 (Steele et al. 2014): NumPy's generators may change between versions."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view. Arrow's buffers are read-only, which is another type to numba: one type, one compilation."""
    view = array.view()
    view.flags.writeable = False
    return view


def buffers(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data, offsets = utf8(column)
    return frozen(data), frozen(offsets)


def _fold(char: str) -> int:
    """The table's entry of one character."""
    category = unicodedata.category(char)
    if category == "Nd":
        return int(DIGIT) << 24 | (0x30 + unicodedata.decimal(char))
    if category[0] in "PSZ" or category == "Cc":
        return int(SEPARATOR) << 24
    if category in ("Mn", "Me", "Cf", "Cs"):
        return int(VANISHES) << 24
    lower = char.lower()
    if lower == char and not unicodedata.decomposition(char):
        return ord(char)
    bare = [c for c in unicodedata.normalize("NFD", lower) if unicodedata.category(c) != "Mn"]
    return ord(bare[0]) if len(bare) == 1 else ord(lower[0])  # Hangul decomposes into letters: it stays whole


@functools.cache
def tables() -> Tables:
    """The tables, made once in a process from this Python's Unicode database (about 0.1 s)."""
    folded = np.arange(0x110000, dtype=np.uint32)
    for first, last in MAPPED:
        folded[first:last] = [_fold(chr(code)) for code in range(first, last)]
    for first, last in WITHOUT_SPACES:
        block = folded[first : last + 1]
        block[block >> CLASS_SHIFT == LETTER] |= SPACELESS << CLASS_SHIFT
    letter_hash = splitmix(0, 256)
    ascii_class = folded[:128] >> CLASS_SHIFT
    byte_hash, byte_mask = np.zeros(256, np.uint64), np.zeros(256, np.uint64)
    letters, digits = np.flatnonzero(ascii_class == LETTER), np.flatnonzero(ascii_class == DIGIT)
    byte_hash[letters] = letter_hash[folded[letters]]
    byte_hash[digits] = letter_hash[ord("0")]
    byte_mask[letters] = byte_mask[digits] = np.uint64(2**64 - 1)
    return Tables(frozen(folded), frozen(letter_hash), frozen(byte_hash), frozen(byte_mask))


@numba.njit(inline="always")
def _decode(data: Any, i: Any) -> Any:
    """The code point of two or more bytes at `i`, and where the next one begins; Arrow strings are valid UTF-8."""
    lead = np.uint32(data[i])
    low = np.uint32(0x3F)
    second = np.uint32(data[i + STEP]) & low
    if lead < np.uint32(0xE0):
        return ((lead & np.uint32(0x1F)) << SIX) | second, i + np.uint64(2)
    third = np.uint32(data[i + np.uint64(2)]) & low
    if lead < np.uint32(0xF0):
        return ((lead & np.uint32(0x0F)) << TWELVE) | (second << SIX) | third, i + np.uint64(3)
    fourth = np.uint32(data[i + np.uint64(3)]) & low
    return (
        ((lead & np.uint32(0x07)) << EIGHTEEN) | (second << TWELVE) | (third << SIX) | fourth,
        i + np.uint64(4),
    )


@numba.njit(inline="always")
def _roll(h: Any) -> Any:
    return (h << np.uint64(5)) | (h >> np.uint64(59))


@numba.njit(nogil=True, cache=True)
def word_hashes(data: Any, start: Any, end: Any, tables: Any, out: Any) -> Any:
    """Write a 64-bit hash for each word of data[start:end]; return their number, and how many are spaceless characters.

    `out` needs (end - start) // 2 + 3 places. The hash is a cyclic polynomial (Cohen 1997): rotate, xor, and with a
    mask that is zero at separators, so ASCII costs no branch and no multiplication. It repeats after 64 letters:
    good enough for the shingles of similar documents, not for equality.
    """
    letter_hash, byte_hash, byte_mask, folded = (
        tables.letter_hash,
        tables.byte_hash,
        tables.byte_mask,
        tables.folded,
    )
    words = NOTHING
    spaceless = NOTHING
    h = NOTHING
    i = np.uint64(start)
    stop = np.uint64(end)
    while i < stop:
        block = min(i + BLOCK, stop)
        seen = np.uint8(0)
        k = i
        while k < block:
            seen |= data[k]
            k += STEP
        if seen < np.uint8(128):
            while i < block:
                mask = byte_mask[data[i]]
                out[words] = h
                words += np.uint64((mask == NOTHING) & (h != NOTHING))
                h = (_roll(h) ^ byte_hash[data[i]]) & mask
                i += STEP
            continue
        while i < block:
            if data[i] < np.uint8(128):
                mask = byte_mask[data[i]]
                out[words] = h
                words += np.uint64((mask == NOTHING) & (h != NOTHING))
                h = (_roll(h) ^ byte_hash[data[i]]) & mask
                i += STEP
                continue
            code, i = _decode(data, i)
            entry = folded[np.uint64(code)]
            kind = entry >> CLASS_SHIFT
            if kind == LETTER:
                wide = (np.uint64(entry) * WIDE_LETTER) | STEP
                h = _roll(h) ^ (letter_hash[np.uint64(entry)] if entry < np.uint32(256) else wide)
            elif kind == DIGIT:
                h = _roll(h) ^ letter_hash[np.uint64(48)]
            elif kind != VANISHES:
                out[words] = h
                words += np.uint64(h != NOTHING)
                h = NOTHING
                if kind == SPACELESS:
                    out[words] = (np.uint64(entry & CODE) * WIDE_LETTER) | STEP
                    words += STEP
                    spaceless += STEP
    out[words] = h
    words += np.uint64(h != NOTHING)
    return words, spaceless


@numba.njit(inline="always")
def _encode(code: Any, out: Any, n: Any) -> Any:
    """Write `code` as UTF-8 at out[n]; return the place after it."""
    tail, lead = np.uint32(0x80), np.uint32(0x3F)
    if code < np.uint32(0x80):
        out[n] = code
        return n + np.uint64(1)
    if code < np.uint32(0x800):
        out[n] = np.uint32(0xC0) | (code >> SIX)
        out[n + np.uint64(1)] = tail | (code & lead)
        return n + np.uint64(2)
    if code < np.uint32(0x10000):
        out[n] = np.uint32(0xE0) | (code >> TWELVE)
        out[n + np.uint64(1)] = tail | ((code >> SIX) & lead)
        out[n + np.uint64(2)] = tail | (code & lead)
        return n + np.uint64(3)
    out[n] = np.uint32(0xF0) | (code >> EIGHTEEN)
    out[n + np.uint64(1)] = tail | ((code >> TWELVE) & lead)
    out[n + np.uint64(2)] = tail | ((code >> SIX) & lead)
    out[n + np.uint64(3)] = tail | (code & lead)
    return n + np.uint64(4)


@numba.njit(nogil=True, cache=True)
def _simplify(data: Any, offsets: Any, folded: Any, out: Any, bounds: Any) -> None:
    n = NOTHING
    for d in range(offsets.shape[0] - 1):
        first = n
        gap = False
        i = np.uint64(offsets[d])
        stop = np.uint64(offsets[d + 1])
        while i < stop:
            if data[i] < np.uint8(128):
                code = np.uint32(data[i])
                i += STEP
            else:
                code, i = _decode(data, i)
            entry = folded[np.uint64(code)]
            kind = entry >> CLASS_SHIFT
            if kind == VANISHES:
                continue
            if kind == SEPARATOR:
                gap = True
                continue
            if n > first and (gap or kind == SPACELESS):
                out[n] = np.uint8(32)
                n += STEP
            gap = kind == SPACELESS
            n = _encode(entry & CODE, out, n)
        bounds[d + 1] = n


def simplify(column: pa.ChunkedArray | pa.Array) -> pa.LargeStringArray:
    """Each text as its words with one space between: lower case, unaccented, unpunctuated, digits as 0-9."""
    data, offsets = buffers(column)
    bounds = np.zeros(len(offsets), np.int64)
    # The most that a character grows: from three bytes to four and a space, the compatibility ideographs.
    out = np.empty(int(offsets[-1] - offsets[0]) * 5 // 3 + 4, np.uint8)
    _simplify(data, offsets, tables().folded, out, bounds)
    held = [None, pa.py_buffer(bounds), pa.py_buffer(out[: bounds[-1]])]
    return pa.Array.from_buffers(pa.large_string(), len(bounds) - 1, held)
