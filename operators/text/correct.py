"""Takes lines out of pages that are not part of the text: Yi's rule-based correction (arXiv:2403.04652, section 2.1).

Yi names the means without numbers; the bounds are those of RefinedWeb's line corrections (arXiv:2306.01116, G.2) as
DCLM published them (arXiv:2406.11794, refinedweb baseline). A line is taken out for the first of these:

1. boilerplate: it has few words, and a phrase of correct.txt stands in it as that file says: read more, sign in, items
   in cart, share this, we use cookies, © 2019, in a dozen languages;
2. counter: nothing but numbers of likes, comments, views and the like;
3. numeric: all but all of its characters are digits;
4. uppercase: more than half of its characters are capitals;
5. short: fewer than two words; a letter of a script without spaces is one;
6. incomplete: it breaks off in an ellipsis before a phrase that leads to the rest, or in an ellipsis at the end of the
   page;
7. repeated: it is the line that stays before it once more, blank lines and what was taken out between them aside.

Blank lines around what was taken out are not left in double. Text decoded with the wrong encoding, which Yi's step also
repairs, is repaired by normalize (`fix_mojibake`), before any rule looks at it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from operators.document import Operator, drop_by_rules, parameters, utf8, with_columns
from operators.text.rules import above, below
from operators.text.segment import decode, frozen, line_end, strip
from operators.text.unicode_classes import SPACE, UNSPACED, WORD, flags

RULES = ("boilerplate", "counter", "numeric", "uppercase", "short", "incomplete", "repeated")
BOILERPLATE, COUNTER, NUMERIC, UPPERCASE, SHORT, INCOMPLETE, REPEATED = range(7)
STAYS = -1
WHOLE, BEGINS, ENDS, ANYWHERE, MORE, COUNTED = (1 << k for k in range(6))  # where a phrase stands
MARKS = {"=": WHOLE, "<": BEGINS, ">": ENDS, "~": ANYWHERE, "+": WHOLE | MORE, "N": COUNTED}
UPPER, DIGIT = 2, 4  # beside SPACE, WORD and UNSPACED; these two bits mean other things in unicode_classes
TAIL = 64  # bytes of a line's end in which the phrase that leads to the rest stands
TOKENS = 64  # words of a line that are compared; lines with more are no boilerplate
NUMBER = np.uint64(1)  # stands for any number among hashes of words
BASE = np.uint64(0x9E3779B97F4A7C15)
COPYRIGHT = 0xA9
Share = Annotated[float, Field(ge=0, le=1)]


class Bounds(NamedTuple):
    boilerplate: bool
    most_words: int
    counters: bool
    max_numeric: float
    max_uppercase: float
    min_words: int
    repeated: bool
    incomplete: bool


class Tables(NamedTuple):
    flags: NDArray[np.uint8]  # of each code point
    small: NDArray[np.uint32]  # each code point in small letters
    phrases: NDArray[np.uint64]  # sorted hashes
    where: NDArray[np.int64]  # marks of each phrase
    first: NDArray[np.bool_]  # by the upper 16 bits of its hash: whether a word begins a phrase
    longest: int  # words of a phrase


@parameters
class Correct(Operator):
    """Replaces `text` by the lines that stay; drops documents as `empty` or `too_much_removed`, which keep their text.

    Adds how many lines each rule took out.
    """

    name: ClassVar[str] = "correct"
    boilerplate: bool = True
    max_boilerplate_words: Annotated[int, Field(ge=0, le=32)] = 10  # of a line; letters without spaces count half
    counters: bool = True
    max_numeric: Share = 0.999999  # of a line's characters; 1: no line is dropped for digits
    max_uppercase: Share = 0.5  # of a line's characters; 1: no line is dropped for capitals
    min_words: Annotated[int, Field(ge=0)] = 2  # of a line
    repeated: bool = True
    incomplete: bool = True
    max_removed_words: Share = 0.05  # of the document's words; 1: however many
    revision: Literal[1] = 1

    @property
    def adds(self) -> tuple[str, ...]:
        return tuple(f"corrected_{rule}" for rule in RULES)

    @property
    def counts(self) -> tuple[str, ...]:
        return self.adds

    def __call__(self, docs: pa.Table) -> pa.Table:
        data, offsets = utf8(docs["text"])
        bounds = Bounds(
            self.boilerplate,
            self.max_boilerplate_words,
            self.counters,
            self.max_numeric,
            self.max_uppercase,
            self.min_words,
            self.repeated,
            self.incomplete,
        )
        kept = np.empty(max(1, int(offsets[-1] - offsets[0])), np.uint8)
        ends = np.zeros(docs.num_rows + 1, np.int64)
        taken = np.zeros((docs.num_rows, len(RULES)), np.int32)
        counts = np.zeros((docs.num_rows, 3), np.int64)  # words, words taken out, lines that stay
        _correct(frozen(data), frozen(offsets), _tables(), bounds, (kept, ends, taken, counts))
        columns = {name: pa.array(np.ascontiguousarray(taken[:, k])) for k, name in enumerate(self.adds)}
        removed = counts[:, 1] / np.maximum(counts[:, 0], 1)
        rules = [below("empty", counts[:, 2], 1), above("too_much_removed", removed, self.max_removed_words)]
        marked = drop_by_rules(with_columns(docs, columns), rules)
        text = pa.LargeStringArray.from_buffers(docs.num_rows, pa.py_buffer(ends), pa.py_buffer(kept[: int(ends[-1])]))
        alive = marked["drop_reason"].is_null()
        return with_columns(marked, {"text": pc.if_else(alive, text, docs["text"].cast(pa.large_string()))})


@functools.lru_cache(maxsize=1)
def _tables() -> Tables:
    characters = np.arange(0x110000, dtype=np.uint32).view("U1")
    table = flags() & np.uint8(SPACE | WORD | UNSPACED)
    table |= np.strings.isupper(characters) * np.uint8(UPPER) | np.strings.isnumeric(characters) * np.uint8(DIGIT)
    table[COPYRIGHT] |= WORD
    small = np.strings.lower(characters).astype("U1").view(np.uint32)
    phrases: dict[int, int] = {}
    firsts: set[int] = set()
    longest = 0
    for line in Path(__file__).with_suffix(".txt").read_text("utf-8").splitlines():
        mark, _, rest = line.partition(" ")
        for text in rest.split(", ") if mark in MARKS else ():
            words = _words_of(text, table, small)
            key = int(_hash(np.array(words, np.uint64), 0, len(words)))
            phrases[key] = phrases.get(key, 0) | MARKS[mark]
            firsts.add(words[0])
            longest = max(longest, len(words))
    hashes = np.array(sorted(phrases), np.uint64)
    first = np.zeros(1 << 16, np.bool_)
    first[[word >> 48 for word in firsts]] = True
    where = np.array([phrases[int(h)] for h in hashes], np.int64)
    return Tables(table, small, hashes, where, first, longest)


def _words_of(text: str, table: NDArray[np.uint8], small: NDArray[np.uint32]) -> list[int]:
    data = np.frombuffer(text.encode(), np.uint8)
    found = np.zeros(TOKENS, np.uint64)
    return [int(h) for h in found[: _tokens(data, 0, data.size, table, small, found)]]


@njit(nogil=True, cache=True)
def _correct(data, offsets, tables, bounds, out):  # type: ignore[no-untyped-def]
    kept, ends, taken, counts = out
    table = tables.flags
    found = np.zeros(TOKENS, np.uint64)
    size = np.int64(0)
    for row in range(offsets.shape[0] - 1):
        at, end = offsets[row], offsets[row + 1]
        first = size
        last_begin = last_stop = at  # the line that stayed last, without white space at its ends
        blank = True  # what stays so far is nothing, or ends in a blank line
        gone = False  # a line was taken out after the last that stayed
        lines = 0
        while True:
            after = line_end(data, at, end)
            begin, stop = strip(data, at, after, table)
            fate = STAYS
            if begin < stop:
                words, fate = _judged(data, begin, stop, tables, bounds, found)
                if fate == STAYS and bounds.repeated and _same(data, begin, stop, last_begin, last_stop):
                    fate = REPEATED
                counts[row, 0] += words
                if fate != STAYS:
                    counts[row, 1] += words
                    taken[row, fate] += 1
                    gone = True
            if fate == STAYS and not (begin == stop and gone and blank):
                if lines > 0:
                    kept[np.uint64(size)] = 10
                    size += 1
                for i in range(at, after):
                    kept[np.uint64(size)] = data[np.uint64(i)]
                    size += 1
                lines += 1
                blank = begin == stop
                if not blank:
                    counts[row, 2] += 1
                    last_begin, last_stop = begin, stop
                    gone = False
            if after == end:
                break
            at = after + 1
        if gone:
            size = max(first, strip(kept, first, size, table)[1])
        if bounds.incomplete:
            size = _whole_end(kept, first, size, table, taken[row], counts[row])
        ends[row + 1] = size


@njit(nogil=True, cache=True)
def _judged(data, begin, stop, tables, bounds, found):  # type: ignore[no-untyped-def]
    """(words of the line, the rule that takes it out or STAYS), but for the rules that look at other lines."""
    chars, capitals, digits, words, letters = _measured(data, begin, stop, tables.flags)
    if words - letters + (letters + 1) // 2 <= bounds.most_words:
        n = _tokens(data, begin, stop, tables.flags, tables.small, found)
        if bounds.boilerplate and _is_boilerplate(found, n, tables):
            return words, BOILERPLATE
        if bounds.counters and _is_counter(found, n, tables) and not _is_numbered(data, begin, stop):
            return words, COUNTER
    if digits > bounds.max_numeric * chars:
        return words, NUMERIC
    if capitals > bounds.max_uppercase * chars:
        return words, UPPERCASE
    if words < bounds.min_words:
        return words, SHORT
    if bounds.incomplete and _leads_on(data, begin, stop, tables, found):
        return words, INCOMPLETE
    return words, STAYS


@njit(nogil=True, cache=True)
def _measured(data, begin, stop, table):  # type: ignore[no-untyped-def]
    """(characters, capitals, digits, words, those of them that are letters of scripts without spaces)"""
    chars = capitals = digits = words = letters = np.int64(0)
    inside = False
    i = begin
    while i < stop:
        b = np.uint64(data[np.uint64(i)])
        if b < 128:
            flag = table[b]
            i += 1
        else:
            point, i = decode(data, i)
            flag = table[np.uint64(point)]
        chars += 1
        capitals += flag & UPPER != 0
        digits += flag & DIGIT != 0
        if flag & UNSPACED:
            letters += 1
            words += 1
            inside = False
        elif flag & SPACE:
            inside = False
        elif not inside:
            words += 1
            inside = True
    return chars, capitals, digits, words, letters


@njit(nogil=True, cache=True)
def _tokens(data, begin, stop, table, small, found):  # type: ignore[no-untyped-def]
    """Fill `found` with hashes of the words, whatever their case, and return how many; more than fit are left out.

    A number is one NUMBER: 12, 3k, 1,234, 1.2M. In 3.2 and 2003, 2004 there are two.
    """
    n, h, chars, figures = 0, np.uint64(0), 0, 0  # of the word so far
    joined = False  # a single point or comma parts it from a number
    i = begin
    while i <= stop and n < found.shape[0]:
        point, after = decode(data, i) if i < stop else (np.int64(32), i + 1)
        flag = table[np.uint64(point)]
        if chars and (flag & UNSPACED or not flag & WORD):
            number = figures > 0 and chars - figures <= 1
            if not (number and joined and (figures == 3 or chars > figures)):
                found[n] = NUMBER if number else h
                n += 1
            joined = number and (point == 44 or point == 46)
            h, chars, figures = np.uint64(0), 0, 0
        elif not flag & WORD:
            joined = False
        if flag & UNSPACED and n < found.shape[0]:
            found[n] = (np.uint64(small[np.uint64(point)]) + np.uint64(2)) * BASE
            n += 1
            joined = False
        elif flag & WORD:
            figure = flag & DIGIT != 0
            figures += figure if figures == chars else 0  # a number begins with its figures
            h = (h ^ np.uint64(small[np.uint64(point)] + 1)) * BASE
            h ^= h >> np.uint64(29)
            chars += 1
        i = after
    return n


@njit(nogil=True, cache=True)
def _hash(found, begin, end):  # type: ignore[no-untyped-def]
    h = np.uint64(0)
    for k in range(begin, end):
        h = (h ^ found[k]) * BASE
        h ^= h >> np.uint64(31)
    return h


@njit(nogil=True, cache=True)
def _marks(h, tables):  # type: ignore[no-untyped-def]
    """Where the phrase of that hash may stand; 0 for none."""
    k = np.searchsorted(tables.phrases, h)
    return tables.where[k] if k < tables.phrases.shape[0] and tables.phrases[k] == h else 0


@njit(nogil=True, cache=True)
def _is_boilerplate(found, n, tables):  # type: ignore[no-untyped-def]
    for begin in range(n):
        if not tables.first[found[begin] >> np.uint64(48)]:
            continue
        for end in range(begin + 1, min(n, begin + tables.longest) + 1):
            marks = _marks(_hash(found, begin, end), tables)
            at_start, at_end = begin == 0, end == n
            if marks & ANYWHERE or (marks & BEGINS and at_start) or (marks & ENDS and at_end):
                return True
            if marks & WHOLE and at_start and at_end:
                return True
    return False


@njit(nogil=True, cache=True)
def _is_counter(found, n, tables):  # type: ignore[no-untyped-def]
    """Whether the words are numbers, each before what it counts or each after it."""
    before = n > 0 and found[0] == NUMBER
    k = 0
    while k < n:
        k += before
        end = min(n, k + tables.longest)
        while end > k and not _marks(_hash(found, k, end), tables) & COUNTED:
            end -= 1
        if end == k or not (before or (end < n and found[end] == NUMBER)):
            return False
        k = end if before else end + 1
        if before and k < n and found[k] != NUMBER:
            return False
    return n > 1


@njit(nogil=True, cache=True)
def _is_numbered(data, begin, stop):  # type: ignore[no-untyped-def]
    """Whether the line begins as an item of a list or a heading does: 3. Comments"""
    i = begin
    while i < stop and 48 <= data[np.uint64(i)] <= 57:
        i += 1
    return i > begin and i + 1 < stop and data[np.uint64(i)] in (41, 46) and data[np.uint64(i + 1)] == 32


@njit(nogil=True, cache=True)
def _leads_on(data, begin, stop, tables, found):  # type: ignore[no-untyped-def]
    """Whether the line breaks off before a phrase that leads to the rest: "... read more"."""
    i = stop
    while i > max(begin, stop - TAIL):
        if _ellipsis(data, begin, i):
            n = _tokens(data, i, stop, tables.flags, tables.small, found)
            if n > 0:
                return _marks(_hash(found, 0, n), tables) & MORE != 0
        i -= 1
    return False


@njit(nogil=True, cache=True)
def _ellipsis(data, begin, end):  # type: ignore[no-untyped-def]
    """Whether an ellipsis ends there: ... or U+2026."""
    if end - begin < 3:
        return False
    a, b, c = data[np.uint64(end - 3)], data[np.uint64(end - 2)], data[np.uint64(end - 1)]
    return (a == 46 and b == 46 and c == 46) or (a == 0xE2 and b == 0x80 and c == 0xA6)


@njit(nogil=True, cache=True)
def _whole_end(kept, first, size, table, taken, counts):  # type: ignore[no-untyped-def]
    """The size of the page without lines at its end that break off in an ellipsis."""
    begin = strip(kept, first, size, table)[0]
    while True:
        stop = strip(kept, begin, size, table)[1]
        line = stop
        while line > begin and kept[np.uint64(line - 1)] != 10:
            line -= 1
        closed = stop  # before quotes and brackets that close
        while closed > line and kept[np.uint64(closed - 1)] in (34, 39, 41, 93):
            closed -= 1
        if not _ellipsis(kept, line, closed):
            return size
        taken[INCOMPLETE] += 1
        counts[1] += _measured(kept, line, stop, table)[3]
        counts[2] -= 1
        size = strip(kept, begin, line, table)[1] if line > begin else first
        begin = min(begin, size)


@njit(nogil=True, cache=True)
def _same(data, begin, stop, other, end):  # type: ignore[no-untyped-def]
    same = stop - begin == end - other
    i = 0
    while same and i < stop - begin:
        same = data[np.uint64(begin + i)] == data[np.uint64(other + i)]
        i += 1
    return same
