"""Token formats that are views of one flat payload: the ids of all sequences end to end, little-endian.

Megatron's .bin, datatrove's .ds and OLMo's .npy (a raw array, whatever its name says) hold the same bytes; they
differ in the sidecars that say where sequences and documents are, which this file writes:

- Megatron-LM, NeMo: megatron/core/datasets/indexed_dataset.py. It shuffles what .idx calls documents, so a window is
  one; the documents inside windows are in a Parquet file beside it.
- datatrove, nanotron: datatrove/pipeline/tokens/tokenizer.py. The index has the ends of documents.
- OLMo-core, dolma: a line `start,end,id,src,loc` a document.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

MEGATRON_DTYPES = {"uint16": 8, "int32": 4}
CSV_ROWS = 1 << 16  # lines made at once
LINE_BREAKING = r'[\x00-\x1f\x7f\x{85}\x{2028}\x{2029},"]'  # one line a document, fields split at commas


class ShardError(ValueError):
    """Tokens that no reader would understand, or a shard that is not what its record says."""


class Windows(Protocol):
    """Sequences that hold several documents. `pieces` has the columns sequence, start, end (in it), document (row of
    the shard's table) and document_start, in the order of `tokens`; the rest of a sequence is padding. `contexts` are
    the places of the sequences in the order of the documents, before they were shuffled."""

    @property
    def tokens(self) -> NDArray[Any]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def pieces(self) -> pa.Table: ...
    @property
    def contexts(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Layout:
    """Where sequences and documents lie in the payload; all that sidecars are made of, beside the tokenizer."""

    name: str  # of the shard: `train-00000`
    dtype: str
    offsets: NDArray[np.int64]  # of sequences, [n + 1], from 0
    ids: pa.ChunkedArray  # of documents
    windows: Windows | None
    tokenizer: Mapping[str, Any]

    @property
    def stretches(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(start, end, document) of all stretches of one document in one sequence, in the payload."""
        if self.windows is None:
            return self.offsets[:-1], self.offsets[1:], np.arange(len(self.offsets) - 1)
        pieces = self.windows.pieces
        first = self.offsets[pieces["sequence"].to_numpy()]
        return first + pieces["start"].to_numpy(), first + pieces["end"].to_numpy(), pieces["document"].to_numpy()


def write_megatron(layout: Layout, stem: str) -> list[Path]:
    lengths = np.diff(layout.offsets)
    if len(lengths) and lengths.max() > np.iinfo(np.int32).max:
        raise ShardError(f"{layout.name}: a sequence of {lengths.max()} tokens; Megatron's index ends at 2^31 - 1")
    width = np.dtype(layout.dtype).itemsize
    index = Path(f"{stem}.idx")
    with index.open("wb") as file:
        file.write(b"MMIDIDX\0\0")
        file.write(struct.pack("<QBQQ", 1, MEGATRON_DTYPES[layout.dtype], len(lengths), len(layout.offsets)))
        file.write(lengths.astype("<i4").tobytes())
        file.write((layout.offsets[:-1] * width).astype("<i8").tobytes())
        file.write(np.arange(len(layout.offsets), dtype="<i8").tobytes())  # every sequence is a document
    if layout.windows is None:
        return [index]
    boundaries = Path(f"{stem}.boundaries.parquet")
    pieces = layout.windows.pieces
    contexts = layout.windows.contexts[pieces["sequence"].to_numpy()]
    rows = pieces.select(["sequence", "start", "end", "document_start"]).append_column("context", pa.array(contexts))
    rows = rows.add_column(0, "id", layout.ids.take(pieces["document"])).combine_chunks()
    pq.write_table(rows, boundaries, compression="zstd", compression_level=3, write_page_checksum=True)
    return [index, boundaries]


def write_datatrove(layout: Layout, stem: str) -> list[Path]:
    index, metadata = Path(f"{stem}.ds.index"), Path(f"{stem}.ds.metadata")
    _, ends, _ = layout.stretches
    ends = np.union1d(ends, layout.offsets[1:])  # padding ends with its window
    ends.astype("<u8").tofile(index)
    total, width = int(layout.offsets[-1]), np.dtype(layout.dtype).itemsize
    metadata.write_text(f"{layout.tokenizer['name']}|{width}\n{total}\n{total / 1e6:.3g} MT", encoding="utf-8")
    return [index, metadata]


def write_olmo(layout: Layout, stem: str) -> list[Path]:
    path = Path(f"{stem}.csv.gz")
    starts, ends, documents = layout.stretches
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        for at in range(0, len(starts), CSV_ROWS):
            part = slice(at, at + CSV_ROWS)
            ids = layout.ids.take(pa.array(documents[part])).combine_chunks()
            columns = [
                pa.array(starts[part]).cast(pa.string()),
                pa.array(ends[part]).cast(pa.string()),
                pc.replace_substring_regex(ids.cast(pa.string()), LINE_BREAKING, "_"),
                layout.name,
                pa.array(documents[part] + 1).cast(pa.string()),  # row of the shard's table, from 1
            ]
            lines = pc.binary_join_element_wise(*columns, ",").to_pylist()
            file.write("".join(f"{line}\n" for line in lines).encode())
    return [path]


@dataclass(frozen=True)
class FlatFormat:
    """One view: the payload's suffix, and what writes its sidecars beside `stem` and returns them."""

    suffix: str
    write_sidecars: Callable[[Layout, str], list[Path]]


FLAT_FORMATS = {
    "megatron": FlatFormat("bin", write_megatron),
    "datatrove": FlatFormat("ds", write_datatrove),
    "olmo": FlatFormat("npy", write_olmo),
}
