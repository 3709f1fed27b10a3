from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.text.chunks import LETTERS, chunks, words
from tests.operators.dedup.rows import sample_texts

PIECES = [
    "x" * 100,
    " " * 50,
    "-" * 20,
    "one ",
    "two three. ",
    "\n",
    "\n\n",
    "《四五》。",
    "ก",
    "é",
    "!” ",
    "7",
    "x" * 9,
    " ",
    "… ",
    "\u0301",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 12))
def test_chunks_are_the_text_and_as_short_as_asked(text: str, most: int) -> None:
    found = chunks(text, most)
    assert "".join(found) == text
    assert max(words(found)) <= most
    assert max(map(len, found)) <= most * LETTERS
    assert found[0] or not text


@settings(deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=30), st.integers(8, 40))
def test_sentences_are_shared_out_evenly(lengths: list[int], most: int) -> None:
    """Where no sentence is longer than a fifth of a chunk, none is left with a few words."""
    sentences = ["word " * (n - 1) + "end. " for n in lengths]
    found = words(chunks("".join(sentences), most))
    if len(found) > 1:
        assert min(found) >= most / 2 - max(lengths)


@pytest.mark.parametrize("language", ["en", "de", "ru", "ja", "zh-cn", "hi"])
def test_real_texts(language: str) -> None:
    for text in sample_texts(language, 5):
        found = chunks(text, 225)
        assert "".join(found) == text
        assert max(words(found)) <= 225


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [""]),
        ("a b c", ["a b c"]),
        ("a b.\n\nc d e.", ["a b.\n\n", "c d e."]),  # blank lines
        ("a b. c\nd e. f", ["a b. c\n", "d e. f"]),  # lines
        ("a b. c d. e", ["a b. ", "c d. e"]),  # sentences
        ('a "b." c d', ['a "b." ', "c d"]),
        ("一二。三四。五六", ["一二。", "三四。", "五六"]),
        ("「一二。」三四。", ["「一二。」", "三四。"]),
        ("一二三四五六", ["一二三", "四五六"]),  # anywhere
        ("a b c d e", ["a b c ", "d e"]),  # words
        ("3.14 a b", ["3.14 ", "a b"]),  # a point in a number is no end of a sentence
        (" \n\n a b c d", [" \n\n a b ", "c d"]),
    ],
)
def test_where_a_text_is_cut(text: str, found: list[str]) -> None:
    assert chunks(text, 3) == found


@pytest.mark.parametrize("text", ["x", "ab", "-", " ", "/a", "灯", "e\u0301"])
def test_what_has_no_white_space_is_cut_evenly(text: str) -> None:
    found = chunks(text * 30_000, 225)
    assert "".join(found) == text * 30_000
    assert max(map(len, found)) <= 225 * LETTERS
    assert len(found) <= 2 * max(words([text * 30_000])[0] / 225, len(text) * 30_000 / 225 / LETTERS)


def test_words() -> None:
    assert words(["", " .", "It's one-sided.", "東京 x", "cafe\u0301"]) == [0, 0, 4, 3, 1]
    assert words([]) == []
