"""Who speaks, as far as the sound of a voice tells: its pitch, and whether it is a man's or a woman's.

Pitch is found as Boersma (1993, "Accurate short-term analysis of the fundamental frequency") does: the autocorrelation
of a windowed frame, divided by the window's own, has a peak at the period, whose height says how voiced the frame is.
Only frames of speech that are loud and voiced count, and the median of them bears single errors. Some men speak higher
than some women, but from a longer throat: the strongest resonance where the third formant lies, by linear prediction of
the same frames up to 5 kHz (Makhoul 1975, "Linear prediction: a tutorial review", selective), is the second witness.

It knows adults only: a child's voice is taken for a woman's. Where both are near each other nothing is said.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
HOP = RATE // 100  # samples: 10 ms
WINDOW = 768  # samples
FFT = 2048  # so that the longest period does not wrap around
LOWEST, HIGHEST = 60.0, 500.0  # Hz, of a pitch
VOICED = 0.6  # height of a peak, 1 for what repeats exactly
OCTAVE = 0.02  # height that a peak an octave lower has to have more
LOUD = 0.5  # of the level that one in ten frames of speech reaches: music beneath is mostly left out
SPEECH = 0.5  # probability
LEAST = 30  # frames that count, below which nothing is known
WIDTH = 5000.0  # Hz that linear prediction sees
ORDER = 10  # two for each formant
EMPHASIS = 0.97
RESONANCE = 2100.0, 3500.0  # Hz
GRID = 1024  # points around the circle that its spectrum is looked at
STEADY, TINY = 1.0001, 1e-9  # keep the equations solvable, of silence too
BLOCK = 1024  # frames at a time

# Of log pitch and log resonance: logistic regression of real speech of 10 men and 12 women, each weighing as much,
# clean, over music and in noise, with a penalty: few voices do not tell where all others lie.
BIAS, OF_PITCH, OF_RESONANCE = 191.081, -17.356, -12.768
SURE = 0.9  # probability from which a voice is called a man's, or a woman's

Array = NDArray[np.float64]


class Voice(NamedTuple):
    """`pitch_hz` is None where too little is voiced; `voiced_share` is that of the frames of speech that are loud and
    voiced; `male` is the probability that a man speaks, 0.5 where nothing is known."""

    pitch_hz: float | None
    voiced_share: float
    male: float

    @property
    def gender(self) -> str | None:
        """A value of facts.GENDERS, or None: nobody can tell."""
        if self.male >= SURE:
            return "male"
        return "female" if self.male <= 1 - SURE else None


NOTHING = Voice(None, 0.0, 0.5)


def voice_of(samples: NDArray[np.float32], speech: NDArray[np.float32] | None = None) -> Voice:
    """The voice in samples at RATE, the loudest of several. `speech` is its probability in each 10 ms, as EventDetector
    gives it; None: all is speech."""
    frames = len(samples) // HOP
    spoken = np.ones(frames, bool) if speech is None else speech[:frames] >= SPEECH
    spoken = np.flatnonzero(spoken)
    if len(spoken) < LEAST:
        return NOTHING
    found = [_frames(samples, spoken[start : start + BLOCK]) for start in range(0, len(spoken), BLOCK)]
    pitch, height, level, resonance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    counts = (height >= VOICED) & (level > LOUD * np.quantile(level, 0.9))
    share = round(float(counts.mean()), 4)
    clear = resonance[counts & (resonance > 0)]
    if counts.sum() < LEAST or not len(clear):
        return NOTHING._replace(voiced_share=share)
    hertz, formant = float(np.median(pitch[counts])), float(np.median(clear))
    score = BIAS + OF_PITCH * np.log(hertz) + OF_RESONANCE * np.log(formant)
    return Voice(round(hertz, 1), share, round(float(1 / (1 + np.exp(-score))), 4))


def _frames(samples: NDArray[np.float32], frames: NDArray[np.int64]) -> tuple[Array, Array, Array, Array]:
    """Of each frame: pitch in Hz, the height of its peak, level, and resonance in Hz, 0 where there is none."""
    around = frames[:, None] * HOP + np.arange(WINDOW) - (WINDOW - HOP) // 2
    inside = (around >= 0) & (around < len(samples))
    heard = np.where(inside, samples[np.clip(around, 0, len(samples) - 1)], 0).astype(np.float64)
    window = np.hanning(WINDOW)
    spectra = np.fft.rfft((heard - heard.mean(axis=1, keepdims=True)) * window, FFT)
    power = spectra.real**2 + spectra.imag**2
    level, (pitch, height) = np.sqrt(power.mean(axis=1)), _pitch(power, window)
    return pitch, height, level, _resonance(power)


def _pitch(power: Array, window: Array) -> tuple[Array, Array]:
    """Pitch in Hz and the height of its peak, 0 where there is none."""
    shortest, longest = int(RATE / HIGHEST), round(RATE / LOWEST)
    part = slice(shortest - 1, longest + 2)
    own = np.fft.irfft(np.abs(np.fft.rfft(window, FFT)) ** 2)
    correlation = np.fft.irfft(power)
    heights = correlation[:, part] / (correlation[:, :1] + TINY) / (own[part] / own[0])
    before, here, after = heights[:, :-2], heights[:, 1:-1], heights[:, 2:]
    lags = np.arange(shortest, longest + 1)
    peaks = (here >= before) & (here > after)
    best = np.where(peaks, here - OCTAVE * np.log2(lags / shortest), -1).argmax(axis=1)
    rows = np.arange(len(power))
    return RATE / lags[best], np.where(peaks[rows, best], here[rows, best], 0)


def _resonance(power: Array) -> Array:
    """The strongest resonance within RESONANCE, in Hz; 0 where it is at an edge, and so is none."""
    bins = np.arange(power.shape[1])
    emphasis = 1 - 2 * EMPHASIS * np.cos(2 * np.pi * bins / FFT) + EMPHASIS**2  # power of a first difference
    correlation = np.fft.irfft((power * emphasis)[:, : round(WIDTH / RATE * FFT) + 1])[:, : ORDER + 1]
    correlation[:, 0] = correlation[:, 0] * STEADY + TINY
    order = np.arange(ORDER)
    predictor = np.linalg.solve(correlation[:, abs(order[:, None] - order)], correlation[:, 1:, None])[..., 0]
    error = np.fft.rfft(np.pad(-predictor, ((0, 0), (1, 0)), constant_values=1), GRID)
    hertz = np.arange(GRID // 2 + 1) * 2 * WIDTH / GRID
    within = (hertz >= RESONANCE[0]) & (hertz <= RESONANCE[1])
    strongest = (error.real**2 + error.imag**2)[:, within].argmin(axis=1)
    edge = (strongest == 0) | (strongest == within.sum() - 1)
    return np.where(edge, 0, hertz[within][strongest])
