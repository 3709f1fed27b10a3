"""How alike two texts are: Jaccard similarity of their shingles, exact or estimated from sketches.

A sketch has one byte of each number of the signature. Similarity is the share of equal bytes, less what is equal by
chance (b-bit minwise hashing, Li and Koenig 2010, arXiv 0910.3349). At 112 bytes it errs as the signature does.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.dedup.words import GOLDEN

CHANCE = 1 / 256
DIGITS = 6  # of a similarity, so that what is compared with a bound is what is reported


def sketches(signatures: NDArray[Any]) -> pa.FixedSizeBinaryArray:
    """One byte of each number of each signature (rows of uint32 or uint64)."""
    bits = 8 * signatures.dtype.itemsize
    number = signatures.dtype.type
    top = (signatures * number((GOLDEN >> (64 - bits)) | 1)) >> number(bits - 8)
    found = np.ascontiguousarray(top.astype(np.uint8))
    return pa.Array.from_buffers(pa.binary(found.shape[1]), len(found), [None, pa.py_buffer(found)])


def similarities(rows: pa.Table, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of pairs of rows with `sketch`; exact where both have `shingles`, ascending lists that are not empty."""
    found = _estimates(rows["sketch"], left, right)
    if "shingles" in rows.column_names:
        lists = rows["shingles"].combine_chunks()
        known = pc.is_valid(lists).to_numpy(zero_copy_only=False)
        both = np.flatnonzero(known[left] & known[right])
        found[both] = _jaccard(lists.values.to_numpy(), lists.offsets.to_numpy(), left[both], right[both])
    return np.asarray(np.round(found, DIGITS), np.float64)


def _estimates(column: pa.ChunkedArray, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    width = column.type.byte_width
    array = column.combine_chunks()
    data = np.frombuffer(array.buffers()[1], np.uint8) if len(array) else np.zeros(0, np.uint8)
    matrix = data[array.offset * width :][: len(array) * width].reshape(-1, width)
    share = _equal_bytes(matrix, left, right) / width
    return np.asarray(np.maximum(0.0, (share - CHANCE) / (1 - CHANCE)), np.float64)


@numba.njit(nogil=True, cache=True)
def _equal_bytes(matrix: Any, left: Any, right: Any) -> Any:
    counts = np.zeros(left.shape[0], np.int64)
    for k in range(left.shape[0]):
        a, b = matrix[left[k]], matrix[right[k]]
        for i in range(a.shape[0]):
            counts[k] += a[i] == b[i]
    return counts


@numba.njit(nogil=True, cache=True)
def _jaccard(values: Any, offsets: Any, left: Any, right: Any) -> Any:
    found = np.empty(left.shape[0], np.float64)
    for k in range(left.shape[0]):
        i, end_i = np.uint64(offsets[left[k]]), np.uint64(offsets[left[k] + 1])
        j, end_j = np.uint64(offsets[right[k]]), np.uint64(offsets[right[k] + 1])
        total = end_i - i + end_j - j
        both = np.uint64(0)
        while i < end_i and j < end_j:
            a, b = values[i], values[j]
            both += np.uint64(a == b)
            i += np.uint64(a <= b)
            j += np.uint64(b <= a)
        found[k] = both / (total - both)
    return found
