"""Where personal data and keys stand in UTF-8 text: the kernels of pii.py, one pass over the bytes.

A byte that can belong to a find (an @, a colon, the first digit of a number, a plus, a bracket, a pair of letters that
begins an IBAN or a key) is looked at more closely; every look is bounded, so that time is linear in the text. Precision
comes first: what has the form of a find must also pass its checksum, its table or its context.

- email: RFC 5321 without quoting and comments; letters of two bytes in UTF-8 (Latin, Greek, Cyrillic, ...) count. Only
  in a known top-level domain, not `example` (RFC 2606), not git@, user:password@ of a URL or host:path of scp.
- ip: IPv4 and IPv6 (RFC 4291). If asked for public ones: globally reachable (RFC 6890), no address of a network or
  broadcast. Four small numbers are a version or a section unless the words before say address.
- phone: + and a country code that exists (E.164); (NNN) NNN-NNNN and NNN-NNN-NNNN of North America, without 555-01NN;
  0NN-NNNN-NNNN; 0N.NN.NN.NN.NN; (NN) 9NNNN-NNNN; any grouping but a date's after a word for telephone.
- iban: solid or in fours (ISO 13616), with the length of its country and ISO 7064's check.
- card: in groups as embossed, solid only after a word for card; issuer's prefix and length, Luhn (ISO/IEC 7812).
- secret: prefixes that issuers publish for scanners, with their lengths, 8 different characters and a digit; JSON Web
  Tokens (RFC 7519); PEM blocks of private keys (RFC 7468).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from operators.text.pii_numbers import ipv6, number
from operators.text.pii_tables import (
    AT,
    BRACKET,
    CARD,
    COLON,
    COUNTRY,
    DIGIT,
    DOMAIN,
    EMAIL,
    IBAN,
    IP,
    KEY,
    KINDS,
    LOCAL,
    LONGEST_TOKEN,
    LOWER,
    NUMBER,
    PAIR,
    PHONE,
    PLUS,
    ROOM,
    SECRET,
    SHORTEST,
    TOKEN,
    UPPER,
    WORD,
    byte_at,
    is_a,
    is_listed,
    tables,
)


class Spans(NamedTuple):
    """Finds in order: row of the column, bytes start:end of the column's data, and index into KINDS."""

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    kind: NDArray[np.int64]


