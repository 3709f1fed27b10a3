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
from operators.text.segment import ONE, Source, any_line_end, decode, first_byte, frozen, line_end, source, strip
from operators.text.unicode_classes import CLOSER, LETTER, SPACE, TERMINAL, UNSPACED

_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATIONS = ("[edit]", "[citation needed]")
LOREM, CURLY, JAVASCRIPT, POLICY, BRACKET = 1, 2, 4, 8, 16  # what is looked for in a text; the first two drop a page
SEEN = 7  # bytes of a phrase that are looked for in one go: 8 phrases and 2 single characters fit 64 bits


class Phrases(NamedTuple):
    """Lower-case ASCII phrases as one buffer."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]


class Search(NamedTuple):
    """Phrases for the shift-and algorithm (Baeza-Yates and Gonnet 1992), ASCII case aside: a bit for each of the first
    SEEN bytes of each phrase, set while the text so far ends with the phrase up to there."""

    steps: NDArray[np.uint64]  # by byte of the text: the bits that it keeps
    begins: np.uint64
    ends: NDArray[np.uint64]  # by phrase: the bit of the last byte looked for
    any_end: np.uint64
    kinds: NDArray[np.int64]
    phrases: Phrases


class LineRules(NamedTuple):
    paper: bool
    terminal: bool
    min_words: int
    max_word_chars: int
    sentences: int  # that are counted at most
    search: Search
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
        least = max(1, self.min_sentences)
        kept, offsets, (counted, page) = self._cleaned(src, least if sentences is None else 0)
        rules = [
            below("lorem_ipsum", (page != LOREM).astype(np.int64), 1),
            below("curly_bracket", (page != CURLY).astype(np.int64), 1),
            below("too_few_sentences", counted if sentences is None else sentences, least),
        ]
        marked = drop_by_rules(docs, rules)
        size = int(offsets[-1])
        text = pa.LargeStringArray.from_buffers(docs.num_rows, pa.py_buffer(offsets), pa.py_buffer(kept[:size]))
        alive = marked["drop_reason"].is_null()
        return with_columns(marked, {"text": pc.if_else(alive, text, docs["text"].cast(pa.large_string()))})

    def _cleaned(self, src: Source, least: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """(bytes of the lines that stay, offsets of documents in them, (sentences up to `least` or more, what drops
        the page))."""
        kept = np.empty(max(1, int(src.offsets[-1] - src.offsets[0])), np.uint8)
        offsets = np.zeros(len(src.offsets), np.int64)
        out = np.zeros((2, len(src.offsets) - 1), np.int64)
        asked = [
            ("lorem ipsum", LOREM, self.drop_lorem_ipsum),
            ("{", CURLY, self.drop_curly_brackets),
            ("javascript", JAVASCRIPT, self.drop_javascript_lines),
            ("[", BRACKET, self.remove_citations),
            *((phrase, POLICY, self.drop_policy_lines) for phrase in _POLICY),
        ]
        rules = LineRules(
            paper=self.mode == "paper",
            terminal=self.require_terminal_punctuation,
            min_words=self.min_words_per_line,
            max_word_chars=self.max_word_chars,
            sentences=least,
            search=_search({phrase: kind for phrase, kind, wanted in asked if wanted}),
            cited=_phrases(_CITATIONS),
        )
        _clean(src, rules, kept, offsets, out)
        return kept, offsets, out


def _phrases(texts: tuple[str, ...]) -> Phrases:
    data, offsets = utf8(pa.array(texts, pa.large_string()))
    return Phrases(frozen(data), frozen(offsets))


def _search(kinds: dict[str, int]) -> Search:
    steps = np.zeros(256, np.uint64)
    begins, bit, ends = 0, 0, []
    for phrase in kinds:
        begins |= 1 << bit
        for character in phrase[:SEEN]:
            for byte in {ord(character), ord(character.upper())}:
                steps[byte] |= np.uint64(1 << bit)
            bit += 1
        ends.append(1 << (bit - 1))
    return Search(
        steps,
        np.uint64(begins),
        np.array(ends, np.uint64),
        np.uint64(sum(ends)),
        np.array(list(kinds.values()), np.int64),
        _phrases(tuple(kinds)),
    )


@njit(nogil=True, cache=True)
def _find(data, begin, end, search):  # type: ignore[no-untyped-def]
    """The kinds of all phrases in the span."""
    steps, begins, ends, any_end, kinds, phrases = search
    texts, offsets = phrases
    state, found = np.uint64(0), np.int64(0)
    for i in range(begin, end):
        state = (state << ONE | begins) & steps[np.uint64(data[np.uint64(i)])]
        if state & any_end:
            for p in range(ends.shape[0]):
                if state & ends[p] and not found & kinds[p]:
                    first = offsets[p] + min(SEEN, offsets[p + 1] - offsets[p])
                    rest = offsets[p + 1] - first
                    if i + 1 + rest <= end and _same(data, i + 1, texts, first, rest, True):
                        found |= kinds[p]
    return found


@njit(nogil=True, cache=True)
def _clean(src, rules, kept, offsets, out):  # type: ignore[no-untyped-def]
    """Write the lines that stay, joined by line feeds, to `kept`; out: (sentences left, what drops the page)."""
    counted, page = out
    data, flags = src.data, src.flags
    size = 0
    for d in range(counted.shape[0]):
        at, end = src.offsets[d], src.offsets[d + 1]
        first = size
        found = _find(data, at, end, rules.search)
        if rules.paper and found & (LOREM | CURLY):
            page[d] = LOREM if found & LOREM else CURLY
            at = end
        while at < end and page[d] == 0:
            if rules.paper:
                stop = line_end(data, at, end)
                after = stop + 1
            else:
                stop, after = any_line_end(data, at, end, flags)
            begin, stop = strip(data, at, stop, flags)
            at = after
            room = size + 1 if size > first else size
            length, fate = _clean_line(data, begin, stop, flags, rules, found, kept[room:])
            if fate > 0:
                page[d] = fate
            elif fate == 0:
                if room > size:
                    kept[size] = 10
                size = room + length
                if counted[d] < rules.sentences:
                    counted[d] += _sentences(kept, room, size, flags)
        first, size = _stripped(kept, first, size, flags)
        offsets[d + 1] = size


@njit(nogil=True, cache=True)
def _stripped(kept, first, size, flags):  # type: ignore[no-untyped-def]
    """The page without white space at its ends, moved to where it began."""
    begin, end = strip(kept, first, size, flags)
    if begin > first:
        for i in range(end - begin):
            kept[np.uint64(first + i)] = kept[np.uint64(begin + i)]
    return first, first + end - begin


@njit(nogil=True, cache=True)
def _clean_line(data, begin, end, flags, rules, found, line):  # type: ignore[no-untyped-def]
    """Write the line to `line`; (its length, fate): fate 0 stays, -1 goes, above 0 drops the page. `found` is what the
    page holds: a line of a page without phrases and citations has none either."""
    if _has_long_word(data, begin, end, flags, rules.max_word_chars):
        return 0, -1
    if rules.paper:
        enough = True
    else:
        enough = _has_words(data, begin, end, flags, rules.min_words, False)
    length = _without_citations(data, begin, end, rules, line) if found & BRACKET else _copied(data, begin, end, line)
    if rules.paper:
        if found & BRACKET:
            first, length = _stripped(line, 0, length, flags)
        enough = length > 0 and _has_words(line, 0, length, flags, rules.min_words, True)
    if rules.terminal and not _ends_well(line, length, flags, rules.paper):
        return 0, -1
    if not enough:
        return 0, -1
    here = _find(line, 0, length, rules.search) if found else 0
    if not rules.paper and here & LOREM:
        return 0, LOREM
    if here & JAVASCRIPT:
        return 0, -1
    if not rules.paper and here & CURLY:
        return 0, CURLY
    if here & POLICY:
        return 0, -1
    return length, 0


@njit(nogil=True, cache=True)
def _copied(data, begin, end, line):  # type: ignore[no-untyped-def]
    for i in range(end - begin):
        line[np.uint64(i)] = data[np.uint64(begin + i)]
    return end - begin


@njit(nogil=True, cache=True)
def _without_citations(data, begin, end, rules, line):  # type: ignore[no-untyped-def]
    length = 0
    while begin < end:
        skip = _citation(data, begin, end, rules) if data[np.uint64(begin)] == 91 else 0
        if skip == 0:
            line[np.uint64(length)] = data[np.uint64(begin)]
            length += 1
            skip = 1
        begin += skip
    return length


@njit(nogil=True, cache=True)
def _has_long_word(data, begin, end, flags, most):  # type: ignore[no-untyped-def]
    """Whether some word between white space has more than `most` characters. Leaps from space to space: where all of
    `most` + 1 bytes hold one, there is no such word."""
    while end - begin > most:
        at = begin + most
        while at >= begin and data[np.uint64(at)] != 32:
            at -= 1
        if at < begin:
            return _longest_word(data, begin, end, flags) > most
        begin = at + 1
    return False


@njit(nogil=True, cache=True)
def _longest_word(data, begin, end, flags):  # type: ignore[no-untyped-def]
    longest = chars = 0
    while begin < end:
        point, begin = decode(data, begin)
        chars = 0 if flags[np.uint64(point)] & SPACE else chars + 1
        longest = max(longest, chars)
    return longest


@njit(nogil=True, cache=True)
def _has_words(data, begin, end, flags, least, by_character):  # type: ignore[no-untyped-def]
    """Whether there are `least` words between white space; `by_character`: or letters of scripts without spaces."""
    words = letters = 0
    inside = False
    while begin < end and words < least and letters < least:
        point, begin = decode(data, begin)
        flag = flags[np.uint64(point)]
        if flag & SPACE:
            inside = False
            continue
        words += not inside
        inside = True
        letters += by_character and flag & UNSPACED != 0
    return words >= least or letters >= least


@njit(nogil=True, cache=True)
def _citation(data, at, end, rules):  # type: ignore[no-untyped-def]
    """Bytes of the citation mark that begins at the bracket `at`, or 0."""
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
