"""Lines and paragraphs of one document, what stands at their ends, and how many are repeated.

A document is cut at line feeds once; everything here reads those rows. A paragraph is a list of lines, so that its
hash is that of its lines' hashes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from operators.text.segment import MIX, ONE, any_line_end, decode, first_byte, hash_bytes, line_end, stirred, strip
from operators.text.segment import character_count as count_of
from operators.text.unicode_classes import CLOSER, SPACE, TERMINAL

PAPER, DATATROVE, NEMO = 0, 1, 2


class Lines(NamedTuple):
    """What stands between line feeds, as rows of buffers that kernels use again; positions count from the document's
    begin."""

    start: NDArray[np.uint32]
    end: NDArray[np.uint32]
    first: NDArray[np.uint32]  # without white space at both ends: first == last on a blank line
    last: NDArray[np.uint32]
    chars: NDArray[np.uint32]
    hash: NDArray[np.uint64]


class Parts(NamedTuple):
    """Lines or paragraphs to be compared."""

    hash: NDArray[np.uint64]
    chars: NDArray[np.uint32]
    blank: NDArray[np.bool_]
    times: NDArray[np.int32]  # of the first of its kind; kernels' own


class Marks(NamedTuple):
    """What counts as a bullet and an ellipsis, and how lines are read."""

    reading: int
    bullets: NDArray[np.int64]
    ellipses: NDArray[np.uint8]
    ellipsis_offsets: NDArray[np.int64]
    short: int  # characters of the longest short line


class LineCounts(NamedTuple):
    """Names of what `count_lines` returns."""

    lines: Any  # that are not blank
    line_chars: Any
    longest_line: Any
    ended: Any  # of the lines, those that end in a sentence-ending mark
    short: Any
    marked: Any  # lines whose ends are looked at for bullets and ellipses
    bullet: Any
    ellipsis: Any


class RepeatCounts(NamedTuple):
    """Names of what `count_repeats` returns."""

    parts: Any
    repeats: Any  # parts that stood before
    repeat_chars: Any
    solid_repeat_chars: Any  # of those that are not blank
    members: Any  # parts that stand more than once, the first included
    member_chars: Any
    chars: Any  # of all parts


@njit(nogil=True, cache=True)
def line_buffers(src):  # type: ignore[no-untyped-def]
    """(lines, parts) with room for those of any one document."""
    data, most = src.data, np.int64(1)
    for d in range(src.offsets.shape[0] - 1):
        n = np.int64(2)
        for i in range(src.offsets[d], src.offsets[d + 1]):
            n += np.int64(data[np.uint64(i)] == 10)
        most = max(most, n)
    lines = Lines(
        np.empty(most, np.uint32),
        np.empty(most, np.uint32),
        np.empty(most, np.uint32),
        np.empty(most, np.uint32),
        np.empty(most, np.uint32),
        np.empty(most, np.uint64),
    )
    parts = Parts(
        np.empty(most, np.uint64), np.empty(most, np.uint32), np.empty(most, np.bool_), np.empty(most, np.int32)
    )
    return lines, parts


@njit(nogil=True, cache=True)
def cut_lines(src, d, lines, ascii_only):  # type: ignore[no-untyped-def]
    """Fill `lines` with the lines of document d, blank ones too; returns how many: one more than line feeds."""
    data, flags = src.data, src.flags
    starts, ends, firsts, lasts, chars, hashes = lines
    begin, end = src.offsets[d], src.offsets[d + 1]
    at, n = begin, np.uint64(0)
    while at <= end:
        stop = line_end(data, at, end)
        first, last = strip(data, at, stop, flags)
        starts[n], ends[n], firsts[n], lasts[n] = at - begin, stop - begin, first - begin, last - begin
        chars[n] = stop - at if ascii_only else count_of(data, at, stop)
        hashes[n] = hash_bytes(data, at, stop, False)
        at = stop + 1
        n += ONE
    return np.int64(n)


@njit(nogil=True, cache=True)
def count_lines(src, d, lines, n, marks, breaks):  # type: ignore[no-untyped-def]
    """The fields of LineCounts; `breaks` says whether other marks than line feeds end lines for str.splitlines."""
    data, begin = src.data, src.offsets[d]
    starts, ends, firsts, lasts, all_chars, _ = lines
    look_behind = marks.reading == PAPER
    solid = total = longest = ended = short = bulleted = trailing = np.int64(0)
    for row in range(n):
        k = np.uint64(row)
        if firsts[k] == lasts[k]:
            continue
        chars = np.int64(all_chars[k])
        solid += 1
        total += chars
        longest = max(longest, chars)
        short += np.int64(chars <= marks.short)
        ended += np.int64(ends_sentence(src, begin + starts[k], begin + ends[k], look_behind))
        bullet, ellipsis = _line_marks(data, begin + firsts[k], begin + lasts[k], marks)
        bulleted += bullet
        trailing += ellipsis
    marked = solid
    if marks.reading == DATATROVE:
        marked = n - 1 if starts[np.uint64(n - 1)] == ends[np.uint64(n - 1)] else n
        if breaks:
            marked, bulleted, trailing = _split_lines(src, d, marks)
    return solid, total, longest, ended, short, np.int64(marked), bulleted, trailing


@njit(nogil=True, cache=True)
def _split_lines(src, d, marks):  # type: ignore[no-untyped-def]
    """(lines, with a bullet, with an ellipsis) where all the marks that str.splitlines knows end lines."""
    lines = bulleted = trailing = np.int64(0)
    at, end = src.offsets[d], src.offsets[d + 1]
    while at < end:
        stop, after = any_line_end(src.data, at, end, src.flags)
        first, last = strip(src.data, at, stop, src.flags)
        at = after
        lines += 1
        if first < last:
            bullet, ellipsis = _line_marks(src.data, first, last, marks)
            bulleted += bullet
            trailing += ellipsis
    return lines, bulleted, trailing


@njit(nogil=True, cache=True)
def _line_marks(data, first, last, marks):  # type: ignore[no-untyped-def]
    """(1 if the line begins with a bullet, 1 if it ends in an ellipsis)."""
    point = decode(data, first)[0]
    bulleted = np.int64(0)
    for bullet in marks.bullets:
        bulleted += np.int64(point == bullet)
    return bulleted, np.int64(ends_in_ellipsis(data, first, last, marks, False))


@njit(nogil=True, cache=True)
def ends_in_ellipsis(data, begin, end, marks, whole):  # type: ignore[no-untyped-def]
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
def ends_sentence(src, begin, end, look_behind):  # type: ignore[no-untyped-def]
    """Whether the last character ends a sentence; `look_behind`: the last but white space and closers."""
    while end > begin:
        at = first_byte(src.data, begin, end)
        flag = src.flags[np.uint64(decode(src.data, at)[0])]
        if flag & TERMINAL:
            return True
        if not look_behind or not flag & (SPACE | CLOSER):
            return False
        end = at
    return False


@njit(nogil=True, cache=True)
def line_parts(lines, n, reading, parts):  # type: ignore[no-untyped-def]
    """The lines that are compared: those not blank or, in datatrove, what runs of line feeds part."""
    starts, ends, firsts, lasts, chars, hashes = lines
    part_hashes, part_chars, blanks, _ = parts
    count = np.uint64(0)
    for row in range(n):
        k = np.uint64(row)
        blank = firsts[k] == lasts[k]
        if reading == DATATROVE:
            taken = ends[k] > starts[k] or row == 0 or row == n - 1
        else:
            taken = not blank
        if taken:
            part_hashes[count], part_chars[count], blanks[count] = hashes[k], chars[k], blank
            count += ONE
    return np.int64(count)


@njit(nogil=True, cache=True)
def paragraph_parts(src, d, lines, n, reading, parts):  # type: ignore[no-untyped-def]
    """Paragraphs: what two or more line feeds part, where it is not blank; in datatrove, of the stripped text and
    blank or not; in nemo, what each two line feeds part, blank or not.

    Lines that are not empty, and an empty first and last one, follow each other after `feeds` line feeds."""
    data, begin = src.data, src.offsets[d]
    starts, ends, firsts, lasts, chars, hashes = lines
    part_hashes, part_chars, blanks, _ = parts
    row, stop = 0, n - 1
    if reading == DATATROVE:
        while row < stop and firsts[np.uint64(row)] == lasts[np.uint64(row)]:
            row += 1
        while stop > row and firsts[np.uint64(stop)] == lasts[np.uint64(stop)]:
            stop -= 1
        top, bottom = np.uint64(row), np.uint64(stop)
        if firsts[top] == lasts[top]:
            ends[top] = starts[top]
        elif starts[top] != firsts[top] or ends[bottom] != lasts[bottom]:
            starts[top], ends[bottom] = firsts[top], lasts[bottom]
        for k in (top, bottom):
            hashes[k] = hash_bytes(data, begin + starts[k], begin + ends[k], False)
            chars[k] = count_of(data, begin + starts[k], begin + ends[k])
    count, feeds, first = np.uint64(0), 0, row
    h, size, blank = MIX, np.int64(0), True  # a seed that an empty line changes
    while row <= stop:
        k = np.uint64(row)
        if starts[k] == ends[k] and first < row < stop:
            feeds += 1
            row += 1
            continue
        feeds += row > first
        if feeds > 1:
            if not blank or reading != PAPER:
                part_hashes[count], part_chars[count], blanks[count] = h, size, blank
                count += ONE
            h, size, blank = MIX, np.int64(0), True
            if reading == NEMO:
                for _ in range(feeds // 2 - 1):
                    part_hashes[count], part_chars[count], blanks[count] = stirred(h, np.uint64(0)), 0, True
                    count += ONE
                feeds %= 2
                if feeds:
                    h = stirred(h, np.uint64(0))
            else:
                feeds = 0
        size += feeds + chars[k]
        h = stirred(h, hashes[k])
        blank = blank and firsts[k] == lasts[k]
        feeds = 0
        row += 1
    if not blank or reading != PAPER:
        part_hashes[count], part_chars[count], blanks[count] = h, size, blank
        count += ONE
    return np.int64(count)


@njit(nogil=True, cache=True)
def count_repeats(parts, n, table):  # type: ignore[no-untyped-def]
    """The fields of RepeatCounts; `table` has at least 2n + 2 places."""
    hashes, all_chars, blanks, times = parts
    mask = clear(table, n)
    repeats = repeat_chars = solid_chars = members = member_chars = total = np.int64(0)
    for row in range(n):
        k = np.uint64(row)
        chars = np.int64(all_chars[k])
        total += chars
        j = slot(hashes[k], mask)
        while table[j] >= 0 and hashes[np.uint64(table[j])] != hashes[k]:
            j = (j + ONE) & mask
        if table[j] < 0:
            table[j] = row
            times[k] = 1
            continue
        first = np.uint64(table[j])
        again = 2 if times[first] == 1 else 1  # the second also makes a member of the first
        times[first] = 2
        repeats += 1
        repeat_chars += chars
        solid_chars += 0 if blanks[k] else chars
        members += again
        member_chars += again * chars
    return np.int64(n), repeats, repeat_chars, solid_chars, members, member_chars, total


@njit(inline="always")
def slot(key, mask):  # type: ignore[no-untyped-def]
    return ((key ^ (key >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(32)) & mask


@njit(nogil=True, cache=True)
def table_size(entries):  # type: ignore[no-untyped-def]
    """Places for `entries` rows, at most half of them taken, so that probing ends."""
    size = np.int64(16)
    while size < 2 * entries + 2:
        size *= 2
    return size


@njit(nogil=True, cache=True)
def clear(table, entries):  # type: ignore[no-untyped-def]
    """Free the front of a hash table of rows that `entries` need, small for a small document; returns its mask."""
    size = table_size(entries)
    table[:size] = -1
    return np.uint64(size - 1)
