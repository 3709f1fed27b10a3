from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.text.language_model_tokens import BLANK, END, LONG, LONGEST, Tokens, counted, hashes
from tests.operators.text.kneser_ney import tokens as by_python

ALPHABET = "aZ é\u0301É19٣.,!?!“”—'\n\t \r\u00a0\u200b水曜タッŌไท€한글жЁ😀\u0001\x7fßſ…。＋Å"
TEXTS = st.text(st.sampled_from(ALPHABET), max_size=60) | st.text(
    st.characters(max_codepoint=0x52F, exclude_categories=["Cn", "Cs"]), max_size=30
)


def column(*texts: str | None) -> pa.Array:
    return pa.array(texts, pa.large_string())


def spelled(text: str, tokens: Tokens = "words") -> list[list[str]]:
    """The tokens of each line, by way of their hashes."""
    words = dict(zip(*(counted(column(text), tokens)[name].to_pylist() for name in ("key", "word")), strict=True))
    words[int(LONG)] = "<unk>"
    lines: list[list[str]] = [[]]
    for key in hashes(column(text), tokens).hash.tolist():
        if key == int(END):
            lines.append([])
        else:
            lines[-1].append(words[key])
    assert lines[-1] == []
    return lines[:-1]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("The Cat sat.", ["the cat sat ."]),
        ("Çafé É 1,234 x2\n\n \nyes", ["cafe e 0 , 000 x0", "yes"]),
        ("“Don’t” – he said…", ['" don \' t " - he said .']),
        ("----- ===--- . . ..", ["- = - . . ."]),
        ("東京タワー 123", ["東 京 タ ワ ー 000"]),
        ("한글 текст Ёлка", ["한글 текст елка"]),
        ("a\u200bb a\u0301b a\u00a0b\r\nc", ["ab ab a b", "c"]),
        ("<s> </s>", ["< s > < / s >"]),
        ("\n\n", []),
        ("", []),
        ("x" * LONGEST + " " + "x" * (LONGEST + 1), ["x" * LONGEST + " <unk>"]),
    ],
)
def test_tokens(text: str, lines: list[str]) -> None:
    assert [" ".join(line) for line in spelled(text)] == lines


def test_characters() -> None:
    assert spelled("Ab  1\t水\n.", "characters") == [["a", "b", chr(BLANK), "0", chr(BLANK), "水"], ["."]]


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_the_kernel_is_what_python_makes_of_a_text(text: str) -> None:
    assert spelled(text) == by_python(text)


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_the_form_of_a_form_is_itself(text: str) -> None:
    lines = spelled(text)
    again = spelled("\n".join(" ".join(line) for line in lines if "<unk>" not in line))
    assert again == [line for line in lines if "<unk>" not in line]


@given(st.lists(TEXTS | st.none(), max_size=6))
def test_a_text_counts_for_itself(texts: list[str | None]) -> None:
    together = hashes(column(*texts, "x").slice(0, len(texts)))
    apart = [hashes(column(text)).hash.tolist() for text in texts]
    assert [together.hash[a:b].tolist() for a, b in zip(together.offsets, together.offsets[1:], strict=False)] == apart
    counts = counted(column(*texts))
    assert sum(counts["count"].to_pylist()) == sum(key != int(LONG) for keys in apart for key in keys)
    assert len(set(counts["word"].to_pylist())) == counts.num_rows
