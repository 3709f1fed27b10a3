"""What can be told of a clip without knowing what it is: whether it is silent, one short sound or several, or goes on
steadily as a tone or as noise, and whether that is low or high.

All is measured, nothing is learned. A fact is made only where the numbers are clear: most sounds are none of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.caption.facts import CLAIM, MUST, Fact
from operators.speech.spool import RATE

HOP = RATE // 100  # samples from one level to the next: 10 ms
SMOOTHED = 5  # levels that are averaged
QUIETEST = -120.0  # dBFS: of nothing
SILENT = -60.0  # dBFS: what is quieter is silence
LEAST = -50.0  # dBFS of the loudest, for there to be a sound
BELOW = 25.0  # dB below the loudest: a sound has ended
ALIKE = 15.0  # dB between the loudest of several sounds and the others that count
GAP = 8  # levels: sounds that are less apart are one
WINDOW = 2048  # samples of a spectrum, half as many from one to the next
BLOCK = 4  # spectra that are averaged before bands are compared in time: 0.17 s
NEAR = 4  # bins to either side that a bin is compared with: 47 Hz
BANDS = np.geomspace(80, 11_000, 25)  # Hz, where they end
LOUD = 15.0  # dB: bands further below the loudest do not count
HEARD = 50.0  # Hz: what is lower is not heard
TAPER = np.kaiser(2 * WINDOW, 12)  # of what is loud below 25 Hz, it leaves 90 dB less above HEARD
LONGEST = 1.0  # seconds of each of several sounds
STEADY = 2.0  # seconds, for anything to be steady


class Sounds(NamedTuple):
    """What is measured of a clip."""

    seconds: float
    silent: float  # share of the time
    number: int  # of sounds that are apart
    longest: float  # seconds, of a sound
    share: float  # of the time with a sound
    variation: float  # dB, in time: the standard deviation of the level
    change: float  # dB: the same of bands of the spectrum, the mean of those that are loud
    tonal: float  # share of the power that stands out of what is near it in frequency: 0 for noise, 1 for tones
    lowest: float  # Hz: a tenth of the power is below
    highest: float  # Hz: a tenth of the power is above


def sounds_of(samples: NDArray[np.float32]) -> Sounds:
    """Of a clip at RATE. One without samples is silent."""
    level = levels(samples)
    silent = float((level < SILENT).mean()) if len(level) else 1.0
    seconds = len(samples) / RATE
    if not sounding(level).any():
        return Sounds(seconds, silent, 0, 0, 0, 0, 0, 0, 0, 0)
    lengths = np.diff(_islands(level), axis=1) * HOP / RATE
    power = _spectra(samples)
    mean = power.mean(axis=0)
    below = np.cumsum(mean) / mean.sum()
    return Sounds(
        seconds=seconds,
        silent=silent,
        number=len(lengths),
        longest=float(lengths.max()),
        share=float(lengths.sum()) * RATE / HOP / len(level),
        variation=float(level.std()),
        change=_change(power),
        tonal=_tonal(mean),
        lowest=float(np.searchsorted(below, 0.1)) * RATE / WINDOW,
        highest=float(np.searchsorted(below, 0.9)) * RATE / WINDOW,
    )


def levels(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """dBFS of what is heard of each whole HOP, averaged over SMOOTHED."""
    if len(samples) < HOP:
        return np.zeros(0)
    squares = np.square(samples[: len(samples) // HOP * HOP], dtype=np.float64).reshape(-1, HOP).mean(axis=1)
    squares *= _heard(samples)
    smooth = np.convolve(np.pad(squares, SMOOTHED // 2, "edge"), np.full(SMOOTHED, 1 / SMOOTHED), "valid")
    return np.asarray(10 * np.log10(np.maximum(smooth, 10 ** (QUIETEST / 10))))


def sounding(level: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the levels are about as loud as the loudest."""
    loudest = level.max(initial=QUIETEST)
    return np.asarray((level > loudest - BELOW) & (loudest >= LEAST))


def silence(sounds: Sounds) -> Fact:
    """Whether there is silence, which the end of a short clip is not."""
    heard = sounds.number and sounds.silent * sounds.seconds < LONGEST
    return Fact("sound", "silence", 0 if heard else between(sounds.silent, (0, 0.6, 0.95, 1)), sounds.silent)


