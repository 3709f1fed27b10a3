"""Kernels against plain Python on generated text."""

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.text import segment, statistics, unicode_classes
from operators.text.ngrams import DATATROVE, DUPLICATE, PAPER, TOP, ngram_counts
from operators.text.segment import source

TEXT = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="ab c.\n", max_size=80),
    st.text(alphabet="aé語ไท่🙂e\u0301 #.…-•\n\r\x85\u2028’_1", max_size=80),
)
TEXTS = st.lists(TEXT, max_size=6)
TOKEN = re.compile(r"\w+(?:[-'’.]\w+)*|[^\w\s]")


def column(texts: list[str]) -> pa.ChunkedArray:
    """The texts as a slice of a longer array."""
    return pa.chunked_array([pa.array(["before", *texts, "after"], pa.large_string()).slice(1, len(texts))])


def cut(src: segment.Source) -> list[list[str]]:
    words = segment.word_buffers(src)
    rows = []
    for d in range(len(src.offsets) - 1):
        n = segment.cut_words(src, d, words)
        rows.append([bytes(src.data[words.start[k] : words.end[k]]).decode() for k in range(n)])
    return rows


def test_unicode_classes() -> None:
    flags = unicode_classes.flags()
    breaks = set("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
    word = re.compile(r"\w")
    for point in range(0x20000):
        character, flag = chr(point), flags[point]
        assert bool(flag & unicode_classes.SPACE) == character.isspace()
        assert bool(flag & unicode_classes.LETTER) == character.isalpha()
        assert bool(flag & unicode_classes.WORD) == (word.match(character) is not None)
        assert bool(flag & unicode_classes.BREAK) == (character in breaks)
    assert int(((flags & unicode_classes.TERMINAL) > 0).sum()) == 159


@settings(deadline=None)
@given(TEXTS)
def test_words(texts: list[str]) -> None:
    assert cut(source(column(texts))) == [text.split() for text in texts]
    assert cut(source(column(texts), "words")) == [TOKEN.findall(text) for text in texts]


@settings(deadline=None)
@given(TEXTS, st.booleans())
def test_count_words(texts: list[str], by_character: bool) -> None:
    src = source(column(texts), by_character=by_character)
    buffers = segment.word_buffers(src)
    assert [segment.count_words(src, d, buffers) for d in range(len(texts))] == [len(words) for words in cut(src)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("语言 模型", ["语", "言", "模", "型"]),
        ("GPT模型v2。ok", ["GPT", "模", "型", "v2。ok"]),
        ("「日本」です。", ["「", "日", "本」", "で", "す。"]),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("plain words, too", ["plain", "words,", "too"]),
    ],
)
def test_words_by_character(text: str, words: list[str]) -> None:
    assert cut(source(column([text]), by_character=True)) == [words]


@settings(deadline=None)
@given(TEXTS)
def test_given_words_count_as_the_same_words_cut_here(texts: list[str]) -> None:
    spans = [[(m.start(), m.end()) for m in re.finditer(r"\S+", text)] for text in texts]
    in_bytes = [
        (len(text[:a].encode()), len(text[:b].encode()))
        for text, row in zip(texts, spans, strict=True)
        for a, b in row
        if text[a:b].split() == [text[a:b]]
    ]
    counts = [sum(text[a:b].split() == [text[a:b]] for a, b in row) for text, row in zip(texts, spans, strict=True)]
    start, end = np.array(in_bytes, np.int64).reshape(-1, 2).T
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    src = source(column(texts), spans=segment.WordSpans(offsets, start, end))
    assert cut(src) == [[w for w in re.findall(r"\S+", text) if w.split() == [w]] for text in texts]


