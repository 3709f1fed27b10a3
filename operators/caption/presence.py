"""Where in a clip there is speech, singing and music.

Speech is what two detectors call so, FireRedVAD's and silero's: telephones and scratched records deceive either, hardly
ever both. Singing and music count while something sounds, as the detector goes on hearing music in the silence after a
door has creaked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.caption.events import between, sounding
from operators.caption.facts import Fact
from operators.document import loaded
from operators.models import silero
from operators.models.aed import EventDetection, EventDetector
from operators.models.silero import Silero, SileroVad

RATE = 16_000
FRAME = RATE // 100  # samples
SMOOTHED = 51  # frames over which probabilities are averaged: half a second
LIKELY = 0.5
MARGIN = RATE // 5  # samples kept before and after speech
PAUSE = 30  # frames, from one turn to the next

Samples = NDArray[np.float32]


class Presence(NamedTuple):
    """In which frames of a clip there is something."""

    frames: NDArray[np.bool_]

    @property
    def seconds(self) -> float:
        return float(self.frames.sum()) * FRAME / RATE

    def fact(self, value: str, least: float) -> Fact:
        """It may be told from `least` seconds on, and has to be from twice as many on."""
        share = float(self.frames.mean()) if len(self.frames) else 0.0
        return Fact("sound", value, between(self.seconds, (0, least, 2 * least, 4 * least)), share)

    def turns(self) -> Iterator[Presence]:
        """One after the other, where PAUSE or more lies between."""
        there = np.flatnonzero(self.frames)
        for turn in np.split(there, np.flatnonzero(np.diff(there) > PAUSE) + 1):
            yield Presence(np.isin(np.arange(len(self.frames)), turn))

    def part(self, samples: Samples) -> Samples:
        """From the first of its frames to the last, of samples at RATE; there has to be one."""
        there = np.flatnonzero(self.frames) * FRAME
        return samples[max(0, there[0] - MARGIN) : there[-1] + FRAME + MARGIN]


def presences(samples: Samples, level: NDArray[np.float64]) -> tuple[Presence, Presence, Presence]:
    """Speech, singing and music in samples at RATE, of the levels `level` (events.py), one for each frame."""
    detector: EventDetector = loaded(EventDetection())
    speaking, singing, playing = smooth(detector.heard(samples)[: len(level)]) >= LIKELY
    loud = sounding(level)
    return (
        Presence(speaking & (_silero(samples)[: len(level)] >= LIKELY)),
        Presence(singing & loud),
        Presence(playing & loud),
    )


def smooth(likely: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities [frames, classes] averaged over half a second, [classes, frames], to four decimals."""
    if not len(likely):
        return np.zeros(likely.shape[::-1])
    padded = np.pad(likely.T, ((0, 0), (SMOOTHED // 2, SMOOTHED // 2)), "edge")
    means = [np.convolve(row, np.full(SMOOTHED, 1 / SMOOTHED), "valid") for row in padded.astype(np.float64)]
    return np.stack(means).round(4)


def _silero(samples: Samples) -> NDArray[np.float64]:
    """Probability of speech in each frame: that of the window of 32 ms that its middle is in."""
    model: SileroVad = loaded(Silero())
    windows = model.probabilities([samples])
    if not len(windows):
        return windows
    middles = np.arange(0, len(samples), FRAME) + FRAME // 2
    return np.asarray(windows[np.minimum(middles // silero.WINDOW, len(windows) - 1)])
