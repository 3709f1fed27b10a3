"""Gopher's repetition rules (Rae et al. 2021, arXiv 2112.11446, table A1), in three readings.

| | paper | datatrove 0.10 | nemo (NeMo Curator 1.3) |
|---|---|---|---|
| lines | not blank | between runs of line feeds, empty first and last too | not blank |
| paragraphs | between two or more line feeds, not blank | the same on stripped text, blank too | between two |
| duplicates | every line that stands twice, the first too | those that stood before | those that stood before |
| of how many characters | of the lines, paragraphs or words | of the text | lines, paragraphs; n-grams: text |
| n-grams | see ngrams.py | see ngrams.py | see ngrams.py |
| fewer words than n | kept | kept | dropped |
| order | lines, paragraphs, then characters | paragraphs, then lines | as paper |

`paper` is the literal reading ("characters contained within all duplicate n-grams, not counting characters in
overlapping n-grams twice"), as in DCLM, but with words cut at white space and punctuation left on them. There, each
letter of a script without spaces is a word, and where those are more than half of the words the n-gram rules are not
asked: 5 letters are no 5 words. NeMo takes any of several top n-grams; here `nemo` takes the first.
A text without a line is dropped as `empty` (`datatrove`: only a text without a character).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import pyarrow as pa

from operators.document import Operator, drop_by_rules, parameters
from operators.text.ngrams import DUPLICATE, TOP
from operators.text.rules import Share, above, below
from operators.text.segment import Segmenter, WordSpans
from operators.text.statistics import UNASKED, statistics

_LINES = ("duplicate_lines", "duplicate_paragraphs", "duplicate_line_chars", "duplicate_paragraph_chars")
_PARAGRAPHS_FIRST = ("duplicate_paragraphs", "duplicate_paragraph_chars", "duplicate_lines", "duplicate_line_chars")
_NGRAMS = (*(f"top_{n}gram" for n in TOP), *(f"duplicate_{n}gram" for n in DUPLICATE))


@parameters
class GopherRepetition(Operator):
    """Drops documents in which a share is above its bound: a share of lines, paragraphs or characters."""

    name: ClassVar[str] = "gopher_repetition"
    mode: Literal["paper", "datatrove", "nemo"] = "paper"
    words: Segmenter = "whitespace"
    max_duplicate_lines: Share = 0.30
    max_duplicate_paragraphs: Share = 0.30
    max_duplicate_line_chars: Share = 0.20
    max_duplicate_paragraph_chars: Share = 0.20
    max_top_2gram: Share = 0.20
    max_top_3gram: Share = 0.18
    max_top_4gram: Share = 0.16
    max_duplicate_5gram: Share = 0.15
    max_duplicate_6gram: Share = 0.14
    max_duplicate_7gram: Share = 0.13
    max_duplicate_8gram: Share = 0.12
    max_duplicate_9gram: Share = 0.11
    max_duplicate_10gram: Share = 0.10
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
        docs, n = statistics(docs, self.mode, self.words, spans)
        datatrove = self.mode == "datatrove"
        names = (*(_PARAGRAPHS_FIRST if datatrove else _LINES), *_NGRAMS)
        empty = below("empty", n["characters" if datatrove else "lines"], 1)
        return drop_by_rules(docs, [empty, *(above(name, n[name], getattr(self, f"max_{name}")) for name in names)])
