"""C4's cleaning (Raffel et al. 2020, JMLR 21/140, section 2.2): cuts lines out of a page, drops pages left too short.

| | paper | datatrove 0.10 |
|---|---|---|
| "{" and "lorem ipsum" | anywhere on the page | only on lines that pass the rules before, in the order below |
| lines | between line feeds | as str.splitlines |
| end of a line | any script's sentence-ending mark, or " or ” | . ? ! " ' |
| words of a line | after citations are cut; letters of scripts without spaces count | before; between white space |

A line is dropped, in this order, for: a word longer than `max_word_chars`; no mark at its end, or "..."; fewer than
`min_words_per_line`; the word javascript; a phrase of a cookie or privacy notice. `[12]`, `[edit]` and
`[citation needed]` are cut out of lines. The bounds are those of datatrove and the paper's preprint; the journal
prints 3 sentences and 5 words. The list of bad words is not part of this operator.

Phrases are compared without regard to ASCII case. A sentence ends at a mark that ends sentences, with quotes and
brackets after it, before white space; marks outside ASCII need none; a full stop after a single letter or another
full stop ends nothing. A page left without any sentence is always dropped.
datatrove splits with spaCy; tests/operators/text/test_c4.py states the agreement.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from operators.document import Operator, drop_by_rules, parameters, utf8, with_columns
from operators.text.rules import below
from operators.text.segment import any_line_end, decode, first_byte, frozen, line_end, source, strip
from operators.text.unicode_classes import CLOSER, LETTER, SPACE, TERMINAL, UNSPACED

_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATIONS = ("[edit]", "[citation needed]")
LOREM, CURLY = 1, 2  # what a page is dropped for while its lines are read


class Phrases(NamedTuple):
    """Lower-case ASCII phrases as one buffer."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]


class LineRules(NamedTuple):
    paper: bool
    terminal: bool
    citations: bool
    min_words: int
    max_word_chars: int
    curly: bool
    lorem: Phrases
    javascript: Phrases
    policy: Phrases
    cited: Phrases


@parameters
class C4(Operator):
    """Replaces `text` by the lines that stay; drops pages as `lorem_ipsum`, `curly_bracket`, `too_few_sentences`."""

    name: ClassVar[str] = "c4"
    mode: Literal["paper", "datatrove"] = "paper"
    require_terminal_punctuation: bool = True  # FineWeb runs C4 without
    min_sentences: int = Field(5, ge=0)
    min_words_per_line: int = Field(3, ge=0)
    max_word_chars: int = Field(1000, ge=1)
    drop_javascript_lines: bool = True
    drop_policy_lines: bool = True
    drop_curly_brackets: bool = True
    drop_lorem_ipsum: bool = True
    remove_citations: bool = True
    revision: Literal[1] = 1

    def __call__(self, docs: pa.Table) -> pa.Table:
        return self.judge(docs, None)

    def judge(self, docs: pa.Table, sentences: NDArray[np.int64] | None) -> pa.Table:
        """As a call, with the number of sentences left in each document given from outside where not None."""
        src = source(docs["text"])
        kept = np.empty(max(1, int(src.offsets[-1] - src.offsets[0])), np.uint8)
        offsets = np.zeros(docs.num_rows + 1, np.int64)
        counted = np.zeros(docs.num_rows, np.int64)
        page = np.zeros(docs.num_rows, np.int64)
        _clean(src, self._line_rules(), kept, offsets, (counted, page))
        rules = [
            below("lorem_ipsum", (page != LOREM).astype(np.int64), 1),
            below("curly_bracket", (page != CURLY).astype(np.int64), 1),
            below("too_few_sentences", counted if sentences is None else sentences, max(1, self.min_sentences)),
        ]
        marked = drop_by_rules(docs, rules)
        size = int(offsets[-1])
        text = pa.LargeStringArray.from_buffers(docs.num_rows, pa.py_buffer(offsets), pa.py_buffer(kept[:size]))
        alive = marked["drop_reason"].is_null()
        return with_columns(marked, {"text": pc.if_else(alive, text, docs["text"].cast(pa.large_string()))})

    def _line_rules(self) -> LineRules:
        def phrases(asked: bool, *texts: str) -> Phrases:
            data, offsets = utf8(pa.array(texts if asked else (), pa.large_string()))
            return Phrases(frozen(data), frozen(offsets))

        return LineRules(
            paper=self.mode == "paper",
            terminal=self.require_terminal_punctuation,
            citations=self.remove_citations,
            min_words=self.min_words_per_line,
            max_word_chars=self.max_word_chars,
            curly=self.drop_curly_brackets,
            lorem=phrases(self.drop_lorem_ipsum, "lorem ipsum"),
            javascript=phrases(self.drop_javascript_lines, "javascript"),
            policy=phrases(self.drop_policy_lines, *_POLICY),
            cited=phrases(self.remove_citations, *_CITATIONS),
        )


@njit(nogil=True, cache=True)
def _clean(src, rules, kept, offsets, out):  # type: ignore[no-untyped-def]
    """Write the lines that stay, joined by line feeds, to `kept`; out: (sentences left, what drops the page)."""
    counted, page = out
    data, flags = src.data, src.flags
    size = 0
    for d in range(counted.shape[0]):
        at, end = src.offsets[d], src.offsets[d + 1]
        first = size
        if rules.paper:
            page[d] = _page_drop(data, at, end, rules)
        while at < end and page[d] == 0:
            if rules.paper:
                stop = line_end(data, at, end)
                after = stop + 1
            else:
                stop, after = any_line_end(data, at, end, flags)
            begin, stop = strip(data, at, stop, flags)
            at = after
            room = size + 1 if size > first else size
            length, fate = _clean_line(data, begin, stop, flags, rules, kept[room:])
            if fate > 0:
                page[d] = fate
            elif fate == 0:
                if room > size:
                    kept[size] = 10
                size = room + length
                counted[d] += _sentences(kept, room, size, flags)
        first, size = _stripped(kept, first, size, flags)
        offsets[d + 1] = size


