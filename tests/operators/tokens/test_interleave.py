"""Spans, units and tokens of documents in which speech and text take turns."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.tokens.compose import ADDED, LOSS_MASK, PLACES, Composer
from operators.tokens.interleave import Interleave, plan, utterance_of
from operators.tokens.tokenizer import Tokenizer

RATE = 12.5
CLUSTERS = 256
WORD = st.text(st.sampled_from("abcdeéñж'"), min_size=1, max_size=7).filter(lambda w: any(map(str.isalnum, w)))
SIGN = st.sampled_from(["", "", "", ",", ".", "?", "…"])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("recording", pa.string()),
        ("start", pa.float64()),
        ("text", pa.large_string()),
        ("words", pa.list_(pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64())]))),
        ("units", pa.list_(pa.uint16())),
        ("unit_rate", pa.float32()),
        ("source", pa.string()),
    ]
)


def row(words: list[str], timed: bool = True, recording: str = "r", number: int = 0, seed: int = 0) -> dict[str, Any]:
    """An utterance of those words, each of some .1 to .6 seconds, with pauses here and there."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.uniform(0, 0.3, 2 * len(words)) + np.tile([0.0, 0.1], len(words))).round(3)
    times = [
        {"word": f" {word}", "start": a, "end": b} for word, a, b in zip(words, edges[::2], edges[1::2], strict=True)
    ]
    units = rng.integers(0, CLUSTERS, round(float(edges[-1] + 0.2) * RATE)).astype(np.uint16)
    return {
        "id": f"{recording}/{number:05d}",
        "recording": recording,
        "start": 40.0 * number,
        "text": " ".join(words),
        "words": times if timed else None,
        "units": units if timed else None,
        "unit_rate": RATE if timed else None,
        "source": "s",
    }


def recording(name: str, sizes: list[int], seed: int = 0, timed: bool = True) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    words = [["".join(rng.choice(list("abcdefgh"), rng.integers(1, 9))) for _ in range(size)] for size in sizes]
    return [row(own, timed, name, n, seed + n) for n, own in enumerate(words)]


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    data = Tokenizer(vocab=300).fit(pa.chunked_array([["abc defg. hé ñandú жук, " * 20]], pa.large_string()))
    path = Path(tmp_path_factory.mktemp("tokenizer"), "tokenizer.json")
    path.write_bytes(data)
    return Tokenizer(vocab=300).with_artefact(str(path), hashlib.sha256(data).hexdigest())


