"""Units of neural codecs in folders, with tiny ones of random weights: those that the library gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from operators.document import loaded  # noqa: E402
from operators.models.neural_codec import NeuralCodec  # noqa: E402

RATE = 24_000


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    torch.manual_seed(0)
    small = {"hidden_size": 64, "num_filters": 8, "codebook_size": 128, "codebook_dim": 32, "upsample_groups": 64}
    small |= {"vector_quantization_hidden_dimension": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 64, "num_quantizers": 4}
    encodec = {"num_filters": 8, "hidden_size": 32, "codebook_size": 64, "num_lstm_layers": 1}
    models = {
        "mimi": transformers.MimiModel(transformers.MimiConfig(**small)).eval(),
        "encodec": transformers.EncodecModel(transformers.EncodecConfig(**encodec)).eval(),
    }
    found = {}
    for name, model in models.items():
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        found[name] = folder, model
    return found


@pytest.mark.parametrize(("kind", "rate", "clusters"), [("mimi", 12.5, 128), ("encodec", 75.0, 64)])
def test_units_are_the_first_codebook_s(folders: dict[str, Any], kind: str, rate: float, clusters: int) -> None:
    folder, model = folders[kind]
    encoder = loaded(NeuralCodec(path=folder))
    assert (encoder.rate, encoder.clusters) == (rate, clusters)
    rng = np.random.default_rng(0)
    for seconds in (0.0, 0.01, 0.5, 1.0, 3.33):
        samples = rng.normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
        units = encoder.encode(samples)
        assert abs(len(units) - round(seconds * rate)) <= 1
        assert units.max(initial=0) < clusters
    with torch.inference_mode():
        codes = model.encode(torch.from_numpy(samples)[None, None]).audio_codes
    assert codes.reshape(-1, codes.shape[-1])[0].tolist() == units.tolist()


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"sampling_rate": 48_000}, "48000"), ({"audio_channels": 2}, "2"), ({"model_type": "bert"}, "'bert'")],
)
def test_other_folders_are_refused(folders: dict[str, Any], changed: dict[str, Any], told: str, tmp_path: Any) -> None:
    folder, _ = folders["mimi"]
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    codec = NeuralCodec(path=tmp_path)
    said = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(said | changed), "utf-8")
    with pytest.raises(pydantic.ValidationError, match=told):
        NeuralCodec(path=tmp_path)
    with pytest.raises(ValueError, match="sha256"):
        codec.load()
