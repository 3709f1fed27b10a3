"""MinHash signatures equal to datatrove's bit for bit (0.10; FineWeb, arXiv 2406.17557), words split at white space.

A text is brought to datatrove's normal form: lower case; each number one 0, its decimal part included; punctuation of
its list and white space between words; canonical decomposition without non-spacing marks. A shingle is a run of words
with one space between. Its XXH64 x goes through (a*x + b mod 2^64) mod 2^61 - 1; the signature holds the minima.

datatrove then cuts the normal form into words with spaCy or another tokenizer of the language, as shipped; here, words
are what stands between spaces, which is datatrove with `str.split` in place of the tokenizer.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.dedup.words import _decode, _encode, buffers, frozen
from operators.dedup.xxh64 import xxh64

PUNCTUATION = frozenset(
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"
    + "".join(map(chr, (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))))
)
# First of ten digits, of Unicode 15 to 17: the package `regex` knows them, a Python may not.
YOUNG_DIGITS = (0x10D40, 0x116D0, 0x116DA, 0x11BF0, 0x11DE0, 0x11F50, 0x16130, 0x16D70, 0x1CCF0, 0x1E4F0, 0x1E5F1)
DECIMAL_SEPARATORS = ".,\u060c\u066b\u2396\u2397\u2398"
# The characters that can differ from their normal form.
MAPPED = ((0, 0x3400), (0xA000, 0xD800), (0xF900, 0x20000), (0x2F800, 0x2FA20), (0xE0000, 0xE0200))

# GONE and SKIPPED leave nothing; a run of combining marks ends at the one and goes on past the other.
LETTER, SEPARATOR, GONE, SKIPPED, DIGIT, SIGMA, SEVERAL = (np.uint32(k) for k in range(7))
KIND_SHIFT, KIND_MASK = np.uint32(24), np.uint32(7)
CODE = np.uint32(0xFFFFFF)
DECIMAL, CASED, IGNORABLE = (np.uint32(1 << k) for k in (29, 30, 31))
FINAL_SIGMA, MEDIAL_SIGMA = np.uint32(0x3C2), np.uint32(0x3C3)
ZERO, SPACE, ASCII, TAIL, TAIL_MASK = (np.uint8(k) for k in (0x30, 0x20, 0x80, 0x80, 0xC0))
UNMAPPED = np.uint8(0)

MERSENNE = np.uint64((1 << 61) - 1)
UNORDERED = np.uint64(8)
LANES = 4
NOTHING, STEP = np.uint64(0), np.uint64(1)


class Tables(NamedTuple):
    """`folded[code point]` = flags | kind << 24 | code point of the normal form, or its place in `parts`."""

    plain: NDArray[np.uint8]  # normal form of a byte; UNMAPPED: a digit, or part of a longer character
    folded: NDArray[np.uint32]
    parts: NDArray[np.uint32]  # normal forms, each ended by 0: combining class << 24 | code point
    classes: NDArray[np.uint32]  # the combining classes in `parts`, ascending, without 0


def _fold(char: str, parts: list[int]) -> np.uint32:
    """The entry of one character in `folded`; longer normal forms are added to `parts`."""
    lower = char.lower()
    if unicodedata.category(char) == "Nd" or any(first <= ord(char) < first + 10 for first in YOUNG_DIGITS):
        return DIGIT << KIND_SHIFT
    if lower in PUNCTUATION or lower.isspace():
        return SEPARATOR << KIND_SHIFT
    if char == "Σ":
        return SIGMA << KIND_SHIFT
    decomposed = unicodedata.normalize("NFD", lower)
    kept = [c for c in decomposed if unicodedata.category(c) != "Mn"]
    if not kept:
        return (SKIPPED if all(map(unicodedata.combining, decomposed)) else GONE) << KIND_SHIFT
    if len(kept) == 1 and not unicodedata.combining(kept[0]):
        return np.uint32(ord(kept[0]))
    place = len(parts)
    parts += [unicodedata.combining(c) << 24 | ord(c) for c in kept] + [0]
    return SEVERAL << KIND_SHIFT | np.uint32(place)


def _flags(char: str) -> np.uint32:
    """Whether a small sigma after the character is final tells how it counts in Unicode's rule for it (3.13)."""
    cased = (char + "Σ").lower()[-1] == "ς"
    ignorable = not cased and ("a" + char + "Σ").lower()[-1] == "ς"
    return CASED * cased | IGNORABLE * ignorable | DECIMAL * (char in DECIMAL_SEPARATORS)


