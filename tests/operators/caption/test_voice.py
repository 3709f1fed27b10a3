from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.caption.facts import GENDERS
from operators.caption.voice import HOP, NOTHING, RATE, Voice, voice_of
from operators.speech import spool
from tests.operators.speech.recordings import SAMPLE, bed, music, sound

SPEAKERS = {"en": "female", "es": "female", "fr": "female", "it": "male", "ru": "female"}


def prompt(language: str, number: int) -> np.ndarray:
    return sound(sorted((SAMPLE / "prompts" / language).glob("*.g722"))[number])


def heard(samples: np.ndarray) -> Voice:
    return voice_of(soxr.resample(samples, spool.RATE, RATE))


def hum(hertz: float, seconds: float = 1.0) -> np.ndarray:
    """As many harmonics as there are below 4 kHz, the higher the weaker."""
    phases = 2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE
    return sum(np.sin(n * phases) / n for n in range(1, int(4000 / hertz))).astype(np.float32) / 4


def test_voices_of_the_sample() -> None:
    """Five languages, four speakers: nobody is taken for another sex, most are known."""
    answers = {
        (language, number): heard(prompt(language, number)).gender for language in SPEAKERS for number in range(4)
    }
    wrong = {key: answer for key, answer in answers.items() if answer not in (SPEAKERS[key[0]], None)}
    assert not wrong
    known = [answer for answer in answers.values() if answer]
    assert len(known) >= 14
    assert set(known) <= set(GENDERS)


@pytest.mark.parametrize("language", ["en", "fr", "it", "ru"])
def test_music_beneath_does_not_change_a_voice(language: str) -> None:
    voice = prompt(language, 1)
    clean, mixed = heard(voice), heard(bed(voice, music(len(voice) / spool.RATE), 10))
    assert clean.pitch_hz
    assert mixed.pitch_hz == pytest.approx(clean.pitch_hz, rel=0.1)
    assert mixed.gender in (SPEAKERS[language], None)


@given(st.floats(70, 450), st.floats(1e-3, 0.9))
@settings(max_examples=30, deadline=None)
def test_pitch_of_a_hum_at_any_level(hertz: float, level: float) -> None:
    found = voice_of(hum(hertz) * np.float32(level))
    assert found.pitch_hz == pytest.approx(hertz, rel=0.02)
    assert found.voiced_share > 0.9
    assert found == voice_of(hum(hertz) * np.float32(level))


def test_low_voices_are_mens_and_high_ones_womens() -> None:
    """Of the same throat."""
    chances = [voice_of(hum(hertz)).male for hertz in (90, 120, 160, 200, 250)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.5 > chances[-1]


def test_only_speech_counts() -> None:
    samples = np.concatenate([hum(300, 2), hum(110, 1)])
    speech = np.zeros(len(samples) // HOP, np.float32)
    speech[200:] = 0.9
    assert voice_of(samples, speech).pitch_hz == pytest.approx(110, rel=0.02)
    assert voice_of(samples).pitch_hz == pytest.approx(300, rel=0.02)
    assert voice_of(samples, np.append(speech, np.float32(1))) == voice_of(samples, speech)  # a frame begun
    assert voice_of(samples, np.zeros_like(speech)) == NOTHING


@pytest.mark.parametrize("seconds", [0, 0.05, 2])
def test_nothing_is_known_of_silence_and_noise(seconds: float) -> None:
    count = round(seconds * RATE)
    noise = np.random.default_rng(3).standard_normal(count).astype(np.float32)
    for samples in (np.zeros(count, np.float32), noise, noise * np.float32(1e-4)):
        found = voice_of(samples)
        assert (found.pitch_hz, found.male, found.gender) == (None, 0.5, None)
        assert found.voiced_share < 0.05


def test_a_sound_too_short_is_no_voice() -> None:
    assert voice_of(hum(150, 0.2)) == NOTHING
