"""Documents with known tokens, and windows of them, for the tests of shards here and in tests/readers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cluster.shard_reader import ShardRecord

EOS, PAD, VOCAB = 0, 1, 60_000


class Windows(NamedTuple):
    tokens: np.ndarray
    offsets: np.ndarray
    pieces: pa.Table


def tokenizer(dtype: str = "uint16", pad: int = PAD) -> dict[str, Any]:
    return {"name": "train:bpe", "sha256": "0" * 64, "vocab_size": VOCAB, "eos_id": EOS, "pad_id": pad, "dtype": dtype}


def table(lists: list[list[int]], ids: list[str] | None = None, dtype: str = "uint16") -> pa.Table:
    """Documents whose tokens are `lists` and the end."""
    names = ids or [f"doc-{i}" for i in range(len(lists))]
    values = pa.large_list(pa.from_numpy_dtype(np.dtype(dtype)))
    columns = {
        "id": pa.array(names, pa.string()),
        "text": pa.array([f"text {i} <|endoftext|>" for i in range(len(lists))], pa.large_string()),
        "input_ids": pa.array([[*one, EOS] for one in lists], values),
        "url": pa.array([None if i % 2 else f"https://example.org/{i}" for i in range(len(lists))], pa.string()),
    }
    return pa.table(columns)


def windows_of(docs: pa.Table, seq_len: int, pad: int = PAD) -> Windows:
    """Documents end to end, cut every seq_len tokens: the slow and obvious way."""
    flat = [token for ids in docs["input_ids"].to_pylist() for token in ids]
    where = [(row, at) for row, ids in enumerate(docs["input_ids"].to_pylist()) for at in range(len(ids))]
    pieces: list[dict[str, int]] = []
    for k, (row, at) in enumerate(where):
        sequence, start = divmod(k, seq_len)
        last = pieces[-1] if pieces else None
        if last and last["document"] == row and last["sequence"] == sequence:
            last["end"] += 1
        else:
            piece = {"sequence": sequence, "start": start, "end": start + 1, "document": row, "document_start": at}
            pieces.append(piece)
    flat += [pad] * (-len(flat) % seq_len)
    dtype = docs.schema.field("input_ids").type.value_type.to_pandas_dtype()
    return Windows(np.array(flat, dtype), np.arange(0, len(flat) + 1, seq_len), pa.Table.from_pylist(pieces))


def by_format(records: list[ShardRecord]) -> dict[str, ShardRecord]:
    return {record.format: record for record in records}
