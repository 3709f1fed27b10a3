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


def words(texts: Sequence[str]) -> list[int]:
    """The number of words of each text."""
    plain = simplify(pa.array(texts, pa.large_string()))
    gaps = pc.add(pc.count_substring(plain, " "), 1)
    found: list[int] = pc.if_else(pc.equal(pc.binary_length(plain), 0), 0, gaps).to_pylist()
    return found


def chunks(text: str, most: int) -> list[str]:
    """Parts of at most `most` words that together are the text, white space and all.

    A text of more words is cut at blank lines, else at line feeds, at ends of sentences, at white space, and as a last
    resort anywhere, whichever is the first that gives parts short enough; neighbours are then put together again as
    far as they fit, evenly."""
    return _parts(text, words([text])[0], most, _borders())


def _parts(text: str, count: int, most: int, borders: Sequence[re.Pattern[str]]) -> list[str]:
    if not borders or count <= most:
        return [text]
    ends = [found.end() for found in borders[0].finditer(text)]
    cuts = sorted({0, *ends, len(text)})
    wholes = [text[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    parts, counts = [], []
    for whole, n in zip(wholes, words(wholes), strict=True):
        shorter = _parts(whole, n, most, borders[1:])
        parts += shorter
        counts += [n] if len(shorter) == 1 else words(shorter)
    return _joined(parts, counts, most)


def _joined(parts: list[str], counts: list[int], most: int) -> list[str]:
    """Neighbours together, up to `most` words, with about as many words in each as in the others."""
    found: list[list[str]] = [[]]
    have, left = 0, sum(counts)  # words of the chunk that is being filled, and those of it and what follows
    for part, count in zip(parts, counts, strict=True):
        even = left / max(1, math.ceil(left / most))
        if have and count and (have + count > most or have + count / 2 > even):
            found.append([])
            have, left = 0, left - have
        found[-1].append(part)
        have += count
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
    return tuple(re.compile(border) for border in (r"\n\s*\n\s*", r"\n\s*", sentence, r"\s+", r"(?s)."))
