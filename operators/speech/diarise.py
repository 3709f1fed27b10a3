"""Who speaks when, by d-vectors that are clustered, or by pyannote as in Emilia (He et al. 2024, arXiv:2407.05361).

The embedded way: 1.6 s of speech at a time, every 0.8 s, each a vector (models/dvector.py); vectors of one cluster are
one voice (clustering.py). Speech that goes on after less than half a second is heard as if there were no pause, for a
vector of a second says little. Where noise covers the speech, vectors say more of the noise than of the voice, and are
looked at by themselves. It knows one speaker at a time, and nothing finer than 0.8 s. Places are in samples at RATE.
"""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import Operator, loaded, parameters, with_columns
from operators.models import dvector
from operators.models.dvector import DVector, SpeakerEmbedder
from operators.models.pyannote import PipelineFolder, Pyannote, PyannoteDiariser
from operators.speech.clustering import numbered, voices_in_noise
from operators.speech.spool import RATE, Spool, samples_of
from operators.speech.stretches import Turn

TURNS = pa.list_(pa.struct([("start", pa.int64()), ("stop", pa.int64()), ("speaker", pa.int32())]))
WINDOW = 8 * RATE // 5
HOP = WINDOW // 2
TAIL = RATE // 5  # what is left beyond the last window gets one of its own if it is longer
GAP = RATE // 2  # islands nearer than that are heard together
TOGETHER = 60 * RATE  # of speech at the most
STEADY = 6.0  # dB, standard deviation of the level of a band: noise has 2 to 5, speech 10 to 15
AUDIBLE = 50.0  # dB below the loudest band: what is further below is not heard, as above 4 kHz by telephone
Stretch = tuple[int, int]


@parameters
class Diarise(Operator):
    """Adds `turns` (start, stop, speaker), by time, and `speakers`, how many there are; speakers are numbered from 0 by
    first appearance. Turns of pyannote may overlap; those of d-vectors lie in `speech`, and together are all of it."""

    name: ClassVar[str] = "diarise"
    backend: Literal["dvector", "pyannote"] = "dvector"
    pipeline: PipelineFolder | None = None  # of pyannote
    apart: Annotated[float, Field(gt=0, lt=2)] = 0.85  # distance that tells voices apart within the recording
    alike: Annotated[float, Field(gt=0, le=1)] = 0.75  # cosine of the means of what is one voice after all
    alike_in_noise: Annotated[float, Field(gt=0, le=1)] = 0.5  # of what is heard in noise and a voice without noise
    min_seconds: Annotated[float, Field(ge=0, le=60)] = 4.0  # of speech that make a voice
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _backend_can_be_had(self) -> Self:
        if self.backend == "dvector":
            if self.pipeline is not None:
                raise ValueError(f"pipeline: dvector takes none, {self.pipeline.path!r} is pyannote's")
            DVector().check()
            return self
        for name in ("apart", "alike", "alike_in_noise", "min_seconds"):
            if (value := getattr(self, name)) != type(self).__dataclass_fields__[name].default:
                raise ValueError(f"{name}: {value:g} is for dvector, pyannote's own are in its config.yaml")
        if self.pipeline is None:
            raise ValueError("pipeline: pyannote needs the path of the folder of its pipeline")
        Pyannote(self.pipeline).check()
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("id", "samples", "speech") if self.backend == "dvector" else ("id", "samples")

    @property
    def adds(self) -> tuple[str, ...]:
        return ("turns", "speakers")

    @property
    def gpu(self) -> bool:
        return self.backend == "pyannote"

    @property
    def measures(self) -> tuple[str, ...]:
        return ("speakers",)

    def __call__(self, docs: pa.Table) -> pa.Table:
        found = []
        for row, recording in enumerate(docs["id"].to_pylist()):
            spool = samples_of(recording)
            if self.pipeline is not None:
                diariser: PyannoteDiariser = loaded(Pyannote(self.pipeline))
                found.append([Turn(*turn) for turn in diariser.turns(spool)])
            else:
                speech = docs["speech"][row].as_py() or []
                found.append(self._turns(spool, [(at["start"], at["stop"]) for at in speech]))
        columns = {
            "turns": pa.array([[turn._asdict() for turn in turns] for turns in found], TURNS),
            "speakers": pa.array([len({turn.speaker for turn in turns}) for turns in found], pa.int32()),
        }
        return with_columns(docs, columns)

    def _turns(self, spool: Spool, speech: list[Stretch]) -> list[Turn]:
        embedder: SpeakerEmbedder = loaded(DVector())
        groups = together(speech)
        spans = [windows(length(group)) for group in groups]
        found = [embed(embedder, spool, *heard) for heard in zip(groups, spans, strict=True)]
        if not found:
            return []
        seconds = [np.diff(cuts(seen, length(group))) / RATE for group, seen in zip(groups, spans, strict=True)]
        labels = voices_in_noise(
            np.concatenate([vectors for vectors, _ in found]).astype(np.float64),
            np.concatenate(seconds),
            np.repeat([noisy for _, noisy in found], [len(seen) for seen in spans]),
            self.apart,
            self.alike,
            self.alike_in_noise,
            self.min_seconds,
        )
        parts = np.split(labels, np.cumsum([len(seen) for seen in spans])[:-1])
        turns: list[Turn] = []
        for turn in (turn for at in zip(groups, spans, parts, strict=True) for turn in spoken(*at)):
            if turns and turns[-1].stop == turn.start and turns[-1].speaker == turn.speaker:
                turn = turns.pop()._replace(stop=turn.stop)  # of a long island that was cut
            turns.append(turn)
        speakers = numbered(np.array([turn.speaker for turn in turns]))
        return [turn._replace(speaker=int(speaker)) for turn, speaker in zip(turns, speakers, strict=True)]


