"""LAION-CLAP (Wu et al. 2023, arXiv:2211.06687): sounds and texts as vectors of one space, by a Hugging Face folder.

The model hears 10 s. Longer sound is heard in as few windows as cover it, evenly spaced, and gets their mean: a crop
by chance, as in training, would give another vector each time. Shorter sound is repeated while it fits and then filled
up with silence, as in training. One sound or text is a call of its own, on a GPU where PyTorch finds one: its vector
does not depend on those beside it. Different devices round differently.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pydantic
import tokenizers
from numpy.typing import NDArray
from pydantic import model_validator

from operators.document import parameters
from operators.models.folder import NEEDED, PATTERNS, WEIGHTS, PinnedFolder, configuration, folder_with, read_json

EXTRA = "corpusmill[encoder]"
PACKAGES = ("torch", "transformers", "safetensors")
FEATURES = "preprocessor_config.json"
RATE = 48_000
TOKENS = 77  # of a text, with the marks at its ends: as in training

Samples = NDArray[np.float32]
Vectors = NDArray[np.float32]


class ClapFolder(PinnedFolder):
    """A folder with a CLAP model, pinned by its files."""

    __slots__ = ()
    patterns: ClassVar[tuple[str, ...]] = (*PATTERNS, FEATURES)


def _pin(value: object) -> object:
    if not isinstance(value, (str, Path)):
        return tuple(value) if isinstance(value, list) else value
    folder = folder_with(value, (*NEEDED, FEATURES))
    if not any(folder.glob(WEIGHTS)):
        raise ValueError(f"{value}: has no weights as {WEIGHTS}; pickled ones are not read")
    return ClapFolder.pin(folder)


@parameters
class Clap:
    """`path`: a folder with config.json, tokenizer.json, preprocessor_config.json and safetensors of a CLAP model
    without fusion, such as laion/larger_clap_general."""

    path: Annotated[ClapFolder, pydantic.BeforeValidator(_pin, json_schema_input_type=str)]

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        for package in PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise ValueError(f"CLAP needs the extra {EXTRA}, which is not installed (no package {package})")
        folder = self.path.folder
        said, features = configuration(folder), read_json(folder / FEATURES)
        if (kind := said.get("model_type")) != "clap":
            raise ValueError(f"path: {folder} is of type {kind!r}, not 'clap'")
        if said.get("audio_config", {}).get("enable_fusion"):
            raise ValueError(f"path: {folder} fuses crops taken by chance (enable_fusion), which is not done here")
        if not isinstance(features, dict) or features.get("sampling_rate") != RATE:
            raise ValueError(f"path: {folder}: {FEATURES} does not say sampling_rate {RATE}")
        return self

    def load(self) -> Comparer:
        """Raises ValueError for other files than those that were pinned, and for weights that do not fit."""
        return Comparer(self)


class Comparer:
    """The loaded model. The cosine of two vectors is their product."""

    def __init__(self, clap: Clap) -> None:
        folder = clap.path.check()
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch  # here, because most builds do without them
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self._tokenizer = tokenizers.Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8"))
        self._tokenizer.encode_special_tokens = True  # a text that spells one does not become it
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS)
        self._features = transformers.ClapFeatureExtractor.from_dict(read_json(folder / FEATURES))
        gpu = torch.cuda.is_available()
        if not gpu:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            torch.set_num_threads(1)  # a worker is given one core
        model, said = transformers.ClapModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        if missing := sorted(said["missing_keys"]):
            raise ValueError(f"{folder}: the weights lack {', '.join(missing[:5])}")
        self._torch, self._model = torch, model.to("cuda" if gpu else "cpu").eval()
        self.dimensions = int(model.config.projection_dim)

    def audio(self, clips: Sequence[Samples]) -> Vectors:
        """Unit vectors [n, d] of sounds at RATE; zeros for no sound."""
        return self._rows([self._sound(clip) for clip in clips])

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors [n, d] of texts, of which the first TOKENS count."""
        return self._rows([self._text(text) for text in texts])

    def _rows(self, rows: list[Vectors]) -> Vectors:
        return np.stack(rows) if rows else np.zeros((0, self.dimensions), np.float32)

    def _sound(self, samples: Samples) -> Vectors:
        most = int(self._features.nb_max_samples)
        if not len(samples):
            return np.zeros(self.dimensions, np.float32)
        starts = np.linspace(0, max(0, len(samples) - most), -(-len(samples) // most)).round().astype(int)
        windows = [samples[start : start + most] for start in starts]
        return _unit(np.mean([_unit(self._window(window)) for window in windows], axis=0))

    def _window(self, samples: Samples) -> Vectors:
        given = self._features(samples, truncation="rand_trunc", sampling_rate=RATE, return_tensors="np")
        values = self._torch.from_numpy(np.asarray(given["input_features"], np.float32)).to(self._model.device)
        with self._torch.inference_mode():
            pooled: Any = self._model.audio_model(input_features=values).pooler_output
            found: Vectors = self._model.audio_projection(pooled)[0].cpu().numpy()
        return found

    def _text(self, text: str) -> Vectors:
        ids = self._torch.tensor([self._tokenizer.encode(text).ids]).to(self._model.device)
        with self._torch.inference_mode():
            pooled: Any = self._model.text_model(input_ids=ids).pooler_output
            found: Vectors = self._model.text_projection(pooled)[0].cpu().numpy()
        return _unit(found)


def _unit(values: Vectors) -> Vectors:
    """Scaled to length one; zeros stay."""
    return values / max(float(np.linalg.norm(values)), 1e-12)
