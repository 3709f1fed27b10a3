"""The networks are not to be had here: what is tested is what is read of a folder, what is refused, and the joining of
blocks."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from operators.document import identity
from operators.models.pyannote import CONFIG, PinnedPipeline, Pyannote, configuration, joined
from operators.speech.diarise import Diarise

COMMUNITY = """
dependencies: {pyannote.audio: 4.0.0}
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: VBxClustering
    segmentation: $model/segmentation
    segmentation_batch_size: 32
    embedding: $model/embedding
    plda: $model/plda
    legacy: true
params:
  clustering: {threshold: 0.6, Fa: 0.07, Fb: 0.8}
"""
THREE = """
version: 3.1.0
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: AgglomerativeClustering
    embedding: pyannote/wespeaker-voxceleb-resnet34-LM
    segmentation: pyannote/segmentation-3.0
params:
  clustering: {method: centroid, min_cluster_size: 12, threshold: 0.7045654963945799}
"""


def laid_out(folder: Path, config: str, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"weights of " + name.encode())
    (folder / CONFIG).write_text(config)
    return folder


def community(folder: Path) -> Path:
    files = (
        "segmentation/pytorch_model.bin",
        "embedding/pytorch_model.bin",
        "plda/plda.npz",
        "plda/xvec_transform.npz",
    )
    return laid_out(folder, COMMUNITY, *files)


def three(folder: Path) -> Path:
    files = ("segmentation-3.0/pytorch_model.bin", "wespeaker-voxceleb-resnet34-LM/pytorch_model.bin")
    return laid_out(folder, THREE, *files)


def test_published_folders(tmp_path: Path) -> None:
    (one := tmp_path / "one").mkdir()
    params = configuration(community(one))["pipeline"]["params"]
    assert params == {
        "clustering": "VBxClustering",
        "segmentation": str(one / "segmentation/pytorch_model.bin"),
        "segmentation_batch_size": 32,
        "embedding": str(one / "embedding/pytorch_model.bin"),
        "plda": str(one / "plda"),
    }
    (other := tmp_path / "other").mkdir()
    found = configuration(three(other))
    assert found["pipeline"]["params"]["embedding"] == str(other / "wespeaker-voxceleb-resnet34-LM/pytorch_model.bin")
    assert found["params"]["clustering"]["min_cluster_size"] == 12
    assert set(found) == {"pipeline", "params"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("SpeakerDiarization", "VoiceActivityDetection"), "is not pyannote's SpeakerDiarization, and is not run"),
        (("pyannote.audio.pipelines.Speaker", "os.Speaker"), "is not pyannote's SpeakerDiarization, and is not run"),
        (
            ("pyannote/segmentation-3.0", "pyannote/segmentation"),
            "segmentation is not in the folder.*nothing is fetched",
        ),
        (("pyannote/segmentation-3.0", "../outside.bin"), r"\.\./outside\.bin is not in the folder"),
        (("pyannote/segmentation-3.0", "{checkpoint: x}"), "segmentation: {'checkpoint': 'x'} is no path"),
        (("version: 3.1.0", "preprocessors: {audio: {name: os.system}}"), "names preprocessors, which are not run"),
        (("pipeline:", "pipeline: none\nelse:"), "has no pipeline.params"),
        (("version", "\t: :"), CONFIG),
    ],
)
def test_other_configurations_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (folder := tmp_path / "folder").mkdir()
    (tmp_path / "outside.bin").write_bytes(b"")
    three(folder)
    (folder / CONFIG).write_text(THREE.replace(*change))
    with pytest.raises(ValidationError, match=message):
        Diarise(backend="pyannote", pipeline=folder)  # type: ignore[arg-type]


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match=f"has no {CONFIG}"):
        Diarise(backend="pyannote", pipeline=str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="pipeline: dvector takes none"):
        Diarise(pipeline=str(community(tmp_path)))  # type: ignore[arg-type]
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "pyannote" in name else known(name))
    with pytest.raises(ValidationError, match=r"corpusmill\[diarisation\].*no package pyannote"):
        Diarise(backend="pyannote", pipeline=str(tmp_path))  # type: ignore[arg-type]


def test_a_folder_is_pinned_by_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pyannote, "check", lambda self: None)
    operators = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        operators.append(Diarise(backend="pyannote", pipeline=str(community(tmp_path / name))))  # type: ignore[arg-type]
    assert identity(operators[0]) == identity(operators[1])
    assert operators[0].needs == ("id", "samples")
    assert operators[0].gpu
    pinned = operators[0].pipeline
    assert isinstance(pinned, PinnedPipeline)
    assert pinned.check() == tmp_path / "here"
    again = Diarise(backend="pyannote", pipeline=list(pinned))  # type: ignore[arg-type]  # as recipes carry it
    assert again == operators[0]
    (tmp_path / "here/plda/plda.npz").write_bytes(b"others")
    with pytest.raises(ValueError, match="the recipe was validated with"):
        pinned.check()


def test_blocks_are_joined_by_their_speakers() -> None:
    east, north = np.array([1.0, 0.1]), np.array([0.0, 2.0])
    first = ([(0, 50, 1), (40, 90, 0)], np.stack([north, east]))  # two at once
    second = ([(100, 120, 0), (130, 150, 1), (150, 150, 1)], np.stack([east * 3, np.array([np.nan, np.nan])]))
    assert joined([first, ([], np.zeros((0, 1))), second]) == [(0, 50, 0), (40, 90, 1), (100, 120, 0), (130, 150, 2)]
    assert joined([([(5, 9, 1), (0, 3, 0)], np.zeros((2, 1)))]) == [(0, 3, 0), (5, 9, 1)]
    assert joined([]) == joined([([], np.zeros((0, 1)))]) == []
