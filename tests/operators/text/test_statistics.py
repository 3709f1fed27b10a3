"""Counts against plain Python on generated text, and the hidden columns that carry them from operator to operator."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.apply import Step, apply
from operators.document import with_columns
from operators.text import segment, unicode_classes
from operators.text.c4 import C4
from operators.text.fineweb import FineWeb
from operators.text.gopher_quality import GopherQuality
from operators.text.gopher_repetition import GopherRepetition
from operators.text.ngrams import DUPLICATE, TOP
from operators.text.segment import source
from operators.text.statistics import (
    PARTS,
    STATISTICS,
    STOP_WORDS,
    Counts,
    Mode,
    measured,
    short_lines,
    statistics,
    stop_words_found,
)

TEXT = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="ab c.\n", max_size=80),
    st.text(alphabet="aé語ไท่🙂e\u0301 #.…-•\n\r\x85\u2028’_1", max_size=80),
    st.text(alphabet="abcdeAB9 \t_", min_size=20, max_size=80),
    st.lists(st.sampled_from(["the ", "Of", "to\n", "be and", "with ", "\n\n", "\n\n\n", " "]), max_size=30).map(
        "".join
    ),
)
TEXTS = st.lists(TEXT, max_size=6)
TOKEN = re.compile(r"\w+(?:[-'’.]\w+)*|[^\w\s]")
MODES: tuple[Mode, ...] = ("paper", "datatrove", "nemo")
FLAGS = unicode_classes.flags()
TERMINAL = tuple(chr(p) for p in np.flatnonzero(FLAGS & unicode_classes.TERMINAL))
SYMBOLS = {chr(p) for p in np.flatnonzero(FLAGS & unicode_classes.SYMBOL)}


def column(texts: list[str]) -> pa.ChunkedArray:
    """The texts as a slice of a longer array."""
    return pa.chunked_array([pa.array(["before", *texts, "after"], pa.large_string()).slice(1, len(texts))])


def table(*texts: str | None) -> pa.Table:
    return pa.table({"id": [str(i) for i in range(len(texts))], "text": pa.array(texts, pa.large_string())})


def counted(texts: list[str], mode: Mode) -> Counts:
    return measured(pa.table({"text": column(texts)}), mode, "whitespace")[1]


def cut(src: segment.Source) -> list[list[str]]:
    words = segment.word_buffers(src)
    rows = []
    for d in range(len(src.offsets) - 1):
        n = segment.cut_words(src, d, words)
        at = src.offsets[d]
        rows.append([bytes(src.data[at + words.start[k] : at + words.end[k]]).decode() for k in range(n)])
    return rows


def test_unicode_classes() -> None:
    cases = unicode_classes.cases()
    breaks = set("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
    word = re.compile(r"\w")
    for point in range(0x20000):
        character, flag = chr(point), FLAGS[point]
        assert bool(flag & unicode_classes.SPACE) == character.isspace()
        assert bool(flag & unicode_classes.LETTER) == character.isalpha()
        assert bool(flag & unicode_classes.WORD) == (word.match(character) is not None)
        assert bool(flag & unicode_classes.BREAK) == (character in breaks)
        assert bool(cases[point] & unicode_classes.UPPER) == character.isupper()
        assert bool(cases[point] & unicode_classes.DIGIT) == character.isdecimal()
    assert len(TERMINAL) == 159


@settings(deadline=None)
@given(TEXTS)
def test_words(texts: list[str]) -> None:
    assert cut(source(column(texts))) == [text.split() for text in texts]
    assert cut(source(column(texts), "words")) == [TOKEN.findall(text) for text in texts]


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


def test_a_word_has_one_hash_wherever_it_stands() -> None:
    """At the end of the data, where 8 bytes cannot be read at once, too."""
    for word in ("a", "seven77", "eightish", "nine chars"[:9], "naïve", "a" * 16, "a" * 23, "語"):
        src = source(pa.array([f"{word} {word}\n{word}\t{word}"], pa.large_string()))
        words = segment.word_buffers(src)
        n = segment.cut_words(src, 0, words)
        assert len({int(h) for h in words.hash[:n]}) == len(set(f"{word} {word}".split()))


@settings(deadline=None)
@given(TEXTS)
def test_characters(texts: list[str]) -> None:
    n = counted(texts, "datatrove").characters
    for d, text in enumerate(texts):
        assert n.characters[d] == len(text)
        assert (n.letters[d], n.upper[d]) == (sum(map(str.isalpha, text)), sum(map(str.isupper, text)))
        assert (n.digits[d], n.spaces[d]) == (sum(map(str.isdecimal, text)), sum(map(str.isspace, text)))
        assert (n.hashes[d], n.newlines[d]) == (text.count("#"), text.count("\n"))
        assert n.ellipses[d] == text.count("...") + text.count("…")
        shares = np.array(list(Counter(text.encode()).values())) / max(1, len(text.encode()))
        assert n.entropy[d] == pytest.approx(-1e6 * (shares * np.log2(shares)).sum(), abs=1)


def same_case(word: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in word)


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["datatrove", "nemo"]))
def test_word_kinds(texts: list[str], mode: Mode) -> None:
    counts = counted(texts, mode)
    n, stop_words = counts.words, counts.stop_words
    assert n is not None
    assert stop_words is not None
    for d, text in enumerate(texts):
        words = text.split()
        solid = [w for w in words if any(c not in SYMBOLS for c in w)]
        assert (counts.total.words[d], n.chars[d]) == (len(words), sum(map(len, words)))
        assert (n.solid_words[d], n.solid_chars[d]) == (len(solid), sum(map(len, solid)))
        assert n.alpha_words[d] == sum(any(c.isalpha() for c in w) for w in words)
        assert n.longest[d] == max(map(len, words), default=0)
        assert stop_words.found[d] == sum(w in STOP_WORDS for w in words)
        assert stop_words.distinct[d] == len(set(STOP_WORDS) & set(words))
        assert counts.ngrams is not None
        assert counts.ngrams.distinct_words[d] == len(set(words))


@settings(deadline=None)
@given(TEXTS, st.sampled_from(MODES), st.sampled_from(["whitespace", "words"]))
def test_parts_alone_say_the_same(texts: list[str], mode: Mode, words: segment.Segmenter) -> None:
    """Words are then only counted; and what one operator left out, the next adds."""
    docs = pa.table({"text": column(texts)})
    _, whole = statistics(docs, mode, words)
    docs, lines = statistics(docs, mode, words, parts=("lines",))
    docs, more = statistics(docs, mode, words, parts=("lines", "words"))
    _, rest = statistics(docs, mode, words)
    for found in (lines, more, rest):
        assert all(np.array_equal(found[name], whole[name], equal_nan=True) for name in found)
    assert (len(lines), len(rest)) == (26, len(STATISTICS))


@settings(deadline=None)
@given(TEXTS)
def test_stop_words_of_the_recipe(texts: list[str]) -> None:
    docs, wanted = pa.table({"text": column(texts)}), ("A", "ab", "é", "naïveté is long")
    paper = stop_words_found(docs, "paper", "whitespace", wanted)
    datatrove = stop_words_found(docs, "datatrove", "whitespace", wanted)
    nemo = stop_words_found(docs, "nemo", "whitespace", wanted)
    for d, text in enumerate(texts):
        words = text.split()
        assert datatrove[d] == len(set(wanted) & set(words))
        assert nemo[d] == sum(w in wanted for w in words)
        if not any(FLAGS[ord(c)] & unicode_classes.UNSPACED for c in text):
            assert paper[d] == len({w.lower() for w in wanted} & {same_case(w) for w in words})


@settings(deadline=None)
@given(TEXTS, st.sampled_from(MODES))
def test_lines(texts: list[str], mode: Mode) -> None:
    counts = counted(texts, mode)
    n = counts.lines
    shorter = short_lines(pa.table({"text": column(texts)}), 10)
    for d, text in enumerate(texts):
        lines = [line for line in text.split("\n") if line.strip()]
        assert (n.lines[d], n.line_chars[d]) == (len(lines), sum(map(len, lines)))
        assert n.longest_line[d] == max(map(len, lines), default=0)
        assert n.short[d] == sum(len(line) <= 30 for line in lines)
        assert counts.line_repeats.solid_repeat_chars[d] == sum(map(len, lines)) - sum(map(len, set(lines)))
        if lines:
            assert shorter[d] == pytest.approx(sum(len(line) <= 10 for line in lines) / len(lines))
        if mode != "paper":
            assert n.ended[d] == sum(line.endswith(TERMINAL) for line in lines)
        if mode == "datatrove":
            lines = text.splitlines()
        bullets = {"paper": "•●*-", "datatrove": "•-", "nemo": "•‣⁃⁌⁍∙○●◘◦⦾⦿"}[mode]
        assert n.marked[d] == len(lines)
        assert n.bullet[d] == sum(line.lstrip().startswith(tuple(bullets)) for line in lines)
        assert n.ellipsis[d] == sum(line.rstrip().endswith(("...", "…")) for line in lines)


def split(text: str, mode: Mode) -> tuple[list[str], list[str]]:
    """(lines, paragraphs) that the mode compares."""
    if mode == "datatrove":
        return re.split("\n+", text), re.split("\n{2,}", text.strip())
    lines = [line for line in text.split("\n") if line.strip()]
    if mode == "nemo":
        return lines, text.split("\n\n")
    return lines, [part for part in re.split("\n{2,}", text) if part.strip()]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.one_of(TEXT, st.text(alphabet="a \n", max_size=20)), max_size=6), st.sampled_from(MODES))
def test_repeats(texts: list[str], mode: Mode) -> None:
    counts = counted(texts, mode)
    for d, text in enumerate(texts):
        for n, parts in zip((counts.line_repeats, counts.paragraph_repeats), split(text, mode), strict=True):
            times = Counter(parts)
            more = {part: count for part, count in times.items() if count > 1}
            assert n.parts[d] == len(parts)
            assert n.repeats[d] == sum(count - 1 for count in more.values())
            assert n.repeat_chars[d] == sum(len(part) * (count - 1) for part, count in more.items())
            assert n.members[d] == sum(more.values())
            assert n.member_chars[d] == sum(len(part) * count for part, count in more.items())
            assert n.chars[d] == sum(map(len, parts))


def paper_ngrams(words: list[str], n: int) -> tuple[int, int]:
    """(top, covered) as DCLM reads the paper."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    times = Counter(grams)
    most = max(times.values(), default=0)
    top = max((sum(map(len, g)) for g, count in times.items() if count == most), default=0) * most
    held = {i + j for i, g in enumerate(grams) if times[g] > 1 for j in range(n)}
    return (top if most > 1 else 0), sum(len(words[i]) for i in held)


