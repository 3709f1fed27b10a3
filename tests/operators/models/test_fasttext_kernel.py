"""The same labels and probabilities as fastText's own, on all of the sample, on models of every kind, and on hostile
texts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.document import loaded, utf8
from operators.models.fasttext import LID_176, Classifier, FastText
from operators.models.fasttext_kernel import END_OF_LINE, END_OF_LINE_HASH, frozen, means
from tests.operators.models.trained import (
    RECIPES,
    ours,
    sample,
    stock,
    stock_best,
    stock_model,
    stock_probability,
    trained,
)

STEP = 1 / 32 / 4  # between two entries of the table in which fastText looks up a sigmoid, at most
HOSTILE = [
    "",
    " ",
    "\n",
    "\n \r\t\v\f\0\0",
    "\0the\0committee\0",
    "the\vcommittee\fwill\rmeet\tagain\n",
    "the\u00a0committee\u2028will\u0085meet\u3000again",
    "</s>",
    "the committee </s> der Ausschuss trifft sich",
    "</s></s> </s",
    "__label__en",
    "__label__en the __label__de committee __label__",
    "__label__nothing der Ausschuss",
    "<the> <committee> < > <<>>",
    "a b c d e f g",
    "a",
    "é",
    "水",
    "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f600\U0001f600",
    "e\u0301\u0301\u0301\u0301",
    "他们将在下周再次开会讨论这份报告。",
    "ستجتمع اللجنة مرة أخرى الأسبوع المقبل",
    "zażółć gęślą jaźń" * 20,
    "the " * 50,
    "\ufeffthe\ufffd\uffff",
]
LONG = ["a" * 1_000_000, "水" * 100_000, "ab" * 100_000 + " the committee", " " * 1_000_000, "\U0001f600" * 100_000]


def check(model: Classifier, other: object, texts: list[str], within: float = 1e-5) -> None:
    labels, found = model.best(texts)
    expected, probability = stock_best(other, texts)
    assert np.abs(found - probability).max() < within
    for text, label, other_label, p in zip(texts, labels, expected, found, strict=True):
        if label != other_label:  # two labels that are as probable as each other but for rounding
            assert label is not None
            assert other_label is not None
            assert model.probability([text], other_label)[0] > p - within


@pytest.fixture(scope="module")
def language() -> Classifier:
    model: Classifier = loaded(FastText())
    return model


@pytest.fixture(scope="module")
def stock_language() -> object:
    import fasttext

    return fasttext.load_model(LID_176.path)


@pytest.mark.parametrize("max_chars", [None, 2000, 300])
def test_languages_of_the_sample(language: Classifier, stock_language: object, max_chars: int | None) -> None:
    texts = [text[:max_chars] for text in sample()]
    check(language, stock_language, texts)
    assert language.best(texts)[0] == stock_best(stock_language, texts)[0]


def test_hostile_texts(language: Classifier, stock_language: object) -> None:
    check(language, stock_language, HOSTILE)
    check(language, stock_language, LONG, within=5e-3)  # fastText's float32 is so far from doubles, see below


def test_long_texts_are_added_up_exactly(language: Classifier, stock_language: Any) -> None:
    """fastText's own features, in doubles. After a million rows its float32 is wrong in the third decimal."""
    text = " ".join(" ".join(sample()[:300]).split("\n"))
    ids = Counter[int]()
    for word, times in Counter(stock_language.get_line(text)[0]).items():
        for k in stock_language.get_subwords(word)[1].tolist():
            ids[k] += times
    total = sum(stock_language.get_input_vector(k).astype(np.float64) * times for k, times in ids.items())
    data, offsets = utf8(pa.array([text]))
    model = language._model
    mean, features = means(frozen(data), frozen(offsets), len(text), 64, model.dictionary, model.rows)
    assert features.tolist() == [ids.total()]
    assert np.abs(mean[0] - total / ids.total()).max() < 1e-7


