from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models.arpa import Evaluator as Loaded
from operators.text.language_model import LanguageModel, adjusted, summed, top_words, totals, vocabulary, windows
from operators.text.language_model_estimate import Counts, discounts, save, train
from operators.text.language_model_tokens import counted, hashes
from tests.operators.text.kneser_ney import KneserNey, tokens

kenlm = pytest.importorskip("kenlm")
TEXTS = [
    "the cat sat on the mat\nthe cat ran\nthe dog sat on the cat",
    "a dog ran\n\nthe dog sat on a mat, and the cat ran\na cat",
    "the mat\nthe mat\nthe mat\ndogs and cats sat and ran",
]
LINES = st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=40)
MODELS = st.builds(
    LanguageModel,
    order=st.integers(2, 6),
    prune=st.sampled_from([(0,), (0, 0, 1), (0, 1, 2), (0, 1)]),
    vocabulary=st.sampled_from([2, 4, 1000]),
)


def column(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def parsed(path: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    """log10 p and backoff of each n-gram."""
    found = {}
    for line in path.read_text("utf-8").split("\n"):
        fields = line.split("\t")
        if len(fields) > 1:
            found[tuple(fields[1].split(" "))] = (float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0)
    return found


def evaluated(grams: dict[tuple[str, ...], tuple[float, float]], word: str, context: tuple[str, ...]) -> float:
    """log10 p by the definition of an ARPA file."""
    if (*context, word) in grams:
        return grams[(*context, word)][0]
    if not context:
        return grams[("<unk>",)][0]
    return grams.get(context, (0.0, 0.0))[1] + evaluated(grams, word, context[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@settings(max_examples=60, deadline=None)
@given(lines=LINES, model=MODELS)
def test_it_is_modified_kneser_ney(folder: Path, lines: list[str], model: LanguageModel) -> None:
    naive = KneserNey([line.split() for line in lines], model.order, model.prune, model.vocabulary)
    grams = parsed(train(column(lines), folder / "a.arpa", model))
    assert {gram for gram in grams if len(gram) > 1} == {gram for gram in naive.kept if len(gram) > 1}
    assert [gram[0] for gram in grams if len(gram) == 1] == naive.words
    for gram, (p, backoff) in grams.items():
        if gram != ("<s>",):
            assert p == pytest.approx(np.log10(naive.p(gram[-1], gram[:-1])), abs=1e-6)
        if len(gram) < model.order and gram != ("<unk>",):
            assert backoff == pytest.approx(np.log10(naive.backoff(gram)), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(lines=LINES, model=MODELS)
def test_probabilities_add_up_to_one_in_every_context(folder: Path, lines: list[str], model: LanguageModel) -> None:
    grams = parsed(train(column(lines), folder / "b.arpa", model))
    words = [gram[0] for gram in grams if len(gram) == 1 and gram != ("<s>",)]
    unseen = [("g", "f", "e", "d", "c")[: model.order - 1], ("<unk>",), ("<s>", "<unk>", "a")[: model.order - 1]]
    for context in [(), *(gram for gram in grams if len(gram) < model.order and gram[-1] != "</s>"), *unseen]:
        assert sum(10 ** evaluated(grams, word, context) for word in words) == pytest.approx(1, abs=2e-5)


@settings(max_examples=30, deadline=None)
@given(lines=LINES, model=MODELS, scored=LINES)
def test_scores_are_those_of_kenlm(folder: Path, lines: list[str], model: LanguageModel, scored: list[str]) -> None:
    path = train(column(lines), folder / "c.arpa", model)
    ours, theirs = Loaded(path.read_bytes()), kenlm.Model(str(path))
    scored = [line.replace("g", "unheard") for line in scored]
    logs, counts = ours.log_probs(column(scored))
    assert logs == pytest.approx([theirs.score(line) for line in scored], abs=1e-5, rel=1e-6)
    assert counts.tolist() == [len(line.split()) + 1 for line in scored]
    assert theirs.order == ours.order == model.order


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(LINES.map("\n".join), min_size=2, max_size=6),
    model=MODELS,
    cut=st.integers(1, 5),
    parts=st.integers(1, 4),
)
def test_the_same_bytes_however_texts_are_cut_and_spread(
    folder: Path, texts: list[str], model: LanguageModel, cut: int, parts: int
) -> None:
    whole = train(column(texts), folder / "whole.arpa", model).read_bytes()
    units = [column(texts[at : at + cut]) for at in range(0, len(texts), cut)][::-1]
    words = vocabulary(top_words([top_words([counted(unit)], 1 << 60) for unit in units], model.vocabulary))
    rows = summed([summed([windows(hashes(unit), words, model.order)]) for unit in units])
    pair = rows["a"].to_numpy() >> np.uint64(21)
    found = [adjusted(rows.filter(pair % parts == part), model) for part in range(parts)][::-1]
    contexts = pl.concat([one.contexts for one in found])
    sums = pl.concat([totals([contexts.filter(pl.col("a") % 3 == rest)]) for rest in range(3)])
    counts = Counts(
        lambda order: pl.concat([one.kept[order - 1] for one in found]),
        lambda order: sums.filter(pl.col("order") == order),
        np.sum([one.histogram for one in found], axis=0),
        tuple(sum(len(one.kept[k]) for one in found) for k in range(model.order)),
        sum(one.lines for one in found),
        sum(len(hashes(unit).hash) for unit in units),
    )
    assert save(folder / "parts.arpa", counts, words, model).read_bytes() == whole


def test_texts_as_they_are_read(folder: Path) -> None:
    model = LanguageModel(order=3, prune=(0,))
    path = train(column(TEXTS), folder / "texts.arpa", model)
    naive = KneserNey([line for text in TEXTS for line in tokens(text)], 3, (0,), 1000)
    assert {gram for gram in parsed(path) if len(gram) > 1} == {gram for gram in naive.kept if len(gram) > 1}
    first, *_ = path.read_text().split("\n")
    assert first == (
        '# {"corpusmill":"perplexity","form":1,"order":3,"prune":[0],"tokens":"words",'
        '"trained_on":{"lines":10,"tokens":53}}'
    )
    packed = train(column(TEXTS), folder / "texts.arpa.gz", model)
    assert kenlm.Model(str(packed)).score("the cat sat") == kenlm.Model(str(path)).score("the cat sat")
    assert not list(folder.glob(".*"))


def test_a_word_beyond_the_vocabulary_costs_what_an_unseen_one_does(folder: Path) -> None:
    model = Loaded(train(column(TEXTS), folder / "few.arpa", LanguageModel(order=3, vocabulary=3)).read_bytes())
    logs, _ = model.log_probs(column(["the dogs ran", "the zebras ran"]))
    assert logs[0] == logs[1] < model.log_probs(column(["the cat ran"]))[0][0]


def test_discounts_are_those_of_chen_and_goodman() -> None:
    found = discounts(np.array([0, 40, 20, 12, 9]))
    y = 40 / (40 + 2 * 20)
    assert found == pytest.approx((1 - 2 * y * 20 / 40, 2 - 3 * y * 12 / 20, 3 - 4 * y * 9 / 12))
    assert [discounts(np.array([0, *odd])) for odd in ((4, 3, 2, 0), (1, 1, 9, 1), (5, 0, 1, 1))] == [None] * 3


def test_hostile_texts_train(folder: Path) -> None:
    hostile = [
        "a " * 10_000,
        "\n" * 1000,
        "x" * 5000,
        "",
        " ",
        "\u0301\u200d",
        "<s> </s> <unk>",
        "-" * 9999,
        "水" * 3000,
    ]
    path = train(column(hostile), folder / "hostile.arpa")
    assert Loaded(path.read_bytes()).order == kenlm.Model(str(path)).order == 5
    words = {gram[0] for gram in parsed(path) if len(gram) == 1}
    assert words == {"<unk>", "<s>", "</s>", "a", "<", ">", "/", "s", "unk", "-", "水"}
    with pytest.raises(ValueError, match="no token"):
        train(column(["", "\n \n"]), folder / "none.arpa")


@pytest.mark.parametrize(
    ("field", "value"),
    [("prune", (1, 1)), ("prune", (0, 2, 1)), ("prune", ()), ("order", 7), ("order", 1), ("vocabulary", 1 << 21)],
)
def test_parameters(field: str, value: object) -> None:
    with pytest.raises(pydantic.ValidationError, match=field):
        LanguageModel(**{field: value})  # type: ignore[arg-type]


def test_windows_hold_the_words_of_each_order(folder: Path) -> None:
    words = vocabulary(top_words([counted(column(TEXTS))], 1000))
    number = {word: n for n, word in enumerate(words.words.to_pylist())}
    for order in range(2, 7):
        rows = windows(hashes(column(["the cat\nran"])), words, order)
        lines = [["the", "cat", "</s>"], ["ran", "</s>"]]
        expected = []
        for line in lines:
            row = ["<s>"] * (order - 1) + line
            for at in range(len(line)):
                gram = [number[word] for word in row[at : at + order]][::-1] + [0] * (6 - order)
                expected.append(tuple(sum(n << 21 * (2 - k) for k, n in enumerate(gram[i : i + 3])) for i in (0, 3)))
        assert list(zip(rows["a"], rows["b"], strict=True)) == expected
    assert list(itertools.islice(number, 3)) == ["<unk>", "<s>", "</s>"]
