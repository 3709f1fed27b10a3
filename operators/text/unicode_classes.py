"""What kind of character each code point is, as one byte of flags: the table that text kernels index.

White space, line breaks, letters and word characters are those of Python's own `str` methods and `re`, asked of the
interpreter's Unicode database. Sentence-ending marks are the 159 of Unicode's property Sentence_Terminal
(PropList.txt), which Python does not expose; symbols are the set of datatrove 0.10 (utils/text.py), on which its
count of words depends. Both are data, written out below as ranges of code points.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SPACE = 1  # str.isspace, what str.split splits at
LETTER = 2  # str.isalpha
SYMBOL = 4  # punctuation and controls; a word made of nothing else counts as no word
BREAK = 8  # str.splitlines ends a line here
TERMINAL = 16  # ends a sentence
WORD = 32  # \w of re
UNSPACED = 64  # a letter of a script written without spaces between words
CLOSER = 128  # may follow the mark that ends a sentence: closing quotes and brackets
UPPER, DIGIT = 1, 2  # in the table of `cases`: str.isupper and str.isdecimal

_TERMINAL = """
21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 17D9-17DA
1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 2E2E 2E3C 2E53-2E54
3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F
FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239
1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C
11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F 1DA88
"""
_SYMBOL = """
0-8 B-1F 21-2F 3A-40 5B-60 7B-9F AB B4 BB 2013-2014 2019 201C-201E 2026 2236 2501 25BA 3001-3002 3008-300D 3010-3011
FF01 FF05 FF08-FF09 FF0C FF0E FF11 FF1A-FF1B FF1F FF5E
"""
_BREAK = "A-D 1C-1E 85 2028-2029"
_CLOSER = "22 27 29 5D 7D BB 2019 201D 203A 3009 300B 300D 300F 3011 FF02 FF07 FF09 FF3D FF5D FF63"
_UNSPACED = """
E01-E4F E80-EFF 1000-109F 1780-17D3 3005-3007 3041-30FF 31F0-31FF 3400-4DBF 4E00-9FFF A9E0-A9FF AA60-AA7F F900-FAFF
FF66-FF9F 20000-323AF
"""  # Thai, Lao, Myanmar, Khmer, Han and kana; letters only, their vowel signs and digits stay with the letter before


@functools.lru_cache(maxsize=1)
def flags() -> NDArray[np.uint8]:
    """One byte of flags for each code point, built from Python's Unicode database in some 50 ms, once a process."""
    characters = np.arange(0x110000, dtype=np.uint32).view("U1")
    letter = np.strings.isalpha(characters)
    word = np.strings.isalnum(characters)
    word[ord("_")] = True
    table = np.strings.isspace(characters) * np.uint8(SPACE) + letter * np.uint8(LETTER) + word * np.uint8(WORD)
    for flag, ranges in ((TERMINAL, _TERMINAL), (SYMBOL, _SYMBOL), (SYMBOL, _TERMINAL), (BREAK, _BREAK)):
        _mark(table, flag, ranges)
    _mark(table, CLOSER, _CLOSER)
    _mark(table, UNSPACED, _UNSPACED)
    table[~letter] &= ~np.uint8(UNSPACED)
    table.flags.writeable = False
    return table


@functools.lru_cache(maxsize=1)
def cases() -> NDArray[np.uint8]:
    """One byte of UPPER and DIGIT for each code point."""
    characters = np.arange(0x110000, dtype=np.uint32).view("U1")
    table: NDArray[np.uint8] = np.strings.isupper(characters) * np.uint8(UPPER)
    table += np.strings.isdecimal(characters) * np.uint8(DIGIT)
    table.flags.writeable = False
    return table


def _mark(table: NDArray[np.uint8], flag: int, ranges: str) -> None:
    for first, last in _bounds(ranges):
        table[first : last + 1] |= np.uint8(flag)


def _bounds(ranges: str) -> Iterator[tuple[int, int]]:
    for text in ranges.split():
        first, _, last = text.partition("-")
        yield int(first, 16), int(last or first, 16)