@settings(deadline=None)
@given(TEXTS)
def test_quality(texts: list[str]) -> None:
    marks = statistics.marks("•-", ("...", "…"), ("a", "ab", "b"), "datatrove")
    counts = statistics.quality_counts(source(column(texts)), marks)
    symbols = {chr(p) for p in np.flatnonzero(unicode_classes.flags() & unicode_classes.SYMBOL)}
    for d, text in enumerate(texts):
        words, lines = text.split(), text.splitlines()
        solid = [w for w in words if any(c not in symbols for c in w)]
        assert counts.words[d] == len(words)
        assert counts.chars[d] == sum(map(len, words))
        assert (counts.solid_words[d], counts.solid_chars[d]) == (len(solid), sum(map(len, solid)))
        assert counts.alpha_words[d] == sum(any(c.isalpha() for c in w) for w in words)
        assert counts.stop_words[d] == sum(w in {"a", "ab", "b"} for w in words)
        assert counts.distinct_stop_words[d] == len({"a", "ab", "b"} & set(words))
        assert (counts.hashes[d], counts.ellipses[d]) == (text.count("#"), text.count("...") + text.count("…"))
        assert counts.lines[d] == len(lines)
        assert counts.bullet_lines[d] == sum(line.lstrip().startswith(("•", "-")) for line in lines)
        assert counts.ellipsis_lines[d] == sum(line.rstrip().endswith(("...", "…")) for line in lines)


@settings(deadline=None)
@given(TEXTS)
def test_lines(texts: list[str]) -> None:
    counts = statistics.line_counts(source(column(texts)), 10, look_behind_closers=False)
    terminal = tuple(chr(p) for p in np.flatnonzero(unicode_classes.flags() & unicode_classes.TERMINAL))
    for d, text in enumerate(texts):
        lines = [line for line in text.split("\n") if line.strip()]
        assert counts.lines[d] == len(lines)
        assert counts.ended[d] == sum(line.endswith(terminal) for line in lines)
        assert counts.short[d] == sum(len(line) <= 10 for line in lines)
        assert counts.repeat_chars[d] == sum(map(len, lines)) - sum(map(len, set(lines)))
        assert (counts.chars[d], counts.newlines[d]) == (len(text.replace("\n", "")), text.count("\n"))
        assert counts.words[d] == len(text.split())


@settings(deadline=None)
@given(TEXTS, st.sampled_from([1, 2]), st.booleans(), st.booleans())
def test_repeats(texts: list[str], breaks: int, whole_run: bool, keep_blank: bool) -> None:
    split = statistics.Split(breaks, whole_run, keep_blank, strip_text=False)
    counts = statistics.repeat_counts(source(column(texts)), split)
    for d, text in enumerate(texts):
        parts = re.split(f"\n{{{breaks},}}" if whole_run else "\n" * breaks, text)
        times = Counter(part for part in parts if keep_blank or part.strip())
        more = {part: n for part, n in times.items() if n > 1}
        assert counts.parts[d] == times.total()
        assert counts.repeats[d] == sum(n - 1 for n in more.values())
        assert counts.repeat_chars[d] == sum(len(part) * (n - 1) for part, n in more.items())
        assert counts.members[d] == sum(more.values())
        assert counts.member_chars[d] == sum(len(part) * n for part, n in more.items())
        assert counts.chars[d] == sum(len(part) * n for part, n in times.items())


def paper_ngrams(words: list[str], n: int) -> tuple[int, int]:
    """(top, covered) as DCLM reads the paper."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    times = Counter(grams)
    most = max(times.values(), default=0)
    top = max((sum(map(len, g)) for g, count in times.items() if count == most), default=0) * most
    held = {i + j for i, g in enumerate(grams) if times[g] > 1 for j in range(n)}
    return (top if most > 1 else 0), sum(len(words[i]) for i in held)


def stepped(words: list[str], n: int) -> int:
    met: set[str] = set()
    i = total = 0
    while i <= len(words) - n:
        gram = "".join(words[i : i + n])
        if gram in met:
            total, i = total + len(gram), i + n
        else:
            met.add(gram)
            i += 1
    return total


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "ab", "é", "語"]), max_size=60), max_size=4))
def test_ngrams(documents: list[list[str]]) -> None:
    src = source(column([" ".join(words) for words in documents]))
    paper, datatrove = ngram_counts(src, PAPER), ngram_counts(src, DATATROVE)
    for d, words in enumerate(documents):
        assert [paper.top[i, d] for i in range(len(TOP))] == [paper_ngrams(words, n)[0] for n in TOP]
        assert [paper.duplicate[i, d] for i in range(len(DUPLICATE))] == [paper_ngrams(words, n)[1] for n in DUPLICATE]
        assert [datatrove.duplicate[i, d] for i in range(len(DUPLICATE))] == [stepped(words, n) for n in DUPLICATE]
        assert paper.word_chars[d] == sum(map(len, words))
