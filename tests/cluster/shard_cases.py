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
    contexts: np.ndarray


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
    """Documents end to end, cut every seq_len tokens, the last window first: the slow and obvious way."""
    flat = [(row, at, token) for row, ids in enumerate(docs["input_ids"].to_pylist()) for at, token in enumerate(ids)]
    contexts = [flat[k : k + seq_len] for k in range(0, len(flat), seq_len)]
    return windows_from(docs, [(k, contexts[k], seq_len) for k in reversed(range(len(contexts)))], pad)


def buckets_of(docs: pa.Table, smallest: int, largest: int, pad: int = PAD) -> Windows:
    """Each document in pieces of powers of two, those of one length together, the shortest first; the rest padded."""
    found: dict[int, list[list[tuple[int, int, int]]]] = {}
    for row, ids in enumerate(docs["input_ids"].to_pylist()):
        at = 0
        while at < len(ids):
            size = max(smallest, min(largest, 1 << (len(ids) - at).bit_length() - 1))
            found.setdefault(size, []).append([(row, k, ids[k]) for k in range(at, min(at + size, len(ids)))])
            at += size
    ordered = [(piece, size) for size in sorted(found) for piece in found[size]]
    return windows_from(docs, [(k, piece, size) for k, (piece, size) in enumerate(ordered)], pad)


def windows_from(docs: pa.Table, sequences: list[tuple[int, list[tuple[int, int, int]], int]], pad: int) -> Windows:
    """From (context, (document, place in it, token) of each token, length) of each sequence."""
    pieces: list[dict[str, int]] = []
    flat: list[int] = []
    for sequence, (_, tokens, length) in enumerate(sequences):
        for start, (row, at, _) in enumerate(tokens):
            last = pieces[-1] if pieces else {}
            if (last.get("sequence"), last.get("document")) == (sequence, row):
                last["end"] += 1
            else:
                piece = {"sequence": sequence, "start": start, "end": start + 1, "document": row, "document_start": at}
                pieces.append(piece)
        flat += [token for _, _, token in tokens] + [pad] * (length - len(tokens))
    dtype = docs.schema.field("input_ids").type.value_type.to_pandas_dtype()
    offsets = np.cumsum([0, *(length for _, _, length in sequences)])
    contexts = np.array([context for context, _, _ in sequences], np.int64)
    return Windows(np.array(flat, dtype), offsets, pa.Table.from_pylist(pieces), contexts)


def by_format(records: list[ShardRecord]) -> dict[str, ShardRecord]:
    return {record.format: record for record in records}