def find(data: NDArray[np.uint8], offsets: NDArray[np.int64], kinds: tuple[str, ...], public: bool) -> Spans:
    """All finds of `kinds` in a string column as `utf8` gives it; `public`: only globally reachable addresses."""
    begins = np.zeros(256, np.uint8)
    asked = np.array([kind in kinds for kind in KINDS])
    if asked[EMAIL]:
        begins[ord("@")] = AT
    if asked[IP]:
        begins[ord(":")] = COLON
    if asked[PHONE]:
        begins[[ord("+"), ord("(")]] = PLUS, BRACKET
    if asked[[IP, PHONE, CARD]].any():
        begins[48:58] = NUMBER
    table = tables()
    wanted = table.pairs & np.uint8((KEY if asked[SECRET] else 0) | (COUNTRY if asked[IBAN] else 0))
    begins[np.unique(np.flatnonzero(wanted) >> 8)] = PAIR
    out = np.empty((4, int(offsets[-1] - offsets[0]) // SHORTEST + 1), np.int64)
    n = _find(data, offsets, (begins, asked, public), table._replace(pairs=wanted), out)
    return Spans(*out[:, :n])


@njit(nogil=True, cache=True)
def _find(data, offsets, asked, tables, out):  # type: ignore[no-untyped-def]
    begins, kinds, public = asked
    classes, pairs = tables.classes, tables.pairs
    digits, sizes = np.zeros(ROOM, np.int64), np.zeros(ROOM, np.int64)
    n = np.int64(0)
    for row in range(offsets.shape[0] - 1):
        i, end = offsets[row], offsets[row + 1]
        low = i  # the end of the last find: nothing before it is context
        before = np.int64(-1)  # kind of the last find
        numbers = i  # what is before here has been read as a group of a longer number
        while i < end:
            b = data[np.uint64(i)]
            what = begins[np.uint64(b)]
            if what == 0:
                i += 1
                continue
            start = stop = kind = 0
            after = i + 1
            if what == PAIR:
                if after < end and pairs[np.uint64(b) << np.uint64(8) | np.uint64(data[np.uint64(after)])]:
                    start, stop, kind, after = _pair(data, low, i, end, tables)
            elif what == AT:
                start, stop = _email(data, low, i, end, tables)
            elif what == COLON:
                start, stop, after = ipv6(data, low, i, end, classes, public)
                kind = IP
            elif what == NUMBER and i < numbers and _plain(data, i, end):
                while after < end and 48 <= data[np.uint64(after)] <= 57:
                    after += 1
            else:
                start, stop, kind, after, numbers = number(
                    data, (low, i, end, numbers), (kinds, public, before), tables, (digits, sizes)
                )
            if stop > start:
                out[0, n], out[1, n], out[2, n], out[3, n] = row, start, stop, kind
                n += 1
                low = i = stop
                before = np.int64(kind)
            else:
                i = after
    return n


@njit(nogil=True, cache=True)
def _plain(data, at, end):  # type: ignore[no-untyped-def]
    """Whether the digits after another group of a number are no number of their own, with points or dashes."""
    i = at
    while i < end and 48 <= data[np.uint64(i)] <= 57:
        i += 1
    return data[np.uint64(at - 1)] == 32 and not (i < end and data[np.uint64(i)] in (45, 46))


@njit(nogil=True, cache=True)
def _email(data, low, at, end, tables):  # type: ignore[no-untyped-def]
    """(start, end) of the address around the @, the same number twice where there is none."""
    classes = tables.classes
    start = at
    while start > low and at - start <= 64:
        b = data[np.uint64(start - 1)]
        if b & 0xC0 == 0x80 and start - 2 >= low and 0xC3 <= data[np.uint64(start - 2)] <= 0xDF:
            start -= 2
        elif is_a(classes, b, LOCAL) and not (b == 46 and data[np.uint64(start)] == 46):
            start -= 1
        else:
            break
    while start < at and data[np.uint64(start)] in (37, 43, 45, 46):  # % + - .
        start += 1
    if start == at or at - start > 64 or data[np.uint64(at - 1)] == 46:
        return at, at
    if at - start == 3 and data[np.uint64(start)] == 103 and data[np.uint64(start + 1)] == 105:  # git
        return at, at
    if byte_at(data, low, start - 1, end) == 64 or _in_url(data, low, start, classes):
        return at, at
    stop = _domain(data, at + 1, end, classes, tables.top_level)
    if is_listed(tables.nobody, data, at + 1, stop):
        return at, at
    follows, then = byte_at(data, at, stop, end), byte_at(data, at, stop + 1, end)
    if follows in (40, 64, 95) or (follows == 58 and (is_a(classes, then, WORD) or then in (47, 126, 46))):
        return at, at  # ( @ _ or host:path
    return (start, stop) if stop > at + 1 else (at, at)


@njit(nogil=True, cache=True)
def _in_user(classes, byte):  # type: ignore[no-untyped-def]
    return byte == 58 or is_a(classes, byte, LOCAL)


@njit(nogil=True, cache=True)
def _in_url(data, low, at, classes):  # type: ignore[no-untyped-def]
    """Whether `at` is in the user's name or password of a URL."""
    begin = at
    while begin > low and at - begin < 80 and _in_user(classes, data[np.uint64(begin - 1)]):
        begin -= 1
    return begin - 2 >= low and data[np.uint64(begin - 1)] == 47 and data[np.uint64(begin - 2)] == 47


@njit(nogil=True, cache=True)
def _domain(data, begin, end, classes, top_level):  # type: ignore[no-untyped-def]
    """The end of the domain that begins there; `begin` where none does."""
    i = label = begin
    before = dot = np.int64(-1)  # where the label before the last begins, and ends
    while i < end and i - begin <= 253:
        b = data[np.uint64(i)]
        if 0xC3 <= b <= 0xDF:
            i += 2
        elif is_a(classes, b, DOMAIN):
            i += 1
        elif b == 46 and i > label:
            after = byte_at(data, begin, i + 1, end)
            if not (is_a(classes, after, DOMAIN) or 0xC3 <= after <= 0xDF):
                break
            if data[np.uint64(label)] == 45 or data[np.uint64(i - 1)] == 45 or _is_example(data, label, i):
                return begin
            before, dot = label, i
            label = i = i + 1
        else:
            break
    if dot < 0 or i - begin > 253:
        return begin
    while i > label and data[np.uint64(i - 1)] == 45:
        i -= 1
    if _is_top_level(data, label, i, top_level):
        return i
    if before > begin and is_a(classes, data[np.uint64(label)], UPPER) and _is_top_level(data, before, dot, top_level):
        return dot  # the next sentence, without a space
    return begin


@njit(nogil=True, cache=True)
def _is_top_level(data, begin, end, top_level):  # type: ignore[no-untyped-def]
    if end - begin < 2:
        return False
    if data[np.uint64(begin)] == 120 and data[np.uint64(begin + 1)] == 110:
        return end - begin > 4 and data[np.uint64(begin + 2)] == 45 and data[np.uint64(begin + 3)] == 45
    if data[np.uint64(begin)] >= 0x80:
        for i in range(begin, end):
            if data[np.uint64(i)] < 0x80:
                return False
        return end - begin >= 4
    return is_listed(top_level, data, begin, end)


@njit(nogil=True, cache=True)
def _is_example(data, begin, end):  # type: ignore[no-untyped-def]
    name = b"example"
    same = end - begin == 7
    for k in range(7 if same else 0):
        same = same and data[np.uint64(begin + k)] | 32 == name[k]
    return same


@njit(nogil=True, cache=True)
def _pair(data, low, at, end, tables):  # type: ignore[no-untyped-def]
    """(start, end, kind, where to go on) of the IBAN, key, token or PEM block that begins at `at`."""
    classes = tables.classes
    left = byte_at(data, low, at - 1, end)
    if data[np.uint64(at)] == 45:
        if left == 45:
            return at, at, SECRET, at + 1
        stop, after = _private_key(data, at, end, classes)
        return at, stop, SECRET, after
    if is_a(classes, left, WORD):
        return at, at, SECRET, at + 1
    found = tables.pairs[np.uint64(data[np.uint64(at)]) << np.uint64(8) | np.uint64(data[np.uint64(at + 1)])]
    if found & COUNTRY:
        stop = _iban(data, at, end, tables)
        if stop > at:
            return at, stop, IBAN, stop
    if found & KEY and left != 45:
        if data[np.uint64(at)] == 101:
            stop = _web_token(data, at, end, classes)
        else:
            stop = _key(data, at, end, tables)
        return at, stop, SECRET, max(stop, at + 1)
    return at, at, SECRET, at + 1


@njit(nogil=True, cache=True)
def _iban(data, at, end, tables):  # type: ignore[no-untyped-def]
    """The end of the IBAN that begins at `at`; `at` where none does."""
    classes = tables.classes
    length = tables.iban_lengths[(np.int64(data[np.uint64(at)]) - 65) * 26 + np.int64(data[np.uint64(at + 1)]) - 65]
    rest = np.int64(0)  # of what follows the first four characters, modulo 97
    head = np.int64(0)
    i = at
    count = np.int64(0)
    spaced = False
    while count < length:
        b = byte_at(data, at, i, end)
        if b == 32 and count % 4 == 0 and count > 0 and (spaced or count == 4):
            spaced = True
            i += 1
            b = byte_at(data, at, i, end)
        elif spaced and count % 4 == 0:
            return at
        digit = is_a(classes, b, DIGIT)
        if not (digit or is_a(classes, b, UPPER)) or (count in (2, 3) and not digit):
            return at
        value = b - 48 if digit else b - 55
        if count < 4:
            head = (head * (10 if digit else 100) + value) % 97_000_000
        else:
            rest = (rest * (10 if digit else 100) + value) % 97
        count += 1
        i += 1
    if is_a(classes, byte_at(data, at, i, end), WORD):
        return at
    # The first four characters go to the end: two letters of two digits each, and two digits.
    return i if (rest * 1_000_000 + head) % 97 == 1 else at


@njit(nogil=True, cache=True)
def _key(data, at, end, tables):  # type: ignore[no-untyped-def]
    classes, prefixes, prefix_at = tables.classes, tables.prefixes, tables.prefix_at
    for k in range(prefix_at.shape[0] - 1):
        i = at
        p = prefix_at[k]
        while p < prefix_at[k + 1] and i < end and data[np.uint64(i)] == prefixes[np.uint64(p)]:
            i += 1
            p += 1
        if p < prefix_at[k + 1]:
            continue
        alphabet, least, most = tables.key_rules[k, 0], tables.key_rules[k, 1], tables.key_rules[k, 2]
        begin = i
        while i < end and i - begin <= most and is_a(classes, data[np.uint64(i)], alphabet):
            i += 1
        if i - begin < least or i - begin > most or is_a(classes, byte_at(data, at, i, end), WORD):
            continue
        if _random(data, begin, i) and not (data[np.uint64(i - 1)] == 69 and _is_example(data, i - 7, i)):
            return i
    return at


@njit(nogil=True, cache=True)
def _random(data, begin, end):  # type: ignore[no-untyped-def]
    """Whether the span has 8 different bytes and a digit: names of things and rows of x have not."""
    seen = np.zeros(128, np.bool_)
    for i in range(begin, end):
        seen[np.uint64(data[np.uint64(i)])] = True
    return seen[48:58].any() and seen.sum() >= 8


@njit(nogil=True, cache=True)
def _web_token(data, at, end, classes):  # type: ignore[no-untyped-def]
    """eyJ….eyJ….…"""
    i = at
    for part in range(3):
        begin = i
        while i < end and i - at < LONGEST_TOKEN and is_a(classes, data[np.uint64(i)], TOKEN):
            i += 1
        if i - begin < 10 or (part < 2 and (data[np.uint64(begin + 2)] != 74 or byte_at(data, at, i, end) != 46)):
            return at
        if part < 2:
            if data[np.uint64(begin)] != 101 or data[np.uint64(begin + 1)] != 121:
                return at
            i += 1
    return at if is_a(classes, byte_at(data, at, i, end), TOKEN) else i


@njit(nogil=True, cache=True)
def _private_key(data, at, end, classes):  # type: ignore[no-untyped-def]
    """(end, where to go on) of the PEM block that begins with the dashes at `at`."""
    i = at
    while i < end and data[np.uint64(i)] == 45:
        i += 1
    after = i
    if i - at != 5 or not _says(data, i, end, b"BEGIN "):
        return at, after
    private = False
    while i < end and i - after < 64 and data[np.uint64(i)] != 45:
        private = private or _says(data, i, end, b"PRIVATE KEY")
        i += 1
    if not private or not _says(data, i, end, b"-----"):
        return at, after
    i += 5
    body = 0
    while i < end and not (data[np.uint64(i)] == 45 and _says(data, i, end, b"-----")):
        body += is_a(classes, data[np.uint64(i)], UPPER | LOWER | DIGIT)
        i += 1
    after = i
    if body < 40 or not _says(data, i, end, b"-----END "):
        return at, after
    i += 5
    while i < end and i - after < 64 and data[np.uint64(i)] != 45:
        i += 1
    if not _says(data, i, end, b"-----"):
        return at, after
    return i + 5, i + 5


@njit(nogil=True, cache=True)
def _says(data, i, end, text):  # type: ignore[no-untyped-def]
    same = i + len(text) <= end
    k = 0
    while same and k < len(text):
        same = data[np.uint64(i + k)] == text[k]
        k += 1
    return same