def first_top(words: list[str], n: int) -> int:
    """As datatrove: the first of the most frequent, with spaces, times its count."""
    grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not grams:
        return 0
    gram, count = Counter(grams).most_common(1)[0]
    return len(gram) * count


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
@given(st.lists(st.lists(st.sampled_from(["a", "b", "ab", "é", "ω"]), max_size=60), max_size=4))
def test_ngrams(documents: list[list[str]]) -> None:
    texts = [" ".join(words) for words in documents]
    paper, datatrove = counted(texts, "paper").ngrams, counted(texts, "datatrove").ngrams
    assert paper is not None
    assert datatrove is not None
    for d, words in enumerate(documents):
        assert [paper[i + 1][d] for i in range(3)] == [paper_ngrams(words, n)[0] for n in TOP]
        assert [paper[i + 4][d] for i in range(6)] == [paper_ngrams(words, n)[1] for n in DUPLICATE]
        assert [datatrove[i + 1][d] for i in range(3)] == [first_top(words, n) for n in TOP]
        assert [datatrove[i + 4][d] for i in range(6)] == [stepped(words, n) for n in DUPLICATE]


@pytest.mark.parametrize("mode", MODES)
def test_statistics_have_the_names_and_order_that_are_told(mode: Mode) -> None:
    _, found = statistics(table("A text.", None, "", "  \n", "語語"), mode, "whitespace")
    assert list(found) == [name for name, _ in STATISTICS]
    assert {len(values) for values in found.values()} == {5}
    assert {values.dtype for values in found.values()} == {np.dtype(np.float64)}


