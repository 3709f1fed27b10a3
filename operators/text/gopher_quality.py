"""Gopher's quality rules (Rae et al. 2021, arXiv 2112.11446, appendix A1.1), in three readings.

| | paper | datatrove 0.10 | nemo (NeMo Curator 1.3) |
|---|---|---|---|
| count and mean length of words | words with a character that is no punctuation | the same | all words |
| scripts without spaces | each letter a word | one long word | one long word |
| "#" and ellipsis per word | "#"; "..." and "…"; separately | the same | words mostly of "#" or an ellipsis, together |
| lines | not blank | as str.splitlines, blank ones too | not blank |
| bullets | • ● * - | • - | • ‣ ⁃ ⁌ ⁍ ∙ ○ ● ◘ ◦ ⦾ ⦿ |
| ellipsis at the end of a line | ... … | the same | also [...] (...) […] -» read more, read more.. |
| stop words | distinct, any ASCII case | distinct, exact | occurrences, exact |

A document drops for the first rule it breaks, in the order of the fields; 0 words make every share 0. In `paper`, the
length of words and the stop words say nothing where more than half of the words are single letters of a script
without spaces, and are not asked. The stop words are English: set `min_stop_words: 0` for other languages.
datatrove cuts words with spaCy; `words: words` is the nearest here (see segment.py).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from operators.document import Operator, drop_by_rules, parameters
from operators.text.rules import Share, above, below, share
from operators.text.segment import Segmenter, WordSpans, source
from operators.text.statistics import Marks, marks, quality_counts

_ELLIPSES = ("...", "…")
_BULLETS = {"paper": "•●*-", "datatrove": "•-", "nemo": "•‣⁃⁌⁍∙○●◘◦⦾⦿"}
_NEMO_ELLIPSES = (*_ELLIPSES, "[...]", "(...)", "[…]", "-»", "read more..", "read more")


@parameters
class GopherQuality(Operator):
    """Drops documents that break a rule; a bound is broken below `min_` and above `max_`."""

    name: ClassVar[str] = "gopher_quality"
    mode: Literal["paper", "datatrove", "nemo"] = "paper"
    words: Segmenter = "whitespace"
    min_words: int = Field(50, ge=0)
    max_words: int = Field(100_000, ge=0)
    min_mean_word_chars: Share = 3.0
    max_mean_word_chars: Share = 10.0
    max_hashes_per_word: Share = 0.1
    max_ellipses_per_word: Share = 0.1
    max_bullet_lines: Share = 0.9
    max_ellipsis_lines: Share = 0.3
    min_alpha_words: Share = 0.8
    min_stop_words: int = Field(2, ge=0)
    stop_words: Annotated[tuple[str, ...], Field(max_length=64)] = (
        "the",
        "be",
        "to",
        "of",
        "and",
        "that",
        "have",
        "with",
    )
    revision: Literal[1] = 1

    def __call__(self, docs: pa.Table) -> pa.Table:
        return self.judge(docs, None)

    def judge(self, docs: pa.Table, spans: WordSpans | None) -> pa.Table:
        """As a call, with the words given from outside where `spans` is not None."""
        src = source(docs["text"], self.words, self.mode == "paper", spans)
        n = quality_counts(src, self._marks())
        nemo = self.mode == "nemo"
        counted, chars = (n.words, n.chars) if nemo else (n.solid_words, n.solid_chars)
        mean = share(chars, counted)
        spaced = n.character_words * 2 <= n.words if self.mode == "paper" else np.ones(len(n.words), np.bool_)
        stop_words = n.stop_words if nemo else n.distinct_stop_words
        symbols = n.symbol_words if nemo else n.hashes
        alpha = share(n.alpha_words, n.words)
        some = counted > 0
        rules = [
            below("too_few_words", counted, self.min_words),
            above("too_many_words", counted, self.max_words),
            below("short_words", mean, self.min_mean_word_chars, spaced & some),
            above("long_words", mean, self.max_mean_word_chars, spaced),
            above("too_many_symbols" if nemo else "too_many_hashes", share(symbols, n.words), self.max_hashes_per_word),
            above("too_many_ellipses", share(n.ellipses, n.words), self.max_ellipses_per_word),
            above("too_many_bullets", share(n.bullet_lines, n.lines), self.max_bullet_lines),
            above("too_many_ellipsis_lines", share(n.ellipsis_lines, n.lines), self.max_ellipsis_lines),
            below("too_few_alpha_words", alpha, self.min_alpha_words, some),
            below("too_few_stop_words", stop_words, self.min_stop_words, spaced),
        ]
        if nemo:  # ellipses are among its symbols
            rules = [rule for rule in rules if rule.reason != "too_many_ellipses"]
        return drop_by_rules(docs, rules)

    def _marks(self) -> Marks:
        ellipses = _NEMO_ELLIPSES if self.mode == "nemo" else _ELLIPSES
        return marks(_BULLETS[self.mode], ellipses, self.stop_words, self.mode)
