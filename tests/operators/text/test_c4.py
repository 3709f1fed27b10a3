import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from operators.text.c4 import C4
from tests.operators.text import peer_data

REASONS = {reason: reason for reason in ("too_few_sentences", "curly_bracket", "lorem_ipsum")}
FIVE = "First the rain came. Then it stopped! Did it end? It did. So they left."
MODES = ("paper", "datatrove")


@pytest.mark.parametrize(
    ("text", "paper", "datatrove"),
    [
        (FIVE, None, None),
        ("", "too_few_sentences", "too_few_sentences"),
        (None, "too_few_sentences", "too_few_sentences"),
        (FIVE[:40], "too_few_sentences", "too_few_sentences"),
        (f"{FIVE}\nmenu {{ home", "curly_bracket", None),
        (f"{FIVE}\nThe set {{x}} is here.", "curly_bracket", "curly_bracket"),
        (f"{FIVE}\nLorem IPSUM dolor", "lorem_ipsum", None),
        (f"{FIVE}\nLorem IPSUM dolor sit.", "lorem_ipsum", "lorem_ipsum"),
        ("语言很多。" * 5, None, "too_few_sentences"),
    ],
)
def test_pages(text: str | None, paper: str | None, datatrove: str | None) -> None:
    reasons = [C4(mode=mode)(peer_data.table(text))["drop_reason"][0].as_py() for mode in MODES]
    assert reasons == [paper, datatrove]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("This line stays here.", "This line stays here."),
        ("  So does \tthis one!  ", "So does \tthis one!"),
        ("No mark at the end", None),
        ("It trails off here...", None),
        ("Too short.", None),
        ("Please enable JavaScript in your browser.", None),
        ("See our Privacy Policy and terms.", None),
        ("This site uses cookies for fun.", None),
        ("Cited work[12] is cut[edit] here[citation needed].", "Cited work is cut here."),
        ("An [open bracket stays here.", "An [open bracket stays here."),
        ("x" * 1001 + " is a long word.", None),
        ("“It is quoted here.”", "“It is quoted here.”"),
        ("", None),
    ],
)
def test_lines(line: str, kept: str | None) -> None:
    result = C4()(peer_data.table(f"{FIVE}\n{line}\n{FIVE}"))
    assert result["text"].to_pylist() == ["\n".join([FIVE, kept, FIVE] if kept else [FIVE, FIVE])]


def test_lines_without_a_mark_stay_if_asked() -> None:
    text = f"{FIVE}\nNo mark at all"
    assert C4(require_terminal_punctuation=False)(peer_data.table(text))["text"].to_pylist() == [text]


def test_dropped_pages_keep_their_text_and_say_why() -> None:
    row = C4()(peer_data.table("One line is here. Two.")).to_pylist()[0]
    assert (row["text"], row["drop_value"], row["drop_threshold"]) == ("One line is here. Two.", 2, 5)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It cost 3.50 in all.", 1),
        ("He said “Go.” Then he went.", 2),
        ("J. R. Smith came. He left.", 2),
        ("Well... they went.", 1),
        ("好。很好。好吗？", 3),
        ("What?! No way.", 2),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    row = C4(min_sentences=99, min_words_per_line=0)(peer_data.table(text)).to_pylist()[0]
    assert row["drop_value"] == sentences


def test_bad_parameters() -> None:
    with pytest.raises(ValidationError, match="mode"):
        C4(mode="nemo")  # type: ignore[arg-type]


def test_equals_datatrove_on_every_row() -> None:
    """Given datatrove's sentences: the same decisions, first reasons and kept text. With our own: one row differs."""
    docs, told = peer_data.sample(), peer_data.golden()
    result = C4(mode="datatrove").judge(docs, told["c4_sentences"].astype(np.int64))
    assert peer_data.disagreements(result, told["c4_spacy"], REASONS) == []
    kept = np.flatnonzero(told["c4_spacy"] == "")
    ours = [hashlib.sha256(result["text"][int(i)].as_py().encode()).digest()[:8] for i in kept]
    assert ours == [value.tobytes() for value in told["c4_text"][kept]]
    own_sentences = C4(mode="datatrove")(docs)
    assert len(peer_data.disagreements(own_sentences, told["c4_spacy"], REASONS)) <= 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.none(), st.text(alphabet="ab.語[1]{ \n\x85", max_size=80)), max_size=7),
    st.sampled_from(MODES),
)
def test_slices(texts: list[str | None], mode: str) -> None:
    operator = C4(mode=mode, min_sentences=1, min_words_per_line=1)
    docs = peer_data.table("skipped", *texts).slice(1)
    result = operator(docs)
    assert result.equals(peer_data.in_slices(operator, docs))
    for before, row in zip(texts, result.to_pylist(), strict=True):
        if row["drop_reason"] is None:
            assert len(row["text"]) <= len(before or "")
