from __future__ import annotations

import numpy as np
import pytest
import soxr

from operators.models.dvector import BANDS, DVector, SpeakerEmbedder, log_mel, mel_filters
from operators.models.weights import DVECTOR, find
from operators.speech import spool
from tests.operators.speech import recordings

try:
    find(DVECTOR)
except ValueError as missing:
    WHY = str(missing)
else:
    WHY = ""

RATE = 16_000


def test_mel_filters_are_librosas() -> None:
    """librosa 0.11: filters.mel(sr=16000, n_fft=512, n_mels=40)."""
    filters = mel_filters()
    assert filters.shape == (BANDS, 257)
    known = {
        (0, 1): [0.005773601, 0.011547202, 0.009864137, 0.0040905355],
        (7, 17): [0.00300393, 0.008777531, 0.012633811, 0.0068602064, 0.0010866053],
        (20, 53): [0.0017693211, 0.0035994775, 0.0054296335, 0.0072597903, 0.006038340],
        (39, 253): [0.00028480172, 0.00018986780, 0.0000949339],
    }
    for (band, first), values in known.items():
        assert filters[band, first : first + len(values)] == pytest.approx(values, rel=1e-5)
    assert (filters[0, 5:] == 0).all()


def test_log_mel_is_librosas() -> None:
    """log10(melspectrogram(window="hamming", center=False) + 1e-10) of two tones: frame 10, every fourth band."""
    time = np.arange(8000) / RATE
    tones = (0.5 * np.sin(2 * np.pi * 440 * time) + 0.25 * np.sin(2 * np.pi * 3000 * time)).astype(np.float32)
    found = log_mel(tones)
    assert found.shape == (47, BANDS)
    known = [-2.3093, 0.9061, -2.8556, -3.741, -4.5617, -4.6008, -3.942, -0.3596, -4.7646, -5.6174]
    assert found[10, ::4] == pytest.approx(known, abs=2e-3)
    assert log_mel(tones[:511]).shape == (0, BANDS)
    assert log_mel(np.zeros(512, np.float32)) == pytest.approx(np.full((1, BANDS), -10), abs=1e-5)


@pytest.fixture(scope="module")
def embedder() -> SpeakerEmbedder:
    if WHY:
        pytest.skip(WHY)
    return DVector().load()


def heard(language: str, start: float, seconds: float = 1.6) -> np.ndarray:
    samples = soxr.resample(recordings.speech(language, 20), spool.RATE, RATE)
    return samples[round(start * RATE) : round((start + seconds) * RATE)]


def test_voices(embedder: SpeakerEmbedder) -> None:
    """Allison reads English and Spanish, Carlo Italian."""
    allison, carlo = ("en", "es"), ("it",)
    means = {}
    for language in (*allison, *carlo):
        vectors = np.stack([embedder.embed(heard(language, start, 2.4)) for start in (0, 4, 8)])
        assert vectors.shape == (3, 256)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
        means[language] = vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
    assert means["en"] @ means["es"] > max(means["en"] @ means["it"], means["es"] @ means["it"])


def test_a_vector_depends_on_its_samples_alone(embedder: SpeakerEmbedder) -> None:
    one, other = heard("it", 1), heard("ru", 2)
    first = embedder.embed(one)
    embedder.embed(other)
    assert np.array_equal(embedder.embed(one), first)
    louder = embedder.embed(one * np.float32(0.25))
    assert louder @ first > 0.999
    for short in (np.zeros(0, np.float32), np.zeros(300, np.float32), one[:4000]):
        assert np.isfinite(embedder.embed(short)).all()