def documents(composer: Composer, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = composer(table(rows))[0].to_pylist()
    return found


def check(document: dict[str, Any], rows: list[dict[str, Any]], composer: Composer) -> None:
    """All that must hold of a document, whatever it was made of."""
    told = composer.describe()
    own = {one["id"]: one for one in rows}
    members = [own[name] for name in document["members"]]
    segments, ids, mask = document["segments"], document["input_ids"], document[LOSS_MASK]
    assert document["text"] == " ".join(one["text"] for one in members)
    assert "".join(segment["text"] for segment in segments) == document["text"]
    decoded, kind, at = "", None, 0
    used: dict[str, int] = {}
    for segment in segments:
        assert segment["start_token"] == at
        at = segment["end_token"]
        tokens, weights = ids[segment["start_token"] : at], mask[segment["start_token"] : at]
        if segment["modality"] != kind:
            assert tokens[0] == told["speech_id" if segment["modality"] == "speech" else "text_id"]
            tokens = tokens[1:]
        else:
            assert kind == "text", "no two spans of speech without a word of text between"
        kind = segment["modality"]
        assert set(weights) == {0 if composer.interleave.mode == "inserter" and kind == "speech" else 1}
        if kind == "text":
            assert all(token < told["base_vocab_size"] for token in tokens)
            decoded += composer.tokenizer.backend().decode(tokens)
            continue
        decoded += segment["text"]
        units = [token - told["first_unit_id"] for token in tokens]
        whole = list(own[segment["utterance"]]["units"])
        first, last = round(segment["start"] * RATE), round(segment["end"] * RATE)
        assert units
        assert first >= used.get(segment["utterance"], 0), "no unit twice"
        assert units == whole[first : first + len(units)]
        assert len(units) >= last - first - (last > len(whole))
        used[segment["utterance"]] = first + len(units)
    assert decoded == document["text"]
    assert ids[at:] == [told["eos_id"]]
    assert ids.count(told["eos_id"]) == 1
    assert len(mask) == len(ids) == document["tokens"]
    spoken = sum(len(segment["text"].split()) for segment in segments if segment["modality"] == "speech")
    assert document["speech_share"] == pytest.approx(spoken / len(document["text"].split()), abs=1e-4)
    firsts = [next(s for s in segments if s["utterance"] == name)["start_token"] for name in document["members"]]
    assert document[PLACES] == [0, *firsts[1:]]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.tuples(WORD, SIGN), min_size=1, max_size=30), st.booleans()), min_size=1, max_size=8
    ),
    st.sampled_from(
        [
            Interleave(),
            Interleave(share=0.5, span=3),
            Interleave(mode="inserter", max_words=40),
            Interleave(mode="inserter", level="sentences"),
        ]
    ),
    st.integers(0, 2**32 - 1),
)
def test_documents_are_their_utterances(
    tokenizer: Tokenizer, spoken: list[tuple[list[tuple[str, str]], bool]], interleave: Interleave, seed: int
) -> None:
    rows = [row([w + s for w, s in words], timed, number=n, seed=n) for n, (words, timed) in enumerate(spoken)]
    composer = Composer(dataclasses.replace(interleave, seed=seed), tokenizer, CLUSTERS)
    found = documents(composer, rows)
    assert [name for document in found for name in document["members"]] == [one["id"] for one in rows]
    assert [document["id"] for document in found] == [f"r/i{n:05d}" for n in range(len(found))]
    for document in found:
        check(document, rows, composer)
        assert len(document["members"]) == 1 or len(document["text"].split()) <= interleave.max_words
        speech = [s["text"].split() for s in document["segments"] if s["modality"] == "speech"]
        assert all(len(words) >= interleave.least for words in speech)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(8, 60), min_size=4, max_size=30), st.sampled_from([0.2, 0.3, 0.4]))
def test_the_share_is_the_asked_for_in_long_documents(seed: int, sizes: list[int], share: float) -> None:
    while sum(sizes) < 200:
        sizes = [*sizes, 60]
    members = [utterance_of(one, "") for one in recording("r", sizes, seed)]
    for interleave in (Interleave(share=share, seed=seed), Interleave(mode="inserter", share=share, seed=seed)):
        spans = plan(members, interleave, "r/i00000")
        spoken = sum(span.last - span.first for span in spans if span.speech)
        assert abs(spoken / sum(sizes) - share) <= 0.02


def test_spans_of_glm_have_the_lengths_of_the_law() -> None:
    members = [utterance_of(one, "") for one in recording("r", [400] * 20)]
    spans = [span for k in range(2) for span in plan(members, Interleave(), f"d{k}") if span.speech]
    lengths = [span.last - span.first for span in spans]
    assert 9.5 < np.mean(lengths) < 10.5
    assert 7.5 < np.var(lengths) < 12.5
    assert 170 < np.mean([span.first for span in spans]) < 220


def test_a_law_of_zeros_ends() -> None:
    members = [utterance_of(one, "") for one in recording("r", [50] * 4)]
    spans = plan(members, Interleave(span=1, share=0.5), "d")
    assert sum(span.last - span.first for span in spans if span.speech) >= 80


def test_sentences_are_spoken_whole() -> None:
    words = [f"w{n}{'.' if n % 6 == 5 else ''}" for n in range(300)]
    spans = plan([utterance_of(row(words), "")], Interleave(mode="inserter", level="sentences"), "d")
    assert all((span.first % 6, span.last % 6) == (0, 0) for span in spans if span.speech)
    assert 0.34 < sum(span.last - span.first for span in spans if span.speech) / 300 <= 0.4


