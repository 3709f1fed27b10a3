"""Where there is speech: silero's neural detector or WebRTC's as IndicWav2Vec takes it. Places are in samples at RATE.

Silero does not take instruments for speech, but is now and then half sure of what a separator leaves of them: where
`separate` has found music, only islands that it is sure of somewhere count. To WebRTC instruments are speech: it is for
recordings that are known to be nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import Operator, loaded, parameters, with_columns
from operators.models import silero, webrtc
from operators.models.silero import Rules, Silero
from operators.models.webrtc import WebRtc
from operators.speech.spool import RATE, Spool, samples_of
from operators.speech.stretches import SPANS, Stretch, covered

MODEL_RATE = silero.RATE
SECONDS = 60  # of samples held at once: whole windows of both detectors
MUSIC_THRESHOLD = 0.8
Milliseconds = Annotated[int, Field(ge=0, le=60_000)]


@parameters
class Vad(Operator):
    """Adds `speech`: islands of it (start, stop), ascending, disjoint. A field that is not set is what the backend's
    authors have."""

    name: ClassVar[str] = "vad"
    backend: Literal["silero", "webrtc"] = "silero"
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # silero's probability: 0.5
    min_speech_ms: Milliseconds | None = None  # silero's: 250, of an island
    min_silence_ms: Milliseconds | None = None  # silero's: 100, between islands
    pad_ms: Milliseconds | None = None  # silero's: 30, on both sides
    music_threshold: Annotated[float, Field(ge=0, lt=1)] | None = None  # that it must reach in music: 0.8
    aggressiveness: Annotated[int, Field(ge=0, le=3)] | None = None  # of webrtc: 2
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_are_the_backends(self) -> Self:
        others = ("aggressiveness",) if self.backend == "silero" else (*Rules._fields, "music_threshold")
        for name in others:
            if (value := getattr(self, name)) is not None:
                raise ValueError(f"{name}: {value:g} means nothing to the backend {self.backend}")
        try:
            self._detector.check()
        except ValueError as error:
            raise ValueError(f"backend: {self.backend}: {error}") from None
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("id", "samples")

    @property
    def adds(self) -> tuple[str, ...]:
        return ("speech",)

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """Milliseconds of speech."""
        return {"speech_ms": int(covered(marked["speech"]).sum() * 1000 // RATE)}

    def measured(self, marked: pa.Table) -> Mapping[str, NDArray[np.float64]]:
        """The share of speech in each recording."""
        samples = marked["samples"].to_numpy().astype(np.float64)
        return {"speech_share": covered(marked["speech"]) / np.where(samples > 0, samples, np.nan)}

    def __call__(self, docs: pa.Table) -> pa.Table:
        known = docs["music"].to_pylist() if "music" in docs.column_names else [None] * docs.num_rows
        music = [[Stretch(span["start"], span["stop"]) for span in spans or ()] for spans in known]
        found = [
            self._recording(samples_of(name), spans) for name, spans in zip(docs["id"].to_pylist(), music, strict=True)
        ]
        return with_columns(docs, {"speech": pa.array(found, SPANS)})

    def _recording(self, spool: Spool, music: list[Stretch]) -> list[dict[str, int]]:
        if self.backend == "silero":
            probabilities = loaded(self._detector).probabilities(_blocks(spool))
            islands = silero.islands(probabilities, round(spool.length * MODEL_RATE / RATE), self._rules)
            least = MUSIC_THRESHOLD if self.music_threshold is None else self.music_threshold
            islands = [at for at in islands if peak(probabilities, at) >= least or not mostly(at, music)]
        else:
            frames = webrtc.runs(loaded(self._detector).voiced(_blocks(spool)))
            islands = [(start * webrtc.FRAME, stop * webrtc.FRAME) for start, stop in frames]
        spans = [(start * RATE // MODEL_RATE, min(stop * RATE // MODEL_RATE, spool.length)) for start, stop in islands]
        return [{"start": start, "stop": stop} for start, stop in spans if start < stop]

    @property
    def _detector(self) -> Silero | WebRtc:
        if self.backend == "silero":
            return Silero()
        return WebRtc() if self.aggressiveness is None else WebRtc(self.aggressiveness)

    @property
    def _rules(self) -> Rules:
        given = {name: getattr(self, name) for name in Rules._fields}
        return Rules(**{name: value for name, value in given.items() if value is not None})


def peak(probabilities: NDArray[np.float64], island: silero.Island) -> float:
    """The highest probability of silero's windows in an island, which is in samples at MODEL_RATE."""
    start, stop = island
    return float(probabilities[start // silero.WINDOW : -(-stop // silero.WINDOW)].max())


def mostly(island: silero.Island, music: list[Stretch]) -> bool:
    """Whether half of an island, in samples at MODEL_RATE, or more, is in stretches in samples at RATE."""
    start, stop = (place * RATE // MODEL_RATE for place in island)
    within = sum(max(0, min(stop, after) - max(start, first)) for first, after in music)
    return 2 * within >= stop - start


def _blocks(spool: Spool) -> Iterator[NDArray[np.float32]]:
    for start, stop in spool.blocks(SECONDS):
        yield spool.read_at(MODEL_RATE, start, stop)
