"""Lay tokens out as the sequences that shards hold: one a document, or windows of one length or of powers of two.

- `concat_chunk` (GPT-2, GPT-3: Brown et al. 2020, appendix B) puts documents end to end and cuts every `seq_len`.
- `best_fit` (Ding et al. 2024, arXiv 2404.10830) cuts no document that fits, and does not care for their order.
- `icp_fit` cuts none that fits either, and keeps related documents together: see icp_fit.py.
- `decompose` (Dataset Decomposition: arXiv 2405.13226) makes sequences of many lengths: see decompose.py.

Windows keep an order of documents through trainers that shuffle sequences (In-Context Pretraining, arXiv 2310.10638).
No token is lost: tokens in = tokens out - padding, and `pieces` says what every stretch of a window is.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from operators.document import parameters
from operators.tokens.best_fit import histogram, place, plan
from operators.tokens.decompose import decompose
from operators.tokens.icp_fit import icp_fit
from operators.tokens.pieces import Filled, Integers, Pieces, arranged, by_sequence, copied, costs, cut, numbered

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
    offsets: Integers  # [sequences + 1] into tokens
    pieces: pa.Table  # of PIECES, in the order of tokens; what no piece covers is padding, at the end of a sequence
    padding: int
    contexts: Integers  # [sequences]: the place of each along the path, before the shuffle
    costs: dict[str, float]  # numbers that add up over shards: see pieces.py


@parameters
class Pack:
    """How documents become sequences: (tokens end to end, document offsets) -> sequences.

    `shuffle`: windows are written in an order drawn by `seed`, so that neighbours along the path are not neighbours in
    the shard; else in path order. `fillers`: the share of tokens that may leave the path to fill gaps (icp_fit).
    `min_len`: the shortest sequences (decompose), whose lengths are powers of two up to `seq_len`; `batch_tokens`: of a
    step of training on them, for the plan that is written beside the shards (see curriculum.py)."""

    name: ClassVar[str] = "pack"

    layout: Literal["documents", "windows"] = "documents"
    mode: Literal["concat_chunk", "best_fit", "icp_fit", "decompose"] = "concat_chunk"  # of windows
    seq_len: Annotated[int, Field(ge=2, le=1 << 24)] = 2048  # of windows
    shuffle: bool = True
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    fillers: Annotated[float, Field(ge=0, le=1)] = 0.1
    min_len: Annotated[int, Field(ge=1, le=1 << 24)] = 64
    batch_tokens: Annotated[int, Field(ge=1, le=1 << 40)] = 1 << 19
    revision: Literal[1] = 1

    @pydantic.model_validator(mode="after")
    def _fields_fit_together(self) -> Pack:
        if self.layout == "documents":
            self._has_no_effect("layout: documents", "mode", "seq_len", "shuffle", "seed")
        if not self.shuffle:
            self._has_no_effect("shuffle: false", "seed")
        if self.mode != "icp_fit":
            self._has_no_effect(f"mode: {self.mode}", "fillers")
        if self.mode != "decompose":
            self._has_no_effect(f"mode: {self.mode}", "min_len", "batch_tokens")
            return self
        for name in ("seq_len", "min_len"):
            if (value := getattr(self, name)).bit_count() != 1:
                raise ValueError(f"{name}: {value} is no power of two, as mode: decompose needs")
        if self.min_len > self.seq_len:
            raise ValueError(f"min_len: {self.min_len} is more than seq_len: {self.seq_len}")
        if self.batch_tokens % self.seq_len:
            raise ValueError(f"batch_tokens: {self.batch_tokens} is no multiple of seq_len: {self.seq_len}")
        return self

    def _has_no_effect(self, given: str, *names: str) -> None:
        for name in names:
            if (value := getattr(self, name)) != getattr(type(self), name):
                raise ValueError(f"{name}: {value} has no effect with {given}")

    def __call__(self, tokens: NDArray[Any], offsets: Integers, pad: int, links: NDArray[Any] | None = None) -> Packed:
        """Sequences of the documents `tokens[offsets[i]:offsets[i + 1]]`, in path order; `pad` fills windows up.
        `links[i]`: similarity of document i to the one before it in the path, NaN where there is none; unset: of all.
        The same lengths and links give the same layout, whatever the tokens are."""
        tokens, offsets = tokens[offsets[0] : offsets[-1]], offsets - offsets[0]
        lengths = np.diff(offsets)
        links = np.full(len(lengths), np.nan) if links is None else links
        pieces, sequence, sizes = self._filled(lengths, links)
        contexts = np.arange(len(sizes))
        if self.layout == "windows":
            contexts = arranged(sizes, self.seed if self.shuffle else None)
            place_of = np.empty_like(contexts)
            place_of[contexts] = np.arange(len(contexts))
            sequence, sizes = place_of[sequence], sizes[contexts]
        pieces, sequence, start = by_sequence(pieces, sequence)
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        table = [sequence, start, start + pieces.length, pieces.document, pieces.start]
        told = costs(pieces, sequence, lengths, self.seq_len, links)
        padding = int(bounds[-1]) - len(tokens)
        if self.layout == "windows":
            laid = np.full(bounds[-1], pad, tokens.dtype)
            copied(tokens, offsets[pieces.document] + pieces.start, laid, bounds[sequence] + start, pieces.length)
            tokens = laid
        return Packed(tokens, bounds, pa.table(table, schema=PIECES), padding, contexts, told)

    def _filled(self, lengths: Integers, links: NDArray[Any]) -> Filled:
        if self.layout == "documents":
            rows = np.arange(len(lengths))
            return Filled(Pieces(rows, np.zeros_like(rows), lengths), rows, lengths)
        if self.mode == "decompose":
            return decompose(lengths, self.min_len, self.seq_len)
        if self.mode == "icp_fit":
            return icp_fit(lengths, links, self.seq_len, self.fillers)
        if self.mode == "best_fit":
            return best_fit(lengths, self.seq_len)
        return concat_chunk(lengths, self.seq_len)


def concat_chunk(lengths: Integers, seq_len: int) -> Filled:
    """Documents end to end, cut every `seq_len` tokens."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    first = starts // seq_len
    counts = np.where(lengths > 0, (ends - 1) // seq_len - first + 1, 0)
    document = np.repeat(np.arange(len(lengths)), counts)
    window = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    start = np.maximum(starts[document], window * seq_len)
    length = np.minimum(ends[document], (window + 1) * seq_len) - start
    windows = -(-int(lengths.sum()) // seq_len)
    return Filled(Pieces(document, start - starts[document], length), window, np.full(windows, seq_len))


def best_fit(lengths: Integers, seq_len: int) -> Filled:
    """Documents longer than `seq_len` in pieces of that and the rest, all pieces best-fit decreasing."""
    pieces = cut(lengths, seq_len)
    packed = plan(histogram(pieces.length, seq_len))
    sequence = numbered(place(packed, pieces.length), packed.bins)
    return Filled(pieces, sequence, np.full(packed.bins, seq_len))


def unpacked(tokens: NDArray[Any], packed: Packed, offsets: Integers) -> NDArray[Any]:
    """The documents end to end, as `Pack` was given them with `offsets`, of the `tokens` of sequences laid out as
    `packed` is, whatever its own."""
    pieces = {name: packed.pieces[name].to_numpy() for name in PIECES.names}
    offsets = offsets - offsets[0]
    found = np.empty(offsets[-1], tokens.dtype)
    at = packed.offsets[pieces["sequence"]] + pieces["start"]
    to = offsets[pieces["document"]] + pieces["document_start"]
    copied(tokens, at, found, to, pieces["end"] - pieces["start"])
    return found


def flat_tokens(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[Any], Integers]:
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
