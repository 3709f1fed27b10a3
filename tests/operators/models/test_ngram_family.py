from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from math import log2

import numpy as np
import pyarrow as pa
import pytest

from operators.models.ngram_family import SHARES, family, losses, tokens_of


def tokens(texts: list[str | None]):  # type: ignore[no-untyped-def]
    return tokens_of(pa.array(texts, pa.large_string()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two words", ["Two", "words"]),
        ("don't, naïve-ly!", ["don", "'", "t", ",", "naïve", "-", "ly", "!"]),
        ("日本語 です", ["日本語", "です"]),
        ("  \n ", []),
        ("", []),
        (None, []),
        ("Word word", ["Word", "word"]),
    ],
)
def test_words(text: str | None, words: list[str]) -> None:
    """The hashes of the words of a text are those of the words by themselves."""
    alone = [int(tokens([word]).hash[0]) for word in words]
    assert tokens([text]).hash.tolist() == alone
    assert len(set(alone)) == len(set(words))


def reference_bits(read: list[str], text: str, vocabulary: int) -> float:
    """Witten-Bell interpolation, counted with dictionaries."""
    grams: Counter[tuple[str, ...]] = Counter()
    follows: dict[tuple[str, ...], Counter[str]] = {}
    for one in read:
        words = one.split()
        for k, word in enumerate(words):
            for order in range(min(k, 2) + 1):
                context = tuple(words[k - order : k])
                grams[(*context, word)] += 1
                follows.setdefault(context, Counter())[word] += 1
    bits = 0.0
    words = text.split()
    for k, word in enumerate(words):
        p = 1 / (vocabulary + 1)
        for order in range(min(k, 2) + 1):
            after = follows.get(tuple(words[k - order : k]))
            if after is None:
                break
            p = (after[word] + len(after) * p) / (after.total() + len(after))
        bits -= log2(p)
    return bits


def test_losses_are_those_of_the_textbook() -> None:
    draw = random.Random(4)
    words = ["a", "b", "c", "d", "e", "f"]
    collection = [" ".join(draw.choices(words, k=draw.randrange(1, 9))) for _ in range(50)]
    texts = [" ".join(draw.choices([*words, "new"], k=draw.randrange(1, 9))) for _ in range(20)]
    order = np.arange(50)[::-1]
    members = family(tokens(collection), order)
    vocabulary = len({word for text in collection for word in text.split()})
    assert len(members) == len(SHARES)
    for share, member in zip(SHARES, members, strict=True):
        read = [collection[k] for k in order[: max(1, round(share * 50))]]
        expected = [reference_bits(read, text, vocabulary) for text in texts]
        assert losses(member, tokens(texts)) == pytest.approx(expected, abs=1e-3)


def test_a_text_without_words_has_no_loss() -> None:
    member = family(tokens(["some words to know"] * 3), np.arange(3))[-1]
    assert np.isnan(losses(member, tokens(["", None, " \n"]))).all()


def test_the_more_a_model_has_read_the_less_its_kind_surprises_it() -> None:
    draw = random.Random(5)
    names = [f"w{k}" for k in range(300)]
    chain = {name: draw.sample(names, 3) for name in names}

    def text() -> str:
        words = [draw.choice(names)]
        while len(words) < 60:
            words.append(draw.choice(chain[words[-1]]))
        return " ".join(words)

    members = family(tokens([text() for _ in range(300)]), np.arange(300))
    unread = tokens([text() for _ in range(30)])
    means = [float(losses(member, unread).mean()) for member in members]
    assert all(a > b for a, b in pairwise(means))
