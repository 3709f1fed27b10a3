from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from operators.document import identity
from operators.models import dvector
from operators.models.weights import DVECTOR, find
from operators.speech import diarise
from operators.speech.diarise import (
    GAP,
    TAIL,
    TOGETHER,
    TURNS,
    WINDOW,
    Diarise,
    cuts,
    in_noise,
    length,
    spoken,
    together,
)
from operators.speech.diarise import windows as windows_of
from operators.speech.spool import RATE, Spool, hold
from operators.speech.stretches import SPANS, Turn
from tests.operators.speech.recordings import SAMPLE as SAMPLES
from tests.operators.speech.recordings import Samples, sound, spooled

try:
    find(DVECTOR)
except ValueError as missing:
    WHY = str(missing)
else:
    WHY = ""
model = pytest.mark.skipif(bool(WHY), reason=WHY)


@st.composite
def islands(draw: st.DrawFn) -> list[tuple[int, int]]:
    found, at = [], 0
    for pause, spoken_ in draw(
        st.lists(st.tuples(st.integers(1, 2 * GAP), st.integers(100, 3 * TOGETHER // 2)), max_size=4)
    ):
        found.append((at + pause, at + pause + spoken_))
        at += pause + spoken_
    return found


@settings(max_examples=40, deadline=None)
@given(islands(), st.integers(0, 10_000))
def test_turns_are_all_of_the_speech(speech: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    turns: list[Turn] = []
    for group in together(speech):
        assert length(group) <= TOGETHER
        spans = windows_of(length(group))
        assert spans[0][0] == 0
        assert length(group) - spans[-1][1] <= TAIL
        assert all(stop - start == min(WINDOW, length(group)) for start, stop in spans)
        assert (np.diff(cuts(spans, length(group))) > 0).all()
        turns += spoken(group, spans, rng.integers(0, 2, len(spans)))
    assert [turn for turn in turns if turn.start >= turn.stop] == []
    assert all(before.stop <= after.start for before, after in zip(turns, turns[1:], strict=False))
    assert sum(turn.stop - turn.start for turn in turns) == sum(stop - start for start, stop in speech)
    for turn in turns:
        assert any(start <= turn.start and turn.stop <= stop for start, stop in speech)


def test_a_turn_ends_in_a_pause_nearby() -> None:
    """Islands of 2.3 and 2.7 s: the label changes at 2.0 s of speech, which is 0.3 s before the pause."""
    group = [(RATE, round(3.3 * RATE)), (round(3.5 * RATE), round(6.2 * RATE))]
    spans = windows_of(length(group))
    assert [round(start / RATE, 3) for start, _ in spans] == [0, 0.8, 1.6, 2.4, 3.2, 3.4][: len(spans)]
    bounds = (cuts(spans, length(group)) / RATE).round(3).tolist()
    assert bounds[:3] == [0, 1.2, 2.0]
    labels = np.array([0, 0, *[1] * (len(spans) - 2)])
    assert spoken(group, spans, labels) == [Turn(RATE, round(3.3 * RATE), 0), Turn(round(3.5 * RATE), group[1][1], 1)]
    labels = np.array([0, *[1] * (len(spans) - 1)])  # at 1.2 s: no pause is near, the island is cut
    first, second, third = spoken(group, spans, labels)
    assert (first.stop, second.start, third.start) == (round(2.2 * RATE), round(2.2 * RATE), group[1][0])


def diarised(operator: Diarise, *recordings: tuple[Spool, list[tuple[int, int]]]) -> pa.Table:
    names = [f"{k:032x}" for k in range(len(recordings))]
    for name, (spool, _) in zip(names, recordings, strict=True):
        hold(name, spool)
    spans = [[{"start": start, "stop": stop} for start, stop in speech] for _, speech in recordings]
    samples = pa.array([spool.length for spool, _ in recordings], pa.int64())
    docs = pa.table({"id": names, "samples": samples, "speech": pa.array(spans, SPANS)})
    found = operator(docs)
    assert found.column_names == ["id", "samples", "speech", "turns", "speakers"]
    assert found.schema.field("turns").type == TURNS
    assert found.schema.field("speakers").type == pa.int32()
    assert operator.measured(found)["speakers"].tolist() == found["speakers"].to_pylist()
    return found


def dialogue(*languages: str) -> tuple[Samples, list[tuple[int, int]]]:
    """Prompts one after the other, half a second of silence between, and where they are."""
    pieces: list[Samples] = []
    places: list[tuple[int, int]] = []
    used: dict[str, int] = {}
    for language in languages:
        paths = sorted((SAMPLES / "prompts" / language).glob("*.g722"))
        heard = sound(paths[used.get(language, 0)])
        used[language] = used.get(language, 0) + 1
        at = sum(len(piece) for piece in pieces) + RATE // 2
        loud = np.flatnonzero(np.abs(heard) > 0.02)
        places.append((at + int(loud[0]), at + int(loud[-1])))
        pieces += [np.zeros(RATE // 2, np.float32), heard]
    return np.concatenate(pieces), places


@model
def test_three_voices_and_one() -> None:
    many, places = dialogue("en", "it", "ru", "en", "it", "ru")
    one, whole = dialogue("it", "it", "it")
    found = diarised(Diarise(), (spooled(many), places), (spooled(one), whole))
    assert found["speakers"].to_pylist() == [3, 1]
    said = found["turns"][0].as_py()
    truth = [0, 1, 2, 0, 1, 2]
    right = sum(
        max(0, min(turn["stop"], stop) - max(turn["start"], start))
        for turn in said
        for (start, stop), speaker in zip(places, truth, strict=True)
        if turn["speaker"] == speaker
    )
    assert right / sum(stop - start for start, stop in places) > 0.95
    alone = diarised(Diarise(), (spooled(one), whole))
    assert alone["turns"][0] == found["turns"][1]  # whatever else is diarised


def noise(like: Samples, decibels: float) -> Samples:
    """White, so many decibels below."""
    level = np.sqrt((like**2).mean()) / 10 ** (decibels / 20)
    return (np.random.default_rng(0).normal(size=len(like)) * level).astype(np.float32)


@pytest.mark.parametrize("language", ["en", "es", "fr", "it", "ru"])
def test_noise_is_told_from_speech(language: str) -> None:
    path = sorted((SAMPLES / "prompts" / language).glob("*.g722"))[1]
    samples = soxr.resample(sound(path), RATE, dvector.RATE)
    by_telephone = soxr.resample(soxr.resample(samples, dvector.RATE, 8000), 8000, dvector.RATE)
    assert not in_noise(samples)
    assert not in_noise(np.rint(by_telephone * 2048).astype(np.float32) / 2048)
    for decibels in (0, 10, 20):
        assert in_noise(samples + noise(samples, decibels))


def test_little_is_no_noise() -> None:
    assert not in_noise(np.zeros(0, np.float32))
    assert not in_noise(np.ones(40, np.float32))


@model
def test_one_voice_in_noise_and_without_and_two() -> None:
    one, whole = dialogue("ru", "ru", "ru", "ru", "ru", "ru")
    two, places = dialogue("it", "it", "it", "en", "en", "en")
    for samples, spans in ((one, whole), (two, places)):
        start, stop = spans[3][0] - RATE // 4, spans[-1][1]
        samples[start:stop] += noise(samples[start:stop], 10)
    assert diarised(Diarise(), (spooled(one), whole), (spooled(two), places))["speakers"].to_pylist() == [1, 2]
    assert diarised(Diarise(alike_in_noise=0.9), (spooled(one), whole))["speakers"].to_pylist() == [2]


@model
def test_no_speech_and_very_little() -> None:
    samples, places = dialogue("fr")
    found = diarised(Diarise(), (spooled(samples), []), (spooled(samples), [(places[0][0], places[0][0] + 40)]))
    assert found["turns"].to_pylist() == [[], [{"start": places[0][0], "stop": places[0][0] + 40, "speaker": 0}]]
    assert found["speakers"].to_pylist() == [0, 1]


@model
def test_a_long_turn_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diarise, "TOGETHER", 4 * RATE)
    long, _ = dialogue("it", "it")
    found = diarised(Diarise(), (spooled(long), [(0, len(long))]))
    assert len(together([(0, len(long))])) > 1
    assert found["turns"][0].as_py() == [{"start": 0, "stop": len(long), "speaker": 0}]


@model
def test_fields() -> None:
    assert identity(Diarise()) != identity(Diarise(apart=0.8))
    assert Diarise().needs == ("id", "samples", "speech")
    assert not Diarise().gpu
    for fields, message in (
        ({"backend": "pyannote"}, "pipeline: pyannote needs the path"),
        ({"backend": "pyannote", "alike": 0.8}, r"alike: 0\.8 is for dvector"),
        ({"backend": "pyannote", "alike_in_noise": 0.6}, r"alike_in_noise: 0\.6 is for dvector"),
        ({"alike": 0}, "alike"),
        ({"alike_in_noise": 1.5}, "alike_in_noise"),
        ({"apart": 2}, "apart"),
        ({"min_seconds": -1}, "min_seconds"),
        ({"pipeline": "/nowhere"}, "no such folder: /nowhere"),
    ):
        with pytest.raises(ValidationError, match=message):
            Diarise(**fields)  # type: ignore[arg-type]


def test_missing_weights_say_what_brings_them(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("CORPUSMILL_MODELS", str(tmp_path))
    find.cache_clear()
    with pytest.raises(ValidationError, match="make install-speech"):
        Diarise()
    find.cache_clear()
