"""Lay tokens out as the sequences that shards hold: one a document, or windows of one length.

`concat_chunk` (GPT-2, GPT-3: Brown et al. 2020, appendix B) puts documents end to end and cuts every `seq_len` tokens.
Windows keep an order of documents through trainers that shuffle sequences (In-Context Pretraining, arXiv:2310.10638).
No token is lost: tokens in = tokens out - padding, and `pieces` says what every stretch of a window is.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from operators.document import parameters

PIECES = pa.schema(
    [
        pa.field("sequence", pa.int64()),
        pa.field("start", pa.int64()),  # in the sequence
        pa.field("end", pa.int64()),
        pa.field("document", pa.int64()),  # row of the document
        pa.field("document_start", pa.int64()),  # of the stretch, in the document
    ]
)


class Packed(NamedTuple):
    tokens: NDArray[Any]  # all sequences end to end
    offsets: NDArray[np.int64]  # [sequences + 1] into tokens
    pieces: pa.Table  # of PIECES, in the order of tokens; what no piece covers is padding
    padding: int


@parameters
class Pack:
    """How documents become sequences: (tokens end to end, document offsets) -> sequences."""

    name: ClassVar[str] = "pack"

    layout: Literal["documents", "windows"] = "documents"
    mode: Literal["concat_chunk"] = "concat_chunk"  # of windows
    seq_len: Annotated[int, Field(ge=2, le=1 << 24)] = 2048  # of windows
    revision: Literal[1] = 1

    def __call__(self, tokens: NDArray[Any], offsets: NDArray[np.int64], pad: int) -> Packed:
        """Sequences of the documents `tokens[offsets[i]:offsets[i + 1]]`; `pad` fills the last window."""
        tokens, offsets = tokens[offsets[0] : offsets[-1]], offsets - offsets[0]
        if self.layout == "documents":
            rows = np.arange(len(offsets) - 1)
            nothing = np.zeros(len(rows), np.int64)
            return Packed(tokens, offsets, _pieces(rows, nothing, np.diff(offsets), rows, nothing), 0)
        total = len(tokens)
        windows = -(-total // self.seq_len)
        bounds = np.union1d(offsets, np.minimum(np.arange(windows + 1) * self.seq_len, total))
        start, length = bounds[:-1], np.diff(bounds)
        document = np.searchsorted(offsets, start, side="right") - 1
        at = start % self.seq_len
        pieces = _pieces(start // self.seq_len, at, at + length, document, start - offsets[document])
        padding = windows * self.seq_len - total
        if padding:
            tokens = np.concatenate([tokens, np.full(padding, pad, tokens.dtype)])
        return Packed(tokens, np.arange(windows + 1) * self.seq_len, pieces, padding)


def flat_tokens(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """A column of token lists as `Pack` takes it: (tokens, offsets[n + 1] from 0); nulls read as empty.
    No copy of the tokens where the column is one chunk."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks]
    lengths = [chunk.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) for chunk in chunks]
    offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]), dtype=np.int64)
    if len(parts) == 1:
        return parts[0], offsets
    empty = np.zeros(0, column.type.value_type.to_pandas_dtype())
    return np.concatenate([empty, *parts]), offsets


def _pieces(*columns: NDArray[np.int64]) -> pa.Table:
    return pa.table([pa.array(column, pa.int64()) for column in columns], schema=PIECES)
