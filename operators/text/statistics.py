"""What the rule filters count in each document: words, marks, lines and their repeats, on Arrow buffers.

Each function takes a `Source` (texts and how they are cut into words) and returns one array a statistic. Nothing here
knows a threshold: gopher_quality.py, gopher_repetition.py and fineweb.py turn counts into decisions.
The file is long because the kernels share one hash table and one notion of a line, and each function is short.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.document import utf8
from operators.text.segment import (
    BASE,
    ONE,
    SOLID,
    Source,
    any_line_end,
    character_count,
    count_words,
    cut_words,
    decode,
    first_byte,
    frozen,
    hash_bytes,
    line_end,
    strip,
    word_buffers,
)
from operators.text.unicode_classes import CLOSER, LETTER, SPACE, TERMINAL, UNSPACED

Counts = NDArray[np.int64]


class Table(NamedTuple):
    """A hash set with one number an entry; entries of other epochs count as free, so it is never cleared."""

    key: NDArray[np.uint64]
    epoch: NDArray[np.int64]
    value: NDArray[np.int64]


@njit(nogil=True, cache=True)
def new_table(entries):  # type: ignore[no-untyped-def]
    """Room for `entries` at most half full, so that probing ends."""
    size = np.int64(64)
    while size < 2 * entries + 2:
        size *= 2
    return Table(np.empty(size, np.uint64), np.zeros(size, np.int64), np.empty(size, np.int64))


@njit(nogil=True, cache=True)
def mask_for(entries):  # type: ignore[no-untyped-def]
    """Only the front of a table is used for a small document: it stays in cache."""
    size = np.int64(64)
    while size < 2 * entries + 2:
        size *= 2
    return np.uint64(size - 1)


@njit(inline="always")
def slot_of(keys, epochs, mask, epoch, key):  # type: ignore[no-untyped-def]
    """The slot that holds `key` in this epoch, or the free one where it belongs."""
    mixed = (key ^ (key >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    j = (mixed >> np.uint64(32)) & mask
    while epochs[j] == epoch and keys[j] != key:
        j = (j + ONE) & mask
    return j


class Marks(NamedTuple):
    """What counts as a bullet, an ellipsis and a stop word, as kernels take it."""

    bullets: NDArray[np.int64]
    ellipses: NDArray[np.uint8]
    ellipsis_offsets: NDArray[np.int64]
    stop_words: NDArray[np.uint64]
    longest_stop_word: int
    fold_case: bool
    every_line: bool
    symbol_words: bool


def marks(bullets: str, ellipses: tuple[str, ...], stop_words: tuple[str, ...], mode: str) -> Marks:
    """By `mode`: `paper` compares stop words without regard to ASCII case; `datatrove` counts blank lines too and
    breaks lines as str.splitlines does, where lines else are the non-blank ones between line feeds; `nemo` counts
    words that are symbols."""
    fold_case = mode == "paper"
    points = np.array([ord(c) for c in bullets], np.int64)
    endings, offsets = utf8(pa.array(ellipses, pa.large_string()))
    words, bounds = utf8(pa.array([w.lower() if fold_case else w for w in stop_words], pa.large_string()))
    hashes = np.array([hash_bytes(words, a, b)[0] for a, b in zip(bounds[:-1], bounds[1:], strict=True)], np.uint64)
    longest = int(np.diff(bounds).max(initial=0))
    return Marks(
        points, frozen(endings), frozen(offsets), hashes, longest, fold_case, mode == "datatrove", mode == "nemo"
    )


class QualityCounts(NamedTuple):
    words: Counts
    chars: Counts  # of all words
    solid_words: Counts  # words with a character that is no symbol
    solid_chars: Counts
    alpha_words: Counts  # words with a letter
    character_words: Counts  # words that begin with a letter of a script without spaces
    symbol_words: Counts  # (`nemo`) words that are an ellipsis, or of which runs of "#" make up more than half
    stop_words: Counts
    distinct_stop_words: Counts
    hashes: Counts
    ellipses: Counts
    lines: Counts
    bullet_lines: Counts
    ellipsis_lines: Counts


def quality_counts(src: Source, marks: Marks) -> QualityCounts:
    out = np.zeros((len(QualityCounts._fields), len(src.offsets) - 1), np.int64)
    _quality(src, marks, out)
    return QualityCounts(*out)


@njit(nogil=True, cache=True)
def _quality(src, marks, out):  # type: ignore[no-untyped-def]
    words = word_buffers(src)
    for d in range(out.shape[1]):
        n = cut_words(src, d, words)
        out[0, d] = n
        out[1, d], out[2, d], out[3, d], out[4, d], out[5, d] = _word_kinds(words, n)
        out[7, d], out[8, d] = _stop_words(src.data, words, n, marks)
        if marks.symbol_words:
            for k in range(n):
                out[6, d] += _is_symbol(src.data, words.start[k], words.end[k], words.chars[k], marks)
        out[9, d], out[10, d] = _symbols(src.data, src.offsets[d], src.offsets[d + 1])
        out[11, d], out[12, d], out[13, d] = _line_marks(src, d, marks)


@njit(nogil=True, cache=True)
def _word_kinds(words, n):  # type: ignore[no-untyped-def]
    """(characters, solid words, their characters, words with a letter, words of scripts without spaces)."""
    kinds, all_chars = words.kind, words.chars
    total = solid = solid_chars = alpha = single = np.int64(0)
    for place in range(n):
        kind, chars = kinds[np.uint64(place)], all_chars[np.uint64(place)]
        total += chars
        solid += (kind & SOLID) != 0
        solid_chars += chars if kind & SOLID else 0
        alpha += (kind & LETTER) != 0
        single += (kind & UNSPACED) != 0
    return total, solid, solid_chars, alpha, single


@njit(nogil=True, cache=True)
def _stop_words(data, words, n, marks):  # type: ignore[no-untyped-def]
    """(stop words, how many different ones)."""
    starts, ends, hashes = words.start, words.end, words.hash
    wanted, longest, fold_case = marks.stop_words, marks.longest_stop_word, marks.fold_case
    found, seen, different = np.int64(0), np.uint64(0), np.int64(0)
    for place in range(n):
        k = np.uint64(place)
        if ends[k] - starts[k] > longest:
            continue
        h = hashes[k]
        if fold_case:
            h = np.uint64(0)
            for i in range(starts[k], ends[k]):
                b = data[np.uint64(i)]
                h = h * BASE + np.uint64(b + 32 if 65 <= b <= 90 else b) + ONE
        for s in range(wanted.shape[0]):
            if wanted[np.uint64(s)] == h:
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
    return 2 * runs > chars or _ends_in_ellipsis(data, begin, end, marks, True)


@njit(nogil=True, cache=True)
def _ends_in_ellipsis(data, begin, end, marks, whole):  # type: ignore[no-untyped-def]
    """Whether the span ends in (`whole`: is) one of the ellipses, ASCII case aside."""
    offsets, ellipses = marks.ellipsis_offsets, marks.ellipses
    for m in range(offsets.shape[0] - 1):
        first = offsets[m]
        size = offsets[m + 1] - first
        if size > end - begin or (whole and size != end - begin):
            continue
        same = True
        for i in range(size):
            b = data[np.uint64(end - size + i)]
            if (b + 32 if 65 <= b <= 90 else b) != ellipses[np.uint64(first + i)]:
                same = False
                break
        if same:
            return True
    return False


@njit(nogil=True, cache=True)
def _symbols(data, begin, end):  # type: ignore[no-untyped-def]
    """Number signs, and ellipses: non-overlapping "..." and "…"."""
    hashes = ellipses = dots = 0
    for i in range(begin, end):
        b = data[np.uint64(i)]
        dots = dots + 1 if b == 46 else 0
        if dots == 3:
            ellipses += 1
            dots = 0
        hashes += b == 35
        if b == 0xE2 and data[np.uint64(i + 1)] == 0x80 and data[np.uint64(i + 2)] == 0xA6:
            ellipses += 1
    return hashes, ellipses


@njit(nogil=True, cache=True)
def _line_marks(src, d, marks):  # type: ignore[no-untyped-def]
    """(lines, those that start with a bullet, those that end in an ellipsis)."""
    lines = bulleted = trailing = 0
    at, end = src.offsets[d], src.offsets[d + 1]
    while at < end:
        if marks.every_line:
            stop, after = any_line_end(src.data, at, end, src.flags)
        else:
            stop = line_end(src.data, at, end)
            after = stop + 1
        begin, stop = strip(src.data, at, stop, src.flags)
        at = after
        if begin == stop:
            lines += marks.every_line
            continue
        lines += 1
        point = decode(src.data, begin)[0]
        for bullet in marks.bullets:
            bulleted += point == bullet
        trailing += _ends_in_ellipsis(src.data, begin, stop, marks, False)
    return lines, bulleted, trailing


@njit(nogil=True, cache=True)
def _newlines(data, begin, end):  # type: ignore[no-untyped-def]
    n = np.int64(0)
    for i in range(begin, end):
        n += np.int64(data[np.uint64(i)] == 10)
    return n


class LineCounts(NamedTuple):
    lines: Counts  # that are not blank
    ended: Counts  # of them, those that end in a sentence-ending mark
    short: Counts
    repeat_chars: Counts  # characters of lines that stood before
    chars: Counts  # of the text, without line feeds
    newlines: Counts
    words: Counts


def line_counts(src: Source, short: int, look_behind_closers: bool) -> LineCounts:
    """FineWeb's statistics; a line of at most `short` characters is short. `look_behind_closers` looks for the mark
    before trailing white space, closing quotes and brackets."""
    out = np.zeros((len(LineCounts._fields), len(src.offsets) - 1), np.int64)
    _lines(src, short, look_behind_closers, out)
    return LineCounts(*out)


@njit(nogil=True, cache=True)
def _lines(src, short, look_behind_closers, out):  # type: ignore[no-untyped-def]
    words = word_buffers(src)
    table = new_table(64)
    for d in range(out.shape[1]):
        at, end = src.offsets[d], src.offsets[d + 1]
        newlines = _newlines(src.data, at, end)
        out[4, d] = character_count(src.data, at, end) - newlines
        out[5, d] = newlines
        out[6, d] = count_words(src, d, words)
        if 2 * newlines + 4 > table.key.shape[0]:
            table = new_table(newlines + 1)
        mask = mask_for(newlines + 1)
        while at < end:
            stop = line_end(src.data, at, end)
            begin, solid_end = strip(src.data, at, stop, src.flags)
            if begin < solid_end:
                h, chars = hash_bytes(src.data, at, stop)
                out[0, d] += 1
                out[1, d] += _ends_sentence(src, at, stop, look_behind_closers)
                out[2, d] += chars <= short
                j = slot_of(table.key, table.epoch, mask, d + 1, h)
                if table.epoch[j] == d + 1:
                    out[3, d] += chars
                table.epoch[j], table.key[j] = d + 1, h
            at = stop + 1


@njit(nogil=True, cache=True)
def _ends_sentence(src, begin, end, look_behind_closers):  # type: ignore[no-untyped-def]
    while end > begin:
        at = first_byte(src.data, begin, end)
        flag = src.flags[np.uint64(decode(src.data, at)[0])]
        if flag & TERMINAL:
            return True
        if not look_behind_closers or not flag & (SPACE | CLOSER):
            return False
        end = at
    return False


class Split(NamedTuple):
    """Where a text is cut: at `breaks` line feeds and all that follow them, or (`whole_run` false) at each `breaks`."""

    breaks: int
    whole_run: bool
    keep_blank: bool
    strip_text: bool


class RepeatCounts(NamedTuple):
    parts: Counts
    repeats: Counts  # parts that stood before
    repeat_chars: Counts
    members: Counts  # parts that stand more than once, the first included
    member_chars: Counts
    chars: Counts  # of all parts
    text_chars: Counts


def repeat_counts(src: Source, split: Split) -> RepeatCounts:
    """Repeated lines or paragraphs, the parts that `split` cuts a text into."""
    out = np.zeros((len(RepeatCounts._fields), len(src.offsets) - 1), np.int64)
    _repeats(src, split, out)
    return RepeatCounts(*out)


@njit(nogil=True, cache=True)
def _repeats(src, split, out):  # type: ignore[no-untyped-def]
    table = new_table(64)
    for d in range(out.shape[1]):
        at, end = src.offsets[d], src.offsets[d + 1]
        out[6, d] = character_count(src.data, at, end)
        if split.strip_text:
            at, end = strip(src.data, at, end, src.flags)
        newlines = _newlines(src.data, at, end)
        if 2 * newlines + 4 > table.key.shape[0]:
            table = new_table(newlines + 1)
        mask = mask_for(newlines + 1)
        while at <= end:
            stop, after = _part_end(src.data, at, end, split)
            begin, solid_end = strip(src.data, at, stop, src.flags)
            if split.keep_blank or begin < solid_end:
                _enter(src, d, at, stop, table, mask, out)
            at = after


@njit(nogil=True, cache=True)
def _part_end(data, at, end, split):  # type: ignore[no-untyped-def]
    """(end of the part that begins at `at`, start of the next or end + 1)."""
    while at < end:
        run = at
        while run < end and data[np.uint64(run)] == 10 and (split.whole_run or run - at < split.breaks):
            run += 1
        if run - at >= split.breaks:
            return at, run
        at = max(run, at + 1)
    return end, end + 1


@njit(nogil=True, cache=True)
def _enter(src, d, begin, end, table, mask, out):  # type: ignore[no-untyped-def]
    h, chars = hash_bytes(src.data, begin, end)
    out[0, d] += 1
    out[5, d] += chars
    j = slot_of(table.key, table.epoch, mask, d + 1, h)
    if table.epoch[j] != d + 1:
        table.epoch[j], table.key[j], table.value[j] = d + 1, h, 1
        return
    again = 2 if table.value[j] == 1 else 1  # the second also makes a member of the first
    table.value[j] = 2
    out[1, d] += 1
    out[2, d] += chars
    out[3, d] += again
    out[4, d] += again * chars
