"""Text to token ids, with exactly one end-of-document token a document, at its end.

Byte-level BPE after Sennrich et al. 2016 (arXiv:1508.07909) as GPT-2 does it, trained on the corpus itself, or a
tokenizer from a file. Text cannot forge a document boundary: see operators/tokens/backends.py for how it is encoded;
a tokenizer that lets it is refused, and a text that still yields the token is dropped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
import tokenizers
from numpy.typing import NDArray
from pydantic import Field, PlainValidator
from tokenizers import decoders, models, pre_tokenizers, trainers

from operators.document import (
    Operator,
    Pinned,
    PinnedFile,
    Rule,
    drop_by_rules,
    loaded,
    parameters,
    with_columns,
)
from operators.tokens.backends import BOS, EOS, Backend, BackendFile, Engine

TRAINED = "train:bpe"
TRAINED_PAD = "<|pad|>"
LIBRARIES = {"train": "tokenizers", "hf": "tokenizers", "tiktoken": "tiktoken", "sentencepiece": "sentencepiece"}
MAX_UINT16_VOCAB = 65_500  # Megatron's rule: above it, ids take four bytes
BATCH_BYTES = 1 << 20  # of text given to a backend at once; bounds memory, changes nothing
DEFAULT_VOCAB = 32_000


@runtime_checkable
class Fitted(Protocol):
    """An operator that learns from a sample before it runs. Its identity is that of the unfitted operator; what it
    learned is a file in the store, found by hash."""

    fit_sample_bytes: ClassVar[int]

    @property
    def fitted(self) -> bool: ...
    def fit(self, texts: pa.ChunkedArray) -> bytes: ...
    def with_artefact(self, data_path: str, sha256: str) -> Any: ...


class Source(NamedTuple):
    """Where the tokenizer comes from: a kind of LIBRARIES, and the file, which only `train` can lack."""

    kind: str
    file: Pinned | None


def _source(value: object) -> Source:
    if isinstance(value, Source):
        return value
    if value == TRAINED:
        return Source("train", None)
    kind, _, path = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind not in LIBRARIES or kind == "train" or not path:
        raise ValueError(f"{value!r} is none of {TRAINED}, hf:PATH, tiktoken:PATH, sentencepiece:PATH")
    return Source(kind, pydantic.TypeAdapter(PinnedFile).validate_python(path))


@parameters
class Tokenizer(Operator):
    """Adds `input_ids` (large_list of uint16 or int32) and `tokens`, their number with the end of document."""

    name: ClassVar[str] = "tokenizer"
    fit_sample_bytes: ClassVar[int] = 64 << 20

    # `name` in recipes; an operator's own `name` is the class's.
    source: Annotated[Source, PlainValidator(_source, json_schema_input_type=str)] = Field(
        default=TRAINED, alias="name", validate_default=True
    )
    vocab: Annotated[int, Field(ge=300, le=1 << 20)] = DEFAULT_VOCAB  # of train:bpe; smaller on little text
    pattern: str | None = None  # of tiktoken: the regular expression that splits text
    special: dict[str, int] = Field(default_factory=dict)  # of tiktoken: token -> id; without: <|endoftext|> after all
    eos: str | None = None  # the end-of-document token; without: the one that the file is known to have
    bos: bool = False  # put the tokenizer's beginning-of-document token first
    engine: Engine = "auto"  # of tokenizer.json files; same ids: auto is fastokens where it gives those of tokenizers
    revision: Literal[1] = 1

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Tokenizer:
        kind = self.source.kind
        if kind == "tiktoken" and not self.pattern:
            raise ValueError("pattern: a tiktoken file needs the pattern that splits its text, got none")
        if kind != "tiktoken" and (self.pattern or self.special):
            raise ValueError(f"pattern, special: only tiktoken files take them, got {self.pattern!r}, {self.special!r}")
        if kind != "train" and self.vocab != DEFAULT_VOCAB:
            raise ValueError(f"vocab: only {TRAINED} has a choice, got {self.vocab}")
        if kind not in ("train", "hf") and self.engine != "auto":
            raise ValueError(f"engine: only {TRAINED} and hf files have a choice, got {self.engine!r}")
        if self.fitted:
            self._marks()
        return self

    @property
    def adds(self) -> tuple[str, ...]:
        return ("input_ids", "tokens")

    @property
    def fitted(self) -> bool:
        return self.source.file is not None

    def fit(self, texts: pa.ChunkedArray) -> bytes:
        """A tokenizer.json trained on `texts`: the same bytes whatever their order and the number of threads."""
        trained = tokenizers.Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trained.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab,
            # Padding of its own: trainers mask the loss on it, and the end of a document has to be learnt.
            special_tokens=[self.eos or EOS[0], TRAINED_PAD, *([BOS[0]] if self.bos else [])],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # any byte has a token, so nothing is lost
            show_progress=False,
        )
        # Training is quadratic in a word's length; runs that long say nothing of a language.
        texts = pc.replace_substring_regex(texts, r"\S{257,}|\s{257,}", " ")
        trained.train_from_iterator(_batches(texts), trainer)
        return str(trained.to_str()).encode()

    def with_artefact(self, data_path: str, sha256: str) -> Tokenizer:
        """This operator with the file that `fit` made."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "source"}
        return Tokenizer(name=Source(self.source.kind, Pinned(data_path, sha256)), **fields)

    def describe(self) -> dict[str, Any]:
        """What a manifest says of the tokenizer, JSON-able."""
        file, backend = self._file(), self.backend()
        eos, bos = self._marks()
        pad = None if backend.pad is None else backend.id_of(backend.pad)
        libraries = sorted({LIBRARIES[self.source.kind], backend.engine})
        return {
            "name": TRAINED if self.source.kind == "train" else f"{self.source.kind}:{Path(file.path).name}",
            "sha256": file.sha256,
            "vocab_size": backend.vocab_size,
            "eos_id": eos,
            "bos_id": bos,
            "pad_id": eos if pad is None else pad,
            "dtype": self._dtype(backend).name,
            "engine": backend.engine,
            "versions": {library: version(library) for library in libraries},
        }

    def backend(self) -> Backend:
        """The loaded tokenizer, one a process; ValueError while there is none."""
        kind = "hf" if self.source.kind == "train" else self.source.kind
        special = tuple(sorted(self.special.items()))
        backend: Backend = loaded(BackendFile(kind, self._file(), self.pattern, special, self.engine))
        return backend

    def __call__(self, docs: pa.Table) -> pa.Table:
        backend = self.backend()
        eos, bos = self._marks()
        encoded = [backend.encode(batch) for batch in _batches(docs["text"])]
        ids = np.concatenate([np.zeros(0, np.int32), *(e.ids for e in encoded)])
        found = np.concatenate([np.zeros(0, np.int64), *(e.lengths for e in encoded)])
        lengths = np.maximum(found, 0)
        forged = _occurrences(ids, eos, lengths)
        size = pc.fill_null(pc.binary_length(docs["text"]), 0).to_numpy().astype(np.float64)
        rules = [
            Rule("unencodable", found < 0, size, np.nan),  # its value is the size that was too much
            Rule("empty", found == 0, lengths.astype(np.float64), 1.0),
            Rule("forged_eos", forged > 0, forged.astype(np.float64), 0.0),
        ]
        alive = (found > 0) & (forged == 0)
        body = ids[np.repeat(alive, lengths)].astype(self._dtype(backend))
        flat, offsets = _framed(body, np.where(alive, lengths, 0), alive, eos, bos)
        columns = {
            "input_ids": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat)),
            "tokens": pa.array(np.diff(offsets)),
        }
        return drop_by_rules(with_columns(docs, columns), rules)

    def _file(self) -> Pinned:
        if self.source.file is None:
            raise ValueError(f"{TRAINED}: has not been trained yet")
        return self.source.file

    def _dtype(self, backend: Backend) -> np.dtype[Any]:
        return np.dtype(np.uint16 if backend.vocab_size < MAX_UINT16_VOCAB else np.int32)

    def _marks(self) -> tuple[int, int | None]:
        """(id of the end, id of the beginning if wanted). ValueError if there is none or text can spell it."""
        backend, path = self.backend(), self._file().path
        names = {"eos": self.eos or backend.eos, **({"bos": backend.bos} if self.bos else {})}
        marks: dict[str, int] = {}
        for field, token in names.items():
            known = None if token is None else backend.id_of(token)
            if token is None or known is None:
                raise ValueError(f"{field}: {path} has no token {token or 'known to mean that'!r}")
            if any(known in backend.encode([text]).ids for text in (token, f"a{token}b", f"a {token} b")):
                raise ValueError(f"{field}: {path} encodes the text {token!r} as the token of that name")
            marks[field] = known
        return marks["eos"], marks.get("bos")


