from __future__ import annotations

from pathlib import Path

import fasttext
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models.fasttext import LID_176
from operators.text.language import Language

SAMPLE = Path(__file__).parents[3] / "workflows" / "sample" / "sample.parquet"
ENGLISH = "The committee will meet again next week to discuss the report.\nEveryone is invited."
GERMAN = "Der Ausschuss trifft sich nächste Woche wieder, um den Bericht zu besprechen."


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.large_string())})


@pytest.mark.parametrize(
    ("operator", "text", "reason", "language"),
    [
        (Language(), ENGLISH, None, "en"),
        (Language(keep=("en", "de")), GERMAN, None, "de"),
        (Language(keep=("en",)), GERMAN, "not_kept", "de"),
        (Language(min_score=1.0), ENGLISH, "low_score", "en"),
        (Language(keep=("en",), min_score=1.0), GERMAN, "not_kept", "de"),
        (Language(), "", "unknown", None),
        (Language(), None, "unknown", None),
        (Language(), "12:30 + 5 = ?\n***", "unknown", None),
        (Language(max_chars=3), "123" + ENGLISH, "unknown", None),
        (Language(max_chars=None), "123" * 5000 + " " + ENGLISH, None, "en"),
        (Language(), "123" * 5000 + " " + ENGLISH, "unknown", None),
        (Language(max_chars=3), "\u0967\u0967\u0967" + ENGLISH, "unknown", None),  # digits of three bytes each
        (Language(max_chars=40, min_score=0), "\u0967 " * 14 + ENGLISH, None, "hi"),
        (Language(max_chars=90), ENGLISH + GERMAN * 50, None, "en"),
    ],
)
def test_reasons(operator: Language, text: str | None, reason: str | None, language: str | None) -> None:
    row = operator(table([text])).to_pylist()[0]
    assert (row["drop_reason"], row["language"]) == (reason, language)
    assert (row["language_score"] is None) == (language is None)
    if reason in ("not_kept", "low_score"):
        assert row["drop_value"] == pytest.approx(row["language_score"])
        assert row["drop_threshold"] == (1.0 if reason == "low_score" else None)
        assert row["drop_detail"] == language


@pytest.mark.parametrize("max_chars", [2000, None])
def test_the_sample_as_fasttext_itself_says(max_chars: int | None) -> None:
    """Line by line through its own binding. A score may differ in the last place where it falls between two."""
    model = fasttext.load_model(LID_176.path)
    texts = pq.read_table(SAMPLE, columns=["text"])["text"].to_pylist()
    found = Language(max_chars=max_chars)(table(texts))
    for row, text in zip(found.to_pylist(), texts, strict=True):
        [(score, label)] = model.f.predict(text[:max_chars].replace("\n", " ") + "\n", 1, 0.0, "strict")
        assert row["language"] == label.removeprefix("__label__")
        assert row["language_score"] == pytest.approx(min(score, 1), abs=6e-5)


def test_scores_are_rounded() -> None:
    score = Language()(table([ENGLISH]))["drop_value"].type, Language()(table([ENGLISH])).to_pylist()[0]
    assert score[0] == pa.float64()
    assert round(score[1]["language_score"], 4) == pytest.approx(score[1]["language_score"], abs=1e-7)


def test_parameters() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"keep.*'eng'; did you mean en"):
        Language(keep=("en", "eng"))
    with pytest.raises(pydantic.ValidationError, match="min_score"):
        Language(min_score=1.5)
    with pytest.raises(pydantic.ValidationError, match="max_chars"):
        Language(max_chars=0)


def test_a_model_by_path() -> None:
    given_path = Language(model=LID_176.path)  # type: ignore[arg-type]
    assert given_path(table([GERMAN])).equals(Language()(table([GERMAN])))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.none() | st.text(max_size=40) | st.just(ENGLISH), max_size=8), st.integers(0, 8))
def test_slices_give_the_same(texts: list[str | None], cut: int) -> None:
    docs = table(texts)
    operator = Language(keep=("en",))
    whole = operator(docs)
    assert whole.equals(pa.concat_tables([operator(docs.slice(0, cut)), operator(docs.slice(cut))]))
