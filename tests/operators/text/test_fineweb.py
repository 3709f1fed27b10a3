import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.text.fineweb import FineWeb
from tests.operators.text import peer_data

DATATROVE = {
    "empty": "empty",
    "line_punct_ratio": "few_terminal_lines",
    "short_line_ratio": "short_lines",
    "char_dup_ratio": "duplicate_line_chars",
    "list_ratio": "newline_ratio",
}
LINE = "This line holds well over thirty characters of text."


@pytest.mark.parametrize(
    ("text", "paper", "datatrove"),
    [
        (LINE, None, None),
        ("", "empty", "empty"),
        (None, "empty", "empty"),
        (" \n\t\n", "empty", "empty"),
        (LINE[:-1], "few_terminal_lines", "few_terminal_lines"),
        (f"“{LINE}”  ", None, "few_terminal_lines"),
        ("Short.\nTiny.\nBrief.", "short_lines", "short_lines"),
        (f"{LINE}\n{LINE}", "duplicate_line_chars", "duplicate_line_chars"),
        (LINE + "\n\n\n\n\n", "newline_ratio", "newline_ratio"),
        (
            "这一行的文字长度超过三十个字符，因此它不是短行，也不会因为没有空格而被丢弃。\n",
            None,
            "newline_ratio",
        ),
    ],
)
def test_modes(text: str | None, paper: str | None, datatrove: str | None) -> None:
    reasons = [FineWeb(mode=mode)(peer_data.table(text))["drop_reason"][0].as_py() for mode in ("paper", "datatrove")]
    assert reasons == [paper, datatrove]


def test_value_and_threshold() -> None:
    row = FineWeb()(peer_data.table(LINE + "\n\n\n\n\n")).to_pylist()[0]
    assert (row["drop_value"], row["drop_threshold"]) == (pytest.approx(5 / 9), 0.3)


def test_equals_datatrove_on_every_row() -> None:
    docs, told = peer_data.sample(), peer_data.golden()
    operator = FineWeb(mode="datatrove")
    assert peer_data.disagreements(operator(docs), told["fineweb_split"], DATATROVE) == []
    given_words = operator.judge(docs, peer_data.spacy_words(told))
    assert peer_data.disagreements(given_words, told["fineweb_spacy"], DATATROVE) == []


def test_words_come_near_spacy() -> None:
    docs, told = peer_data.sample(), peer_data.golden()
    result = FineWeb(mode="datatrove", words="words")(docs)
    assert peer_data.kept_alike(result, told["fineweb_spacy"]) > 0.98


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.none(), st.text(alphabet="ab.語” \n", max_size=60)), max_size=7),
    st.sampled_from(["paper", "datatrove"]),
)
def test_slices(texts: list[str | None], mode: str) -> None:
    operator = FineWeb(mode=mode)
    docs = peer_data.table("skipped", *texts).slice(1)
    assert operator(docs).equals(peer_data.in_slices(operator, docs))
