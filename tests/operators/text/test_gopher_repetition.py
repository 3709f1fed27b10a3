import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.apply import Step, apply
from operators.text.gopher_repetition import GopherRepetition
from operators.text.statistics import statistics
from tests.operators.text import peer_data

DATATROVE = {
    "empty": "empty",
    "dup_line_frac": "duplicate_lines",
    "dup_para_frac": "duplicate_paragraphs",
    "dup_line_char_frac": "duplicate_line_chars",
    "dup_para_char_frac": "duplicate_paragraph_chars",
    **{f"top_{n}_gram": f"top_{n}gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"duplicate_{n}gram" for n in range(5, 11)},
}
MODES = ("paper", "datatrove", "nemo")
UNIQUE = " ".join(f"w{i:05d}" for i in range(90))


def with_repeat(words: int, span: int) -> str:
    """`words` different words of equal length, of which the first `span` come again at the end."""
    unique = [f"w{i:05d}" for i in range(words - span)]
    return " ".join(unique + unique[:span])


@pytest.mark.parametrize(
    ("text", "paper", "datatrove", "nemo"),
    [
        ("", "empty", "empty", "empty"),
        (None, "empty", "empty", "empty"),
        (" \n ", "empty", "duplicate_lines", "empty"),
        (UNIQUE, None, None, None),
        (with_repeat(90, 10), "duplicate_5gram", None, "duplicate_10gram"),
        ("one a b\ntwo c d\nthree e\nfour f\none a b", "duplicate_lines", "top_2gram", "duplicate_line_chars"),
        ("x\n\nyy\n\nx\n\nz\n\nx", "duplicate_lines", "duplicate_paragraphs", "duplicate_lines"),
        ("the cat " * 20, "top_2gram", "top_2gram", "top_2gram"),
        ("two words", None, "top_2gram", "top_2gram"),
    ],
)
def test_modes(text: str | None, paper: str | None, datatrove: str | None, nemo: str | None) -> None:
    reasons = [GopherRepetition(mode=mode)(peer_data.table(text))["drop_reason"][0].as_py() for mode in MODES]
    assert reasons == [paper, datatrove, nemo]


def test_paper_counts_both_ends_of_a_repeat() -> None:
    """90 words with a span of 10 repeated: 20 of 90 words lie in repeated 5-grams."""
    row = GopherRepetition()(peer_data.table(with_repeat(90, 10))).to_pylist()[0]
    assert (row["drop_value"], row["drop_threshold"]) == (pytest.approx(20 / 90), 0.15)


NINETY = " ".join([*(f"{i:03d}" for i in range(80)), *(f"{i:03d}" for i in range(10))])


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        (NINETY, "duplicate_5gram", (0.222, 0.084, 0.109)),  # 90 words of 3 characters, a span of 10 repeated
        ("a a\nb b\nc c\nd d\na a", "duplicate_lines", (0.4, 0.2, 0.2)),
        ("one\n\ntwo\n\nthree\n\nfour", "duplicate_lines", (0, 0, 0)),
        ("one\n\ntwo\n\nthree\n\nfour", "duplicate_paragraphs", (0, 0, 0)),
    ],
)
def test_worked_examples(text: str, name: str, values: tuple[float, ...]) -> None:
    """What DCLM, datatrove and NeMo Curator themselves say of these texts."""
    found = [statistics(peer_data.table(text), mode, "whitespace")[1][name][0] for mode in MODES]
    assert found == pytest.approx(values, abs=5e-4)


def test_lines_and_paragraphs_of_scripts_without_spaces_are_judged_but_not_ngrams() -> None:
    lines = "\n".join(["语言模型需要大量文本"] * 4)
    result = GopherRepetition()(peer_data.table(lines, "语言模型需要大量文本" * 9))
    assert result["drop_reason"].to_pylist() == ["duplicate_lines", None]


def test_equals_datatrove_on_every_row() -> None:
    docs, told = peer_data.sample(), peer_data.golden()
    operator = GopherRepetition(mode="datatrove")
    assert peer_data.disagreements(operator(docs), told["gopher_repetition_split"], DATATROVE) == []
    given_words = operator.judge(docs, peer_data.spacy_words(told))
    assert peer_data.disagreements(given_words, told["gopher_repetition_spacy"], DATATROVE) == []


def test_words_come_near_spacy() -> None:
    docs, told = peer_data.sample(), peer_data.golden()
    result = GopherRepetition(mode="datatrove", words="words")(docs)
    assert peer_data.kept_alike(result, told["gopher_repetition_spacy"]) > 0.97


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.none(), st.text(alphabet="ab語é \n", max_size=60)), max_size=7), st.sampled_from(MODES))
def test_slices(texts: list[str | None], mode: str) -> None:
    operator = GopherRepetition(mode=mode)
    docs = peer_data.table("skipped", *texts).slice(1)
    assert operator(docs).equals(peer_data.in_slices(operator, docs))


def test_documents_that_rules_on_words_make_no_sense_for_are_counted() -> None:
    docs = pa.table(
        {"id": ["en", "zh", "none"], "text": ["words of a text " * 30, "这是一个没有空格的句子。" * 30, None]}
    )
    [count] = apply([Step("rules", GopherRepetition())], docs).counts
    assert count.counted == {"script_without_spaces": 1}
    [count] = apply([Step("rules", GopherRepetition(mode="datatrove"))], docs).counts
    assert count.counted == {}
