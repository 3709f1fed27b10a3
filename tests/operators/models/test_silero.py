from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("faster_whisper", reason="needs the extra corpusmill[speech]")
pytest.importorskip("av", reason="needs the extra corpusmill[speech]")

from faster_whisper import vad

from operators.models import silero
from operators.models.silero import BLOCK, WINDOW, Rules, Silero, SileroVad, islands
from operators.speech.spool import RATE
from tests.operators.speech.recordings import music, speech


@pytest.fixture(scope="module")
def detector() -> SileroVad:
    return Silero().load()


@pytest.fixture(scope="module")
def voice() -> NDArray[np.float32]:
    """Whole windows and a little of one, of speech with silence in it."""
    spoken = np.concatenate([speech("en", 12), np.zeros(RATE, np.float32), speech("ru", 12)])
    heard = soxr.resample(spoken, RATE, silero.RATE)
    return heard[: len(heard) // WINDOW * WINDOW + 100]


def published(samples: NDArray[np.float32], rules: Rules) -> list[tuple[int, int]]:
    options = vad.VadOptions(
        threshold=rules.threshold,
        min_speech_duration_ms=rules.min_speech_ms,
        min_silence_duration_ms=rules.min_silence_ms,
        speech_pad_ms=rules.pad_ms,
    )
    return [(found["start"], found["end"]) for found in vad.get_speech_timestamps(samples, options)]


def heard(detector: SileroVad, samples: NDArray[np.float32], rules: Rules = Rules()) -> list[tuple[int, int]]:  # noqa: B008  (frozen)
    return islands(detector.probabilities([samples]), len(samples), rules)


@pytest.mark.parametrize(
    "rules", [Rules(), Rules(0.8), Rules(0.3, 100, 300, 200), Rules(min_speech_ms=1500), Rules(min_silence_ms=0)]
)
def test_islands_are_the_published_ones(detector: SileroVad, voice: NDArray[np.float32], rules: Rules) -> None:
    found = heard(detector, voice, rules)
    assert found == published(voice, rules)
    assert len(found) > 1


def test_blocks_do_not_matter(detector: SileroVad, voice: NDArray[np.float32]) -> None:
    whole = detector.probabilities([voice])
    assert len(whole) == -(-len(voice) // WINDOW)
    for size in (7 * WINDOW, 300 * WINDOW):
        blocks = (voice[at : at + size] for at in range(0, len(voice), size))
        assert np.array_equal(detector.probabilities(blocks), whole)
    with pytest.raises(ValueError, match="no multiple of 512 samples was not the last"):
        detector.probabilities([voice[:1000], voice[1000:]])
    assert BLOCK % WINDOW == 0


def test_what_is_no_speech(detector: SileroVad) -> None:
    assert heard(detector, np.zeros(0, np.float32)) == []
    assert heard(detector, np.zeros(1, np.float32)) == []
    assert heard(detector, np.zeros(5 * silero.RATE, np.float32)) == []
    noise = np.random.default_rng(1).normal(size=5 * silero.RATE).astype(np.float32) / 10
    assert heard(detector, noise) == []
    assert heard(detector, soxr.resample(music(15), RATE, silero.RATE)) == []


def test_rules_on_probabilities() -> None:
    """By hand: 20 windows of speech, a dip above 0.35, silence of 96 ms that is bridged and one of 128 ms that is not,
    then 7 windows, which is less than 250 ms."""
    said = [0.0] * 4 + [0.9] * 10 + [0.4] * 5 + [0.9] * 5 + [0.1] * 3 + [0.6] + [0.1] * 5 + [0.9] * 7 + [0.0] * 5
    found = islands(np.array(said), len(said) * WINDOW, Rules())
    assert found == [(4 * WINDOW - 480, 28 * WINDOW + 480)]
    assert islands(np.full(9, 0.9), 9 * WINDOW, Rules()) == [(0, 9 * WINDOW)]
    assert islands(np.full(7, 0.9), 7 * WINDOW, Rules()) == []


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.2, 0.34, 0.36, 0.5, 0.9]), max_size=120),
    st.builds(Rules, st.sampled_from([0.3, 0.5]), st.integers(0, 400), st.integers(0, 300), st.integers(0, 300)),
)
def test_islands_ascend_and_are_disjoint(said: list[float], rules: Rules) -> None:
    length = max(0, len(said) * WINDOW - 37)
    found = islands(np.array(said), length, rules)
    places = [place for island in found for place in island]
    assert places == sorted(places)
    assert all(0 <= start < stop <= length for start, stop in found)
    loud = [n for n, probability in enumerate(said) if probability >= rules.threshold]
    assert all(any(start <= n * WINDOW < stop for n in loud) for start, stop in found)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"corpusmill\[speech\].*no package onnxruntime"):
        Silero().check()
