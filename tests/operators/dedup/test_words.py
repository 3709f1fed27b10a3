from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.words import buffers, simplify, tables, word_hashes


def hashes(text: str) -> list[int]:
    data, offsets = buffers(pa.array([text]))
    out = np.zeros(len(text.encode()) // 2 + 3, np.uint64)
    count, _ = word_hashes(data, offsets[0], offsets[1], tables(), out)
    return [int(h) for h in out[: int(count)]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        (" .,;!? \t\n", ""),
        ("Hello,   World!", "hello world"),
        ("Crème BRÛLÉE", "creme brulee"),
        ("Cre\u0300me", "creme"),  # decomposed already
        ("a\u00adb\u200bc", "abc"),  # soft hyphen, zero-width space
        ("x+y=z", "x y z"),
        ("In 2024: 3.14", "in 2024 3 14"),
        ("٣ cats", "3 cats"),
        ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
        ("İstanbul", "istanbul"),
        ("한국어 문서", "한국어 문서"),
        ("日本語 text です", "日 本 語 text て す"),
        ("中\n文", "中 文"),
        ("ภาษา", "ภ า ษ า"),
        ("👍 fine 👎", "fine"),
        ("𐐀BC", "𐐨bc"),
    ],
)
def test_normal_form(text: str, words: str) -> None:
    assert simplify(pa.array([text]))[0].as_py() == words


def test_no_character_outgrows_the_buffer() -> None:
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    pairs = simplify(pa.array([c + c for c in every]))
    pairs.validate(full=True)
    grown = [len(w.encode()) / len((c + c).encode()) for w, c in zip(pairs.to_pylist(), every, strict=True)]
    assert max(grown) <= 5 / 3


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_hashes_follow_the_normal_form(text: str) -> None:
    """One hash a word, equal for equal words once digits are folded; the normal form is stable."""
    form = simplify(pa.array([text]))[0].as_py()
    words = ["".join("0" if c in "0123456789" else c for c in w) for w in form.split(" ") if w]
    found = hashes(text)
    assert len(found) == len(words)
    assert len(set(zip(words, found, strict=True))) == len(set(words)) == len(set(found))
    assert hashes(form) == found


@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=8), st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_slices_and_nulls(texts: list[str | None], start: int, length: int) -> None:
    for dtype in (pa.string(), pa.large_string()):
        column = pa.array(texts, dtype)
        whole = simplify(column).to_pylist()
        assert simplify(column.slice(start, length)).to_pylist() == whole[start : start + length]
