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

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from operators.document import Operator, drop_by_rules, parameters
from operators.text.rules import Share, above, below
from operators.text.segment import Segmenter, WordSpans
from operators.text.statistics import STOP_WORDS, UNASKED, statistics, stop_words_found


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
    stop_words: Annotated[tuple[str, ...], Field(max_length=64)] = STOP_WORDS
    revision: Literal[1] = 1

    def __call__(self, docs: pa.Table) -> pa.Table:
        return self.judge(docs, None)

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """Documents that the rules on words were not asked of."""
        if self.mode != "paper":
            return {}
        _, n = statistics(marked, self.mode, self.words, parts=("lines", "words"))
        return {UNASKED: int((n["unspaced_words"] > 0.5).sum())}

    def judge(self, docs: pa.Table, spans: WordSpans | None) -> pa.Table:
        """As a call, with the words given from outside where `spans` is not None."""
        docs, n = statistics(docs, self.mode, self.words, spans, ("lines", "words"))
        stop_words = n["stop_words"]
        if self.stop_words != STOP_WORDS:
            others = stop_words_found(docs, self.mode, self.words, self.stop_words, spans)
            stop_words = np.where(np.isnan(stop_words), np.nan, others)
        symbols = [
            above("too_many_hashes", n["hashes_per_word"], self.max_hashes_per_word),
            above("too_many_ellipses", n["ellipses_per_word"], self.max_ellipses_per_word),
        ]
        if self.mode == "nemo":
            symbols = [above("too_many_symbols", n["symbol_words"], self.max_hashes_per_word)]
        rules = [
            below("too_few_words", n["words"], self.min_words),
            above("too_many_words", n["words"], self.max_words),
            below("short_words", n["mean_word_chars"], self.min_mean_word_chars),
            above("long_words", n["mean_word_chars"], self.max_mean_word_chars),
            *symbols,
            above("too_many_bullets", n["bullet_lines"], self.max_bullet_lines),
            above("too_many_ellipsis_lines", n["ellipsis_lines"], self.max_ellipsis_lines),
            below("too_few_alpha_words", n["alpha_words"], self.min_alpha_words),
            below("too_few_stop_words", stop_words, self.min_stop_words),
        ]
        return drop_by_rules(docs, rules)
