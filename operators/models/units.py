"""Discrete units of speech by k-means over log-mel spectra: a number for each stretch of 80 ms (or 40, or 20).

What HuBERT's units (Hsu et al. 2021, arXiv:2106.07447) begin with, without a network: real units that follow the
sounds, poorer than those of a trained encoder. Spectra are those of 25 ms every 10 ms in 80 mel bands up to 7,600 Hz,
so that speech which once had 16,000 samples a second reads like any other; they are averaged over each stretch, less
their mean over the utterance, which takes away most of the channel and some of the voice.

An utterance is encoded alone, in double precision where centroids are compared. Other processors may round
differently, which changes a unit only where two centroids are equally near.
"""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from operators.document import Pinned
from operators.speech.spool import RATE

HOP, WINDOW, FFT = 240, 600, 1024  # samples
FRAMES = RATE // HOP  # a second
BANDS, LOW, HIGH = 80, 60.0, 7600.0  # Hz
FLOOR = 1e-6  # of the loudest band, in power: what is 60 dB below says nothing, and the rest is the same at any gain
SILENCE = 1e-12  # of full scale
BLOCK = 2048  # frames whose spectra are held at once
MOST_CLUSTERS = 1 << 16
LLOYD = 30  # rounds at most
ROWS = 1 << 14  # compared with all centroids at once

# By `corpusmill train units --clusters 256`, of all prompts of Debian's asterisk-core-sounds-{en,es,fr,it,ru}-g722: 2.1
# hours, four voices (NOTICE.md).
CODEBOOK = Pinned(
    str(Path(__file__).with_name("units_logmel_256.npz")),
    "42aee7743f6aae3925fefccb5483d2197409f96d2db8da6fd185ec18b04e1647",
)

Frames = NDArray[np.float32]  # a row a stretch, BANDS numbers each


class UnitEncoder(Protocol):
    """A loaded model: `encode` gives round(seconds * rate) numbers below `clusters`, within one."""

    clusters: int
    rate: float  # units a second

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.uint16]: ...


@dataclass(frozen=True)
class LogMelUnits:
    """A Model: the codebook, and units a second."""

    codebook: Pinned
    rate: float

    def load(self) -> LogMelEncoder:
        """Raises ValueError where the file is no codebook, or not the one that was pinned."""
        return LogMelEncoder(read_codebook(self.codebook), self.rate)


class LogMelEncoder:
    """The loaded model (see UnitEncoder)."""

    def __init__(self, centroids: Frames, rate: float) -> None:
        self._centroids, self.clusters, self.rate = centroids, len(centroids), rate

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.uint16]:
        return nearest(stretches(samples, self.rate), self._centroids).astype(np.uint16)


def stretches(samples: NDArray[np.float32], rate: float) -> Frames:
    """The mean log-mel spectrum of each of the round(seconds * rate) stretches of an utterance at RATE, less the mean
    of all. The last stretch has at least half its length."""
    count, each = int(len(samples) * rate / RATE + 0.5), round(FRAMES / rate)
    if not count:
        return np.zeros((0, BANDS), np.float32)
    power = np.concatenate(list(_mel_power(samples)))[: count * each]
    frames = np.log(np.maximum(power, max(FLOOR * float(power.max()), SILENCE)))
    sums = np.add.reduceat(frames, np.arange(0, len(frames), each), axis=0, dtype=np.float64)
    means = sums / np.diff(np.append(np.arange(0, len(frames), each), len(frames)))[:, None]
    centred: Frames = (means - frames.mean(axis=0, dtype=np.float64)).astype(np.float32)
    return centred


def nearest(frames: Frames, centroids: Frames) -> NDArray[np.int64]:
    """The centroid with the least squared distance to each frame, of equals the first."""
    return _nearest(frames, centroids)[0]


