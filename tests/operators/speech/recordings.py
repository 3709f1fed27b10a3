"""Real speech and music of the sample, and spools of them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from operators.speech.spool import FULL_SCALE, RATE, Spool

SAMPLE = Path(__file__).parents[3] / "workflows/sample/speech"
Samples = NDArray[np.float32]


def sound(path: Path) -> Samples:
    """The samples at RATE, half of full scale at most."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with av.open(str(path), format="g722") as container:
        frames = [one for frame in (*container.decode(audio=0), None) for one in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return samples / np.abs(samples).max() / 2


def speech(language: str, seconds: float) -> Samples:
    prompts = sorted((SAMPLE / "prompts" / language).glob("*.g722"))
    return cut(np.concatenate([sound(path) for path in prompts[:6]]), seconds)


def music(seconds: float, track: int = 1) -> Samples:
    return cut(sound(sorted((SAMPLE / "music").glob("*.g722"))[track]), seconds)


def cut(samples: Samples, seconds: float) -> Samples:
    assert len(samples) >= seconds * RATE
    return samples[: round(seconds * RATE)]


def bed(voice: Samples, under: Samples, decibels: float) -> Samples:
    """Speech with music so much beneath it."""
    gain = np.sqrt((voice**2).mean() / (under**2).mean()) / 10 ** (decibels / 20)
    mixed = voice + np.float32(gain) * under
    return (mixed / np.abs(mixed).max() / 2).astype(np.float32)


def spooled(samples: Samples) -> Spool:
    spool = Spool()
    spool.append(np.rint(samples * (FULL_SCALE - 1)).astype(np.int16))
    return spool