@njit(nogil=True, cache=True)
def _stripped(kept, first, size, flags):  # type: ignore[no-untyped-def]
    """The page without white space at its ends, moved to where it began."""
    begin, end = strip(kept, first, size, flags)
    for i in range(end - begin):
        kept[np.uint64(first + i)] = kept[np.uint64(begin + i)]
    return first, first + end - begin


@njit(nogil=True, cache=True)
def _page_drop(data, begin, end, rules):  # type: ignore[no-untyped-def]
    if _holds(data, begin, end, rules.lorem):
        return LOREM
    if rules.curly:
        for i in range(begin, end):
            if data[np.uint64(i)] == 123:
                return CURLY
    return 0


@njit(nogil=True, cache=True)
def _clean_line(data, begin, end, flags, rules, line):  # type: ignore[no-untyped-def]
    """Write the line to `line`; (its length, fate): fate 0 stays, -1 goes, above 0 drops the page."""
    words, longest = _line_words(data, begin, end, flags, rules.paper)
    if longest > rules.max_word_chars:
        return 0, -1
    length = 0
    while begin < end:
        skip = _citation(data, begin, end, rules) if data[np.uint64(begin)] == 91 else 0
        if skip == 0:
            line[np.uint64(length)] = data[np.uint64(begin)]
            length += 1
            skip = 1
        begin += skip
    if rules.paper:
        first, length = _stripped(line, 0, length, flags)
        words, _ = _line_words(line, 0, length, flags, True)
    if rules.terminal and not _ends_well(line, length, flags, rules.paper):
        return 0, -1
    if words < rules.min_words or (rules.paper and length == 0):
        return 0, -1
    if not rules.paper and _holds(line, 0, length, rules.lorem):
        return 0, LOREM
    if _holds(line, 0, length, rules.javascript):
        return 0, -1
    if not rules.paper and rules.curly and _page_drop(line, 0, length, rules) == CURLY:
        return 0, CURLY
    if _holds(line, 0, length, rules.policy):
        return 0, -1
    return length, 0


@njit(nogil=True, cache=True)
def _line_words(data, begin, end, flags, by_character):  # type: ignore[no-untyped-def]
    """(words between white space, characters of the longest). `by_character`: or letters of scripts without spaces
    where those are more."""
    words = longest = chars = letters = 0
    while begin < end:
        point, begin = decode(data, begin)
        flag = flags[np.uint64(point)]
        if flag & SPACE:
            chars = 0
            continue
        words += chars == 0
        chars += 1
        letters += (flag & UNSPACED) != 0
        longest = max(longest, chars)
    return (max(words, letters) if by_character else words), longest


@njit(nogil=True, cache=True)
def _citation(data, at, end, rules):  # type: ignore[no-untyped-def]
    """Bytes of the citation mark that begins at the bracket `at`, or 0."""
    if not rules.citations:
        return 0
    i = at + 1
    while i < end and 48 <= data[np.uint64(i)] <= 57:
        i += 1
    if i < end and data[np.uint64(i)] == 93:
        return i + 1 - at
    cited = rules.cited
    for p in range(cited.offsets.shape[0] - 1):
        size = cited.offsets[p + 1] - cited.offsets[p]
        if at + size <= end and _same(data, at, cited.data, cited.offsets[p], size, False):
            return size
    return 0


@njit(nogil=True, cache=True)
def _same(data, at, other, first, size, fold_case):  # type: ignore[no-untyped-def]
    for i in range(size):
        b = data[np.uint64(at + i)]
        if fold_case and 65 <= b <= 90:
            b += np.uint8(32)
        if b != other[np.uint64(first + i)]:
            return False
    return True


@njit(nogil=True, cache=True)
def _holds(data, begin, end, phrases):  # type: ignore[no-untyped-def]
    """Whether one of the phrases stands in the span, ASCII case aside."""
    texts, offsets = phrases
    for p in range(offsets.shape[0] - 1):
        first, size = offsets[p], offsets[p + 1] - offsets[p]
        lead = texts[np.uint64(first)]
        for i in range(begin, end - size + 1):
            if data[np.uint64(i)] | 32 == lead and _same(data, i, texts, first, size, True):
                return True
    return False


@njit(nogil=True, cache=True)
def _ends_well(line, length, flags, paper):  # type: ignore[no-untyped-def]
    if length >= 3 and line[length - 1] == 46 and line[length - 2] == 46 and line[length - 3] == 46:
        return False
    if length == 0:
        return False
    point = decode(line, first_byte(line, 0, length))[0]
    if point in (0x2E, 0x3F, 0x21, 0x22):
        return True
    if paper:
        return point == 0x201D or flags[np.uint64(point)] & TERMINAL != 0
    return point == 0x27


@njit(nogil=True, cache=True)
def _sentences(data, begin, end, flags):  # type: ignore[no-untyped-def]
    """Sentences of a line, at least one."""
    sentences, letters = 1, 0  # letters: length of the run before
    ended = spaced = False
    previous = 0
    while begin < end:
        point, begin = decode(data, begin)
        flag = flags[np.uint64(point)]
        if point == 46 and previous == 46:
            ended = False
        elif flag & TERMINAL:
            if point != 46 or letters != 1:
                ended = True
                spaced = point > 127
        elif flag & SPACE:
            spaced = spaced or ended
        elif not flag & CLOSER:
            sentences += ended and spaced
            ended = spaced = False
        letters = letters + 1 if flag & LETTER else 0
        previous = point
    return sentences
