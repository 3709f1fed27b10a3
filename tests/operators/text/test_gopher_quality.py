import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from operators.apply import Step, apply
from operators.text.gopher_quality import GopherQuality
from tests.operators.text import peer_data

DATATROVE = {
    "gopher_short_doc": "too_few_words",
    "gopher_long_doc": "too_many_words",
    "gopher_below_avg_threshold": "short_words",
    "gopher_above_avg_threshold": "long_words",
    "gopher_too_many_hashes": "too_many_hashes",
    "gopher_too_many_ellipsis": "too_many_ellipses",
    "gopher_too_many_bullets": "too_many_bullets",
    "gopher_too_many_end_ellipsis": "too_many_ellipsis_lines",
    "gopher_below_alpha_threshold": "too_few_alpha_words",
    "gopher_enough_stop_words": "too_few_stop_words",
}
PROSE = "The committee read of the harvest and went home to rest with friends that evening. " * 5


@pytest.mark.parametrize(
    ("text", "reason", "value", "threshold"),
    [
        (PROSE, None, None, None),
        ("", "too_few_words", 0, 50),
        (None, "too_few_words", 0, 50),
        ("word " * 49 + "- - -", "too_few_words", 49, 50),
        ("a to " * 30, "short_words", 1.5, 3),
        ("the of " + "administrationally " * 60, "long_words", None, 10),
        (PROSE + "# " * 12, "too_many_hashes", 12 / 87, 0.1),
        (PROSE + "so... " * 12, "too_many_ellipses", 12 / 87, 0.1),
        ("\n".join(["- the harvest of wheat and barley"] * 12), "too_many_bullets", 1, 0.9),
        (
            "\n".join(["the harvest of the many wheat fields and of all the barley..."] * 12),
            "too_many_ellipsis_lines",
            1,
            0.3,
        ),
        (PROSE + "1234 " * 40, "too_few_alpha_words", 75 / 115, 0.8),
        ("Wheat grows slowly during winter months. " * 10, "too_few_stop_words", 0, 2),
        ("语言模型需要大量文本。" * 20, None, None, None),  # Han: counted by letter; no mean length, no stop words
        ("语言模型需要大量文本。" * 4, "too_few_words", 40, 50),
    ],
)
def test_reason(text: str | None, reason: str | None, value: float | None, threshold: float | None) -> None:
    row = GopherQuality()(peer_data.table(text)).to_pylist()[0]
    assert row["drop_reason"] == reason
    if value is not None:
        assert row["drop_value"] == pytest.approx(value)
    assert row["drop_threshold"] == threshold


def test_long_documents() -> None:
    result = GopherQuality(max_words=80)(peer_data.table(PROSE + "and so on to the end"))
    assert result["drop_reason"].to_pylist() == ["too_many_words"]


@pytest.mark.parametrize(
    ("text", "paper", "datatrove", "nemo"),
    [
        ("The harvest And the FIELDS lay there. " * 10 + "hAVE", None, "too_few_stop_words", None),
        ("\n".join(["◦ the harvest of wheat and barley"] * 12), None, None, "too_many_bullets"),
        ("\n".join(["* the harvest of wheat and barley"] * 12), "too_many_bullets", None, None),
        ("\n".join(["the harvest of the wheat and barley Read More"] * 12), None, None, "too_many_ellipsis_lines"),
        (PROSE + "##  " * 12, "too_many_hashes", "too_many_hashes", None),
        (PROSE + "# [...] " * 6, None, None, "too_many_symbols"),
    ],
)
def test_modes_differ(text: str, paper: str | None, datatrove: str | None, nemo: str | None) -> None:
    reasons = [GopherQuality(mode=mode)(peer_data.table(text))["drop_reason"][0].as_py() for mode in MODES]
    assert reasons == [paper, datatrove, nemo]


MODES = ("paper", "datatrove", "nemo")


@pytest.mark.parametrize("field", [{"min_words": -1}, {"mode": "dolma"}, {"max_bullets": 1}, {"min_alpha_words": -0.1}])
def test_bad_parameters(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        GopherQuality(**field)


def test_equals_datatrove_on_every_row() -> None:
    docs, told = peer_data.sample(), peer_data.golden()
    operator = GopherQuality(mode="datatrove")
    assert peer_data.disagreements(operator(docs), told["gopher_quality_split"], DATATROVE) == []
    given_words = operator.judge(docs, peer_data.spacy_words(told))
    assert peer_data.disagreements(given_words, told["gopher_quality_spacy"], DATATROVE) == []


def test_words_come_near_spacy() -> None:
    docs, told = peer_data.sample(), peer_data.golden()
    near = peer_data.kept_alike(GopherQuality(mode="datatrove", words="words")(docs), told["gopher_quality_spacy"])
    far = peer_data.kept_alike(GopherQuality(mode="datatrove")(docs), told["gopher_quality_spacy"])
    assert near > 0.96 > far


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.none(), st.text(max_size=60)), max_size=7), st.sampled_from(MODES))
def test_slices(texts: list[str | None], mode: str) -> None:
    operator = GopherQuality(mode=mode, min_words=2, words="words")
    docs = peer_data.table("skipped", *texts).slice(1)
    result = operator(docs)
    assert result.num_rows == len(texts)
    assert result.equals(pa.concat_tables([peer_data.in_slices(operator, docs)]))


def test_documents_that_rules_on_words_make_no_sense_for_are_counted() -> None:
    docs = pa.table(
        {"id": ["en", "zh", "none"], "text": ["words of a text " * 30, "这是一个没有空格的句子。" * 30, None]}
    )
    [count] = apply([Step("rules", GopherQuality())], docs).counts
    assert count.counted == {"script_without_spaces": 1}
    [count] = apply([Step("rules", GopherQuality(mode="datatrove"))], docs).counts
    assert count.counted == {}
