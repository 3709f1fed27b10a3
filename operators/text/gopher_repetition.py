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

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from operators.document import Operator, Rule, drop_by_rules, parameters
from operators.text.ngrams import DATATROVE, DUPLICATE, NEMO, PAPER, TOP, ngram_counts
from operators.text.rules import Share, above, below, share
from operators.text.segment import Segmenter, Source, WordSpans, source
from operators.text.statistics import Split, repeat_counts

_LINES = {
    "paper": Split(breaks=1, whole_run=True, keep_blank=False, strip_text=False),
    "datatrove": Split(breaks=1, whole_run=True, keep_blank=True, strip_text=False),
    "nemo": Split(breaks=1, whole_run=True, keep_blank=False, strip_text=False),
}
_PARAGRAPHS = {
    "paper": Split(breaks=2, whole_run=True, keep_blank=False, strip_text=False),
    "datatrove": Split(breaks=2, whole_run=True, keep_blank=True, strip_text=True),
    "nemo": Split(breaks=2, whole_run=False, keep_blank=True, strip_text=False),
}
_READING = {"paper": PAPER, "datatrove": DATATROVE, "nemo": NEMO}


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

    def judge(self, docs: pa.Table, spans: WordSpans | None) -> pa.Table:
        """As a call, with the words given from outside where `spans` is not None."""
        src = source(docs["text"], self.words, self.mode == "paper", spans)
        return drop_by_rules(docs, [*self._part_rules(src), *self._ngram_rules(src)])

    def _part_rules(self, src: Source) -> list[Rule]:
        lines = repeat_counts(src, _LINES[self.mode])
        paragraphs = repeat_counts(src, _PARAGRAPHS[self.mode])
        text_bytes = np.diff(src.offsets)
        shares = {}
        for part, n in (("line", lines), ("paragraph", paragraphs)):
            if self.mode == "paper":
                shares[part] = share(n.members, n.parts), share(n.member_chars, n.chars)
            elif self.mode == "nemo":
                shares[part] = share(n.repeats, n.parts), share(n.repeat_chars, n.chars)
            else:
                shares[part] = share(n.repeats, n.parts), share(n.repeat_chars, n.text_chars)
        of_lines = above("duplicate_lines", shares["line"][0], self.max_duplicate_lines)
        of_line_chars = above("duplicate_line_chars", shares["line"][1], self.max_duplicate_line_chars)
        of_paragraphs = above("duplicate_paragraphs", shares["paragraph"][0], self.max_duplicate_paragraphs)
        of_paragraph_chars = above(
            "duplicate_paragraph_chars", shares["paragraph"][1], self.max_duplicate_paragraph_chars
        )
        empty = below("empty", text_bytes if self.mode == "datatrove" else lines.parts, 1)
        if self.mode == "datatrove":
            return [empty, of_paragraphs, of_paragraph_chars, of_lines, of_line_chars]
        return [empty, of_lines, of_paragraphs, of_line_chars, of_paragraph_chars]

    def _ngram_rules(self, src: Source) -> list[Rule]:
        counts = ngram_counts(src, _READING[self.mode])
        chars = counts.word_chars if self.mode == "paper" else counts.chars
        asked = counts.character_words * 2 <= counts.words if self.mode == "paper" else None
        rules = []
        for kind, sizes, repeated in (("top", TOP, counts.top), ("duplicate", DUPLICATE, counts.duplicate)):
            for size, row in zip(sizes, repeated, strict=True):
                value = share(row, chars)
                if self.mode == "nemo":
                    value[counts.words < size] = 1.0
                rules.append(above(f"{kind}_{size}gram", value, getattr(self, f"max_{kind}_{size}gram"), asked))
        return rules
