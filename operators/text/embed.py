"""Embeddings by a model, made once and stored in half precision, for what compares documents by meaning.

semantic_dedup, topic and order read them through `column`. Without it they make lexical vectors of their own, which
need no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from operators.document import DROP, SCHEMA, Operator, loaded, parameters, with_columns
from operators.models import minilm
from operators.models.embedding import Embedder
from operators.models.encoder import Encoder
from operators.models.endpoint import Endpoint
from operators.models.minilm import MiniLM

BLOCK = 16_384  # texts out of Arrow at a time


def _not_taken(column: str) -> str:
    if column in SCHEMA.names or column in DROP.names:
        raise ValueError(f"{column!r} is a column of every document")
    return column


def _backend(value: Any) -> str | None:
    """Which of the models a recipe means."""
    if value == "minilm" or isinstance(value, MiniLM):
        return "class MiniLM"
    if isinstance(value, Encoder) or (isinstance(value, dict) and "path" in value):
        return "class Encoder"
    if isinstance(value, Endpoint) or (isinstance(value, dict) and "endpoint" in value):
        return "class Endpoint"
    return None


def _minilm(value: object) -> object:
    minilm.check()
    return MiniLM() if value == "minilm" else value


EmbeddingModel = Annotated[
    Annotated[MiniLM, BeforeValidator(_minilm, json_schema_input_type=Literal["minilm"]), Tag("class MiniLM")]
    | Annotated[Encoder, Tag("class Encoder")]
    | Annotated[Endpoint, Tag("class Endpoint")],
    Discriminator(
        _backend,
        custom_error_type="embedding_model",
        custom_error_message="must be minilm, {path: FOLDER} or {endpoint: URL, model: NAME}",
    ),
]


@parameters
class Embed(Operator):
    """Adds `column`: as many halves as the model has dimensions, of length one; null for a text whose head is blank or
    has no token, and for what a server refuses. `model`: the word minilm, a folder (see Encoder) or a server (see
    Endpoint)."""

    name: ClassVar[str] = "embed"
    model: EmbeddingModel
    column: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_not_taken)] = "embedding"
    revision: Literal[1] = 1

    @property
    def adds(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def gpu(self) -> bool:
        """Whether a worker with a GPU does this faster."""
        return isinstance(self.model, Encoder)

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """Texts that the model was given, and documents that have no embedding."""
        rows, _ = self._given(marked, loaded(self.model))
        return {"model_calls": len(rows), "without_embedding": marked[self.column].null_count}

    def _given(self, docs: pa.Table, model: Embedder) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
        """The rows whose texts the model is given, and the heads of all texts."""
        texts = pc.utf8_slice_codeunits(pc.fill_null(docs["text"], ""), 0, model.max_chars)
        return np.flatnonzero(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)), texts

    def __call__(self, docs: pa.Table) -> pa.Table:
        model: Embedder = loaded(self.model)
        rows, texts = self._given(docs, model)
        found = np.zeros((docs.num_rows, model.dimensions), np.float16)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            found[block] = model.embed(texts.take(pa.array(block)).to_pylist())
        none = pa.array(~found.any(axis=1))
        column = pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1)), model.dimensions, mask=none)
        return with_columns(docs, {self.column: column})
