from __future__ import annotations

import collections
import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.ordering.lexical import BUCKETS, TOTAL, embed, frequencies, weights_of
from operators.ordering.vectors import squares
from tests.operators.dedup.rows import sample_texts, word

TEXTS = st.lists(st.text(st.sampled_from("ab c.é猫犬\0😀1\n"), max_size=30) | st.none(), max_size=12)


def texts_of(rows: list[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(rows, pa.large_string())])


def embedded(rows: list[str | None], dimensions: int = 1024) -> NDArray[np.int16]:
    texts = texts_of(rows)
    return embed(texts, weights_of(frequencies(texts)), dimensions)


def cosines(vectors: NDArray[np.int16]) -> NDArray[np.float64]:
    length = np.maximum(squares(vectors), 1)
    return np.asarray(vectors.astype(float) @ vectors.astype(float).T / np.sqrt(np.outer(length, length)))


def tf_idf_cosines(texts: list[str]) -> NDArray[np.float64]:
    """By the formula, of texts of words with blanks between, without hashing or projection."""
    bags = [collections.Counter(text.split()) for text in texts]
    having = collections.Counter(word for bag in bags for word in bag)
    weighted = [{w: (1 + math.log(n)) * math.log(1 + len(texts) / having[w]) for w, n in bag.items()} for bag in bags]
    lengths = [math.sqrt(sum(x * x for x in bag.values())) for bag in weighted]
    found = np.empty((len(texts), len(texts)))
    for (i, a), (j, b) in itertools.product(enumerate(weighted), repeat=2):
        found[i, j] = sum(x * b.get(w, 0) for w, x in a.items()) / (lengths[i] * lengths[j])
    return found


def test_cosines_are_those_of_tf_idf() -> None:
    random = np.random.default_rng(3)
    vocabulary = [word(k) for k in range(400)]
    common = 1 / np.arange(1, 401)
    texts = [" ".join(random.choice(vocabulary, 60, p=common / common.sum())) for _ in range(40)]
    texts += [f"{text} {word(500 + k)}" for k, text in enumerate(texts)]
    expected = tf_idf_cosines(texts)
    errors = {d: np.abs(cosines(embedded(texts, d)) - expected) for d in (256, 4096)}  # type: ignore[arg-type]
    assert errors[4096].mean() < 0.015
    assert errors[4096].max() < 0.08
    assert errors[256].mean() < 0.06
    assert errors[4096].mean() < 0.5 * errors[256].mean()
    near = expected > 0.9
    assert near.sum() > len(texts)
    assert errors[4096][near].max() < 0.02


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([], []),
        (["", None, "...", "\0"], []),
        (["one"], [1, 1]),
        (["one two one"], [1, 1, 1]),
        (["One!", "two", "ONE two", None], [3, 2, 2]),
        (["12", "99"], [2, 2]),  # every digit counts as 0
        (["猫"], [1, 1]),
        (["猫犬猫", "犬猫"], [2, 1, 2]),  # pairs
    ],
)
def test_frequencies(rows: list[str | None], counts: list[int]) -> None:
    found = frequencies(texts_of(rows))
    assert found.shape == (BUCKETS,)
    assert sorted(found[found > 0].tolist()) == sorted(counts)
    assert found[TOTAL] == max(counts, default=0)


@given(TEXTS, st.integers(0, 12))
@settings(max_examples=50, deadline=None)
def test_parts_make_the_whole(rows: list[str | None], cut: int) -> None:
    texts = texts_of(rows)
    assert np.array_equal(frequencies(texts[:cut]) + frequencies(texts[cut:]), frequencies(texts))
    weights = weights_of(frequencies(texts))
    parts = [embed(texts[:cut], weights, 256), embed(texts[cut:], weights, 256)]
    assert np.array_equal(np.concatenate(parts), embed(texts, weights, 256))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.randoms())
@settings(max_examples=40, deadline=None)
def test_order_case_and_punctuation_do_not_count(numbers: list[int], random: object) -> None:
    words = [word(k) for k in numbers]
    shuffled = list(words)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = embedded([" ".join(words), "(" + ", ".join(shuffled).upper() + ")"])
    assert first.any()
    assert np.array_equal(first, second)


def test_a_text_of_unknown_words_is_like_nothing() -> None:
    weights = weights_of(frequencies(texts_of(["known words"])))
    found = embed(texts_of(["known", "strange", "", None]), weights, 256)
    assert found.any(axis=1).tolist() == [True, False, False, False]


def test_what_all_have_counts_less() -> None:
    rows: list[str | None] = [f"the {word(k)}" for k in range(50)]
    found = cosines(embedded([*rows, "the"]))
    assert np.median(found[:50, 50]) < 0.3
    assert cosines(embedded(["same words"] * 3)).min() == 1  # but not nothing


def test_pairs_of_characters_tell_texts_without_spaces_apart() -> None:
    cat, reordered = "吾輩は猫である名前はまだ無い", "".join(sorted("吾輩は猫である名前はまだ無い"))
    found = cosines(embedded([cat, cat + "。", reordered]))
    assert found[0, 1] == 1
    assert found[0, 2] < 0.3


def test_long_and_many_texts() -> None:
    long = " ".join(word(k % 3000) for k in range(1_000_000))
    rows: list[str | None] = ["x " * 5_000_000, long, long + " more", *sample_texts("en", 20) * 210]
    found = embedded(rows, 256)
    assert len(found) == len(rows) > 4096  # more than one block
    assert np.array_equal(found[3], found[-20])
    assert cosines(found[1:3])[0, 1] > 0.999
