from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.caption.events import (
    CLAIM,
    MUST,
    Sounds,
    between,
    levels,
    pitch,
    short,
    silence,
    sounding,
    sounds_of,
    steady,
)
from operators.speech.spool import RATE

Samples = NDArray[np.float32]


def noise(seconds: float, color: float = 0, seed: int = 0) -> Samples:
    """Noise whose power falls with that power of frequency; half of full scale."""
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    hertz = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20)
    made = np.fft.irfft(spectrum / hertz ** (color / 2), count)
    return (made / np.abs(made).max() / 2).astype(np.float32)


def tone(seconds: float, hertz: float) -> Samples:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def struck(hertz: float, times: list[float], seconds: float, decay: float = 0.05) -> Samples:
    """A tone that is struck at some times, and dies away."""
    made = np.zeros(round(seconds * RATE), np.float32)
    for at in times:
        rest = made[round(at * RATE) :]
        rest += tone(len(rest) / RATE, hertz)[: len(rest)] * np.exp(-np.arange(len(rest)) / RATE / decay)
    return (made + 1e-5 * noise(seconds)).astype(np.float32)


def told(samples: Samples) -> dict[str, float]:
    """What may be told of a clip, and how sure that is."""
    sounds = sounds_of(samples)
    facts = [silence(sounds), *steady(sounds), *short(sounds), *pitch(sounds)]
    return {fact.value: fact.score for fact in facts if fact.score >= CLAIM}


@pytest.mark.parametrize("color", [0, 0.5, 1])
def test_noise_of_any_color_is_steady_noise(color: float) -> None:
    found = told(noise(5, color))
    assert found.pop("noise") >= MUST
    assert not found


@pytest.mark.parametrize(("hertz", "pitched"), [(60, "low"), (110, "low"), (440, None), (1000, None), (5000, "high")])
def test_a_tone_is_a_hum(hertz: float, pitched: str | None) -> None:
    found = told(tone(4, hertz) + 1e-3 * noise(4))
    assert found.pop("hum") >= MUST
    assert list(found) == ([pitched] if pitched else [])


def test_one_struck_once_is_short_and_struck_often_a_series() -> None:
    once, often = told(struck(700, [1.0], 3)), told(struck(700, [0.5, 1.5, 2.5, 3.5, 4.5], 6))
    assert once.pop("burst") >= MUST
    assert often.pop("series") >= MUST
    assert set(once) | set(often) <= {"silence"}
    assert sounds_of(struck(700, [0.5, 1.5, 2.5, 3.5, 4.5], 6)).number == 5
    assert "series" not in told(struck(700, [0.5, 1.5], 3))  # two may be anything


def test_what_goes_on_and_changes_is_nothing_of_these() -> None:
    sweep = np.sin(2 * np.pi * np.cumsum(np.geomspace(200, 4000, 4 * RATE)) / RATE).astype(np.float32) / 2
    swelling = noise(4) * np.linspace(0.01, 1, 4 * RATE, dtype=np.float32)
    ringing = struck(700, [0.1], 6, decay=1.5)
    assert [told(samples) for samples in (sweep, swelling, ringing)] == [{}, {}, {}]


@pytest.mark.parametrize(
    "samples", [np.zeros(3 * RATE, np.float32), np.float32(1e-4) * noise(3), np.zeros(0, np.float32)]
)
def test_silence_is_all_there_is_to_say(samples: Samples) -> None:
    assert told(samples) == {"silence": 1.0}


@pytest.mark.parametrize("hertz", [0.0, 3, 10, 17.3, 25])
@pytest.mark.parametrize("over", [0, 10 ** (-70 / 20)])
def test_what_is_too_low_to_be_heard_is_silence(hertz: float, over: float) -> None:
    low = np.full(4 * RATE, 0.9, np.float32) if not hertz else tone(4, hertz) / np.float32(0.3)
    hiss = np.random.default_rng(0).standard_normal(len(low)).astype(np.float32)
    assert told(low + np.float32(over) * hiss) == {"silence": 1.0}


def test_what_is_below_a_sound_changes_nothing_of_it() -> None:
    clip = struck(700, [0.5, 1.5, 2.5, 3.5, 4.5], 6)
    for low in (tone(6, 10), np.float32(0.5)):
        assert told(clip + low) == pytest.approx(told(clip), abs=0.1)


def test_how_much_silence() -> None:
    clip = np.concatenate([np.zeros(7 * RATE, np.float32), noise(3)])
    sounds = sounds_of(clip)
    assert sounds.silent == pytest.approx(0.7, abs=0.01)
    assert silence(sounds).share == sounds.silent
    assert CLAIM <= silence(sounds).score < MUST
    brief = np.concatenate([np.zeros(RATE * 3 // 4, np.float32), noise(0.25)])  # whose end it may be
    assert silence(sounds_of(brief)).score == 0


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 3 * RATE),
    seed=st.integers(0, 9),
    gain=st.floats(0, 2),
    kind=st.sampled_from(["noise", "click", "tone"]),
)
def test_any_clip_is_measured(count: int, seed: int, gain: float, kind: str) -> None:
    samples = np.zeros(count, np.float32)
    if kind == "noise":
        samples = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    elif count:
        samples[seed * count // 10] = 1
        samples = samples if kind == "click" else tone(count / RATE, 100 * (1 + seed))[:count]
    sounds = sounds_of((gain * samples).astype(np.float32))
    assert np.isfinite(np.array(sounds)).all()
    assert 0 <= sounds.silent <= 1
    assert 0 <= sounds.share <= 1.0001
    assert 0 <= sounds.tonal <= 1
    assert sounds.lowest <= sounds.highest <= RATE / 2
    assert sounds.longest <= sounds.seconds + 0.01
    level = levels(samples)
    assert len(level) == count // (RATE // 100)
    assert sounding(level).shape == level.shape
    facts = [silence(sounds), *steady(sounds), *short(sounds), *pitch(sounds)]
    assert all(0 <= fact.score <= 1 for fact in facts)


@given(
    points=st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4, unique=True).map(sorted),
    values=st.lists(st.floats(-2e6, 2e6), min_size=2, max_size=2).map(sorted),
    falling=st.booleans(),
)
def test_scores_rise_or_fall_between_their_points(points: list[float], values: list[float], falling: bool) -> None:
    if falling:
        points = points[::-1]
    low, high = sorted(between(value, points) for value in values)
    assert 0 <= low <= high <= 1
    assert (between(values[0], points) <= between(values[1], points)) or falling
    assert [between(point, points) for point in points] == [0, CLAIM, MUST, 1]


def test_quieter_is_the_same() -> None:
    """Down to where nothing is heard any more, level decides on silence alone."""
    clip = struck(700, [0.5, 1.5, 2.5, 3.5, 4.5], 6) + noise(6) * 1e-4
    loud, quiet = (sounds_of(np.float32(gain) * clip) for gain in (1, 0.1))
    same = [field for field in Sounds._fields if field != "silent"]
    assert [getattr(loud, name) for name in same] == pytest.approx([getattr(quiet, name) for name in same], rel=1e-3)
    assert [fact.value for fact in short(loud)] == ["series"]
