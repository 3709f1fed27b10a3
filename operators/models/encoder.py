"""Embeddings by any encoder in a Hugging Face folder: BERT and its kin, such as Contriever (Izacard et al. 2021,
arXiv:2112.09118), which In-Context Pretraining (Shi et al. 2023, arXiv:2310.10638) orders documents by.

On a GPU in half precision, where PyTorch finds one; on the processor in float32, text by text. On a GPU the batches
have few shapes, a number of rows for each length, filled up with rows of nothing: the same kernels in the same order
then work on a document whichever others come beside it. Different devices still round differently.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import tokenizers
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import parameters
from operators.models.embedding import CHARS_PER_TOKEN, Embeddings, unit
from operators.models.folder import ModelFolder, check_sentence_transformers, configuration

EXTRA = "corpusmill[encoder]"
PACKAGES = ("torch", "transformers", "safetensors")
GPU_TOKENS = 1 << 15  # a batch: of 512 tokens, 64 texts
GPU_STEP = 64  # lengths are multiples of it
BLOCK = 1024  # texts tokenized at a time


@parameters
class Encoder:
    """`path`: a folder with config.json, tokenizer.json and safetensors. `max_tokens` counts the marks that the
    tokenizer puts at the ends. `prefix` is put before each text, as E5 and others were trained to want."""

    path: ModelFolder
    pooling: Literal["mean", "cls"] = "mean"
    max_tokens: Annotated[int, Field(ge=4, le=32_768)] = 512
    precision: Literal["float32", "float16"] = "float32"
    prefix: Annotated[str, Field(max_length=1000)] = ""

    @model_validator(mode="after")
    def _fits_the_model(self) -> Self:
        for package in PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise ValueError(f"an encoder needs the extra {EXTRA}, which is not installed (no package {package})")
        folder = self.path.folder
        most = configuration(folder).get("max_position_embeddings")
        if isinstance(most, int) and self.max_tokens > most:
            raise ValueError(f"max_tokens: {self.max_tokens} are more than the {most} of {folder}")
        check_sentence_transformers(folder, self.pooling)
        return self

    def load(self) -> TransformersEmbedder:
        """Raises ValueError for other files than those that were pinned, and for weights that do not fit."""
        return TransformersEmbedder(self)


class TransformersEmbedder:
    """The loaded model (see embedding.Embedder)."""

    def __init__(self, encoder: Encoder) -> None:
        folder = encoder.path.check()
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch  # here, because most builds do without them
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self._torch, self._encoder = torch, encoder
        self._tokenizer = tokenizers.Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8"))
        self._tokenizer.encode_special_tokens = True  # a text that spells one does not become it
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(encoder.max_tokens)
        gpu = self._batched = torch.cuda.is_available()
        if encoder.precision == "float16" and not gpu:
            raise ValueError("precision: float16 needs a GPU, and there is none")
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        half = torch.bfloat16 if config.dtype == torch.bfloat16 else torch.float16
        if not gpu:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            torch.set_num_threads(1)  # a worker is given one core
        model, said = transformers.AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=half if encoder.precision == "float16" else torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        if missing := sorted(key for key in said["missing_keys"] if not key.startswith("pooler.")):
            raise ValueError(f"{folder}: the weights lack {', '.join(missing[:5])}")
        self._model = model.to("cuda" if gpu else "cpu").eval()
        self._pad = config.pad_token_id or 0
        self.dimensions = int(config.hidden_size)
        self.max_chars = encoder.max_tokens * CHARS_PER_TOKEN
        (self._nothing,) = self._ids([""])

    def embed(self, texts: Sequence[str]) -> Embeddings:
        found = np.zeros((len(texts), self.dimensions), np.float16)
        ids = self._ids(texts)
        lengths = np.array([0 if np.array_equal(row, self._nothing) else len(row) for row in ids], np.int64)
        if self._batched:
            lengths = np.minimum(-(-lengths // GPU_STEP) * GPU_STEP, self._encoder.max_tokens)
        for length in np.unique(lengths[lengths > 0]):
            same = np.flatnonzero(lengths == length)
            rows = max(1, GPU_TOKENS // int(length)) if self._batched else 1
            for start in range(0, len(same), rows):
                batch = same[start : start + rows]
                found[batch] = unit(self._pooled([ids[k] for k in batch], rows, int(length)))
        return found

    def _ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        ids: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), BLOCK):
            block = [self._encoder.prefix + text for text in texts[start : start + BLOCK]]
            ids += [np.array(found.ids, np.int32) for found in self._tokenizer.encode_batch_fast(block)]
        return ids

    def _pooled(self, ids: list[NDArray[np.int32]], rows: int, length: int) -> NDArray[np.float32]:
        """The mean over each text's tokens, or its first vector."""
        torch = self._torch
        tokens, mask = np.full((rows, length), self._pad, np.int64), np.zeros((rows, length), np.int64)
        mask[:, 0] = 1  # a row of nothing must not divide by zero
        for row, own in enumerate(ids):
            tokens[row, : len(own)], mask[row, : len(own)] = own, 1
        with torch.inference_mode():
            given = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}
            given = {name: tensor.to(self._model.device) for name, tensor in given.items()}
            states: Any = self._model(**given).last_hidden_state.float()
            if self._encoder.pooling == "cls":
                pooled = states[:, 0]
            else:
                weights = given["attention_mask"][:, :, None].float()
                pooled = (states * weights).sum(1) / weights.sum(1)
            result: NDArray[np.float32] = pooled[: len(ids)].cpu().numpy()
        return result