@functools.cache
def tables() -> Tables:
    """The tables, made once in a process from this Python's Unicode database (about 0.3 s)."""
    folded = np.arange(0x110000, dtype=np.uint32)
    parts: list[int] = []
    for first, last in MAPPED:
        folded[first:last] = [_fold(chr(code), parts) | _flags(chr(code)) for code in range(first, last)]
    plain = np.zeros(256, np.uint8)
    kind = folded[:128] >> KIND_SHIFT & KIND_MASK
    plain[:128] = np.select([kind == LETTER, kind == SEPARATOR], [folded[:128] & CODE, SPACE], UNMAPPED)
    flat = np.array(parts, np.uint32)
    classes = np.unique(flat >> KIND_SHIFT)[1:]
    return Tables(frozen(plain), frozen(folded), frozen(flat), frozen(classes))


@numba.njit(inline="always")
def _at(data: Any, i: Any) -> Any:
    """The code point at `i`, and where the next one begins."""
    if data[i] < ASCII:
        return np.uint32(data[i]), i + STEP
    return _decode(data, i)


@numba.njit(inline="always")
def _kind(entry: Any) -> Any:
    return (entry >> KIND_SHIFT) & KIND_MASK


@numba.njit(nogil=True, cache=True)
def _digits_end(data: Any, i: Any, stop: Any, folded: Any) -> Any:
    while i < stop:
        code, following = _at(data, i)
        if _kind(folded[np.uint64(code)]) != DIGIT:
            break
        i = following
    return i


@numba.njit(nogil=True, cache=True)
def _number_end(data: Any, i: Any, stop: Any, folded: Any) -> Any:
    """The end of the number that has a digit before `i`: digits, and if digits follow, one separator and these."""
    i = _digits_end(data, i, stop, folded)
    if i < stop:
        code, following = _at(data, i)
        if folded[np.uint64(code)] & DECIMAL:
            end = _digits_end(data, following, stop, folded)
            if end > following:
                return end
    return i


@numba.njit(nogil=True, cache=True)
def _final(data: Any, start: Any, i: Any, stop: Any, folded: Any) -> Any:
    """Whether the capital sigma of two bytes at `i` ends a word (Unicode 3.13, Final_Sigma)."""
    before = after = np.uint32(0)
    j = i
    while j > start:
        j -= STEP
        while data[j] & TAIL_MASK == TAIL:
            j -= STEP
        code, _ = _at(data, j)
        before = folded[np.uint64(code)]
        if not before & IGNORABLE:
            break
    j = i + np.uint64(2)
    while j < stop:
        code, j = _at(data, j)
        after = folded[np.uint64(code)]
        if not after & IGNORABLE:
            break
    return (before & CASED != 0) and (after & CASED == 0)


@numba.njit(nogil=True, cache=True)
def _several(data: Any, i: Any, stop: Any, tables: Any, place: Any, out: Any, n: Any) -> Any:
    """Write the normal form at `place` in `parts`. If it ends in combining marks, write them and those of the text from
    `i` on in the order of their classes (UAX #15, canonical ordering). Return where `out` and the text go on."""
    folded, parts, classes = tables.folded, tables.parts, tables.classes
    while parts[place] != 0 and parts[place] <= CODE:
        n = _encode(parts[place], out, n)
        place += STEP
    if parts[place] == 0:
        return n, i
    end = i
    for c in classes:
        k = place
        while parts[k] != 0:
            if parts[k] >> KIND_SHIFT == c:
                n = _encode(parts[k] & CODE, out, n)
            k += STEP
        end = i
        while end < stop:
            code, following = _at(data, end)
            entry = folded[np.uint64(code)]
            if _kind(entry) == SEVERAL:
                mark = parts[np.uint64(entry & CODE)]
                if mark <= CODE:
                    break
                if mark >> KIND_SHIFT == c:
                    n = _encode(mark & CODE, out, n)
            elif _kind(entry) != SKIPPED:
                break
            end = following
    return n, end


