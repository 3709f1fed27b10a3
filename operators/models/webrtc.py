"""WebRTC's voice activity detector, and runs of voiced frames as IndicWav2Vec makes them (Javed et al. 2021,
arXiv:2111.03945): 30 ms frames, a ring of the last ten, which begins a run when more than nine tenths of it are voiced
and ends it when as many are not.

It is a few Gaussian mixtures on six bands, much faster than all else here, and music is speech to it. It adapts to the
noise as it goes, so a recording is heard from its start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.models.weights import needs

RATE = 16_000
FRAME = 3 * RATE // 100  # samples: 30 ms
RING = 10  # frames
SHARE = 0.9
FULL_SCALE = 32767


@dataclass(frozen=True)
class WebRtc:
    """The detector; the higher `aggressiveness`, the less is speech to it: 0 to 3, IndicWav2Vec takes 2."""

    aggressiveness: int = 2

    def check(self) -> None:
        """Raises ValueError, naming the extra, where the package is missing."""
        needs("webrtcvad", "soxr")

    def load(self) -> WebRtcVad:
        self.check()
        return WebRtcVad(self.aggressiveness)


class WebRtcVad:
    """The loaded detector."""

    def __init__(self, aggressiveness: int) -> None:
        import webrtcvad  # of the extra `speech`

        self._new: Any = lambda: webrtcvad.Vad(aggressiveness)

    def voiced(self, blocks: Iterable[NDArray[np.float32]]) -> NDArray[np.bool_]:
        """Whether each frame is voiced, of consecutive stretches of samples at 16 kHz: all but the last are whole
        frames, and what is left at the end is no frame. Raises ValueError for others."""
        detector = self._new()
        found: list[bool] = []
        ragged = False
        for block in blocks:
            if ragged:
                raise ValueError(f"a stretch that is no multiple of {FRAME} samples was not the last")
            ragged = len(block) % FRAME > 0
            raw = (np.clip(block, -1, 1) * FULL_SCALE).astype("<i2").tobytes()
            frames = range(0, len(raw) - 2 * FRAME + 1, 2 * FRAME)
            found += [detector.is_speech(raw[at : at + 2 * FRAME], RATE) for at in frames]
        return np.array(found, bool)


def runs(voiced: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first frame, frame after the last) of runs: from the first frame of the ring that began it to the last one of
    the ring that ended it, or of all."""
    found: list[tuple[int, int]] = []
    begun, ring = -1, 0  # first frame of the run at hand, or -1; where the ring begins, which is emptied at each change
    for frame in range(len(voiced)):
        ring = max(ring, frame + 1 - RING)
        speaking = int(voiced[ring : frame + 1].sum())
        if begun < 0 and speaking > SHARE * RING:
            begun, ring = ring, frame + 1
        elif begun >= 0 and frame + 1 - ring - speaking > SHARE * RING:
            found.append((begun, frame + 1))
            begun, ring = -1, frame + 1
    if begun >= 0:
        found.append((begun, len(voiced)))
    return found
