from __future__ import annotations

import functools
import random

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.words import buffers, tables, word_hashes
from operators.text import cohesion
from operators.text.coherence import Coherence
from operators.text.cohesion import APART, learned, places, prior
from tests.operators.dedup.rows import SAMPLE, sample_texts

DISTINCT = [f"w{chr(97 + k // 26)}{chr(97 + k % 26)}x" for k in range(600)]


def scores(texts: list[str | None]) -> list[float | None]:
    docs = pa.table({"id": [str(k) for k in range(len(texts))], "text": pa.array(texts, pa.large_string())})
    found: list[float | None] = Coherence()(docs)["coherence_score"].to_pylist()
    return found


@functools.cache
def paragraphs(lang: str) -> list[list[str]]:
    """Of each document with three or more: its paragraphs of 15 to 150 words."""
    texts = [text for text in sample_texts(lang, 2000) if len(text.split()) < 3000]
    cut = [[p for p in text.split("\n\n") if 15 <= len(p.split()) <= 150] for text in texts]
    return [found for found in cut if len(found) > 2]


def auc(high: list[float | None], low: list[float | None]) -> float:
    """How often one of `high` is above one of `low`."""
    a, b = (np.array([x for x in part if x is not None])[:, None] for part in (high, low))
    return float((a > b.T).mean() + (a == b.T).mean() / 2)


def mixed(lang: str, seed: int) -> list[str]:
    """As many texts as there are documents, each of as many paragraphs, all of different documents."""
    lot, docs = random.Random(seed), paragraphs(lang)
    return ["\n\n".join(lot.choice(other) for other in lot.sample(docs, min(len(doc), len(docs)))) for doc in docs]


def shuffled(text: str, seed: int) -> str:
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


@pytest.mark.parametrize(("lang", "least"), [("en", 0.95), ("de", 0.75)])
def test_paragraphs_of_different_documents_score_low(lang: str, least: float) -> None:
    clean = scores(["\n\n".join(doc) for doc in paragraphs(lang)])
    assert auc(clean, scores(list(mixed(lang, 1)))) > least


@pytest.mark.parametrize(("lang", "least"), [("en", 0.96), ("de", 0.98), ("ru", 0.95)])
def test_shuffled_words_score_low(lang: str, least: float) -> None:
    texts = [text for text in sample_texts(lang, 200) if 100 < len(text.split()) < 2000]
    assert auc(scores(list(texts)), scores([shuffled(text, k) for k, text in enumerate(texts)])) > least


def test_menus_score_low() -> None:
    lot = random.Random(3)
    lines = [line.strip() for text in sample_texts("en", 2000) for line in text.split("\n")]
    short = [line for line in lines if 1 <= len(line.split()) <= 5 and any(map(str.isalpha, line))]
    menus = scores(["\n".join(lot.sample(short, 100)) for _ in range(100)])
    assert auc(scores(["\n\n".join(doc) for doc in paragraphs("en")]), menus) > 0.9


@pytest.mark.parametrize(
    "text",
    [None, "", " \n\n ", "one short sentence", " ".join(DISTINCT[: 2 * APART - 1]), "。。。", "水" * 19, "\0" * 5000],
)
def test_documents_without_two_parts_have_no_score(text: str | None) -> None:
    assert scores([text]) == [None]


@pytest.mark.parametrize(
    "text",
    [
        " ".join(DISTINCT),  # no word returns
        "\n\n".join(" ".join(DISTINCT[k : k + 30]) for k in range(0, 600, 30)),
        "水" * 5000,  # one place is as good as another
        "a " * 5000,
    ],
)
def test_long_documents_have_one(text: str) -> None:
    [score] = scores([text])
    assert score is not None
    assert 0 <= score <= 1


def test_distinct_words_do_not_cohere() -> None:
    assert scores([" ".join(DISTINCT)]) == [0.0]