def test_what_means_nothing_is_no_number() -> None:
    _, n = statistics(table("Two words.", "", "語語語"), "paper", "whitespace")
    for name in ("mean_word_chars", "alpha_words", "terminal_lines", "letters", "entropy"):
        assert np.isnan(n[name][1])
        assert not np.isnan(n[name][0])
    for name in ("mean_word_chars", "stop_words", "top_2gram", "duplicate_10gram"):
        assert np.isnan(n[name][2])
    assert (n["words"][1], n["words"][2], n["unspaced_words"][2]) == (0, 3, 1)


def test_counts_are_read_back_and_follow_their_rows() -> None:
    docs = table("the cat", "a b c d", "x")
    docs, first = measured(docs, "paper", "whitespace")
    assert docs.column_names[2:] == [f"statistics/paper/whitespace/{part}" for part in PARTS]
    fewer = docs.filter(pa.array([False, True, True]))
    changed = fewer.set_column(1, "text", pa.array(["", ""], pa.large_string()))  # so that counting again would show
    again, second = measured(changed.slice(1), "paper", "whitespace")
    assert again is not None
    assert second.total.words.tolist() == first.total.words[2:].tolist() == [1]
    other, third = measured(changed, "datatrove", "whitespace")
    assert third.total.words.tolist() == [0, 0]
    assert len(other.column_names) == 8


