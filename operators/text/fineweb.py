"""FineWeb's own rules (Penedo et al. 2024, arXiv 2406.17557, section 3.6), in two readings.

| | paper | datatrove 0.10 |
|---|---|---|
| end of a line | white space, closing quotes and brackets after the mark are looked behind | the last character |
| words | each letter of a script without spaces is one | as cut |

Both: lines are the non-blank ones between line feeds; a repeated line counts from its second time on; line feeds of
blank lines count. The bounds are those of the released pipeline; the paper prints 0.1 for repeated lines where the
code that built the corpus has 0.01, and does not name the line feeds. datatrove cuts words with spaCy; `words: words`
is the nearest here (see segment.py).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from operators.document import Operator, drop_by_rules, parameters
from operators.text.rules import Share, above, below
from operators.text.segment import Segmenter, WordSpans
from operators.text.statistics import SHORT_LINE_CHARS, short_lines, statistics


@parameters
class FineWeb(Operator):
    """Drops texts without a line (`empty`), lists, menus and texts that repeat lines."""

    name: ClassVar[str] = "fineweb"
    mode: Literal["paper", "datatrove"] = "paper"
    words: Segmenter = "whitespace"
    min_terminal_lines: Share = 0.12
    max_short_lines: Share = 0.67
    short_line_chars: int = Field(SHORT_LINE_CHARS, ge=0)  # a line of as many or fewer is short
    max_duplicate_line_chars: Share = 0.01
    max_newlines_per_word: Share = 0.3
    revision: Literal[1] = 1

    def __call__(self, docs: pa.Table) -> pa.Table:
        return self.judge(docs, None)

    def judge(self, docs: pa.Table, spans: WordSpans | None) -> pa.Table:
        """As a call, with the words given from outside where `spans` is not None."""
        docs, n = statistics(docs, self.mode, self.words, spans, ("lines",))
        short = n["short_lines"]
        if self.short_line_chars != SHORT_LINE_CHARS:
            short = short_lines(docs, self.short_line_chars)
        rules = [
            below("empty", n["lines"], 1),
            below("few_terminal_lines", n["terminal_lines"], self.min_terminal_lines),
            above("short_lines", short, self.max_short_lines),
            above("duplicate_line_chars", n["repeated_line_chars"], self.max_duplicate_line_chars),
            above("newline_ratio", n["newlines_per_word"], self.max_newlines_per_word),
        ]
        return drop_by_rules(docs, rules)
