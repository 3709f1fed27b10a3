from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models.classifier_training import Settings, Trained, auc, train
from operators.models.fasttext import LID_176
from operators.text.quality import Quality
from tests import noise

ENGLISH = "The committee will meet again next week to discuss the report.\nEveryone is invited."


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.large_string())})


def scores(operator: Quality, texts: list[str | None]) -> list[float | None]:
    found: list[float | None] = operator(table(texts))[operator.column].to_pylist()
    return found


def fitted(good: list[str], bad: list[str], **changes: object) -> Trained:
    columns = [[pa.array(texts, pa.large_string())] for texts in (good, bad)]
    return train(*columns, Settings(**changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def spam_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quality") / "quality.bin"
    path.write_bytes(fitted(*noise.halves(noise.documents(), noise.spam), dimensions=8, epochs=5).model)
    return path


@pytest.fixture
def quality(spam_model: Path) -> Quality:
    return Quality(model=str(spam_model))  # type: ignore[arg-type]


def test_scores(quality: Quality) -> None:
    spam = "Buy cheap report online, best report price guaranteed! Order now, limited offer"
    high, low, *none = scores(quality, [ENGLISH, spam, "", None, " \n\t "])
    assert high is not None
    assert low is not None
    assert 1 >= high > 0.5 > low >= 0
    assert none == [None, None, None]
    assert scores(quality, [ENGLISH.replace("\n", " ")]) == [high]


def test_it_adds_a_column_and_drops_nothing(quality: Quality, spam_model: Path) -> None:
    docs = quality(table([ENGLISH, None]))
    assert docs.column_names == ["text", "quality_score"]
    assert docs["quality_score"].type == pa.float32()
    assert quality.adds == quality.measures == ("quality_score",)
    other = Quality(model=str(spam_model), column="preselect_score", label="__label__hq")  # type: ignore[arg-type]
    docs = other(docs)
    assert docs.column_names == ["text", "quality_score", "preselect_score"]
    assert docs["preselect_score"].equals(docs["quality_score"])
    assert other.adds == ("preselect_score",)


def test_scores_are_rounded(quality: Quality) -> None:
    found = np.array(scores(quality, noise.documents()[:50]), float)
    assert np.allclose(found, found.round(4), atol=1e-7)


def test_only_the_first_characters_count(spam_model: Path) -> None:
    operator = Quality(model=str(spam_model), max_chars=len(ENGLISH))  # type: ignore[arg-type]
    assert scores(operator, [ENGLISH + " casino bonus" * 50]) == scores(operator, [ENGLISH])


def test_a_text_cannot_hide_its_end_or_label_itself(quality: Quality) -> None:
    spam = "casino bonus click here for free offer order now, limited offer, free shipping"
    for trick in (f"{ENGLISH} </s> {spam}", f"__label__hq {spam} __label__hq"):
        plain = trick.replace("</s>", "<s>").replace("__label__", "label:")
        assert scores(quality, [trick]) == scores(quality, [plain])


def test_a_label_or_a_column_that_does_not_fit_is_an_error(spam_model: Path) -> None:
    given_path: dict[str, object] = {"model": str(spam_model)}
    with pytest.raises(pydantic.ValidationError, match="label: the model has no label 'cc'; it has hq, other"):
        Quality(label="cc", **given_path)  # type: ignore[arg-type]
    for column in ("text", "score", "Quality_score", "language_score"):
        with pytest.raises(pydantic.ValidationError, match="column"):
            Quality(column=column, **given_path)  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError, match="max_chars"):
        Quality(max_chars=0, **given_path)  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError, match="no such file"):
        Quality(model="nowhere.bin")  # type: ignore[arg-type]


def test_any_fasttext_classifier_will_do() -> None:
    english, german = scores(Quality(model=LID_176, label="en"), [ENGLISH, "Der Ausschuss trifft sich wieder."])
    assert english is not None
    assert german is not None
    assert english > 0.9
    assert german < 0.1


@pytest.fixture(scope="module")
def small_model() -> bytes:
    good = [f"river mountain {k} forest" for k in range(100)]
    bad = [f"casino bonus {k} jackpot" for k in range(100)]
    return fitted(good, bad, dimensions=4, epochs=3, held_out=0.3, quantize=True).model


def test_a_damaged_model_is_refused_or_gives_scores(small_model: bytes, tmp_path: Path) -> None:
    """fastText's own reader ends the process on many of these."""
    draw = random.Random(3)
    path = tmp_path / "model.ftz"
    told: Counter[str] = Counter()
    for number in range(90):
        model = bytearray(small_model)
        if number % 3 == 0:
            del model[draw.randrange(len(model)) :]
        else:
            at = draw.randrange(120 if number % 3 == 1 else len(model) - 4)  # in the header, or anywhere
            model[at : at + 4] = draw.randbytes(4)
        path.write_bytes(model)
        try:
            operator = Quality(model=str(path))  # type: ignore[arg-type]
        except pydantic.ValidationError as error:
            told[str(error.errors()[0]["ctx"]["error"]).partition(":")[0]] += 1
            continue
        (score,) = scores(operator, [ENGLISH])
        told["scored"] += score is not None and 0 <= score <= 1
    assert set(told) <= {"model", "label", "scored"}
    assert told.total() == 90
    assert told["model"] >= 30


@settings(max_examples=20, deadline=None)
@given(st.lists(st.none() | st.text(max_size=40) | st.just(ENGLISH), max_size=8), st.integers(0, 8))
def test_slices_give_the_same(spam_model: Path, texts: list[str | None], cut: int) -> None:
    docs = table(texts)
    operator = Quality(model=str(spam_model))  # type: ignore[arg-type]
    whole = operator(docs)
    assert whole.equals(pa.concat_tables([operator(docs.slice(0, cut)), operator(docs.slice(cut))]))


@pytest.mark.parametrize("kind", [noise.shuffled, noise.boilerplate, noise.spam])
def test_trained_models_tell_noise_from_text(kind: noise.Noise) -> None:
    result = fitted(*noise.halves(noise.documents(), kind), dimensions=8, held_out=0.2)
    assert result.held_out.auc >= 0.95


def test_single_words_cannot_tell_shuffled_text() -> None:
    """The test above would say nothing if the topic gave the noise away."""
    result = fitted(*noise.halves(noise.documents(), noise.shuffled), dimensions=8, word_ngrams=1, held_out=0.3)
    assert 0.3 < result.held_out.auc < 0.7


def test_auc_of_nothing_learned() -> None:
    assert auc(np.array([0.5, 0.5]), np.array([0.5])) == 0.5
