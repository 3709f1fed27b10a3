"""pyannote.audio's speaker diarisation (Bredin 2023; versions 3 and 4), by a pipeline in a folder that a recipe names.

The folder is what `speaker-diarization-3.1` or `speaker-diarization-community-1` publish: config.yaml, and the networks
it names, below it: as `$model/segmentation`, as a path, or by the last part of a public name (a folder
`segmentation-3.0` for pyannote/segmentation-3.0). Nothing is fetched, and no usage is reported. Checkpoints are
pickles: each is read by PyTorch's reader of weights, which makes nothing but tensors and a few classes of data, before
pyannote sees it, and PyTorch is told to read pyannote's way in no other. On a GPU where there is one, else in one
thread; devices round differently.

A recording is heard whole, as published, up to BLOCK; of a longer one, blocks of that length are heard one by one, and
speakers of different blocks are one where the vectors that pyannote gives of them are alike.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import pydantic
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from operators.document import Pinned
from operators.models.weights import needs
from operators.speech.clustering import average_linkage, numbered, unit
from operators.speech.spool import RATE, Spool

EXTRA = "corpusmill[diarisation]"
CONFIG = "config.yaml"
CLASSES = ("SpeakerDiarization", "speaker_diarization.SpeakerDiarization")
NETWORKS = ("segmentation", "embedding")
PLDA = "plda"
CHECKPOINT = "pytorch_model.bin"
MODEL = "$model/"  # begins paths below the folder, in pyannote 4's config.yaml
MODEL_RATE = 16_000
BLOCK = 3600 * RATE  # 230 MB at MODEL_RATE
ALIKE = 0.7045654963945799  # distance of one speaker's vectors: the threshold that speaker-diarization-3.1 was tuned to
OMEGACONF = (  # in checkpoints of pyannote 3
    ("omegaconf", "DictConfig"),
    ("omegaconf", "ListConfig"),
    ("omegaconf.base", "ContainerMetadata"),
    ("omegaconf.base", "Metadata"),
    ("omegaconf.nodes", "AnyNode"),
)
SETTINGS = {"HF_HUB_OFFLINE": "1", "PYANNOTE_METRICS_ENABLED": "0", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}


class PinnedPipeline(Pinned):
    """As Pinned, for a folder: `sha256` is that of the names and hashes of all its files."""

    __slots__ = ()

    def read(self) -> bytes:
        raise TypeError("a folder has no bytes: `check` it and read its files")

    def check(self) -> Path:
        """The folder. Raises ValueError where the files have changed since they were pinned."""
        if (found := _hash(Path(self.path))) != self.sha256:
            raise ValueError(f"{self.path}: sha256 is {found}, the recipe was validated with {self.sha256}")
        return Path(self.path)


@dataclass(frozen=True)
class Pyannote:
    """The pipeline in a folder."""

    pipeline: PinnedPipeline

    def check(self) -> None:
        """Raises ValueError, naming the extra, where a package is missing."""
        needs("pyannote.audio" if _there("pyannote") else "pyannote", "torch", "soxr", extra=EXTRA)

    def load(self) -> PyannoteDiariser:
        """Raises ValueError for a checkpoint that holds anything but weights."""
        self.check()
        folder = self.pipeline.check()
        os.environ.update(SETTINGS)  # before the imports, which read them
        import torch
        from pyannote.audio import Pipeline

        config = configuration(folder)
        major = int(version("pyannote.audio").partition(".")[0])
        if PLDA not in config["pipeline"]["params"] and major >= 4:
            raise ValueError(f"{folder}: {CONFIG} names no {PLDA}, without which only pyannote.audio 3 works")
        gpu = torch.cuda.is_available()
        if not gpu:
            torch.set_num_threads(1)  # a worker is given one core
        # pyannote 3 tells kinds of networks by words in their paths: this one has the right word, and no other first.
        with torch.serialization.safe_globals(_allowed()), tempfile.TemporaryDirectory(prefix="pyannote-") as scratch:
            for name in NETWORKS:
                _check_weights(Path(config["pipeline"]["params"][name]))
            for name in (*NETWORKS, PLDA):
                if name in config["pipeline"]["params"]:
                    (link := Path(scratch, name)).symlink_to(config["pipeline"]["params"][name])
                    config["pipeline"]["params"][name] = str(link)
            (file := Path(scratch, CONFIG)).write_bytes(orjson.dumps(config))  # which is YAML too
            pipeline = Pipeline.from_pretrained(str(file))
        return PyannoteDiariser(pipeline.to(torch.device("cuda" if gpu else "cpu")), major)


class PyannoteDiariser:
    """The loaded pipeline, of that major version."""

    def __init__(self, pipeline: Any, major: int) -> None:
        self._pipeline, self._major = pipeline, major

    def turns(self, spool: Spool) -> list[tuple[int, int, int]]:
        """(start, stop, speaker) in samples at RATE, by start, then stop; overlapping where two speak at once."""
        blocks = []
        for start in range(0, spool.length, BLOCK):
            stop = min(spool.length, start + BLOCK)
            found, vectors = self._block(spool.read_at(MODEL_RATE, start, stop))
            blocks.append(([(start + at, min(stop, start + end), who) for at, end, who in found], vectors))
        return joined(blocks)

    def _block(self, samples: NDArray[np.float32]) -> tuple[list[tuple[int, int, int]], NDArray[np.float64]]:
        """The turns in samples at 16 kHz, in samples at RATE, and the vector of each speaker."""
        import torch

        heard = {"waveform": torch.from_numpy(samples)[None], "sample_rate": MODEL_RATE}
        if self._major >= 4:
            result = self._pipeline(heard)
            annotation, vectors = result.speaker_diarization, result.speaker_embeddings
        else:
            annotation, vectors = self._pipeline(heard, return_embeddings=True)
        labels = {label: number for number, label in enumerate(annotation.labels())}
        found = [
            (round(round(segment.start, 3) * RATE), round(round(segment.end, 3) * RATE), labels[label])
            for segment, _, label in annotation.itertracks(yield_label=True)
        ]
        given = np.zeros((len(labels), 1)) if vectors is None else np.asarray(vectors, np.float64)[: len(labels)]
        return found, given


def joined(blocks: Sequence[tuple[list[tuple[int, int, int]], NDArray[np.float64]]]) -> list[tuple[int, int, int]]:
    """The turns of all blocks, in order of time; each has its own speakers, as many as vectors. Those whose vectors are
    nearer than ALIKE are one; a speaker without a vector (NaN) is nobody else. Numbered by first appearance."""
    if not any(turns for turns, _ in blocks):
        return []
    if len(blocks) == 1:
        names = np.arange(len(blocks[0][1]))
    else:
        vectors = unit(np.nan_to_num(np.concatenate([vectors for _, vectors in blocks if len(vectors)])))
        names = average_linkage(vectors, np.ones(len(vectors)), ALIKE)
    turns: list[tuple[int, int, int]] = []
    first = 0
    for found, vectors in blocks:
        turns += [(start, stop, int(names[first + speaker])) for start, stop, speaker in found if start < stop]
        first += len(vectors)
    turns.sort()
    speakers = numbered(np.array([speaker for _, _, speaker in turns], np.int64))
    return [(start, stop, int(who)) for (start, stop, _), who in zip(turns, speakers, strict=True)]


def configuration(folder: Path) -> dict[str, Any]:
    """What config.yaml says, its networks as paths that exist. Raises ValueError where it names what is not in the
    folder, or code that is not pyannote's diarisation."""
    try:
        said = YAML(typ="safe", pure=True).load((folder / CONFIG).read_bytes())
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from None
    pipeline = said.get("pipeline") if isinstance(said, dict) else None
    if not isinstance(pipeline, dict) or not isinstance(params := pipeline.get("params"), dict):
        raise ValueError(f"{folder / CONFIG}: has no pipeline.params")
    if (name := str(pipeline.get("name"))) not in [f"pyannote.audio.pipelines.{known}" for known in CLASSES]:
        raise ValueError(f"{folder / CONFIG}: pipeline {name} is not pyannote's SpeakerDiarization, and is not run")
    if "preprocessors" in said:
        raise ValueError(f"{folder / CONFIG}: names preprocessors, which are not run")
    params.pop("legacy", None)  # asks for results without the vectors of speakers
    for name in NETWORKS:
        params[name] = str(_below(folder, name, params.get(name), CHECKPOINT))
    if PLDA in params:
        params[PLDA] = str(_below(folder, PLDA, params[PLDA], "plda.npz").parent)
    return {key: said[key] for key in ("pipeline", "params", "freeze") if key in said}


