"""Cut recordings into utterances: by speech and speakers, as Emilia-Pipe does, or in chunks for pretraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import Splitter, loaded, parameters, with_columns
from operators.models import silero, weights
from operators.models.silero import Rules, Silero, islands
from operators.speech.emilia import emilia
from operators.speech.merge import NOBODY, Limits, Span, chunks, utterances, whole
from operators.speech.pieces import Piece, rows_of, split
from operators.speech.spool import RATE, Spool
from operators.speech.stretches import Stretch, Turn

HEARD = ("music", "separated", "speech", "turns")  # lists of stretches: the parent's timeline takes their place
FRAME = RATE // 50  # 20 ms: what is compared to find the quietest place
KIND = pa.struct([("kind", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("speaker", pa.int32())])
Seconds = Annotated[float, Field(ge=0.1, le=600)]


@parameters
class Segment(Splitter):
    """Adds the spans of a recording as rows `id/00000`, ... that together are all of it, drops those that are no
    utterances, and drops the recording as `split`. Lengths and gaps are in seconds; one that is not set is that of the
    mode, and one that the mode has no use for is an error."""

    name: ClassVar[str] = "segment"
    mode: Literal["default", "emilia", "chunks"] = "default"
    min_seconds: Annotated[float, Field(ge=0, le=600)] | None = None  # of an utterance: 3
    max_seconds: Seconds | None = None  # of an utterance: 30; of a voiced run that is left whole in mode chunks: 25
    max_gap: Annotated[float, Field(ge=0, le=60)] | None = None  # between what is joined in mode default: 1
    pad: Annotated[float, Field(ge=0, le=1)] | None = None  # of silence left at either edge in mode default: 0.1
    chunk_seconds: Seconds | None = None  # of the pieces of longer runs in mode chunks: 20
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        of_others = {
            "default": ("chunk_seconds",),
            "emilia": ("min_seconds", "max_seconds", "max_gap", "pad", "chunk_seconds"),
            "chunks": ("max_gap", "pad"),
        }[self.mode]
        for name in of_others:
            if (value := getattr(self, name)) is not None:
                raise ValueError(f"{name}: {value:g} has no meaning in mode {self.mode}")
        if self.mode == "default" and self._limits.most < 2 * self._limits.least:
            told = "less than twice min_seconds: what is too long could not be cut in two"
            raise ValueError(f"max_seconds: {self._limits.most / RATE:g} is {told}")
        if self.mode == "chunks" and self._chunk[0] > self._chunk[1]:
            raise ValueError(f"chunk_seconds: {self._chunk[0] / RATE:g} is above max_seconds {self._chunk[1] / RATE:g}")
        return self

    @model_validator(mode="after")
    def _packages_are_there(self) -> Self:
        weights.needs("soundfile", *(("onnxruntime", "faster_whisper", "soxr") if self.mode == "emilia" else ()))
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("samples", "digest", "turns" if self.mode == "emilia" else "speech")

    @property
    def adds(self) -> tuple[str, ...]:
        return ("start", "end", "speaker", "audio_key", "timeline")

    @property
    def measures(self) -> tuple[str, ...]:
        return ("utterance_seconds",)

    def measured(self, marked: pa.Table) -> Mapping[str, NDArray[np.float64]]:
        kept = marked["payload"].is_valid().to_numpy()
        return {"utterance_seconds": marked["samples"].to_numpy()[kept] / RATE}

    def __call__(self, docs: pa.Table) -> pa.Table:
        recordings = with_columns(docs, {"timeline": _timelines(docs)})
        recordings = recordings.drop_columns([name for name in HEARD if name in recordings.column_names])

        def cut(row: int, spool: Spool) -> pa.Table:
            spans = self._spans(spool, {name: _stretches(docs, name, row) for name in HEARD})
            return self._children(docs.slice(row, 1), spans, spool)

        return split(recordings, cut, {"speaker": pa.string()})

    def _spans(self, spool: Spool, heard: Mapping[str, Any]) -> list[Span]:
        """What the recording is made of, in order of time."""
        music = heard["music"] or ()
        if self.mode == "emilia":
            said = [Turn(*turn) for turn in heard["turns"] or ()]
            return whole(spool.length, emilia(said, lambda start, stop: voiced(spool, start, stop)), music)
        if self.mode == "chunks":
            return whole(spool.length, chunks(heard["speech"] or (), *self._chunk, self._limits.least), music)
        turns = None if heard["turns"] is None else [Turn(*turn) for turn in heard["turns"]]
        limits, speech = self._limits, heard["speech"] or ()
        spans = utterances(spool.length, speech, turns, limits, lambda start, stop: quietest(spool, start, stop))
        return whole(spool.length, spans, music, limits.pad, limits.most)

    @property
    def _limits(self) -> Limits:
        given = (self.min_seconds, self.max_seconds, self.max_gap, self.pad)
        pairs = zip(given, Limits(), strict=True)
        return Limits(*(own if seconds is None else round(seconds * RATE) for seconds, own in pairs))

    @property
    def _chunk(self) -> tuple[int, int]:
        """(samples of a piece, longest run that is left whole)."""
        size = 20 if self.chunk_seconds is None else self.chunk_seconds
        longest = 25 if self.max_seconds is None else self.max_seconds
        return round(size * RATE), round(longest * RATE)

    def _children(self, parent: pa.Table, spans: Sequence[Span], spool: Spool) -> pa.Table:
        """The rows of a recording's spans; those that are no utterances are dropped."""
        (recording,) = parent["id"].to_pylist()
        parent = parent.drop_columns([name for name in HEARD if name in parent.column_names])
        least = self._limits.least / RATE
        pieces = [
            Piece(
                span.start,
                span.stop,
                span.reason,
                (span.stop - span.start) / RATE,
                least if span.reason == "too_short" else np.nan,
            )
            for span in spans
        ]
        who = [None if span.speaker == NOBODY else f"{recording}/S{span.speaker:02d}" for span in spans]
        return rows_of(parent, pieces, spool, {"speaker": pa.array(who, pa.string())})


