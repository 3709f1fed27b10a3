"""Silero VAD, version 6 (github.com/snakers4/silero-vad, MIT): the probability of speech in each 32 ms, and the islands
of speech that its published `get_speech_timestamps` makes of these.

The file is the one that faster-whisper carries, of the extra `speech`: it takes the windows of a stretch at once, each
with the last 64 samples before it, and a state that is handed from stretch to stretch. Any stretches give the same
islands; the state, and the samples of one stretch, are all that is held.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.models.onnx import session
from operators.models.weights import SILERO, Weight, find, needs

RATE = 16_000
WINDOW = 512  # samples
CONTEXT = 64
STATE = (1, 1, 128)
HYSTERESIS = 0.15  # speech that has begun goes on above the threshold less this
BLOCK = 60 * RATE // WINDOW * WINDOW  # samples the model is given at once
Island = tuple[int, int]


class Rules(NamedTuple):
    """What makes an island of speech; the defaults are those that silero publishes."""

    threshold: float = 0.5
    min_speech_ms: int = 250
    min_silence_ms: int = 100
    pad_ms: int = 30


@dataclass(frozen=True)
class Silero:
    """The model in the installed package."""

    weight: Weight = SILERO

    def check(self) -> None:
        """Raises ValueError, naming the extra, where a package or the weights are missing."""
        needs("onnxruntime", "faster_whisper", "soxr")
        find(self.weight)

    def load(self) -> SileroVad:
        self.check()
        return SileroVad(find(self.weight).read_bytes())


class SileroVad:
    """The loaded model."""

    def __init__(self, data: bytes) -> None:
        self._session = session(data, arena=False)  # what a stretch of a minute takes would be held for ever

    def probabilities(self, blocks: Iterable[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Of speech in each window of consecutive stretches of samples at 16 kHz, to 4 decimals. All stretches but the
        last are whole windows; the last is filled up with silence. Raises ValueError for others."""
        found = [np.zeros(0)]
        h, c = np.zeros(STATE, np.float32), np.zeros(STATE, np.float32)
        before = np.zeros(CONTEXT, np.float32)
        ragged = False
        for block in blocks:
            if ragged:
                raise ValueError(f"a stretch that is no multiple of {WINDOW} samples was not the last")
            if not len(block):
                continue
            ragged = len(block) % WINDOW > 0
            windows = np.pad(block, (0, -len(block) % WINDOW)).astype(np.float32, copy=False).reshape(-1, WINDOW)
            ends = np.concatenate([before[None], windows[:-1, -CONTEXT:]])
            before = windows[-1, -CONTEXT:]
            given = {"input": np.concatenate([ends, windows], 1), "h": h, "c": c}
            values, h, c = self._session.run(None, given)
            found.append(values.ravel().round(4).astype(np.float64))
        return np.concatenate(found)


def islands(probabilities: NDArray[np.float64], length: int, rules: Rules) -> list[Island]:
    """(start, stop), in samples at 16 kHz of `length`, where speech is: begun by a window at the threshold, ended by
    `min_silence_ms` that begin below the threshold less HYSTERESIS and do not come back to the threshold; longer than
    `min_speech_ms`; then widened by `pad_ms`, or half the gap to the next."""
    found = [island for island in _runs(probabilities, length, rules) if _long(island, rules)]
    pad = RATE * rules.pad_ms // 1000
    for n, (start, stop) in enumerate(found):
        start = max(0, start - pad) if n == 0 else start
        if n == len(found) - 1:
            found[n] = start, min(length, stop + pad)
            break
        after, end = found[n + 1]
        space = min(pad, (after - stop) // 2)
        found[n] = start, stop + space
        found[n + 1] = after - space, end
    return found


def _runs(probabilities: NDArray[np.float64], length: int, rules: Rules) -> Iterable[Island]:
    silence = RATE * rules.min_silence_ms / 1000
    low = max(rules.threshold - HYSTERESIS, 0.01)
    start = quiet = -1  # where speech has begun, and where the silence that may end it; -1: neither has
    for n, probability in enumerate(probabilities.tolist()):
        here = n * WINDOW
        if probability >= rules.threshold:
            quiet = -1
            start = here if start < 0 else start
        elif probability < low and start >= 0:
            quiet = here if quiet < 0 else quiet
            if here - quiet >= silence:
                yield start, quiet
                start = quiet = -1
    if start >= 0:
        yield start, length


def _long(island: Island, rules: Rules) -> bool:
    return island[1] - island[0] > RATE * rules.min_speech_ms / 1000
