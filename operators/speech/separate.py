"""Speech without the music and noise beneath it, and where there is music.

Emilia (He et al. 2024, arXiv:2407.05361) separates every second of every recording, which is most of what it costs:
`where: everywhere` with the backend `mdx` is that. Ours asks first where there is speech over music, in a twentieth of
the time, and leaves the rest as it is, bit for bit: speech alone, and music alone, of which nothing would be left, or
something that sounds like speech. Places are in samples at RATE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import Operator, PinnedFile, loaded, parameters, with_columns
from operators.models.aed import CLASSES, FRAME, EventDetection, EventDetector
from operators.models.deepfilter import DeepFilter
from operators.models.demucs import Demucs
from operators.models.mdx import Mdx
from operators.models.separator import Separator
from operators.speech.spool import RATE, Spool, samples_of
from operators.speech.stretches import SPANS, Stretch, covered

SMOOTHED = 51  # frames over which the probability of music is averaged: half a second
BLOCK = 30 * RATE
SPEECH = 0.2  # probability from which there may be speech, that little because what is missed is not separated
PAUSE = 3 * RATE  # to go on through a shorter pause of speech costs less than to begin again
LEAD = RATE  # what a separator hears before and after a stretch: recurrent ones need it to get going
FADE = RATE // 50  # from the samples as they were to the separated ones, at the ends of a stretch


@parameters
class Separate(Operator):
    """Adds `music`, the stretches with music or singing, and `separated`, those where there is speech too: there the
    samples in the spool are replaced by the speech in them."""

    name: ClassVar[str] = "separate"
    backend: Literal["deepfilternet", "mdx", "demucs"] = "deepfilternet"
    model: PinnedFile | None = None  # of mdx, an ONNX file; of demucs, a checkpoint; the first one's is in its package
    where: Literal["music", "everywhere"] = "music"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5  # probability of music or singing, averaged over half a second
    min_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0  # of a stretch of music; gaps shorter than that are music
    margin_seconds: Annotated[float, Field(ge=0, le=10)] = 0.5  # separated before and after a stretch of both
    attenuation_db: Annotated[float, Field(ge=6, lt=100)] | None = None  # deepfilternet's limit; none: no limit
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        margin = type(self).__dataclass_fields__["margin_seconds"].default
        if self.where == "everywhere" and self.margin_seconds != margin:
            raise ValueError(f"margin_seconds: {self.margin_seconds:g} has no meaning where all is separated")
        return self

    @model_validator(mode="after")
    def _backend_can_be_had(self) -> Self:
        if self.backend == "deepfilternet":
            if self.model is not None:
                raise ValueError("model: that of deepfilternet comes with its package, another one is not taken")
        elif self.model is None:
            raise ValueError(f"model: {self.backend} needs the path of its file")
        elif self.attenuation_db is not None:
            raise ValueError(f"attenuation_db: {self.backend} has no such limit")
        EventDetection().check()
        try:
            self._described().check()
        except ValueError as error:
            raise ValueError(f"backend: {self.backend}: {error}") from None
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("id", "samples")

    @property
    def adds(self) -> tuple[str, ...]:
        return ("music", "separated")

    @property
    def gpu(self) -> bool:
        return self.backend != "deepfilternet"

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """Milliseconds of music, and separated."""
        return {f"{name}_ms": int(covered(marked[name]).sum() * 1000 // RATE) for name in self.adds}

    def measured(self, marked: pa.Table) -> Mapping[str, NDArray[np.float64]]:
        """The share of music in each recording."""
        samples = marked["samples"].to_numpy().astype(np.float64)
        return {"music_share": covered(marked["music"]) / np.where(samples > 0, samples, np.nan)}

    def __call__(self, docs: pa.Table) -> pa.Table:
        found = [self._recording(samples_of(recording)) for recording in docs["id"].to_pylist()]
        columns = {
            name: pa.array([[span._asdict() for span in spans[k]] for spans in found], SPANS)
            for k, name in enumerate(self.adds)
        }
        return with_columns(docs, columns)

    def _described(self) -> DeepFilter | Mdx | Demucs:
        if self.model is None:
            return DeepFilter() if self.attenuation_db is None else DeepFilter(self.attenuation_db)
        return Mdx(self.model) if self.backend == "mdx" else Demucs(self.model)

    def _recording(self, spool: Spool) -> tuple[list[Stretch], list[Stretch]]:
        """Where there is music, and what was separated."""
        detector: EventDetector = loaded(EventDetection())
        frames = np.concatenate([np.zeros((0, len(CLASSES)), np.float32), *detector.frames(spool)])
        shortest = round(self.min_seconds * RATE)
        music = stretches(frames[:, 1:].max(axis=1), self.threshold, shortest, spool.length)
        if self.where == "everywhere":
            wanted = [Stretch(0, spool.length)] if spool.length else []
        else:
            spoken = joined(stretches(frames[:, 0], SPEECH, 0, spool.length), PAUSE)
            margin = round(self.margin_seconds * RATE)
            wide = [
                Stretch(max(0, at.start - margin), min(spool.length, at.stop + margin)) for at in both(music, spoken)
            ]
            wanted = joined(wide, LEAD)  # so that none hears what another has left
        for span in wanted:
            replace(spool, span, loaded(self._described()))
        return music, wanted


def stretches(likely: NDArray[np.float32], threshold: float, shortest: int, length: int) -> list[Stretch]:
    """Where something is likely, by a probability for each FRAME: nowhere shorter than `shortest`, nor are gaps."""
    if not len(likely):
        return []
    half = SMOOTHED // 2
    smooth = np.convolve(np.pad(likely, half, "edge"), np.full(SMOOTHED, 1 / SMOOTHED), "valid").round(4)
    turns = np.flatnonzero(np.diff(smooth >= threshold, prepend=False, append=False)).reshape(-1, 2) * FRAME
    found = joined([Stretch(int(start), min(int(stop), length)) for start, stop in turns], shortest)
    return [span for span in found if span.stop - span.start >= shortest]


def joined(spans: list[Stretch], gap: int) -> list[Stretch]:
    """Ascending spans, with those that lie nearer to each other than `gap` made one."""
    found: list[Stretch] = []
    for span in spans:
        if found and span.start - found[-1].stop < gap:
            found[-1] = Stretch(found[-1].start, max(found[-1].stop, span.stop))
        else:
            found.append(span)
    return found


def both(one: list[Stretch], other: list[Stretch]) -> list[Stretch]:
    """What spans of two lists, each ascending and disjoint, have in common."""
    found, i, k = [], 0, 0
    while i < len(one) and k < len(other):
        start, stop = max(one[i].start, other[k].start), min(one[i].stop, other[k].stop)
        if start < stop:
            found.append(Stretch(start, stop))
        if one[i].stop < other[k].stop:
            i += 1
        else:
            k += 1
    return found


def replace(spool: Spool, span: Stretch, separator: Separator) -> None:
    """Put the speech in a stretch in its place. It fades in and out where the stretch ends within the recording."""
    first, last = max(0, span.start - LEAD), min(spool.length, span.stop + LEAD)
    place = first
    for found in separator.speech(_blocks(spool, first, last), RATE):  # never ahead of what it has read
        start, stop = max(place, span.start), min(place + len(found), span.stop)
        if start < stop:
            speech = found[start - place : stop - place]
            at = np.arange(start, stop) + 0.5
            into = (at - span.start) / FADE if span.start > 0 else np.ones(len(at))
            out = (span.stop - at) / FADE if span.stop < spool.length else np.ones(len(at))
            share = np.clip(np.minimum(into, out), 0, 1).astype(np.float32)
            spool.write(start, share * speech + (1 - share) * spool.read(start, stop))
        place += len(found)


def _blocks(spool: Spool, first: int, last: int) -> Iterator[NDArray[np.float32]]:
    for start in range(first, last, BLOCK):
        yield spool.read(start, min(start + BLOCK, last))
