"""Embedding vectors whose cosines no order of summation can change.

A vector is scaled to the length 4,096 and rounded to whole numbers. A product of two such vectors, and every partial
sum of it, is a whole number of at most 2^24 (Cauchy-Schwarz), which float32 holds exactly: any matrix product on any
machine, with any number of threads, yields the same scores. Rounding moves a cosine by about 0.0001.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

LENGTH = 4096
BLOCK_ROWS = 4096  # turned into vectors at a time
LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
Vectors = NDArray[np.int16]


def on_grid(values: NDArray[Any]) -> Vectors:
    """Each row of real numbers, shape [n, d], as a vector; zeros and rows that are not finite become zero vectors,
    which are like nothing."""
    rows = values.astype(np.float64)
    largest = np.abs(rows).max(axis=1, initial=0, keepdims=True)
    usable = np.isfinite(largest) & (largest > 0)
    rows[~usable[:, 0]] = 0
    rows /= np.where(usable, largest, 1)  # so that no square overflows
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    radius = LENGTH - np.sqrt(values.shape[1]) / 2  # rounding adds at most half a unit in each dimension
    rows *= radius / np.where(usable, norms, 1)
    return np.rint(rows, out=rows).astype(np.int16)


def squares(vectors: Vectors) -> NDArray[np.float64]:
    """The squared length of each vector, exact."""
    found: NDArray[np.float64] = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64, casting="unsafe")
    return found


def holds_vectors(kind: pa.DataType) -> bool:
    """Whether a column of that type is one of lists of numbers."""
    listed = any(fits(kind) for fits in LISTS)
    return listed and bool(pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def lengths(docs: pa.Table, name: str) -> NDArray[np.int64]:
    """How many numbers each row of a user's column has; 0 for null, and where a unit lacks the column. Raises TypeError
    if it holds no such lists."""
    kind = docs.schema.field(name).type if name in docs.column_names else pa.null()
    if pa.types.is_null(kind):
        return np.zeros(len(docs), np.int64)
    if not holds_vectors(kind):
        raise TypeError(f"column {name!r} is of type {kind}: embeddings are lists of numbers")
    found: NDArray[np.int64] = pc.fill_null(pc.list_value_length(docs[name]), 0).to_numpy().astype(np.int64)
    return found


def of_column(docs: pa.Table, name: str, dimensions: int) -> Vectors:
    """The rows of a user's column as vectors; nulls and lists of another length become zero vectors."""
    vectors = np.zeros((len(docs), dimensions), np.int16)
    for start in range(0, len(docs), BLOCK_ROWS):
        block = docs.select([name] if name in docs.column_names else []).slice(start, BLOCK_ROWS)
        fits = lengths(block, name) == dimensions
        if fits.any():
            values = pc.list_flatten(block[name].filter(pa.array(fits))).to_numpy()  # nulls: not a number
            vectors[start : start + len(block)][fits] = on_grid(values.reshape(-1, dimensions))
    return vectors


def packed(vectors: Vectors) -> pa.FixedSizeBinaryArray:
    """Vectors as a column, two bytes a dimension."""
    held = [None, pa.py_buffer(np.ascontiguousarray(vectors, "<i2"))]
    return pa.Array.from_buffers(pa.binary(2 * vectors.shape[1]), len(vectors), held)


def unpacked(column: pa.ChunkedArray) -> Vectors:
    """The vectors of a column of `packed`."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    width = column.type.byte_width // 2
    if not len(array):
        return np.zeros((0, width), np.int16)
    flat = np.frombuffer(array.buffers()[1], "<i2")
    return flat[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)
