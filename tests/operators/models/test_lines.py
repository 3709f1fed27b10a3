from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.models.lines import lines_of


def line(text: str | None, max_chars: int = 1000) -> str:
    made: str = lines_of(pa.array([text], pa.large_string()), max_chars)[0].as_py()
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two\nlines, As They Are", "Two lines, As They Are"),
        (None, ""),
        ("", ""),
        ("__label__hq at the start", "label:hq at the start"),
        ("in the middle __label__hq\n__label__other", "in the middle label:hq label:other"),
        ("____label____hq", "__label:__hq"),
        ("an end </s> that is none", "an end <s> that is none"),
        ("<</s>/s>", "<<s>/s>"),
    ],
)
def test_lines(text: str | None, expected: str) -> None:
    assert line(text) == expected


def test_characters_are_counted_not_bytes() -> None:
    assert line("äöü", 2) == "äö"


PIECES = st.sampled_from(
    ["__label__", "__", "_", "label", "</s>", "<", "/s>", "</", "s>", " ", "\n", "\r\n", "\t", "x"]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_no_text_holds_what_fasttext_takes_for_more_than_a_word(text: str) -> None:
    made = line(text)
    assert "\n" not in made
    assert "__label__" not in made
    assert "</s>" not in made
    assert len(made.split()) == len(text.split())
