"""One form for characters, lines and blank space, without touching words.

Unicode normalisation is that of UAX 15; mojibake is undone by ftfy (Speer 2019). Most documents are in the right form
already, which a kernel sees from the bytes; only the others become Python strings. The kernel is conservative: what
it calls clean never changes, what it calls unclean may turn out not to.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections import Counter
from typing import Annotated, ClassVar, Literal

import ftfy
import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from operators.document import Operator, drop, parameters, utf8, with_columns

BREAKS = re.compile("[\r\v\f\x85\u2028\u2029]")  # beside newline, and after the pair \r\n
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # category Cc, without newline and tab
SPACES = re.compile("  +")
CLEAN, SPACE, UNCLEAN = (
    0,
    1,
    2,
)  # of a character: as it should be; so inside a line, but not at its end; to be looked at


@parameters
class Normalize(Operator):
    """Rewrites `text`; `normalized_chars` counts the characters, white space aside, that did not survive.

    Line breaks of every kind become a newline, control characters go, white space at the ends of lines and of the
    text goes. A character counts when the result has fewer of it; marks that only change places do not count.
    """

    name: ClassVar[str] = "normalize"
    form: Literal["NFC", "NFKC", "none"] = "NFC"
    fix_mojibake: bool = False
    collapse_spaces: bool = False  # runs of spaces become one, which destroys indentation
    max_newlines: Annotated[int, Field(ge=1)] = 2  # in a row; more are cut to as many
    revision: Literal[1] = 1

    @property
    def adds(self) -> tuple[str, ...]:
        return ("normalized_chars",)

    def __call__(self, docs: pa.Table) -> pa.Table:
        texts = pa.concat_arrays([pa.array([], pa.large_string()), *docs["text"].cast(pa.large_string()).chunks])
        data, offsets = utf8(texts)
        table = _characters(self.form, self.fix_mojibake)
        unclean = _unclean(data, offsets, table, self.max_newlines, self.collapse_spaces)

        replaced = np.zeros(docs.num_rows, np.int32)
        if unclean.any():
            done = [self._normalized(text) for text in texts.filter(pa.array(unclean)).to_pylist()]
            replaced[unclean] = [count for _, count in done]
            texts = pc.replace_with_mask(
                texts, pa.array(unclean), pa.array([text for text, _ in done], pa.large_string())
            )
        empty = pc.equal(pc.fill_null(pc.binary_length(texts), 0), 0)
        docs = with_columns(docs, {"text": texts, "normalized_chars": pa.array(replaced)})
        return drop(docs, pc.if_else(empty, "empty", pa.scalar(None, pa.string())))

    def _normalized(self, text: str) -> tuple[str, int]:
        fixed = ftfy.fix_encoding(text) if self.fix_mojibake else text
        lines = BREAKS.sub("\n", fixed.replace("\r\n", "\n"))
        result = CONTROLS.sub("", lines)
        if self.form != "none":
            result = unicodedata.normalize(self.form, result)
        lost = 0 if result == lines and fixed == text else _lost(text, result)
        if self.collapse_spaces:
            result = SPACES.sub(" ", result)
        result = "\n".join([line.rstrip() for line in result.split("\n")]).strip()
        return re.sub(f"\n{{{self.max_newlines + 1},}}", "\n" * self.max_newlines, result), lost


def _lost(before: str, after: str) -> int:
    """How many characters of `before`, white space aside, `after` has fewer of."""
    return sum(count for char, count in (Counter(before) - Counter(after)).items() if not char.isspace())


@functools.cache
def _characters(form: Literal["NFC", "NFKC", "none"], fix_mojibake: bool) -> NDArray[np.uint8]:
    """CLEAN, SPACE or UNCLEAN for each code point.

    Unclean for a form is what it may change, alone or after another character: what it maps to something else, what
    has a combining class, and what can be the second half of a composition. A text without any of these is in that
    form, since all its characters have the quick check property Yes (UAX 15, 9).
    """
    table = np.full(sys.maxunicode + 1, CLEAN, np.uint8)
    if form != "none":
        for code in range(0x80, 0x30000):  # beyond are planes whose characters no form changes
            char = chr(code)
            if unicodedata.combining(char) or not unicodedata.is_normalized(form, char):
                table[code] = UNCLEAN
            parts = unicodedata.decomposition(char).split()
            if len(parts) == 2 and not parts[0].startswith("<"):
                table[int(parts[1], 16)] = UNCLEAN
        table[0x1160:0x1200] = UNCLEAN  # Hangul vowels and finals compose by rule, not by table
    if fix_mojibake:
        table[0x80:] = UNCLEAN
    for code in range(0x3001):  # the last white space is U+3000
        if chr(code).isspace() and table[code] == CLEAN:
            table[code] = SPACE
        if CONTROLS.match(chr(code)) or BREAKS.match(chr(code)):
            table[code] = UNCLEAN
    return table


@numba.njit(nogil=True, cache=True)
def _unclean(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], table: NDArray[np.uint8], max_newlines: int, collapse: bool
) -> NDArray[np.bool_]:
    """Which documents are not surely in the form asked for."""
    out = np.zeros(offsets.size - 1, np.bool_)
    for row in range(offsets.size - 1):
        i = np.uint64(offsets[row])
        end = np.uint64(offsets[row + 1])
        newlines = 0  # in the run that ends at the last character
        spaced = False  # the last character was white space other than a newline
        unclean = i < end and data[i] == 10
        while i < end and not unclean:
            byte = data[i]
            if byte > 32 and byte < 127:
                spaced = False
                newlines = 0
                i += np.uint64(1)
                continue
            if byte == 10:
                newlines += 1
                unclean = spaced or newlines > max_newlines
                i += np.uint64(1)
                continue
            kind = table[byte]
            width = np.uint64(1)
            if byte >= 0x80:
                code, width = _decoded(data, i)
                kind = table[code]
            unclean = (
                kind == UNCLEAN
                or (kind == SPACE and i == np.uint64(offsets[row]))
                or (collapse and byte == 32 and i + np.uint64(1) < end and data[i + np.uint64(1)] == 32)
            )
            spaced = kind == SPACE
            newlines = 0
            i += width
        out[row] = unclean or spaced or newlines > 0
    return out


@numba.njit(nogil=True, cache=True)
def _decoded(data: NDArray[np.uint8], i: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The code point beyond ASCII that starts at byte `i` of valid UTF-8, and its width in bytes."""
    one = np.uint64(1)
    low = np.uint64(data[i + one] & 0x3F)
    if data[i] < 0xE0:
        return (np.uint64(data[i] & 0x1F) << np.uint64(6)) | low, np.uint64(2)
    low = (low << np.uint64(6)) | np.uint64(data[i + one + one] & 0x3F)
    if data[i] < 0xF0:
        return (np.uint64(data[i] & 0x0F) << np.uint64(12)) | low, np.uint64(3)
    low = (low << np.uint64(6)) | np.uint64(data[i + one + one + one] & 0x3F)
    return (np.uint64(data[i] & 0x07) << np.uint64(18)) | low, np.uint64(4)
