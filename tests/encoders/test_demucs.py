"""HTDemucs as published, with the extra corpusmill[separation] installed beside: `make test-encoders`."""

from __future__ import annotations

import hashlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.document import Pinned
from operators.models.demucs import Demucs


def pinned(path: Path) -> Pinned:
    return Pinned(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("demucs", reason="needs the extra corpusmill[separation]")
    return pytest.importorskip("torch", reason="needs the extra corpusmill[separation]")


def checkpoint(torch: Any, path: Path, sources: list[str]) -> Pinned:
    """Of a small network without training, as the published ones are saved."""
    from demucs.htdemucs import HTDemucs
    from demucs.states import serialize_model
    from omegaconf import OmegaConf

    torch.manual_seed(0)
    small = {"channels": 8, "t_layers": 1, "bottom_channels": 32, "t_heads": 4, "segment": Fraction(39, 5)}
    torch.save(serialize_model(HTDemucs(sources, **small), OmegaConf.create({})), path)
    return pinned(path)


def test_a_checkpoint_as_published(torch: Any, tmp_path: Path) -> None:
    model = Demucs(checkpoint(torch, tmp_path / "a.th", ["drums", "bass", "other", "vocals"]))
    model.check()
    separator = model.load()
    samples = (np.random.default_rng(0).normal(size=24_000 * 3 + 11) / 10).astype(np.float32)
    found = np.concatenate(list(separator.speech([samples], 24_000)))
    assert found.shape == samples.shape
    assert np.isfinite(found).all()
    assert found.any()
    assert (np.concatenate(list(separator.speech(np.array_split(samples, 7), 24_000))) == found).all()


def test_a_checkpoint_without_a_voice(torch: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it knows drums, bass, but no vocals"):
        Demucs(checkpoint(torch, tmp_path / "a.th", ["drums", "bass"])).load()


def test_nothing_in_a_checkpoint_is_run(torch: Any, tmp_path: Path) -> None:
    class Run:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"klass": Run(), "args": (), "kwargs": {}, "state": {}}, tmp_path / "a.th")
    with pytest.raises(ValueError, match=r"a\.th: "):
        Demucs(pinned(tmp_path / "a.th")).load()
    assert not (tmp_path / "ran").exists()
    torch.save({"klass": 1}, tmp_path / "b.th")
    with pytest.raises(ValueError, match=r"b\.th: no checkpoint of HTDemucs"):
        Demucs(pinned(tmp_path / "b.th")).load()
