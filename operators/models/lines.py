"""A document as the one line that fastText reads, the same for training and for scoring.

The words stay as they are, upper case included, as published quality classifiers were trained (DCLM, arXiv:2406.11794;
PreSelect, arXiv:2503.00808). A newline becomes a space: fastText ends a line there, and words must not be glued. Two
kinds of words mean something else to it than text: one that begins with `__label__` is a label, whoever wrote it, and
`</s>` ends a line. Both are rewritten, so that no text can label itself or hide its end.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from operators.models.fasttext import PREFIX

MAX_CHARS = 20_000  # of a document: some 3,000 words, more than most documents have
HARMLESS = (("\n", " "), (PREFIX, "label:"), ("</s>", "<s>"))  # no replacement can make another of them


def lines_of(texts: pa.ChunkedArray | pa.Array, max_chars: int = MAX_CHARS) -> pa.ChunkedArray | pa.Array:
    """The line of each text, of at most `max_chars` characters of it; empty for null."""
    lines = pc.utf8_slice_codeunits(pc.fill_null(texts, ""), 0, max_chars)
    for found, instead in HARMLESS:
        lines = pc.replace_substring(lines, found, instead)
    return lines
