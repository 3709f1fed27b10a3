"""Training fastText on texts of two kinds: duplicates, labels in texts, rare labels, the same bytes again."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models import classifier_training
from operators.models.classifier_training import MANY, MOST_REPEATS, Settings, TrainingError, auc, train
from operators.models.fasttext import Classifier

SMALL = Settings(dimensions=4, epochs=5, word_ngrams=1, held_out=0.3)
GOOD = ["river", "mountain", "forest", "valley", "meadow", "lake"]
BAD = ["casino", "bonus", "jackpot", "viagra", "click", "winner"]


def texts(words: list[str], n: int, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(words + ["the", "of", "and"]) for _ in range(8)) + f" {k}" for k in range(n)]


def batches(values: list[str], size: int = 1000) -> list[pa.Array]:
    return [pa.array(values[k : k + size], pa.large_string()) for k in range(0, len(values), size)]


def trained(good: list[str], bad: list[str], given_settings: Settings = SMALL) -> classifier_training.Trained:
    return train(batches(good), batches(bad), given_settings)


def test_two_kinds_are_told_apart_and_the_score_says_so() -> None:
    result = trained(texts(GOOD, 100), texts(BAD, 100))
    assert result.held_out.auc > 0.95
    high, low = Classifier(result.model).probability(["forest and lake", "jackpot bonus casino"], "hq")
    assert high > 0.5 > low
    assert result.held_out.positive_quantiles["0.5"] > result.held_out.negative_quantiles["0.5"]


def test_the_same_texts_in_any_order_and_batches_give_the_same_bytes() -> None:
    good, bad = texts(GOOD, 100), texts(BAD, 100)
    once = trained(good, bad)
    again = train(batches(good[::-1], 7), batches(bad[50:] + bad[:50], 13), SMALL)
    assert again == once
    assert trained(good, bad, replace(SMALL, seed=2)).model != once.model


def test_a_quantised_model_is_smaller_and_judges_nearly_as_well() -> None:
    settings_ = replace(SMALL, word_ngrams=2)
    whole = trained(texts(GOOD, 100), texts(BAD, 100), settings_)
    small = trained(texts(GOOD, 100), texts(BAD, 100), replace(settings_, quantize=True))
    assert len(small.model) < len(whole.model) / 3
    assert small.held_out.auc > whole.held_out.auc - 0.05
    assert trained(texts(GOOD, 100), texts(BAD, 100), replace(settings_, quantize=True)) == small


def test_duplicates_count_once_and_what_has_both_labels_not_at_all() -> None:
    good, bad = texts(GOOD, 60), texts(BAD, 60)
    result = trained(good + good[:30] + ["", " \n"], bad + good[:10])
    assert result.counts | {"trained_lines": 0} == {
        "positive_texts": 92,
        "negative_texts": 70,
        "in_both": 10,
        "positive_lines": 50,
        "negative_lines": 60,
        "trained_lines": 0,
    }
    plain = trained(good[10:], bad)
    assert (result.model, result.held_out) == (plain.model, plain.held_out)


def test_no_line_is_on_both_sides_of_the_split() -> None:
    lines = pa.array(texts(GOOD, 500), pa.large_string())
    examples, _ = classifier_training._examples([lines, lines], SMALL)
    rest, held = classifier_training._split(examples, 0.2)
    assert not set(rest.lines.to_pylist()) & set(held.lines.to_pylist())
    assert len(rest.hash) + len(held.hash) == 500
    assert 60 < len(held.hash) < 140


def test_labels_in_the_text_are_words() -> None:
    """Negatives that claim the positive label, and a label that nobody gave."""
    good = texts(GOOD, 100)
    bad = [f"__label__hq {text} __label__evil\n__label__hq forest" for text in texts(BAD, 100)]
    result = trained(good, bad)
    model = Classifier(result.model)
    assert model.labels == {"hq", "other"}
    assert result.held_out.auc > 0.95
    assert model.probability(["label:hq casino bonus label:evil"], "hq")[0] < 0.5


@pytest.mark.parametrize(("few", "many", "expected"), [(50, 200, 1), (20, 700, 1)])
def test_labels_are_trained_equally_often(few: int, many: int, expected: int) -> None:
    good, _ = classifier_training._examples(batches(texts(GOOD, few)), SMALL)
    bad, _ = classifier_training._examples(batches(texts(BAD, many)), SMALL)
    rows, label = classifier_training._schedule(good, bad)
    times = np.bincount(rows, minlength=few + many)
    assert (label == 0).sum() == (label == 1).sum() == min(many, MOST_REPEATS * few)
    assert times[:few].max() <= MOST_REPEATS
    assert times[:few].max() - times[:few].min() <= expected
    assert times[few:].max() == 1
    assert (np.flatnonzero(label == 0) < len(label) // 2).mean() == pytest.approx(0.5, abs=0.15)  # not one by one


def test_parameters_follow_the_number_of_examples() -> None:
    few, many = Settings().decided(MANY, 10_000), Settings().decided(MANY + 1, 10_000_000)
    assert (few.epochs, few.learning_rate, few.buckets) == (25, 0.5, 32768)
    assert (many.epochs, many.learning_rate, many.buckets) == (3, 0.1, 2_000_000)
    own = Settings(epochs=7, learning_rate=0.2, word_ngrams=1).decided(10, 100)
    assert (own.epochs, own.learning_rate, own.buckets) == (7, 0.2, 0)


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        ([], texts(BAD, 100), "0 different positive texts"),
        (["one"] * 100, texts(BAD, 100), "1 different positive texts"),
        (texts(GOOD, 100), texts(BAD, 12), "12 different negative texts"),
        (texts(GOOD, 100), texts(GOOD, 100), "0 different positive texts"),
    ],
)
def test_too_few_texts(good: list[str], bad: list[str], told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        trained(good, bad)


def test_a_rate_that_fasttext_cannot_take() -> None:
    with pytest.raises(TrainingError, match="fastText gave up"):
        trained(texts(GOOD, 100), texts(BAD, 100), replace(SMALL, learning_rate=1e30))


SCORES = st.lists(st.integers(0, 5).map(lambda n: n / 5), min_size=1, max_size=12).map(np.array)


@given(SCORES, SCORES)
@settings(max_examples=50)
def test_auc_is_the_share_of_pairs_in_order(high: np.ndarray, low: np.ndarray) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a in high for b in low]
    assert auc(high, low) == pytest.approx(np.mean(pairs))
    assert auc(low, high) == pytest.approx(1 - auc(high, low))