def _below(folder: Path, name: str, value: object, file: str) -> Path:
    """The file of a network: itself, or `file` in a folder."""
    if not isinstance(value, str):
        raise ValueError(f"{folder / CONFIG}: {name}: {value!r} is no path")
    wanted = [folder / value.removeprefix(MODEL), folder / value.rpartition("/")[2]]
    for path in [candidate for each in wanted for candidate in (each, each / file)]:
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return path.resolve()
    told = f"put it there as {wanted[-1].name}/{file}: nothing is fetched"
    raise ValueError(f"{folder / CONFIG}: {name}: {value} is not in the folder; {told}")


def _allowed() -> list[Any]:
    """What checkpoints of pyannote hold beside tensors: classes of data, which do nothing when they are made."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications

    own = [torch.torch_version.TorchVersion, Specifications, Problem, Resolution]
    if not _there("omegaconf"):
        return own
    configs = [getattr(importlib.import_module(module), name) for module, name in OMEGACONF]
    return [*own, *configs, Any, defaultdict, dict, list, int]


def _check_weights(path: Path) -> None:
    import torch

    try:
        torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except (torch.serialization.pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _hash(folder: Path) -> str:
    total = hashlib.sha256()
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    for name in sorted(name.as_posix() for name in files if not any(part.startswith(".") for part in name.parts)):
        with (folder / name).open("rb") as file:
            total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _pin(value: object) -> object:
    if not isinstance(value, (str, Path)):
        return PinnedPipeline(*value) if isinstance(value, (list, tuple)) else value
    folder = Path(value)
    if not folder.is_dir():
        raise ValueError(f"no such folder: {value}")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{value}: has no {CONFIG}")
    configuration(folder)
    return PinnedPipeline(str(folder.resolve()), _hash(folder))


PipelineFolder = Annotated[PinnedPipeline, pydantic.BeforeValidator(_pin, json_schema_input_type=str)]
"""Field type for a pipeline's folder given by path in a recipe: it must be complete when the recipe is read."""