@numba.njit(nogil=True, cache=True)
def normal_form(data: Any, start: Any, end: Any, tables: Any, out: Any, starts: Any) -> Any:
    """Write the normal form of data[start:end] to `out`, where each word begins to `starts`; return how many there are.

    Beyond the last word `starts` has where another would begin. `out` needs 3 * (end - start) + 4 places (Hangul
    letters), `starts` (end - start) // 2 + 3.
    """
    plain, folded = tables.plain, tables.folded
    n = words = NOTHING
    gap = STEP  # 1 at the beginning and after a space
    first, i, stop = np.uint64(start), np.uint64(start), np.uint64(end)
    while i < stop:
        byte = plain[data[i]]
        if byte != UNMAPPED:
            space = np.uint64(byte == SPACE)
            starts[words] = n
            words += gap & ~space
            out[n] = byte
            n += STEP ^ (gap & space)
            gap = space
            i += STEP
            continue
        code, following = _at(data, i)
        entry = folded[np.uint64(code)]
        kind = _kind(entry)
        if kind == SEPARATOR:
            out[n] = SPACE
            n += STEP ^ gap
            gap = STEP
        elif kind != GONE and kind != SKIPPED:
            starts[words] = n
            words += gap
            gap = NOTHING
            if kind == LETTER:
                n = _encode(entry & CODE, out, n)
            elif kind == DIGIT:
                out[n] = ZERO
                n += STEP
                following = _number_end(data, following, stop, folded)
            elif kind == SIGMA:
                n = _encode(FINAL_SIGMA if _final(data, first, i, stop, folded) else MEDIAL_SIGMA, out, n)
            else:
                n, following = _several(data, following, stop, tables, np.uint64(entry & CODE), out, n)
        i = following
    starts[words] = n + (STEP ^ gap)
    return words


class Family(NamedTuple):
    """Coefficients of the hash functions, padded to a multiple of LANES."""

    factor: NDArray[np.uint64]
    shift: NDArray[np.uint64]


@functools.lru_cache(maxsize=16)
def family(seed: int, permutations: int) -> Family:
    """datatrove's, from NumPy's legacy generator, whose streams are frozen; `seed` below 2^32."""
    random = np.random.RandomState(seed)
    factor = random.randint(1, int(MERSENNE), dtype=np.uint64, size=permutations)
    shift = random.randint(0, int(MERSENNE), dtype=np.uint64, size=permutations)
    padding = (0, -permutations % LANES)
    return Family(frozen(np.pad(factor, padding)), frozen(np.pad(shift, padding)))


@numba.njit(inline="always")
def _reduced(v: Any) -> Any:
    """(v & p) + (v >> 61) - p mod 2^64 for p = 2^61 - 1: v mod p, less p, and in the same order; but where the sum is p
    or more, v mod p as it stands, which is below UNORDERED."""
    return (v >> np.uint64(61)) - (~v & MERSENNE)


@numba.njit(nogil=True, cache=True)
def _minimum(shingles: Any, count: Any, a: Any, b: Any) -> Any:
    least = MERSENNE
    for i in range(count):
        least = min(least, (a * shingles[i] + b) % MERSENNE)
    return least


