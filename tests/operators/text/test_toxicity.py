from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models.classifier_training import Settings, auc, train
from operators.text.toxicity import Toxicity
from tests import noise

CLEAN = "Thank you for the review of this page. It was of great help, and the sources are now in place."


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.large_string())})


def scores(operator: Toxicity, texts: list[str | None]) -> list[float | None]:
    found: list[float | None] = operator(table(texts))["toxicity_score"].to_pylist()
    return found


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        (CLEAN, 0.0, 0.1),
        ("You stupid idiot, nobody wants to read this crap", 0.95, 1.0),
        ("YOU STUPID IDIOT", 0.95, 1.0),
        (f"{CLEAN}\n\nWhat a fucking moron.\n\n{CLEAN}", 0.5, 1.0),
        ("Kill the parent process and its child.", 0.0, 0.5),
    ],
)
def test_scores(text: str, low: float, high: float) -> None:
    (score,) = scores(Toxicity(), [text])
    assert score is not None
    assert low <= score <= high


@pytest.mark.parametrize("text", ["", None, "...", "1 a b", "zzzzqqqq xxyyxx", "你好世界"])
def test_there_is_no_score_where_no_word_is_known(text: str | None) -> None:
    assert scores(Toxicity(), [text]) == [None]


def test_it_adds_a_column_and_drops_nothing() -> None:
    docs = Toxicity()(table([CLEAN, None]))
    assert docs.column_names == ["text", "toxicity_score"]
    assert docs["toxicity_score"].type == pa.float32()
    assert Toxicity().adds == Toxicity().measures == ("toxicity_score",)
    found = np.array(scores(Toxicity(), noise.documents()[:100]), float)
    assert np.allclose(found, found.round(4), atol=1e-7)


def test_the_score_does_not_grow_with_the_length() -> None:
    text = f"{CLEAN} What a stupid idiot. {CLEAN} {CLEAN}"
    once, often = scores(Toxicity(), [text, " ".join([text] * 50)])
    assert once is not None
    assert often is not None
    assert often <= once + 0.1


def test_planted_insults_stand_out_of_real_documents() -> None:
    """A line of insult for each 100 words; clean documents rarely reach what nearly all of those do."""
    clean, insulting = noise.halves(noise.documents(50), noise.insulting)
    low, high = (np.array(scores(Toxicity(), list(texts)), float) for texts in (clean, insulting))
    assert auc(high, low) > 0.98
    assert (low >= 0.5).mean() < 0.05
    assert (high >= 0.5).mean() > 0.9


def test_a_model_of_the_users(tmp_path: Path) -> None:
    draw = Random(1)
    toxic = [f"{noise.insult(draw)} {k}" for k in range(200)]
    clean = [" ".join(text.split()[:12]) + f" {k}" for k, text in enumerate(noise.documents()[:200])]
    columns = [[pa.array(texts, pa.large_string())] for texts in (toxic, clean)]
    path = tmp_path / "toxic.bin"
    path.write_bytes(train(*columns, Settings(label="toxic", dimensions=4, word_ngrams=1)).model)
    operator = Toxicity(model=str(path))  # type: ignore[arg-type]
    low, high, none = scores(operator, [CLEAN, "what a stupid idiot", " "])
    assert low is not None
    assert high is not None
    assert low < 0.5 < high
    assert none is None
    with pytest.raises(pydantic.ValidationError, match="label: the model has no label 'rude'; it has other, toxic"):
        Toxicity(model=str(path), label="rude")  # type: ignore[arg-type]


def test_a_label_without_a_model_is_an_error() -> None:
    with pytest.raises(pydantic.ValidationError, match="label: the packaged model has no labels"):
        Toxicity(label="toxic")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.none() | st.text(max_size=60) | st.sampled_from([CLEAN, "you idiot"]), max_size=8), st.integers(0, 8)
)
def test_slices_give_the_same(texts: list[str | None], cut: int) -> None:
    docs = table(texts)
    whole = Toxicity()(docs)
    assert whole.equals(pa.concat_tables([Toxicity()(docs.slice(0, cut)), Toxicity()(docs.slice(cut))]))
