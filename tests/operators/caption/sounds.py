"""The sample's prompts and music, and what becomes of a recording on its way through the world."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import soxr
from numpy.typing import NDArray

from operators.caption.fingerprint import words_of
from operators.speech.codec import decode, encode_mp3
from operators.speech.spool import RATE
from tests.operators.speech.recordings import SAMPLE, Samples, sound


@cache
def prompts() -> list[Samples]:
    """All of the sample, in order of their paths."""
    return [sound(path) for path in sorted((SAMPLE / "prompts").glob("*/*.g722"))]


@cache
def tracks() -> list[Samples]:
    return [sound(path) for path in sorted((SAMPLE / "music").glob("*.g722"))]


@cache
def words_of_prompts() -> list[NDArray[np.uint32]]:
    return [words_of(samples) for samples in prompts()]


def noisy(samples: Samples, decibels: float) -> Samples:
    """With white noise so much below it."""
    level = np.sqrt(np.mean(np.square(samples))) / 10 ** (decibels / 20)
    return samples + np.float32(level) * np.random.default_rng(1).standard_normal(len(samples)).astype(np.float32)


def resampled(samples: Samples, rate: int) -> Samples:
    return soxr.resample(soxr.resample(samples, RATE, rate), rate, RATE).astype(np.float32)


COPIES: dict[str, Callable[[Samples], Samples]] = {
    "MP3 of 128 kbit/s": lambda samples: decode(encode_mp3(samples, 128)),
    "MP3 of 64 kbit/s": lambda samples: decode(encode_mp3(samples, 64)),
    "8 kHz": lambda samples: resampled(samples, 8000),
    "20 dB quieter": lambda samples: samples * np.float32(0.1),
    "noise at 20 dB": lambda samples: noisy(samples, 20),
    "5 ms later": lambda samples: samples[round(0.005 * RATE) :],
    "cut 1.1 s later, then MP3": lambda samples: decode(encode_mp3(samples[round(1.1 * RATE) :], 64)),
}
