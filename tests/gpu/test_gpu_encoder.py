"""Encoders on a GPU: the same embeddings as on the processor but for rounding, and bits that no neighbour changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra corpusmill[encoder] and a GPU: make test-gpu")
if not torch.cuda.is_available():
    pytest.skip("PyTorch finds no GPU", allow_module_level=True)

from operators.models.encoder import Encoder, TransformersEmbedder  # noqa: E402
from tests.encoders import tiny  # noqa: E402

WORDS = ("the", "a", "cat", "dog", "sat", "ran")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("tiny"), max_position_embeddings=512)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 700, 3000)
    return [" ".join(random.choice(WORDS, length)) for length in lengths]


def embedder(folder: Path, **settings: object) -> TransformersEmbedder:
    return Encoder(path=str(folder), **settings).load()  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_as_on_the_processor(folder: Path, texts: list[str], pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = embedder(folder, pooling=pooling).embed(texts[:200]).astype(np.float64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    exact = embedder(folder, pooling=pooling).embed(texts[:200]).astype(np.float64)
    assert np.einsum("ij,ij->i", found, exact).min() > 0.999


def test_a_row_depends_on_its_text_alone(folder: Path, texts: list[str]) -> None:
    model = embedder(folder)
    together = model.embed(texts)
    assert (model.embed(texts[::-1])[::-1] == together).all()
    for start, end in ((0, 1), (1, 18), (18, 700), (700, 3000)):
        assert (model.embed(texts[start:end]) == together[start:end]).all()
    assert (embedder(folder).embed(texts) == together).all()