def _framed(
    body: NDArray[Any], lengths: NDArray[np.int64], alive: NDArray[np.bool_], eos: int, bos: int | None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """(ids, offsets) with the end, and the beginning if wanted, around the ids of each living document."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths + alive * (1 if bos is None else 2), out=offsets[1:])
    flat = np.empty(int(offsets[-1]), body.dtype)
    inner = np.ones(len(flat), np.bool_)
    flat[offsets[1:][alive] - 1] = eos
    inner[offsets[1:][alive] - 1] = False
    if bos is not None:
        flat[offsets[:-1][alive]] = bos
        inner[offsets[:-1][alive]] = False
    flat[inner] = body
    return flat, offsets


def _occurrences(ids: NDArray[np.int32], token: int, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often `token` is among the ids of each document."""
    at = np.flatnonzero(ids == token)
    return np.bincount(np.searchsorted(np.cumsum(lengths), at, side="right"), minlength=len(lengths))


def _batches(texts: pa.ChunkedArray) -> Iterator[list[str]]:
    """The texts in order, nulls as empty, about BATCH_BYTES at once."""
    size = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
    filled = pc.fill_null(texts, "")
    cuts = np.flatnonzero(np.diff(np.cumsum(size, dtype=np.int64) // BATCH_BYTES)) + 1
    for start, end in zip([0, *cuts], [*cuts, len(texts)], strict=True):
        if end > start:
            yield filled.slice(int(start), int(end - start)).to_pylist()