def steady(sounds: Sounds) -> list[Fact]:
    """Whether it goes on as one tone, or as noise."""
    if sounds.seconds < STEADY or sounds.share < 0.9:
        return []
    even = min(
        between(sounds.variation, (8, 6, 3, 0)),  # low noise varies by itself
        between(sounds.change, (4, 2.4, 1.5, 0)),
    )
    tone = min(even, between(sounds.tonal, (0.8, 0.9, 0.97, 1)))
    noise = min(even, between(sounds.tonal, (0.7, 0.5, 0.3, 0)))
    return [Fact("event", "hum", tone, sounds.share), Fact("event", "noise", noise, sounds.share)]


def short(sounds: Sounds) -> list[Fact]:
    """Whether it is one short sound, or several."""
    if sounds.number == 1:
        return [Fact("event", "burst", between(sounds.longest, (2, LONGEST, 0.5, 0)), sounds.share)]
    if sounds.number and sounds.longest <= LONGEST:
        return [Fact("event", "series", between(sounds.number, (1, 3, 4, 8)), sounds.share)]
    return []


def pitch(sounds: Sounds) -> list[Fact]:
    """Whether all of it is low or high."""
    if not sounds.number:
        return []
    low = between(sounds.highest, (450, 300, 180, 0))
    high = between(sounds.lowest, (1000, 2000, 3000, 6000))
    return [Fact("pitch", "low", low), Fact("pitch", "high", high)]


def between(value: float, points: Sequence[float]) -> float:
    """A score: 0 and 1 at the ends of `points`, CLAIM and MUST between."""
    if points[0] > points[-1]:
        value, points = -value, [-point for point in points]
    return round(float(np.interp(value, points, (0, CLAIM, MUST, 1))), 4)


def _islands(level: NDArray[np.float64]) -> NDArray[np.int64]:
    """(start, stop) of sounds, those that are about as loud as the loudest."""
    turns = np.flatnonzero(np.diff(sounding(level), prepend=False, append=False))
    apart = turns[2::2] - turns[1:-1:2] >= GAP
    starts, stops = turns[::2][np.append(True, apart)], turns[1::2][np.append(apart, True)]
    alike = np.maximum.reduceat(level, starts) > level.max() - ALIKE
    return np.asarray(np.stack([starts, stops], axis=1)[alike])


def _power(samples: NDArray[np.float32], taper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power [windows, bins], of windows that are as long as `taper`, half of it apart."""
    padded = np.pad(samples, (0, max(0, len(taper) - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(taper))[:: len(taper) // 2]
    spectra = np.fft.rfft(windows * taper.astype(np.float32))
    return np.asarray(spectra.real**2 + spectra.imag**2, np.float64)


def _spectra(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Power [windows, bins], next to nothing below HEARD."""
    power = _power(samples, np.hanning(WINDOW))
    power[:, : _lowest(WINDOW)] = 0
    return power + 1e-12


def _heard(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of the power that is not below HEARD, around each HOP."""
    power, apart = _power(samples, TAPER), len(TAPER) // 2
    share = power[:, _lowest(len(TAPER)) :].sum(axis=1) / np.maximum(power.sum(axis=1), 1e-30)
    nearest = (np.arange(len(samples) // HOP) * HOP + HOP // 2 - apart // 2) // apart
    return np.asarray(share[np.clip(nearest, 0, len(share) - 1)])


def _lowest(window: int) -> int:
    """The bin from which on all is heard."""
    return int(np.ceil(HEARD * window / RATE))


def _change(power: NDArray[np.float64]) -> float:
    blocks = len(power) // BLOCK
    if not blocks:
        return 0.0
    ends = np.rint(BANDS * WINDOW / RATE).astype(np.int64)
    means = power[: blocks * BLOCK].reshape(blocks, BLOCK, -1).mean(axis=1)
    bands = 10 * np.log10(np.add.reduceat(means, ends, axis=1)[:, :-1])
    bands = np.maximum(bands, bands.max() - 2 * LOUD)
    mean = bands.mean(axis=0)
    return float(bands.std(axis=0)[mean > mean.max() - LOUD].mean())


def _tonal(mean: NDArray[np.float64]) -> float:
    near = np.full(2 * NEAR + 1, 1 / (2 * NEAR + 1))
    flat = np.exp(np.convolve(np.log(mean), near, "same")) / np.convolve(mean, near, "same")
    return float(1 - np.average(np.minimum(flat, 1), weights=mean))
