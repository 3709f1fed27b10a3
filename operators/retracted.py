"""Drop documents by their ids: what was retracted once stays out of every later build.

The ids are an Arrow file with one column, sorted and each once, so that the same set always is the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from operators.document import Operator, Pinned, PinnedFile, drop, loaded, parameters
from operators.hashes import xxh3_64
from operators.read.recording import RECORDING

TEXTUAL = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


class Ids:
    """A set of ids. Looked up by hash, then compared in full: no hash decides alone."""

    def __init__(self, ids: pa.Array | pa.ChunkedArray) -> None:
        self.sorted = _large(ids).unique().sort()
        hashes = xxh3_64(self.sorted)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._by_hash = hashes[order], self.sorted.take(pa.array(order))

    def __len__(self) -> int:
        return len(self.sorted)

    def has(self, column: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Whether each id of the column is in the set; nulls are not."""
        column = _large(column)
        hashes = xxh3_64(column)
        found = np.zeros(len(hashes), np.bool_)
        first = np.searchsorted(self._hashes[:-1], hashes)  # the last one stands for all beyond it
        at = np.flatnonzero(self._hashes[first] == hashes) if len(self) else first[:0]
        if len(at):
            last = np.searchsorted(self._hashes, hashes[at], "right")
            near = np.concatenate([np.arange(a, b) for a, b in zip(first[at], last, strict=True)])
            found[at] = pc.is_in(column.take(pa.array(at)), value_set=self._by_hash.take(pa.array(near)))
        return found

    def to_bytes(self) -> bytes:
        """The file that `IdFile` loads."""
        table = pa.table({"id": self.sorted})
        out = pa.BufferOutputStream()
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
        return bytes(out.getvalue())


@dataclass(frozen=True)
class IdFile:
    """A file of ids, as `loaded` reads it once a process."""

    file: Pinned

    def load(self) -> Ids:
        return Ids(pa.ipc.open_file(pa.BufferReader(self.file.read())).read_all()["id"])


@parameters
class Retracted(Operator):
    """Drops the documents whose ids are in the file, and the utterances of recordings whose ids are."""

    name: ClassVar[str] = "retracted"
    ids: PinnedFile | None = None
    revision: Literal[1] = 1

    @property
    def needs(self) -> tuple[str, ...]:
        return ("id",)

    def with_artefact(self, data_path: str, sha256: str) -> Retracted:
        """This operator with the file of ids."""
        return Retracted(ids=Pinned(data_path, sha256), revision=self.revision)

    def __call__(self, docs: pa.Table) -> pa.Table:
        if self.ids is None:
            raise ValueError("retracted: has no file of ids yet")
        ids: Ids = loaded(IdFile(self.ids))
        found = ids.has(docs["id"])
        if RECORDING in docs.column_names:
            found |= ids.has(recordings_of(docs["id"]))
        gone = pa.array(found)
        return drop(docs, pc.if_else(gone, "tombstone", pa.scalar(None, pa.string())))


def recordings_of(ids: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """The ids of the recordings that utterances are parts of, null for other ids."""
    found = pc.extract_regex(ids.cast(pa.large_string()), r"^(?P<recording>[\s\S]+)/\d{5,}$")
    return pc.struct_field(found, "recording")


def parse_ids(data: bytes) -> pa.Array | pa.ChunkedArray:
    """The ids of a list: UTF-8 text, one a line and empty lines passed over, or a Parquet file with a column `id` of
    strings. Raises ValueError saying what is wrong with it."""
    if data[:4] == b"PAR1":
        return _parquet_ids(data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"line {data.count(10, 0, error.start) + 1} is not UTF-8") from error
    ids = pa.array([line for line in (line.removesuffix("\r") for line in text.split("\n")) if line], pa.large_string())
    if not len(ids):
        raise ValueError("no ids in it")
    return ids


def _parquet_ids(data: bytes) -> pa.ChunkedArray:
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if "id" not in file.schema_arrow.names:
            raise ValueError(f"no column `id`; there are: {', '.join(file.schema_arrow.names)}")
        ids = file.read(columns=["id"])["id"]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a Parquet file that can be read: {error}") from error
    if not any(textual(ids.type) for textual in TEXTUAL):
        raise ValueError(f"column `id` is {ids.type}, not strings")
    if ids.null_count:
        raise ValueError(f"column `id` is null in {ids.null_count} of {len(ids)} rows")
    if not len(ids):
        raise ValueError("no ids in it")
    return ids


def _large(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array with 64-bit offsets, whatever kind of strings came in however many chunks."""
    wide = ids.cast(pa.large_string())
    if not isinstance(wide, pa.ChunkedArray):
        return wide
    return wide.combine_chunks() if wide.num_chunks else pa.array([], pa.large_string())
