"""XXH64 in numba (github.com/Cyan4973/xxHash, doc/xxhash_spec.md), for kernels that hash many short runs of bytes."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

ZERO = np.uint64(0)
P1, P2, P3, P4, P5 = (
    np.uint64(p)
    for p in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
)


@numba.njit(inline="always")
def _rotate(x: Any, bits: Any) -> Any:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@numba.njit(inline="always")
def _four(data: Any, i: Any) -> Any:
    """Four bytes as a number, the first lowest; compiled to one load."""
    return (
        np.uint64(data[i])
        | (np.uint64(data[i + np.uint64(1)]) << np.uint64(8))
        | (np.uint64(data[i + np.uint64(2)]) << np.uint64(16))
        | (np.uint64(data[i + np.uint64(3)]) << np.uint64(24))
    )


@numba.njit(inline="always")
def _eight(data: Any, i: Any) -> Any:
    return _four(data, i) | (_four(data, i + np.uint64(4)) << np.uint64(32))


@numba.njit(inline="always")
def _round(lane: Any, value: Any) -> Any:
    return _rotate(lane + value * P2, 31) * P1


@numba.njit(nogil=True, cache=True)
def xxh64(data: Any, i: Any, end: Any) -> Any:
    """The hash of data[i:end] with seed 0; `data` is uint8, the places uint64."""
    length = np.uint64(end - i)
    if length >= np.uint64(32):
        a, b, c, d = P1 + P2, P2, ZERO, ZERO - P1
        while i + np.uint64(32) <= end:
            a = _round(a, _eight(data, i))
            b = _round(b, _eight(data, i + np.uint64(8)))
            c = _round(c, _eight(data, i + np.uint64(16)))
            d = _round(d, _eight(data, i + np.uint64(24)))
            i += np.uint64(32)
        h = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
        h = (h ^ _round(ZERO, a)) * P1 + P4
        h = (h ^ _round(ZERO, b)) * P1 + P4
        h = (h ^ _round(ZERO, c)) * P1 + P4
        h = (h ^ _round(ZERO, d)) * P1 + P4
    else:
        h = P5
    h += length
    while i + np.uint64(8) <= end:
        h = _rotate(h ^ _round(ZERO, _eight(data, i)), 27) * P1 + P4
        i += np.uint64(8)
    if i + np.uint64(4) <= end:
        h = _rotate(h ^ (_four(data, i) * P1), 23) * P2 + P3
        i += np.uint64(4)
    while i < end:
        h = _rotate(h ^ (np.uint64(data[i]) * P5), 11) * P1
        i += np.uint64(1)
    h = (h ^ (h >> np.uint64(33))) * P2
    h = (h ^ (h >> np.uint64(29))) * P3
    return h ^ (h >> np.uint64(32))
