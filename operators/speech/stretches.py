"""Stretches of recordings, in samples at spool.RATE: where there is music or speech, and who speaks when."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SPANS = pa.list_(pa.struct([("start", pa.int64()), ("stop", pa.int64())]))  # type of a column of lists of them


class Stretch(NamedTuple):
    """Samples `start` to `stop`."""

    start: int
    stop: int


class Turn(NamedTuple):
    """A stretch in which one speaker speaks."""

    start: int
    stop: int
    speaker: int


def covered(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """For each row, how many samples its stretches, which are disjoint, cover."""
    rows: list[list[dict[str, int]]] = column.to_pylist()
    return np.array([sum(span["stop"] - span["start"] for span in spans) for spans in rows], np.int64)
