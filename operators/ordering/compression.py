"""Vectors in few bytes: product quantisation (Jegou et al. 2011) of what is left of a vector beside its centroid.

The difference is cut into parts, and of each part a byte says which of 256 prototypes is nearest. FAISS finds the
prototypes, which are put on the grid; codes are found in whole numbers, so that the same vector has the same code on
any machine.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.models.faiss import library
from operators.ordering.vectors import Vectors, on_grid

PROTOTYPES = 256  # of a part: what a byte tells apart
TRAINED_ON = 16_384  # vectors at most, 64 for each prototype
ITERATIONS = 10
BLOCK_ROWS = 4096
Codebook = NDArray[np.int16]  # [parts, PROTOTYPES, dimensions of a part]
Codes = NDArray[np.uint8]  # [n, parts]


def codebook_of(vectors: Vectors, centroids: Vectors, parts: int) -> Codebook:
    """The prototypes for `vectors`, each less its row of `centroids`, [n, d]. Dimensions that do not divide into
    `parts` are filled up with zeros."""
    step = -(-len(vectors) // TRAINED_ON) or 1
    rest = _in_parts(vectors[::step], centroids[::step], parts).reshape(-1, parts * _width(vectors, parts))
    if not len(rest):
        return np.zeros((parts, PROTOTYPES, _width(vectors, parts)), np.int16)
    enough = np.resize(rest, (max(len(rest), PROTOTYPES), rest.shape[1])).astype(np.float32)  # repeats the few
    faiss = library()
    quantiser = faiss.ProductQuantizer(rest.shape[1], parts, 8)
    quantiser.cp.niter = ITERATIONS
    quantiser.cp.min_points_per_centroid = 1  # says nothing of few
    quantiser.train(enough)
    found = faiss.vector_to_array(quantiser.centroids).reshape(parts, PROTOTYPES, -1)
    codebook: Codebook = np.rint(np.clip(np.nan_to_num(found), -(2**15), 2**15 - 1)).astype(np.int16)
    return codebook


def encoded(vectors: Vectors, centroids: Vectors, codebook: Codebook) -> Codes:
    """The codes of vectors, each less its row of `centroids`."""
    codes = np.empty((len(vectors), len(codebook)), np.uint8)
    prototypes = np.ascontiguousarray(codebook.transpose(0, 2, 1), np.float32)
    for start in range(0, len(vectors), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        _encode(_in_parts(vectors[rows], centroids[rows], len(codebook)), prototypes, codes[rows])
    return codes


def decoded(codes: Codes, lists: NDArray[np.int64], centroids: Vectors, codebook: Codebook) -> Vectors:
    """Vectors on the grid near to those encoded; `lists` has the row of `centroids` of each code. Beyond the last
    centroid are zero vectors."""
    dimensions = centroids.shape[1]
    found = np.zeros((len(codes), dimensions), np.int16)
    for start in range(0, len(codes), BLOCK_ROWS):
        rows = np.flatnonzero(lists[start : start + BLOCK_ROWS] < len(centroids)) + start
        rest = codebook[np.arange(len(codebook)), codes[rows]].reshape(len(rows), codebook.shape[0] * codebook.shape[2])
        found[rows] = on_grid(centroids[lists[rows]] + rest[:, :dimensions].astype(np.int32))
    return found


def unpacked_codes(column: pa.ChunkedArray) -> Codes:
    """A column of codes, [n, parts]."""
    width = column.type.byte_width
    chunks = [np.frombuffer(c.buffers()[1], np.uint8)[c.offset * width :][: len(c) * width] for c in column.chunks]
    return np.concatenate([np.zeros(0, np.uint8), *chunks]).reshape(-1, width)


def codebook_from(data: bytes, parts: int) -> Codebook:
    """What `Codebook.tobytes` wrote."""
    return np.frombuffer(data, "<i2").reshape(parts, PROTOTYPES, -1)


def _width(vectors: Vectors, parts: int) -> int:
    return int(-(-vectors.shape[1] // parts))


def _in_parts(vectors: Vectors, centroids: Vectors, parts: int) -> NDArray[np.int32]:
    """Vectors less centroids, [n, parts, dimensions of a part]."""
    rest = vectors.astype(np.int32) - centroids
    room = parts * _width(vectors, parts) - rest.shape[1]
    return np.pad(rest, ((0, 0), (0, room))).reshape(len(rest), parts, _width(vectors, parts))


@numba.njit(nogil=True, cache=True)
def _encode(rest: Any, prototypes: Any, codes: Any) -> None:
    """The first of the nearest prototypes [parts, dimensions, PROTOTYPES] of each part."""
    away = np.empty(prototypes.shape[2], np.float64)
    for i in range(rest.shape[0]):
        for part in range(rest.shape[1]):
            away[:] = 0
            for d in range(rest.shape[2]):
                at = np.float64(rest[i, part, d])
                for p in range(away.shape[0]):
                    apart = at - prototypes[part, d, p]
                    away[p] += apart * apart
            codes[i, part] = away.argmin()