@pytest.mark.parametrize(
    ("parts", "sep"),
    [
        (["a. B c"] * 3, "\n\n"),  # blank lines
        (["a. B c"] * 3, "\n"),  # lines
        (["B c."] * 3, " "),  # sentences
        (["水火。"] * 3, ""),
        (["B c.”"] * 3, " "),
    ],
)
def test_places_are_at_the_ends_of_parts(parts: list[str], sep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of long parts, so that each end is a place."""
    filled = [part.replace("c", " ".join(DISTINCT[:30])).replace("火", "木金土日月" * 9) for part in parts]
    text = sep.join(filled)
    ends = np.cumsum([len((part + sep).encode()) for part in filled])[:-1]
    assert places(pa.array([text], pa.large_string())).byte.tolist() == ends.tolist()


def test_text_without_ends_is_cut_at_white_space_or_anywhere() -> None:
    spaced, solid = " ".join(DISTINCT * 4), "水木火土金" * 1000
    found = places(pa.array([spaced, solid, "x" * 9000], pa.large_string()))
    own = [found.byte[a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:], strict=False)]
    assert own[0]
    assert all(spaced[at - 1] == " " for at in own[0])
    assert own[1]
    assert all(at % 3 == 0 for at in own[1])
    assert own[2] == []


@given(st.lists(st.text(st.sampled_from('ab .\n\u3002水é"')), max_size=8), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_scores_do_not_depend_on_the_batch(parts: list[str], times: int) -> None:
    texts: list[str | None] = [part * times for part in parts] + [" ".join(DISTINCT[:200]), None]
    assert scores(texts) == [scores([text])[0] for text in texts]
    found = places(pa.array(texts, pa.large_string()))
    assert (found.similarity >= 0).all()
    assert (found.similarity <= 1 + 1e-9).all()


def cosine(before: list[str], after: list[str]) -> float:
    def vector(words: list[str]) -> dict[str, float]:
        weight = prior().weight[word_id(words[0])] / 16  # all of these words weigh the same
        return {w: weight * round(256 * (1 + np.log(words.count(w)))) / 256 for w in set(words)}

    a, b = vector(before), vector(after)
    return float(
        sum(a[w] * b.get(w, 0) for w in a) / np.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))
    )


def word_id(word: str) -> int:
    data, offsets = buffers(pa.array([word], pa.large_string()))
    out = np.empty(len(word) // 2 + 3, np.uint64)
    word_hashes(data, offsets[0], offsets[1], tables(), out)
    return (int(out[0]) * int(cohesion.MIX) % 2**64) >> int(cohesion.SHIFT)


def test_similarity_is_the_cosine_of_the_blocks() -> None:
    """Sliding over the words gives what counting each block anew gives."""
    by_id = {word_id(w): w for w in DISTINCT}  # no two with the same
    same = [w for number, w in by_id.items() if prior().weight[number] == 74]
    lot = random.Random(5)
    words = [lot.choice(same[:60]) for _ in range(900)]
    lines = [words[k : k + 25] for k in range(0, 900, 25)]
    found = places(pa.array(["\n".join(map(" ".join, lines))], pa.large_string()))
    assert found.word.tolist() == list(range(25, 900, 25))
    by_hand = [cosine(words[max(0, at - 100) : at], words[at : at + 100]) for at in found.word]
    assert found.similarity == pytest.approx(by_hand, abs=1e-9)


def test_the_tables_are_those_of_the_sample() -> None:
    fresh = learned(pq.read_table(SAMPLE, columns=["text"])["text"])
    stored = prior()
    assert np.abs(fresh.weight.astype(int) - stored.weight).max() <= 1  # logarithms may round otherwise elsewhere
    assert np.abs(fresh.order.astype(int) - stored.order).max() <= 1


def test_columns() -> None:
    docs = pa.table({"id": ["1"], "text": pa.array(["a"], pa.large_string()), "mine": [7]})
    marked = Coherence()(docs)
    assert marked.column_names == ["id", "text", "mine", *Coherence().adds]
    assert marked.schema.field("coherence_score").type == pa.float32()
    assert Coherence().measures == ("coherence_score",)
    assert pl.from_arrow(marked.slice(0, 0)).is_empty()  # type: ignore[union-attr]
    assert Coherence()(docs.slice(0, 0)).num_rows == 0