@numba.njit(nogil=True, cache=True)
def minima(shingles: Any, count: Any, family: Any, out: Any) -> None:
    """The signature of `count` shingle hashes."""
    factor, shift = family.factor, family.shift
    k = NOTHING
    while k < np.uint64(factor.shape[0]):
        a0, a1, a2, a3 = factor[k], factor[k + np.uint64(1)], factor[k + np.uint64(2)], factor[k + np.uint64(3)]
        b0, b1, b2, b3 = shift[k], shift[k + np.uint64(1)], shift[k + np.uint64(2)], shift[k + np.uint64(3)]
        m0 = m1 = m2 = m3 = ~NOTHING
        for i in range(count):
            x = shingles[i]
            m0 = min(m0, _reduced(a0 * x + b0))
            m1 = min(m1, _reduced(a1 * x + b1))
            m2 = min(m2, _reduced(a2 * x + b2))
            m3 = min(m3, _reduced(a3 * x + b3))
        out[k], out[k + np.uint64(1)], out[k + np.uint64(2)], out[k + np.uint64(3)] = m0, m1, m2, m3
        k += np.uint64(LANES)
    k = NOTHING
    while k < np.uint64(factor.shape[0]):
        out[k] = out[k] + MERSENNE if out[k] >= UNORDERED else _minimum(shingles, count, factor[k], shift[k])
        k += STEP


@numba.njit(nogil=True, cache=True)
def shingle_hashes(data: Any, start: Any, end: Any, tables: Any, length: Any, scratch: Any, out: Any) -> Any:
    """Write the hash of every run of `length` words of data[start:end]; return how many there are."""
    normal, starts = scratch
    words = normal_form(data, start, end, tables, normal, starts)
    runs = NOTHING
    while runs + length <= words:
        out[runs] = xxh64(normal, starts[runs], starts[runs + length] - STEP)
        runs += STEP
    return runs


@numba.njit(nogil=True, cache=True)
def _scratch(offsets: Any) -> Any:
    """Places for the normal form of the longest text and for one number a word, twice."""
    longest = 0
    for d in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    room = longest // 2 + 3
    return (np.empty(3 * longest + 4, np.uint8), np.empty(room, np.uint64)), np.empty(room, np.uint64)


@numba.njit(nogil=True, cache=True)
def _sign(data: Any, offsets: Any, tables: Any, family: Any, length: Any, signatures: Any, counts: Any) -> None:
    scratch, hashes = _scratch(offsets)
    for d in range(counts.shape[0]):
        counts[d] = shingle_hashes(data, offsets[d], offsets[d + 1], tables, length, scratch, hashes)
        minima(hashes, counts[d], family, signatures[d])


def sign(
    column: pa.ChunkedArray | pa.Array, hashes: Family, shingle: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The signature of each text, and its number of shingles: zero for a text shorter than one, which has none."""
    data, offsets = buffers(column)
    rows = len(offsets) - 1
    signatures = np.empty((rows, len(hashes.factor)), np.uint64)
    counts = np.empty(rows, np.uint64)
    _sign(data, offsets, tables(), hashes, np.uint64(shingle), signatures, counts)
    return signatures, counts


@numba.njit(nogil=True, cache=True)
def _shingle_sets(data: Any, offsets: Any, tables: Any, length: Any, out: Any, bounds: Any) -> None:
    scratch, hashes = _scratch(offsets)
    n = NOTHING
    for d in range(bounds.shape[0] - 1):
        runs = shingle_hashes(data, offsets[d], offsets[d + 1], tables, length, scratch, hashes)
        ordered = np.sort(hashes[:runs])
        for i in range(runs):
            if i == 0 or ordered[i] != ordered[i - 1]:
                out[n] = ordered[i]
                n += STEP
        bounds[d + 1] = n


def shingle_sets(column: pa.ChunkedArray | pa.Array, shingle: int) -> pa.LargeListArray:
    """The distinct shingle hashes of each text, ascending: lists of uint64."""
    data, offsets = buffers(column)
    rows = len(offsets) - 1
    bounds = np.zeros(rows + 1, np.int64)
    out = np.empty(int(offsets[-1] - offsets[0]) // 2 + 3 * rows, np.uint64)  # no text has more words
    _shingle_sets(data, offsets, tables(), np.uint64(shingle), out, bounds)
    return pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(out[: bounds[-1]]))
