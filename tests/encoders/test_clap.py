"""Vectors of sounds and texts by CLAP, with a tiny one of random weights: those that the library gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `encoder`: make test-encoders")
transformers = pytest.importorskip("transformers", reason="needs the extra `encoder`: make test-encoders")

from operators.document import identity, loaded  # noqa: E402
from operators.models.clap import RATE, TOKENS, Clap, Comparer  # noqa: E402
from tests.encoders import tiny  # noqa: E402

TEXT = {"vocab_size": len(tiny.WORDS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"intermediate_size": 64, "max_position_embeddings": 100, "pad_token_id": 0}
AUDIO = {"patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 8]}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    config = transformers.ClapConfig(text_config=TEXT, audio_config=AUDIO, projection_dim=24, initializer_factor=20.0)
    transformers.ClapModel(config).save_pretrained(found)
    tiny.tokenizer().save(str(found / "tokenizer.json"))
    transformers.ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50).save_pretrained(found)
    return found


@pytest.fixture(scope="module")
def comparer(folder: Path) -> Comparer:
    found: Comparer = loaded(Clap(path=folder))  # type: ignore[arg-type]
    return found


def literally(folder: Path, samples: np.ndarray) -> np.ndarray:
    """As a model's card says, for what is not cropped."""
    model = transformers.ClapModel.from_pretrained(folder)
    given = transformers.ClapFeatureExtractor.from_pretrained(folder)(
        samples, sampling_rate=RATE, return_tensors="pt", truncation="rand_trunc"
    )
    with torch.no_grad():
        found: np.ndarray = model.get_audio_features(**given).pooler_output[0].numpy()
    return found


def distinct(vectors: np.ndarray) -> bool:
    """Whether the weights by chance tell the inputs apart, without which other tests could not fail."""
    return bool((vectors @ vectors.T - np.eye(len(vectors))).max() < 0.9999)


@pytest.mark.parametrize("seconds", [0.01, 3.3, 10.0])
def test_a_sound_is_what_the_model_s_card_says(folder: Path, comparer: Comparer, seconds: float) -> None:
    (found,) = comparer.audio([noise(seconds)])
    assert found.dtype == np.float32
    assert np.abs(found - literally(folder, noise(seconds))).max() < 1e-5


def test_a_text_is_what_the_model_s_card_says(folder: Path, comparer: Comparer) -> None:
    texts = ["the cat sat", "dogs ran", "a cat " * 100]
    found = comparer.texts(texts)
    assert distinct(found)
    model = transformers.ClapModel.from_pretrained(folder)
    tokenizer = transformers.BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    for text, row in zip(texts, found, strict=True):
        given = tokenizer(text, return_tensors="pt", truncation=True, max_length=TOKENS, padding=False)
        with torch.no_grad():
            wanted = model.get_text_features(given["input_ids"]).pooler_output[0].numpy()
        assert np.abs(row - wanted).max() < 1e-5


def test_long_sound_is_the_mean_of_windows_that_cover_it(folder: Path, comparer: Comparer) -> None:
    sound = noise(24)
    windows = comparer.audio([sound[start * RATE :][: 10 * RATE] for start in (0, 7, 14)])
    assert distinct(windows)
    mean = windows.mean(axis=0)
    (found,) = comparer.audio([sound])
    assert np.abs(found - mean / np.linalg.norm(mean)).max() < 1e-6


def test_a_row_depends_on_its_own_input_alone(comparer: Comparer) -> None:
    sounds = [noise(1, 1), noise(12, 2) * 3, np.zeros(RATE, np.float32), np.zeros(0, np.float32), noise(5, 3)]
    together = comparer.audio(sounds)
    assert np.isfinite(together).all()
    assert np.linalg.norm(together, axis=1) == pytest.approx([1, 1, 1, 0, 1])
    assert (together == np.concatenate([comparer.audio([sound]) for sound in sounds])).all()
    texts = ["the cat sat", "", "the cat [SEP] dog"]
    assert (comparer.texts(texts)[::-1] == comparer.texts(texts[::-1])).all()
    assert comparer.audio([]).shape == comparer.texts([]).shape == (0, 24)


def test_no_text_spells_a_special_token(comparer: Comparer) -> None:
    spelled, meant = comparer.texts(["cat [SEP]", "cat"])
    assert np.abs(spelled - meant).max() > 1e-4


def test_the_model_is_known_by_its_content(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("not read")
    one, other = Clap(path=folder), Clap(path=tmp_path / "copy")  # type: ignore[arg-type]
    assert identity(one) == identity(other)
    said = tmp_path / "copy" / "preprocessor_config.json"
    said.write_text(said.read_text("utf-8").replace("50", "60"), "utf-8")
    assert identity(one) != identity(Clap(path=tmp_path / "copy"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"sha256 is .*, the recipe was validated with"):
        other.load()


@pytest.mark.parametrize(
    ("file", "changed", "told"),
    [
        ("config.json", {"model_type": "bert"}, "is of type 'bert', not 'clap'"),
        ("config.json", {"audio_config": {"enable_fusion": True}}, "enable_fusion"),
        ("preprocessor_config.json", {"sampling_rate": 16_000}, "does not say sampling_rate 48000"),
    ],
)
def test_other_folders_are_refused(folder: Path, tmp_path: Path, file: str, changed: dict[str, Any], told: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    said = json.loads((copy / file).read_text("utf-8"))
    (copy / file).write_text(json.dumps(said | changed), "utf-8")
    with pytest.raises(pydantic.ValidationError, match=told):
        Clap(path=copy)  # type: ignore[arg-type]


@pytest.mark.parametrize("lacking", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_incomplete_folders_are_refused(folder: Path, tmp_path: Path, lacking: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / lacking).rename(copy / "pytorch_model.bin")
    with pytest.raises(pydantic.ValidationError, match="pickled ones are not read|has no "):
        Clap(path=copy)  # type: ignore[arg-type]


def test_weights_that_are_missing_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["text_projection.linear1.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"the weights lack text_projection.linear1.weight"):
        Clap(path=copy).load()  # type: ignore[arg-type]