@pytest.mark.parametrize("name", RECIPES)
def test_models_of_every_kind(name: str) -> None:
    texts = [*(text[:500] for text in sample()[::4]), *HOSTILE]
    if name in ("a sigmoid each", "negative sampling"):
        check_stepwise(name, texts)
        return
    check(ours(name), stock(name), texts)
    for label in sorted(ours(name).labels)[:3]:
        expected = stock_probability(stock(name), texts, label)
        assert np.abs(ours(name).probability(texts, label) - expected).max() < 2e-5


def check_stepwise(name: str, texts: list[str]) -> None:
    """A score right at a step of the table may fall on either side of it."""
    labels, found = ours(name).best(texts)
    expected, probability = stock_best(stock(name), texts)
    off = np.abs(found - probability) > 1e-5
    assert off.mean() < 0.01
    assert np.abs(found - probability).max() < STEP
    assert all(a == b for a, b, at_step in zip(labels, expected, off, strict=True) if not at_step)
    for label in sorted(ours(name).labels)[:3]:
        difference = np.abs(ours(name).probability(texts, label) - stock_probability(stock(name), texts, label))
        assert difference.max() < STEP
        assert (difference > 1e-5).mean() < 0.01


def test_the_models_are_what_they_are_meant_to_be() -> None:
    for name, recipe in RECIPES.items():
        args = stock(name).f.getArgs()
        assert (args.wordNgrams, args.maxn) == (recipe.train.get("wordNgrams", 1), recipe.train.get("maxn", 0))
        rows = ours(name)._model.rows
        assert (rows.before.size > 0) == ("cutoff" in (recipe.quantise or {}))
    assert len(ours("all of it").labels) == 300
    assert len({label for name in RECIPES for label in ours(name).best(sample()[::10])[0]}) > 10


@pytest.mark.parametrize("name", ["tree", "words", "a sigmoid each"])
def test_labels_that_are_equally_probable(name: str) -> None:
    """Without weights all are: fastText says one of them, and so do we."""
    data, weights = trained(name), 16 * 4 * len(ours(name).labels)
    model, other = (load(data[:-weights] + bytes(weights)) for load in (Classifier, stock_model))
    labels, found = model.best(["the committee"])
    expected, probability = stock_best(other, ["the committee"])
    assert labels == expected
    assert found[0] == pytest.approx(probability[0], abs=1e-6)


FRAGMENTS = st.sampled_from(
    ["the", "committee", "der", "</s>", "__label__en", "<", ">", "\0", "\n", " ", "\t", "水", "é"]
)
TEXTS = st.lists(FRAGMENTS | st.text(max_size=8) | st.just(" "), max_size=30).map("".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_any_text(texts: list[str]) -> None:
    for name in ("tree", "bigrams", "all of it", "pruned"):
        check(ours(name), stock(name), texts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | TEXTS, max_size=8), st.integers(1, 12), st.integers(0, 8))
def test_a_result_is_that_of_the_text_alone(texts: list[str | None], limit: int, cut: int) -> None:
    """Bit for bit: in any batch, array, slice and order, and whether cut by us or before."""
    for name in ("tree", "bigrams", "a sigmoid each"):
        model = ours(name)
        array = pa.array(texts, pa.string())
        chunks = pa.chunked_array([array[:cut], array[cut:]])
        labels, found = model.best(array, limit)
        singly = [model.best([(text or "")[:limit]]) for text in texts]
        assert labels == [one[0] for one, _ in singly]
        assert found.tolist() == [one[0] for _, one in singly]
        again, same = model.best(chunks, limit)
        assert (again, same.tolist()) == (labels, found.tolist())
        turned, backwards = model.best(array[::-1].cast(pa.large_string()), limit)
        assert (turned[::-1], backwards[::-1].tolist()) == (labels, found.tolist())


def test_words_that_were_seen_change_nothing(language: Classifier) -> None:
    """More different words than sums are kept, so that some are thrown out and found again."""
    texts = sample()
    whole = language.best(texts)[1]
    parts = [language.best(texts[k : k + 50])[1] for k in range(0, len(texts), 50)]
    assert whole.tolist() == np.concatenate(parts).tolist()


def test_constants() -> None:
    h = 2166136261
    for byte in END_OF_LINE.tobytes():
        h = (h ^ byte) * 16777619 % 2**32
    assert h == END_OF_LINE_HASH
