"""Cut recordings into clips: windows of ten seconds as AudioSet's, sounds between silences, or each as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import Splitter, parameters
from operators.models.weights import needs
from operators.speech.merge import Limits, utterances, whole
from operators.speech.pieces import Piece, rows_of, split
from operators.speech.segment import FRAME, Seconds, quietest
from operators.speech.spool import RATE, Spool
from operators.speech.stretches import Stretch

BLOCK = 60 * RATE  # samples whose level is taken at once
PAD = RATE // 10  # of silence left at either edge in mode events


@parameters
class Clip(Splitter):
    """Adds the spans of a recording as rows `id/00000`, ... that together are all of it, drops those that are no clips,
    and drops the recording as `split`. Lengths are in seconds; one that is not set is that of the mode, and one that
    the mode has no use for is an error."""

    name: ClassVar[str] = "clip"
    mode: Literal["fixed", "events", "whole"] = "fixed"
    seconds: Seconds | None = None  # of a clip in mode fixed: 10, as AudioSet's; only the last one may be shorter
    min_seconds: Annotated[float, Field(ge=0, le=600)] = 1.0
    max_seconds: Seconds | None = None  # in mode events: 10, in mode whole: 30
    max_gap: Annotated[float, Field(ge=0, le=60)] | None = None  # of silence within a clip in mode events: 0.5
    min_dbfs: Annotated[float, Field(ge=-96, le=0)] = -60.0  # RMS of 20 ms; below, they are silence
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        of_others = {"fixed": ("max_seconds", "max_gap"), "events": ("seconds",), "whole": ("seconds", "max_gap")}
        for name in of_others[self.mode]:
            if (value := getattr(self, name)) is not None:
                raise ValueError(f"{name}: {value:g} has no meaning in mode {self.mode}")
        if self.mode == "events" and self._most < 2 * self.min_seconds:
            told = "less than twice min_seconds: what is too long could not be cut in two"
            raise ValueError(f"max_seconds: {self._most:g} is {told}")
        if self._most < self.min_seconds:
            raise ValueError(f"min_seconds: {self.min_seconds:g} is more than a clip may have, {self._most:g}")
        needs("soundfile")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("samples", "digest")

    @property
    def adds(self) -> tuple[str, ...]:
        return ("start", "end", "audio_key")

    @property
    def measures(self) -> tuple[str, ...]:
        return ("clip_seconds",)

    def measured(self, marked: pa.Table) -> Mapping[str, NDArray[np.float64]]:
        kept = marked["payload"].is_valid().to_numpy()
        return {"clip_seconds": marked["samples"].to_numpy()[kept] / RATE}

    def __call__(self, docs: pa.Table) -> pa.Table:
        def cut(row: int, spool: Spool) -> pa.Table:
            pieces = [self._heard(piece, spool) for piece in self._pieces(spool)]
            return rows_of(docs.slice(row, 1), pieces, spool, {})

        return split(docs, cut)

    @property
    def _most(self) -> float:
        """Seconds of the longest clip."""
        given = self.seconds if self.mode == "fixed" else self.max_seconds
        return given if given is not None else 30 if self.mode == "whole" else 10

    def _pieces(self, spool: Spool) -> Iterable[Piece]:
        """What the recording is made of, in order of time."""
        if self.mode == "events":
            return self._events(spool)
        size = round(self._most * RATE) if self.mode == "fixed" else max(1, spool.length)
        starts = range(0, spool.length, size)
        return [self._judged(Piece(start, min(start + size, spool.length))) for start in starts]

    def _judged(self, piece: Piece) -> Piece:
        """Whether it is as long as a clip."""
        size = piece.stop - piece.start
        if size < round(self.min_seconds * RATE):
            return piece._replace(reason="too_short", value=piece.seconds, threshold=self.min_seconds)
        if size > round(self._most * RATE):
            return piece._replace(reason="too_long", value=piece.seconds, threshold=self._most)
        return piece

    def _events(self, spool: Spool) -> Iterator[Piece]:
        """Sounds less than `max_gap` apart as one; what is too long is cut in its longest silence, or where it is
        quietest; what is too short gets silence on either side, as far as there is any."""
        gap = 0.5 if self.max_gap is None else self.max_gap
        least, most, max_gap = (round(seconds * RATE) for seconds in (self.min_seconds, self._most, gap))
        limits = Limits(least, most, max_gap, PAD)
        sounds = widened(sounding(levels(spool, 0, spool.length), self.min_dbfs), least, spool.length)
        found = utterances(spool.length, sounds, None, limits, lambda start, stop: quietest(spool, start, stop))
        for span in whole(spool.length, found, (), PAD, most):
            piece = Piece(span.start, span.stop)
            if span.reason == "no_speech":
                piece = piece._replace(reason="silence", value=piece.seconds)
            yield self._judged(piece) if span.reason == "too_short" else piece

    def _heard(self, piece: Piece, spool: Spool) -> Piece:
        """Dropped, if it would be kept and is silent."""
        if piece.reason:
            return piece
        loudest = levels(spool, piece.start, piece.stop).max()
        if loudest >= self.min_dbfs:
            return piece
        value = loudest if np.isfinite(loudest) else np.nan  # of zeros alone
        return piece._replace(reason="silent", value=value, threshold=self.min_dbfs)


def levels(spool: Spool, start: int, stop: int) -> NDArray[np.float64]:
    """The RMS level of each 20 ms between two places, in dBFS with four decimals; minus infinity of zeros."""
    found = [np.zeros(0)]
    for at in range(start, stop, BLOCK):
        squares = np.square(spool.read(at, min(at + BLOCK, stop)), dtype=np.float64)
        places = np.arange(0, len(squares), FRAME)
        found.append(np.add.reduceat(squares, places) / np.diff(places, append=len(squares)))
    with np.errstate(divide="ignore"):
        return np.round(10 * np.log10(np.concatenate(found)), 4)


def sounding(level: NDArray[np.float64], floor: float) -> NDArray[np.int64]:
    """(start, stop), in samples, of the stretches whose frames reach a level."""
    loud = np.concatenate([[False], level >= floor, [False]])
    return np.flatnonzero(loud[1:] != loud[:-1]).reshape(-1, 2) * FRAME


def widened(found: NDArray[np.int64], least: int, length: int) -> list[Stretch]:
    """The stretches, made as long as `least` where the recording is; those that meet are one."""
    room = np.maximum(0, least - (found[:, 1] - found[:, 0]))
    start = np.clip(found[:, 0] - room // 2, 0, max(0, length - least))
    stop = np.minimum(np.maximum(found[:, 1], start + least), length)
    reached = np.maximum.accumulate(stop)
    apart = np.flatnonzero(start[1:] > reached[:-1]) + 1
    starts, stops = start[np.append(0, apart)[: len(start)]], reached[np.append(apart, len(start))[: len(start)] - 1]
    return [Stretch(*pair) for pair in zip(starts.tolist(), stops.tolist(), strict=True)]
