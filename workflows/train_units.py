"""`corpusmill train units`: a codebook of discrete units from recordings, for the operator `units`.

Recordings are decoded a block of 30 s at a time; of all stretches of speech those stay whose hash of file and place is
lowest, so the sample is the same in whatever order files come, and memory does not grow with them. Blocks without any
sound are left out. The codebook's bytes depend on the recordings and the settings only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from cluster.inputs import open_input
from operators.hashes import spread
from operators.models.units import BANDS, MOST_CLUSTERS, Frames, stretches, train_codebook, write_codebook
from operators.speech.decode import Decoder, Undecodable
from operators.speech.spool import FULL_SCALE, RATE
from workflows.recipe import RecipeError
from workflows.recordings import check_arguments, published, recordings

BLOCK = 30  # seconds
LONGEST = 1e7  # seconds, of a recording
LEAST = 0.5  # seconds, of a block that is listened to
SILENCE = 1e-3  # of full scale: a block that is never louder has no speech


def train_units(
    patterns: Sequence[str], output: Path, clusters: int, rate: float, stretches_at_most: int, seed: int
) -> dict[str, Any]:
    """Trains on the recordings that paths, folders and globs name, writes the codebook, and returns what it was made
    of. Raises RecipeError for bad arguments and files that hold too little."""
    bounds = {
        f"--clusters {clusters}: from 2 to {MOST_CLUSTERS}": 2 <= clusters <= MOST_CLUSTERS,
        f"--rate {rate:g}: 12.5, 25 or 50": rate in (12.5, 25.0, 50.0),
        f"--stretches {stretches_at_most}: not as many as clusters": stretches_at_most >= clusters,
    }
    check_arguments("train units", output, "a codebook ends in .npz", bounds)
    sample = Sample(stretches_at_most)
    unread: dict[str, int] = {}
    files = 0
    for rel, url in recordings(patterns):
        try:
            _listen(rel, url, rate, sample)
            files += 1
        except Undecodable as error:
            unread[error.reason] = unread.get(error.reason, 0) + 1
        except OSError as error:
            raise RecipeError(f"{url}: {error}") from error
    frames = sample.frames()
    if len(frames) < clusters:
        raise RecipeError(f"--clusters {clusters}: the recordings have only {len(frames)} stretches of speech")
    centroids = train_codebook(frames, clusters, seed)
    return {
        "codebook": output.name,
        **published(output, lambda part: write_codebook(part, centroids)),
        "clusters": clusters,
        "rate": rate,
        "seed": seed,
        "files": files,
        "unread": dict(sorted(unread.items())),
        "seconds": round(sample.seen / rate, 1),
        "stretches": len(frames),
    }


class Sample:
    """Of all rows added those with the lowest keys, at most `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: list[NDArray[np.uint64]] = []
        self._rows: list[Frames] = []
        self._held = self.seen = 0

    def add(self, keys: NDArray[np.uint64], rows: Frames) -> None:
        self._keys.append(keys)
        self._rows.append(rows)
        self._held += len(keys)
        self.seen += len(keys)
        if self._held > 2 * self._most:
            self._cut()

    def frames(self) -> Frames:
        """The rows, by key."""
        self._cut()
        return self._rows[0]

    def _cut(self) -> None:
        keys = np.concatenate([np.zeros(0, np.uint64), *self._keys])
        rows = np.concatenate([np.zeros((0, BANDS), np.float32), *self._rows])
        order = np.argsort(keys, kind="stable")[: self._most]
        self._keys, self._rows, self._held = [keys[order]], [rows[order]], len(order)


def _listen(rel: str, url: str, rate: float, sample: Sample) -> None:
    """Add the stretches of one recording."""
    own = np.uint64(xxhash.xxh3_64_intdigest(rel.encode()))
    first = 0
    with open_input(url) as file, Decoder(file, rel) as decoder:
        for samples in _joined(decoder.blocks(LONGEST)):
            loud = np.abs(samples.astype(np.int32)).max(initial=0) > SILENCE * FULL_SCALE
            if len(samples) >= LEAST * RATE and loud:
                rows = stretches(samples.astype(np.float32) / np.float32(FULL_SCALE), rate)
                places = first + np.arange(len(rows), dtype=np.uint64)
                sample.add(spread(spread(places) ^ own), rows)
            first += len(samples)


def _joined(blocks: Iterator[NDArray[np.int16]]) -> Iterator[NDArray[np.int16]]:
    """The samples in blocks of BLOCK seconds, and what is left."""
    held = np.zeros(0, np.int16)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= BLOCK * RATE:
            yield held[: BLOCK * RATE]
            held = held[BLOCK * RATE :]
    yield held