def _stretches(docs: pa.Table, name: str, row: int) -> list[tuple[int, ...]] | None:
    """A list of stretches of one recording, none where whoever makes it is off."""
    if name not in docs.column_names or (found := docs[name][row].as_py()) is None:
        return None
    return [tuple(stretch.values()) for stretch in found]


def _timelines(docs: pa.Table) -> pa.Array:
    """All that was heard in each recording, in seconds."""
    kinds = {"music": "music", "separated": "separated", "speech": "speech", "turns": "turn"}
    return pa.array(
        [
            [
                (kind, round(start / RATE, 3), round(stop / RATE, 3), speaker[0] if speaker else None)
                for name, kind in kinds.items()
                for start, stop, *speaker in _stretches(docs, name, row) or ()
            ]
            for row in range(docs.num_rows)
        ],
        pa.list_(KIND),
    )


def quietest(spool: Spool, start: int, stop: int) -> int:
    """The middle of the 20 ms with the least energy between two places, of equals the last."""
    samples = spool.read(start, stop).astype(np.float64)
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    if not len(frames):
        return stop
    energy = np.square(frames).sum(axis=1)
    return int(start + (len(energy) - 1 - energy[::-1].argmin()) * FRAME + FRAME // 2)


def voiced(spool: Spool, start: int, stop: int) -> list[Stretch]:
    """The islands of speech in a stretch, as silero finds them with its published rules."""
    block = silero.BLOCK * RATE // silero.RATE
    blocks = (spool.read_at(silero.RATE, at, min(at + block, stop)) for at in range(start, stop, block))
    length = round((stop - start) * silero.RATE / RATE)
    found = islands(loaded(Silero()).probabilities(blocks), length, Rules())
    return [Stretch(start + first * RATE // silero.RATE, start + last * RATE // silero.RATE) for first, last in found]
