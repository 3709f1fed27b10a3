"""Cut byte ranges out of texts: how a stage of verdicts edits text without copying it into its own files.

A layer's column `cuts/<operator>` has for each row [start, end, start, end, ...] in bytes of the text as the columns
before it leave it; whoever reads `text` through the layer gets what remains (cluster/tables.py).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

PREFIX = "cuts/"
TYPE = pa.large_list(pa.int64())
STEP = np.uint64(1)


@numba.njit(nogil=True, cache=True)
def _without(data: Any, bounds: Any, spans: Any, starts: Any, out: Any, ends: Any) -> Any:
    """Copy what the spans leave of each text to `out`, and where each ends; returns the first row whose spans are not
    ascending, disjoint and inside the text, or -1."""
    n = np.uint64(0)
    for row in range(len(bounds) - 1):
        at, stop = bounds[row], bounds[row + 1]
        for k in range(starts[row], starts[row + 1], 2):
            first, last = bounds[row] + spans[k], bounds[row] + spans[k + 1]
            if first < at or last < first or last > stop:
                return row
            for i in range(np.uint64(at), np.uint64(first)):
                out[n] = data[i]
                n += STEP
            at = last
        for i in range(np.uint64(at), np.uint64(stop)):
            out[n] = data[i]
            n += STEP
        ends[row + 1] = n
    return -1


def cut(texts: pa.ChunkedArray, cuts: pa.ChunkedArray) -> pa.LargeStringArray:
    """The texts without their `cuts` (lists of TYPE; null cuts nothing). Null texts stay null.

    Raises ValueError for ranges that are not ascending, disjoint, inside the text and between characters: a bug.
    """
    text = _one(texts.cast(pa.large_string()))
    lists = _one(cuts.cast(TYPE))
    spans, starts = _lists(pc.fill_null(lists, pa.scalar([], TYPE)))
    if len(starts) and (starts % 2).any():
        raise ValueError("cuts: a range has a start and no end")
    _, offsets, buffer = text.buffers()
    bounds = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1] if len(text) else _zero()
    data = np.frombuffer(buffer, np.uint8) if buffer is not None and buffer.size else np.zeros(1, np.uint8)
    removed = int((spans[1::2] - spans[::2]).sum())
    out = np.empty(max(0, int(bounds[-1] - bounds[0]) - removed), np.uint8)
    ends = np.zeros(len(text) + 1, np.int64)
    if (bad := _without(data, bounds, spans, starts, out, ends)) >= 0:
        raise ValueError(f"cuts: row {bad}: {lists[bad].as_py()} do not fit its text")
    valid = pc.is_valid(text)
    found: pa.LargeStringArray = pa.Array.from_buffers(
        pa.large_string(), len(text), [None, pa.py_buffer(ends), pa.py_buffer(out)]
    )
    try:
        found.validate(full=True)  # not in the middle of a character
    except pa.ArrowInvalid as error:
        raise ValueError(f"cuts: {error}") from error
    return pc.if_else(valid, found, pa.scalar(None, pa.large_string())) if text.null_count else found


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _lists(lists: pa.LargeListArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(all values, where each list starts among them)."""
    starts = np.asarray(lists.offsets.to_numpy(), np.int64) if len(lists) else _zero()
    values = np.asarray(lists.values.to_numpy(zero_copy_only=False), np.int64)
    return values[starts[0] : starts[-1]], starts - starts[0]


def _zero() -> NDArray[np.int64]:
    return np.zeros(1, np.int64)