def together(speech: list[Stretch]) -> list[list[Stretch]]:
    """Islands of speech, ascending, in groups that are heard as if there were no pauses: less than GAP apart, and of
    TOGETHER at the most; longer islands are cut."""
    pieces = [(at, min(at + TOGETHER, stop)) for start, stop in speech for at in range(start, stop, TOGETHER)]
    groups: list[list[Stretch]] = []
    for start, stop in pieces:
        if groups and start - groups[-1][-1][1] < GAP and length(groups[-1]) + stop - start <= TOGETHER:
            groups[-1].append((start, stop))
        else:
            groups.append([(start, stop)])
    return groups


def length(group: list[Stretch]) -> int:
    return sum(stop - start for start, stop in group)


def windows(samples: int) -> list[Stretch]:
    """(start, stop) of the windows of a group of so many samples of speech, without its pauses."""
    starts = list(range(0, samples - WINDOW + 1, HOP)) or [0]
    if samples - starts[-1] - WINDOW > TAIL:
        starts.append(samples - WINDOW)
    return [(start, min(samples, start + WINDOW)) for start in starts]


def cuts(spans: list[Stretch], samples: int) -> NDArray[np.int64]:
    """Where the speech that each window stands for begins and ends: half way between overlapping ones, all in all the
    samples of the group."""
    between = [(after[0] + before[1]) // 2 for before, after in zip(spans, spans[1:], strict=False)]
    return np.array([0, *between, samples], np.int64)


def embed(
    embedder: SpeakerEmbedder, spool: Spool, group: list[Stretch], spans: list[Stretch]
) -> tuple[NDArray[np.float32], bool]:
    """The vector of each window of a group, and whether it is in noise."""
    heard = np.concatenate([spool.read_at(dvector.RATE, start, stop) for start, stop in group])
    places = [(start * dvector.RATE // RATE, stop * dvector.RATE // RATE) for start, stop in spans]
    return np.stack([embedder.embed(heard[start:stop]) for start, stop in places]), in_noise(heard)


def in_noise(heard: NDArray[np.float32]) -> bool:
    """Whether noise covers speech at 16 kHz: in a quarter of the bands that are heard, the level is STEADY, as that of
    speech is in none."""
    levels = 10 * dvector.log_mel(heard)
    if not len(levels):
        return False
    mean = 10 * np.log10(np.mean(10 ** (levels / 10), axis=0))
    audible = levels[:, mean >= mean.max() - AUDIBLE]
    return bool(np.quantile(audible.std(axis=0), 0.25).round(2) < STEADY)


def spoken(group: list[Stretch], spans: list[Stretch], labels: NDArray[np.int64]) -> list[Turn]:
    """The turns of a group: where the label changes, or, if there is a pause no farther than half a hop, in the pause.
    What follows in the same island by the same speaker is one turn."""
    edges = np.cumsum([0, *(stop - start for start, stop in group)])
    bounds = cuts(spans, length(group))
    turns: list[Turn] = []
    begin = 0
    for label, run in groupby(range(len(spans)), labels.__getitem__):
        last = max(run) + 1
        end = int(bounds[last])
        nearest = int(edges[np.argmin(np.abs(edges - end))])
        end = nearest if abs(nearest - end) <= HOP // 2 else end
        for (start, stop), before in zip(group, edges, strict=False):
            first, after = max(begin, int(before)), min(end, int(before) + stop - start)
            if first < after:
                turns.append(Turn(start + first - int(before), start + after - int(before), int(label)))
        begin = max(begin, end)
    return turns