def test_rows_that_were_added_are_counted() -> None:
    docs, _ = measured(table("the cat"), "paper", "whitespace")
    docs = pa.concat_tables([docs, table("one two three")], promote_options="permissive")
    assert measured(docs, "paper", "whitespace")[1].total.words.tolist() == [2, 3]


def test_no_rows() -> None:
    docs, _ = measured(table("the cat"), "paper", "whitespace")
    for empty in (docs.slice(0, 0), docs.filter(pa.array([False])), docs.schema.empty_table(), table()):
        assert GopherRepetition()(empty).num_rows == 0


def test_a_new_text_has_new_statistics() -> None:
    docs, _ = measured(table("the cat"), "paper", "whitespace")
    docs = with_columns(docs, {"text": pa.array(["one two three"], pa.large_string())})
    assert docs.column_names == ["id", "text"]
    assert measured(docs, "paper", "whitespace")[1].total.words.tolist() == [3]


def operators() -> list[Any]:
    return [
        GopherRepetition(max_top_2gram=0.5),
        GopherQuality(min_words=3, min_stop_words=0),
        C4(min_sentences=1, require_terminal_punctuation=False, min_words_per_line=1),
        FineWeb(max_newlines_per_word=0.25, max_short_lines=1),
    ]


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_a_chain_decides_as_its_operators_alone(texts: list[str]) -> None:
    """Each alone on what the ones before left, and no hidden column gets out."""
    docs = table(*texts)
    result = apply([Step(op.name, op) for op in operators()], docs)
    alone, dropped = docs, 0
    for operator in operators():
        one = apply([Step(operator.name, operator)], alone)
        alone, dropped = one.kept, dropped + one.dropped.num_rows
    assert result.kept.equals(alone)
    assert result.dropped.num_rows == dropped
    assert set(result.kept.column_names) == {"id", "text"}
    assert not [name for name in result.dropped.column_names if name.startswith("statistics")]
