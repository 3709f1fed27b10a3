"""The finds of pii.py that are numbers: addresses of networks, numbers of telephones and of cards.

pii_patterns.py says what makes one.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from operators.text.pii_tables import (
    BRACKETED,
    CARD,
    DASHED,
    DIGIT,
    DOTTED,
    HEX,
    IP,
    PHONE,
    ROOM,
    SLASHED,
    SPACED,
    WORD,
    beside,
    byte_at,
    is_a,
    told,
)


@njit(nogil=True, cache=True)
def ipv6(data, low, at, end, classes, public):  # type: ignore[no-untyped-def]
    """(start, end, where to go on) of the address that has its first colon at `at`."""
    start = at
    while start > low and at - start <= 4 and is_a(classes, data[np.uint64(start - 1)], HEX):
        start -= 1
    groups = gaps = size = 0
    first = second = np.int64(0)
    i = start
    sound = True
    while i < end:
        b = data[np.uint64(i)]
        if is_a(classes, b, HEX):
            groups += size == 0
            size += 1
            sound = sound and bool(size <= 4)
            if groups <= 2:
                value = np.int64(b) - 48 if b <= 57 else (np.int64(b) | 32) - 87
                if groups == 1:
                    first = (first << 4 | value) & 0xFFFF
                else:
                    second = (second << 4 | value) & 0xFFFF
        elif b == 58:
            double = i + 1 < end and data[np.uint64(i + 1)] == 58
            if double and (i + 2 >= end or data[np.uint64(i + 2)] != 58):
                gaps += 1
                i += 1
            elif double or i + 1 >= end or not is_a(classes, data[np.uint64(i + 1)], HEX) or i == start:
                break
            size = 0
        else:
            break
        i += 1
    after = max(i, at + 1)
    left, right = byte_at(data, low, start - 1, end), byte_at(data, at, i, end)
    then = byte_at(data, at, i + 1, end)
    dated = left == 45 and is_a(classes, byte_at(data, low, start - 2, end), WORD)  # 11-Aug-2005::15:31:23
    if dated or not sound or gaps > 1 or is_a(classes, left, WORD) or is_a(classes, right, WORD) or left in (58, 46):
        return at, at, after
    if (right in (58, 46, 45) and is_a(classes, then, WORD)) or (right == 58 and then == 58):
        return at, at, after
    if groups > 8 or (gaps == 0 and groups != 8) or (gaps == 1 and groups > 7) or groups < 1:
        return at, at, after
    if groups < (3 if public else 2) and not (not public and start == at and first == 1):  # ::1
        return at, at, after
    return (at, at, after) if public and not _is_public_ipv6(first, second) else (start, i, i)


@njit(nogil=True, cache=True)
def _is_public_ipv6(first, second):  # type: ignore[no-untyped-def]
    """The same by the first two groups: 2000::/3 without 2001::/23, 2001:db8::/32, 2002::/16 and 3fff::/20."""
    special = first == 0x2001 and (second < 0x200 or second == 0xDB8)
    return 0x2000 <= first <= 0x3FFF and not special and first != 0x2002 and not (first == 0x3FFF and second < 0x1000)


@njit(nogil=True, cache=True)
def number(data, places, asked, tables, buffers):  # type: ignore[no-untyped-def]
    """(start, end, kind, where to go on, end of the number read) of what begins with a digit, a plus or a bracket."""
    low, at, end, read = places
    kinds, public, before = asked
    classes = tables.classes
    digits, sizes = buffers
    b = data[np.uint64(at)]
    left = byte_at(data, low, at - 1, end)
    if 0x90 <= left <= 0x93 and byte_at(data, low, at - 2, end) == 0x80:
        left = np.int64(45)  # a hyphen or dash of Unicode
    if b == 40 and not _closes(data, at + 1, end):
        return at, at, PHONE, at + 1, read
    first = at + (0 if b != 43 and b != 40 else 1)
    after = first
    while after < end and is_a(classes, data[np.uint64(after)], DIGIT):
        after += 1
    if after == first or is_a(classes, left, WORD) or left in (46, 36):
        return at, at, PHONE, max(after, at + 1), read
    if b == 43:
        start, stop, after, read = _plus(data, (low, at, end), before, tables, buffers)
        return start, stop, PHONE, after, read
    if kinds[IP] and b != 40:
        stop = _ipv4(data, low, at, end, tables, public)
        if stop > at:
            return at, stop, IP, stop, read
    if kinds[CARD] and b != 40 and left not in (45, 47, 44):
        stop = _card(data, low, at, end, tables, digits)
        if stop > at:
            return at, stop, CARD, stop, read
    if not kinds[PHONE] or left in (45, 47, 35, 64, 41, 44, 37):  # - / # @ ) , %
        return at, at, PHONE, after, read
    stop, read = _telephone(data, (low, at, end, read), before, tables, buffers)
    return at, stop, PHONE, max(stop, after), read


@njit(nogil=True, cache=True)
def _plus(data, places, before, tables, buffers):  # type: ignore[no-untyped-def]
    """(start, end, where to go on, end of the number read) of an international number."""
    low, at, end = places
    digits, sizes = buffers
    classes = tables.classes
    stop, n, count, between = _groups(data, at + 1, end, True, digits, sizes)
    said = (before == PHONE and beside(data, low, at)) or told(data, low, at, classes, tables.phone)
    sound = byte_at(data, low, at - 1, end) != 43 and _ends(data, stop, end, classes)
    if sound and _international(digits, sizes, n, count, between, said, tables.country_codes):
        return at, stop, stop, stop
    return at, at, at + 1 + sizes[0], stop


@njit(nogil=True, cache=True)
def _telephone(data, places, before, tables, buffers):  # type: ignore[no-untyped-def]
    """(end, end of the number read) of a number without a country code; end is `at` where none begins."""
    low, at, end, read = places
    digits, sizes = buffers
    classes = tables.classes
    bracket = data[np.uint64(at)] == 40
    if not bracket:
        stop, n, _, between = _groups(data, at, end, False, digits, sizes)
        equals = byte_at(data, low, at - 1, end) == 61
        if not equals and _national(digits, sizes, n, between) and _ends(data, stop, end, classes):
            return stop, max(read, stop)
    if at < read:  # the longer number that this group is part of is none of telephone
        return at, read
    stop, n, count, between = _groups(data, at, end, True, digits, sizes)
    sound = bracket and _bracketed(digits, sizes, n, between)
    if not sound and 7 <= count <= 15 and n <= 7 and not _date(digits, sizes, n):
        sound = (before == PHONE and beside(data, low, at)) or told(data, low, at, classes, tables.phone)
    return (stop if sound and _ends(data, stop, end, classes) else at), stop


@njit(nogil=True, cache=True)
def _ends(data, i, end, classes):  # type: ignore[no-untyped-def]
    """Whether a number may end before i."""
    right, then = byte_at(data, i, i, end), byte_at(data, i, i + 1, end)
    if right == 120 and is_a(classes, then, DIGIT):  # an extension
        return True
    if is_a(classes, right, WORD) or right in (64, 37, 43, 61):  # @ % + =
        return False
    return not (right in (45, 46, 47, 58) and is_a(classes, then, WORD) and not (right == 46 and then > 57))


@njit(nogil=True, cache=True)
def _separator(data, i, end):  # type: ignore[no-untyped-def]
    """(what it is, bytes) of a mark that may stand between groups of digits, (0, 0) of any other."""
    b = byte_at(data, i, i, end)
    if b == 32:
        return SPACED, 1
    if b == 45:
        return DASHED, 1
    if b == 46:
        return DOTTED, 1
    if b == 47:
        return SLASHED, 1
    if b == 40 or b == 41:
        return BRACKETED, 1
    if b == 0xC2 and byte_at(data, i, i + 1, end) == 0xA0:
        return SPACED, 2
    if b == 0xE2 and byte_at(data, i, i + 1, end) == 0x80:
        last = byte_at(data, i, i + 2, end)
        if last == 0xAF:
            return SPACED, 3
        if 0x90 <= last <= 0x93:
            return DASHED, 3
    return 0, 0


@njit(nogil=True, cache=True)
def _groups(data, at, end, free, digits, sizes):  # type: ignore[no-untyped-def]
    """(end, groups, digits, marks between) of the number that begins at `at`, a bracket or a digit.

    `free`: any single mark between groups, and a bracket beside it; otherwise all dashes or all points.
    """
    n = count = 0
    between = np.int64(0)
    i = stop = at
    is_open = False
    if data[np.uint64(at)] == 40:
        i += 1
        is_open = True
        between = np.int64(BRACKETED)
    while True:
        begin = i
        while i < end and 48 <= data[np.uint64(i)] <= 57:
            if count < ROOM:
                digits[count] = np.int64(data[np.uint64(i)]) - 48
            count += 1
            i += 1
        if i == begin:
            break
        if n < ROOM:
            sizes[n] = i - begin
        n += 1
        stop = i
        marks, seen = 0, np.int64(0)
        while marks < 2:
            mark, width = _separator(data, i, end)
            if mark == 0 or (marks == 1 and not (seen | mark) & BRACKETED):
                break
            if mark == BRACKETED:
                opening = data[np.uint64(i)] == 40
                if opening == is_open or (opening and not _closes(data, i + 1, end)):
                    break
                is_open = opening
            seen |= mark
            i += width
            marks += 1
        if marks == 0 or i >= end or not 48 <= data[np.uint64(i)] <= 57:
            break
        if not free and (seen not in (DASHED, DOTTED) or (between != 0 and between != seen)):
            break
        between |= seen
    return stop, n, count, between


@njit(nogil=True, cache=True)
def _closes(data, i, end):  # type: ignore[no-untyped-def]
    """Whether up to five digits and a closing bracket follow."""
    begin = i
    while i < end and i - begin < 6 and 48 <= data[np.uint64(i)] <= 57:
        i += 1
    return i > begin and i < end and data[np.uint64(i)] == 41


@njit(nogil=True, cache=True)
def _north_american(digits, k):  # type: ignore[no-untyped-def]
    """Whether ten digits from k on are a number of the plan, and none for use in fiction."""
    fiction = digits[k + 3] == digits[k + 4] == digits[k + 5] == 5 and digits[k + 6] == 0 and digits[k + 7] == 1
    return digits[k] > 1 and digits[k + 3] > 1 and not fiction


@njit(nogil=True, cache=True)
def _international(digits, sizes, n, count, between, told, codes):  # type: ignore[no-untyped-def]
    if count < 8 or count > 15 or n > 7 or digits[0] == 0:
        return False
    if n == 1 and count < 10 and not told:
        return False
    if between & DOTTED and n < 3:
        return False
    if n > 1 and sizes[n - 1] < 2 and not told:
        return False
    if digits[0] == 1:
        return count == 11 and _north_american(digits, np.int64(1))
    two = digits[0] * 10 + digits[1]
    three = two * 10 + digits[2]
    if n > 1 and sizes[0] <= 3:
        return codes[digits[0] if sizes[0] == 1 else two if sizes[0] == 2 else three]
    return codes[digits[0]] or codes[two] or codes[three]


@njit(nogil=True, cache=True)
def _national(digits, sizes, n, between):  # type: ignore[no-untyped-def]
    if n == 3 and sizes[0] == 3 and sizes[1] == 3 and sizes[2] == 4 and digits[0] != 0:
        return _north_american(digits, np.int64(0))
    if n == 4 and sizes[0] == 1 and digits[0] == 1 and sizes[1] == 3 and sizes[2] == 3 and sizes[3] == 4:
        return _north_american(digits, np.int64(1))
    if n < 3 or digits[0] != 0 or digits[1] == 0:
        return False
    if n == 3 and between == DASHED:
        return 2 <= sizes[0] <= 4 and 3 <= sizes[1] <= 4 and sizes[2] == 4
    if n == 5 and between == DOTTED:
        return sizes[0] == 2 and sizes[1] == 2 and sizes[2] == 2 and sizes[3] == 2 and sizes[4] == 2
    return False


@njit(nogil=True, cache=True)
def _bracketed(digits, sizes, n, between):  # type: ignore[no-untyped-def]
    """(415) 555-2671, (11) 98765-4321"""
    if n != 3 or sizes[2] != 4 or between & SLASHED:
        return False
    if sizes[0] == 3 and sizes[1] == 3:
        return _north_american(digits, np.int64(0))
    return sizes[0] == 2 and sizes[1] == 5 and digits[0] > 0 and digits[2] == 9 and between & DASHED != 0


@njit(nogil=True, cache=True)
def _date(digits, sizes, n):  # type: ignore[no-untyped-def]
    """Whether groups are a date, or two years."""
    if n == 3:
        return (sizes[0] == 4 and sizes[1] <= 2 and sizes[2] <= 2) or (
            sizes[2] == 4 and sizes[1] <= 2 and sizes[0] <= 2
        )
    if n == 2 and sizes[0] == 4 and sizes[1] == 4:
        one, other = digits[0] * 10 + digits[1], digits[4] * 10 + digits[5]
        return 10 <= one <= 20 and 10 <= other <= 20
    return False


@njit(nogil=True, cache=True)
def _ipv4(data, low, at, end, tables, public):  # type: ignore[no-untyped-def]
    """The end of the address that begins at `at`; `at` where none does."""
    classes = tables.classes
    left, lefter = byte_at(data, low, at - 1, end), byte_at(data, low, at - 2, end)
    in_url = left == 47 and lefter == 47
    if (left == 47 and not in_url) or (left == 45 and is_a(classes, lefter, WORD)) or left in (94, 126, 43):  # ^ ~ +
        return at
    if left == 61 and lefter in (61, 60, 62, 126, 33):  # == <= >= ~= !=
        return at
    address = np.int64(0)
    i = at
    small = True
    for k in range(4):
        value, begin = np.int64(0), i
        while i < end and i - begin < 4 and is_a(classes, data[np.uint64(i)], DIGIT):
            value = value * 10 + np.int64(data[np.uint64(i)]) - 48
            i += 1
        if i == begin or value > 255 or i - begin > 3 or (i - begin > 1 and data[np.uint64(begin)] == 48):
            return at
        small = small and bool(value < 100)
        address = address << 8 | value
        if k < 3:
            if byte_at(data, at, i, end) != 46:
                return at
            i += 1
    right, then = byte_at(data, at, i, end), byte_at(data, at, i + 1, end)
    if is_a(classes, right, WORD) or (right in (46, 45) and is_a(classes, then, WORD)) or right in (43, 126):
        return at
    last = address & 255
    if public and (not is_public(address) or last == 0 or last == 255):
        return at
    port = right == 58 and is_a(classes, then, DIGIT) and is_a(classes, byte_at(data, at, i + 2, end), DIGIT)
    small = small or address >> 16 in (0x0102, 0x0103, 0x0205, 0x0210)  # object identifiers: 1.3., 2.5., ...
    if small and not in_url and not port and not told(data, low, at, classes, tables.address):
        return at
    return at if told(data, low, at, classes, tables.version) else i


@njit(nogil=True, cache=True)
def is_public(a):  # type: ignore[no-untyped-def]
    """Globally reachable by the registries of special-purpose addresses (RFC 6890), and unicast."""
    top, sixteen, twenty_four = a >> 24, a >> 16, a >> 8
    if top == 0 or top == 10 or top == 127 or top >= 224:
        return False
    if sixteen in (0xA9FE, 0xC0A8, 0xC612, 0xC613) or a >> 22 == 0x191 or a >> 20 == 0xAC1:
        return False  # 169.254/16, 192.168/16, 198.18/15, 100.64/10, 172.16/12
    return twenty_four not in (0xC00000, 0xC00002, 0xC05863, 0xC63364, 0xCB0071)


@njit(nogil=True, cache=True)
def _card(data, low, at, end, tables, digits):  # type: ignore[no-untyped-def]
    """The end of the card number that begins at `at`; `at` where none does."""
    classes = tables.classes
    left, lefter = byte_at(data, low, at - 1, end), byte_at(data, low, at - 2, end)
    if left == 32 and is_a(classes, lefter, DIGIT):
        return at
    mark = run = count = groups = 0
    i = at
    shape = 0  # sizes of the groups as decimal digits
    while i < end and count < ROOM:
        b = data[np.uint64(i)]
        if is_a(classes, b, DIGIT):
            digits[count] = np.int64(b) - 48
            count += 1
            run += 1
        elif (
            b in (32, 45)
            and (mark == 0 or mark == b)
            and groups < 5
            and is_a(classes, byte_at(data, at, i + 1, end), DIGIT)
        ):
            shape = shape * 10 + min(run, 9)
            run = 0
            if shape in (4444, 465, 464):
                break  # what follows the last group is another number
            mark = b
            groups += 1
        else:
            break
        i += 1
    if run > 0:
        shape = shape * 10 + min(run, 9)
    if mark == 0:
        if count < 13 or count > 19 or not told(data, low, at, classes, tables.card):
            return at
    elif shape != 4444 and shape != 465 and shape != 464:
        return at
    right, then = byte_at(data, at, i, end), byte_at(data, at, i + 1, end)
    if is_a(classes, right, WORD) or (right in (45, 46, 47, 58) and is_a(classes, then, WORD)):
        return at
    if right == 32 and mark == 32 and _four_digits(data, i + 1, end, classes):
        return at
    return i if _issued(digits, count) and _luhn(digits, count) else at


@njit(nogil=True, cache=True)
def _four_digits(data, i, end, classes):  # type: ignore[no-untyped-def]
    for k in range(4):
        if not is_a(classes, byte_at(data, i, i + k, end), DIGIT):
            return False
    return not is_a(classes, byte_at(data, i, i + 4, end), DIGIT)


@njit(nogil=True, cache=True)
def _issued(digits, count):  # type: ignore[no-untyped-def]
    """Whether Visa, Mastercard, American Express, Discover, JCB, Diners or UnionPay issue such numbers."""
    prefix = digits[0] * 1000 + digits[1] * 100 + digits[2] * 10 + digits[3]
    two = prefix // 100
    if digits[0] == 4:
        return count == 13 or count == 16 or count == 19
    if two == 34 or two == 37:
        return count == 15
    if 3000 <= prefix <= 3059 or two == 36 or two == 38:
        return count == 14
    if two == 62:
        return 16 <= count <= 19
    sixteen = 51 <= two <= 55 or 2221 <= prefix <= 2720 or 3528 <= prefix <= 3589
    return count == 16 and (sixteen or prefix == 6011 or two == 65 or 6440 <= prefix <= 6499)


@njit(nogil=True, cache=True)
def _luhn(digits, count):  # type: ignore[no-untyped-def]
    total = np.int64(0)
    for k in range(count):
        d = digits[count - 1 - k] * (2 if k % 2 else 1)
        total += d - 9 if d > 9 else d
    return total % 10 == 0