def test_layout_and_company_change_nothing(tokenizer: Tokenizer) -> None:
    composer = Composer(Interleave(max_words=60), tokenizer, CLUSTERS)
    one, two = recording("a", [20, 30, 25, 9], 1), recording("b", [40, 12], 2)
    alone = [*documents(composer, one), *documents(composer, two)]
    mixed = [two[1], one[2], one[0], two[0], one[3], one[1]]
    assert documents(composer, mixed) == alone
    chunked = pa.concat_tables([table([each]) for each in mixed])
    assert composer(chunked)[0].to_pylist() == alone
    other = Composer(Interleave(max_words=60, seed=1), tokenizer, CLUSTERS)
    assert [d["segments"] for d in documents(other, mixed)] != [d["segments"] for d in alone]


@pytest.mark.parametrize(
    "change",
    [
        {"words": None},
        {"units": None},
        {"units": []},
        {"unit_rate": None},
        {"words": [{"word": "other", "start": 0.0, "end": 1.0}]},
        {"words": [{"word": "aa", "start": 0.0, "end": 1.0}]},  # of two words one
        {"words": [{"word": "aa", "start": 1.0, "end": 1.5}, {"word": "bb", "start": 0.5, "end": 2.0}]},
        {"words": [{"word": "aa", "start": None, "end": 1.5}, {"word": "bb", "start": 0.5, "end": 2.0}]},
    ],
)
def test_what_has_no_times_or_units_stays_text(change: dict[str, Any]) -> None:
    good = row(["aa", "bb"])
    assert utterance_of(good, "").timed
    bad = utterance_of(good | change, " ")
    assert not bad.timed
    assert "".join(bad.pieces) == " aa bb"
    assert [span.speech for span in plan([bad], Interleave(share=0.5), "d")] == [False]


def test_units_repeat_unless_told_otherwise(tokenizer: Tokenizer) -> None:
    rows = [one | {"units": [7] * len(one["units"])} for one in recording("r", [60])]
    plain = documents(Composer(Interleave(), tokenizer, CLUSTERS), rows)[0]
    short = documents(Composer(Interleave(deduplicate=True), tokenizer, CLUSTERS), rows)[0]
    speech = [s for s in short["segments"] if s["modality"] == "speech"]
    assert {s["end_token"] - s["start_token"] for s in speech} == {2}
    assert plain["tokens"] > short["tokens"]
    assert [s["text"] for s in plain["segments"]] == [s["text"] for s in short["segments"]]


def test_ids_are_wide_enough_and_told(tokenizer: Tokenizer) -> None:
    small, large = (Composer(Interleave(), tokenizer, n) for n in (CLUSTERS, 1 << 16))
    base = tokenizer.describe()["vocab_size"]
    assert small.describe()["dtype"] == "uint16"
    assert large.describe()["dtype"] == "int32"
    told = large.describe()
    assert (told["base_vocab_size"], told["speech_id"], told["text_id"]) == (base, base, base + 1)
    assert (told["first_unit_id"], told["vocab_size"]) == (base + 2, base + 2 + (1 << 16))
    made = large(table(recording("r", [30])))[0]
    assert made.schema.field("input_ids").type == pa.large_list(pa.int32())
    assert {*ADDED, LOSS_MASK, PLACES, "recording", "source"} == set(made.column_names)
    rows = [one | {"units": [255] * len(one["units"])} for one in recording("r", [60])]
    with pytest.raises(ValueError, match="unit 255 of 2"):
        Composer(Interleave(), tokenizer, 2)(table(rows))


def test_what_there_is_is_counted(tokenizer: Tokenizer) -> None:
    composer = Composer(Interleave(mode="inserter"), tokenizer, CLUSTERS)
    made, counts = composer(table([*recording("a", [200, 100]), *recording("b", [50], timed=False)]))
    rows = made.to_pylist()
    assert (counts["documents"], counts["words"]) == (2, 350)
    assert counts["spoken_words"] == pytest.approx(90, abs=2)
    assert counts["masked_tokens"] == counts["speech_tokens"] == sum(one[LOSS_MASK].count(0) for one in rows)


@pytest.mark.parametrize(
    "given",
    [
        {"share": 0},
        {"share": 0.6},
        {"level": "sentences"},
        {"mode": "inserter", "level": "sentences", "span": 5},
        {"mode": "inserter", "level": "sentences", "min_words": 3},
        {"mode": "poisson"},
        {"span": 0.5},
        {"max_words": 0},
    ],
)
def test_bad_parameters_are_named(given: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match=list(given)[-1]):
        Interleave(**given)
