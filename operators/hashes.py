"""xxh3 hashes of string columns, for keys that must not collide or must be the same everywhere; keys of numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from operators.document import utf8


def xxh3_64(column: pa.ChunkedArray | pa.Array, seed: int = 0) -> NDArray[np.uint64]:
    """The 64-bit hash of each string; nulls hash as empty."""
    data, offsets = utf8(column)
    view, ends = data.data, offsets.tolist()
    digest = xxhash.xxh3_64_intdigest
    return np.array([digest(view[a:b], seed) for a, b in zip(ends, ends[1:], strict=False)], np.uint64)


def xxh3_128(column: pa.ChunkedArray | pa.Array, seed: int = 0) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The upper and lower halves of the 128-bit hash of each string; nulls hash as empty."""
    data, offsets = utf8(column)
    view, ends = data.data, offsets.tolist()
    digest = xxhash.xxh3_128_digest
    raw = b"".join([digest(view[a:b], seed) for a, b in zip(ends, ends[1:], strict=False)])
    halves = np.frombuffer(raw, ">u8").astype(np.uint64).reshape(-1, 2)
    return halves[:, 0], halves[:, 1]


def spread(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Partitions are ranges of keys, and document numbers start small: a one-to-one scramble spreads them."""
    z = (numbers ^ (numbers >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray((z ^ (z >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9), np.uint64)