def train_codebook(frames: Frames, clusters: int, seed: int) -> Frames:
    """Centroids of `frames` by k-means: begun as k-means++ (Arthur and Vassilvitskii 2007), then at most 30 rounds of
    Lloyd's. The same frames in the same order give the same centroids. Raises ValueError for fewer frames."""
    if not 2 <= clusters <= MOST_CLUSTERS:
        raise ValueError(f"clusters: {clusters} is not from 2 to {MOST_CLUSTERS}")
    if len(frames) < clusters:
        raise ValueError(f"clusters: {clusters} of {len(frames)} stretches of speech")
    rng = np.random.default_rng(seed)
    centroids = np.empty((clusters, frames.shape[1]), np.float32)
    centroids[0] = frames[rng.integers(len(frames))]
    distance = _nearest(frames, centroids[:1])[1]
    for k in range(1, clusters):
        sums = np.cumsum(distance)
        centroids[k] = frames[min(int(np.searchsorted(sums, rng.random() * sums[-1], "right")), len(frames) - 1)]
        np.minimum(distance, _nearest(frames, centroids[k : k + 1])[1], out=distance)
    cluster = np.full(len(frames), -1)
    for _ in range(LLOYD):
        found = nearest(frames, centroids)
        if np.array_equal(found, cluster):
            break
        cluster = found
        order = np.argsort(cluster, kind="stable")
        used, first, count = np.unique(cluster[order], return_index=True, return_counts=True)
        sums = np.add.reduceat(frames[order], first, axis=0, dtype=np.float64)
        centroids[used] = sums / count[:, None]  # one that no frame is nearest to stays where it is
    return centroids


def read_codebook(file: Pinned) -> Frames:
    """Its centroids. Raises ValueError for what is no codebook of these spectra."""
    data = io.BytesIO(file.read())
    try:
        with np.load(data, allow_pickle=False) as stored:
            centroids = stored["centroids"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file.path}: no codebook: {error}") from error
    if centroids.dtype != np.float32 or centroids.ndim != 2 or centroids.shape[1] != BANDS:
        raise ValueError(f"{file.path}: no codebook: {centroids.dtype} of {centroids.shape}, not float32 of {BANDS}")
    if not 2 <= len(centroids) <= MOST_CLUSTERS or not np.isfinite(centroids).all():
        raise ValueError(f"{file.path}: no codebook: {len(centroids)} centroids, or some that are not finite")
    return np.ascontiguousarray(centroids)


def write_codebook(path: Path, centroids: Frames) -> None:
    """The same centroids give the same bytes."""
    with path.open("wb") as file:
        np.savez(file, centroids=centroids)


def _mel_power(samples: NDArray[np.float32]) -> Iterator[Frames]:
    """Power in mel bands, a row for each HOP samples; windows lie in the middle of theirs."""
    window, bank = _tables()
    margin = (WINDOW - HOP) // 2
    rows = -(-len(samples) // HOP)
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        start, stop = first * HOP - margin, last * HOP + margin
        part = np.pad(samples[max(0, start) : stop], (max(0, -start), max(0, stop - len(samples))))
        views = np.lib.stride_tricks.sliding_window_view(part, WINDOW)[::HOP][: last - first]
        spectra = np.fft.rfft(views * window, FFT)
        yield ((spectra.real**2 + spectra.imag**2) @ bank).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _tables() -> tuple[Frames, Frames]:
    """The window, scaled so that a sine of full scale has power 1, and the mel bands (O'Shaughnessy's scale), whose
    triangles sum to one."""
    window = np.hanning(WINDOW + 1)[:-1]
    edges = 700 * (10 ** (np.linspace(_mel(LOW), _mel(HIGH), BANDS + 2) / 2595) - 1)
    bins = np.arange(FFT // 2 + 1)[:, None] * RATE / FFT
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = np.maximum(0, np.minimum(rising, falling))
    total = bank.sum(axis=0)
    narrow = np.flatnonzero(total == 0)  # a band between two bins takes the nearest
    bank[np.abs(bins - edges[1:-1][narrow]).argmin(axis=0), narrow] = total[narrow] = 1
    return (window * 2 / window.sum()).astype(np.float32), (bank / total).astype(np.float32)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _nearest(frames: Frames, centroids: Frames) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(nearest centroid, squared distance to it) of each frame."""
    wide = centroids.astype(np.float64)
    lengths = (wide**2).sum(axis=1)
    found, distance = np.empty(len(frames), np.int64), np.empty(len(frames), np.float64)
    for start in range(0, len(frames), ROWS):
        block = frames[start : start + ROWS].astype(np.float64)
        scores = lengths - 2 * (block @ wide.T)
        part = slice(start, start + len(block))
        found[part] = scores.argmin(axis=1)
        distance[part] = np.maximum(0, scores.min(axis=1) + (block**2).sum(axis=1))
    return found, distance
