"""Discrete units of speech by a neural codec in a Hugging Face folder: Mimi (Défossez et al. 2024, arXiv:2410.00037) or
EnCodec at 24 kHz (Défossez et al. 2022, arXiv:2210.13438).

Units are the codes of the first codebook: Mimi's was taught what is said (12.5 a second, 2,048 of them); EnCodec's is
the coarsest picture of the sound (75 a second, 1,024). Weights are read from safetensors only, and no code of the
folder's is run. An utterance is encoded alone, on a GPU where PyTorch finds one; different devices round differently.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import model_validator

from operators.document import parameters
from operators.models.folder import WEIGHTS, PinnedFolder, configuration
from operators.speech.spool import RATE

EXTRA = "corpusmill[encoder]"
PACKAGES = ("torch", "transformers", "safetensors")
KINDS = ("mimi", "encodec")
LEAST = 1.5  # kbit a second, of EnCodec's the first two codebooks


class CodecFolder(PinnedFolder):
    """Of a model that has no tokenizer."""

    __slots__ = ()
    patterns = ("config.json", WEIGHTS, "model.safetensors.index.json")


def _pin(value: object) -> object:
    if not isinstance(value, (str, Path)):
        return tuple(value) if isinstance(value, list) else value
    folder = Path(value)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{value}: has no config.json")
    if not any(folder.glob(WEIGHTS)):
        raise ValueError(f"{value}: has no weights as {WEIGHTS}; pickled ones are not read")
    return CodecFolder.pin(folder)


@parameters
class NeuralCodec:
    """`path`: a folder with config.json and safetensors of Mimi or EnCodec, mono, of 24,000 samples a second."""

    path: Annotated[CodecFolder, pydantic.BeforeValidator(_pin, json_schema_input_type=str)]

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        for package in PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise ValueError(f"a codec needs the extra {EXTRA}, which is not installed (no package {package})")
        folder = self.path.folder
        said = configuration(folder)
        if (kind := said.get("model_type")) not in KINDS:
            raise ValueError(f"path: {folder} is of type {kind!r}, not {' or '.join(KINDS)}")
        shape = [said.get("sampling_rate", RATE), said.get("audio_channels", 1), said.get("chunk_length_s")]
        if shape != [RATE, 1, None]:
            raise ValueError(
                f"path: {folder}: sampling_rate, audio_channels, chunk_length_s are {shape}, not {RATE}, 1"
            )
        if not isinstance(said.get("codebook_size"), int):
            raise ValueError(f"path: {folder}: config.json has no codebook_size")
        return self

    @property
    def clusters(self) -> int:
        return int(configuration(self.path.folder)["codebook_size"])

    def load(self) -> NeuralEncoder:
        """Raises ValueError for other files than those that were pinned, and for weights that do not fit."""
        return NeuralEncoder(self)


class NeuralEncoder:
    """The loaded model (see units.UnitEncoder)."""

    def __init__(self, codec: NeuralCodec) -> None:
        folder = codec.path.check()
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch  # here, because most builds do without them
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        gpu = torch.cuda.is_available()
        if not gpu:
            torch.set_num_threads(1)  # a worker is given one core
        model, said = transformers.AutoModel.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        if missing := sorted(said["missing_keys"]):
            raise ValueError(f"{folder}: the weights lack {', '.join(missing[:5])}")
        self._torch, self._model = torch, model.to("cuda" if gpu else "cpu").eval()
        self._options: dict[str, Any] = (
            {"num_quantizers": 1} if model.config.model_type == "mimi" else {"bandwidth": LEAST}
        )
        self.clusters, self.rate = codec.clusters, float(model.config.frame_rate)

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.uint16]:
        if not int(len(samples) * self.rate / RATE + 0.5):
            return np.zeros(0, np.uint16)
        with self._torch.inference_mode():
            values = self._torch.from_numpy(np.ascontiguousarray(samples))[None, None].to(self._model.device)
            codes = self._model.encode(values, **self._options).audio_codes
        first: NDArray[np.int64] = codes.reshape(-1, codes.shape[-1])[0].cpu().numpy()
        return first.astype(np.uint16)
