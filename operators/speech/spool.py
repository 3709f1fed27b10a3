"""The samples of the recordings at hand, on disk: tables name recordings and times, never hold their samples.

A spool is an anonymous temporary file, which ends with the process whatever ends it; ten hours take 1.7 GB of it and
none of the memory. `Standardise` fills one for each recording, `Separate` writes over stretches of it, `Segment` cuts
utterances out of it and lets go of it. All of them run in one process on one table, recording after recording.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RATE = 24_000  # samples a second of standardised audio, mono: all places and lengths in samples are at this rate
FULL_SCALE = 32768.0
EDGE = 2400  # samples read beyond both ends of a stretch that is resampled: filters ring


class Spool:
    """Mono samples at RATE, 16 bits each; `scale` is what one step of them is in the samples that `read` gives."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="corpusmill-")  # noqa: SIM115  (it lives as long as the spool)
        self.length = 0  # samples
        self.scale = 1 / FULL_SCALE

    @property
    def seconds(self) -> float:
        return self.length / RATE

    def append(self, samples: NDArray[np.int16]) -> None:
        """Add samples at the end."""
        self._file.seek(2 * self.length)
        self._file.write(np.ascontiguousarray(samples, "<i2").data)
        self.length += len(samples)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples `start` to `stop`, scaled, as far as there are any."""
        start, stop = max(0, start), min(self.length, stop)
        self._file.seek(2 * start)
        raw = np.frombuffer(self._file.read(2 * max(0, stop - start)), "<i2")
        return raw.astype(np.float32) * np.float32(self.scale)

    def write(self, start: int, samples: NDArray[np.float32]) -> None:
        """Put samples, scaled, in the place of those that begin at `start`; what is too loud is clipped."""
        if start < 0 or start + len(samples) > self.length:
            raise ValueError(f"samples {start} to {start + len(samples)} of {self.length}")
        raw = np.clip(np.rint(samples / self.scale), -FULL_SCALE, FULL_SCALE - 1).astype("<i2")
        self._file.seek(2 * start)
        self._file.write(raw.data)

    def read_at(self, rate: int, start: int, stop: int) -> NDArray[np.float32]:
        """The same stretch resampled to `rate`: round((stop - start) * rate / RATE) samples."""
        import soxr  # of the extra `speech`

        start, stop = max(0, start), min(self.length, stop)
        first, last = max(0, start - EDGE), min(self.length, stop + EDGE)
        samples = soxr.resample(self.read(first, last), RATE, rate) if last > first else np.zeros(0, np.float32)
        lead, count = round((start - first) * rate / RATE), round(max(0, stop - start) * rate / RATE)
        found = samples[lead : lead + count]
        return np.pad(found, (0, count - len(found))).astype(np.float32, copy=False)

    def blocks(self, seconds: float) -> Iterator[tuple[int, int]]:
        """(start, stop) of blocks of at most that many seconds that make up the whole."""
        size = int(seconds * RATE)
        for start in range(0, self.length, size):
            yield start, min(self.length, start + size)

    def close(self) -> None:
        self._file.close()


_held: dict[str, Spool] = {}


def hold(recording: str, spool: Spool) -> None:
    """Keep the samples of a recording, by its id, until `release_all`."""
    _held[recording] = spool


def samples_of(recording: str) -> Spool:
    """The samples of a recording at hand."""
    if recording not in _held:
        raise LookupError(f"the samples of {recording} are not at hand: `standardise` comes first, in the same stage")
    return _held[recording]


def release_all() -> None:
    """Let go of all recordings: a new table begins, or its utterances have been cut."""
    while _held:
        _held.popitem()[1].close()
