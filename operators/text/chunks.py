"""Cuts a text into chunks of about one size, at the ends of paragraphs where it can be.

A language model that is to rewrite more than some 300 tokens at once leaves things out (WRAP: Maini et al. 2024,
arXiv:2401.16380, section 3.1). Words are those of deduplication (operators/dedup/words.py), a letter of a script
without spaces being one.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from operators.dedup.words import simplify
from operators.text.unicode_classes import CLOSER, TERMINAL, flags

WIDE = 0x3000  # sentence marks from here on need no white space after them
LETTERS = 16  # characters that count as a word at least: twice what a word and its white space have in most languages


def words(texts: Sequence[str]) -> list[int]:
    """The number of words of each text."""
    plain = simplify(pa.array(texts, pa.large_string()))
    gaps = pc.add(pc.count_substring(plain, " "), 1)
    found: list[int] = pc.if_else(pc.equal(pc.binary_length(plain), 0), 0, gaps).to_pylist()
    return found


def chunks(text: str, most: int) -> list[str]:
    """Parts of at most `most` words, and of LETTERS times as many characters, that together are the text, white space
    and all. A part may have no word, of a text that has as many characters without one.

    A longer text is cut at blank lines, else at line feeds, at ends of sentences, at white space, and as a last
    resort anywhere, whichever is the first that gives parts short enough; neighbours are then put together again as
    far as they fit, evenly."""
    return _parts(text, _sizes([text])[0], most * LETTERS, _borders())


def _sizes(texts: Sequence[str]) -> list[int]:
    """Of each text its characters, or LETTERS for each word if that is more."""
    return [max(LETTERS * n, len(text)) for text, n in zip(texts, words(texts), strict=True)]


def _parts(text: str, size: int, most: int, borders: Sequence[re.Pattern[str]]) -> list[str]:
    if not borders or size <= most:
        return [text]
    ends = [found.end() for found in borders[0].finditer(text)]
    cuts = sorted({0, *ends, len(text)})
    wholes = [text[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    parts, sizes = [], []
    for whole, n in zip(wholes, _sizes(wholes), strict=True):
        shorter = _parts(whole, n, most, borders[1:])
        parts += shorter
        sizes += [n] if len(shorter) == 1 else _sizes(shorter)
    return _joined(parts, sizes, most)


def _joined(parts: list[str], sizes: list[int], most: int) -> list[str]:
    """Neighbours together, up to a size of `most`, each about as large as the others."""
    found: list[list[str]] = [[]]
    have, left = 0, sum(sizes)  # sizes of the chunk that is being filled, and of it and what follows
    for part, size in zip(parts, sizes, strict=True):
        even = left / max(1, math.ceil(left / most))
        if have and (have + size > most or have + size / 2 > even):
            found.append([])
            have, left = 0, left - have
        found[-1].append(part)
        have += size
    return ["".join(chunk) for chunk in found]


@functools.cache
def _borders() -> tuple[re.Pattern[str], ...]:
    """What a text may be cut behind, the best first."""
    characters = np.arange(0x110000, dtype=np.uint32).view("U1")
    marks = characters[flags() & TERMINAL != 0]
    closers = re.escape("".join(characters[flags() & CLOSER != 0]))
    narrow = re.escape("".join(mark for mark in marks if ord(mark) < WIDE))
    wide = re.escape("".join(mark for mark in marks if ord(mark) >= WIDE))
    sentence = rf"[{narrow}][{closers}]*\s+|[{wide}]+[{closers}]*\s*"
    anywhere = (rf"(?s).{{{LETTERS}}}", r"(?s).")
    return tuple(re.compile(border) for border in (r"\n\s*\n\s*", r"\n\s*", sentence, r"\s+", *anywhere))
