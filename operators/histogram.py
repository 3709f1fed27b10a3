"""Histograms of numbers without a common scale, that add up exactly.

A bin is a sixteenth of an octave, as in an HDR histogram: its bounds are exact in binary, and it is at most 6.25% wide.
It is named by its bound nearer to zero, as the shortest decimal that reads back the same; `bin_end` gives the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

OCTAVE_BINS = 16


def histogram(values: NDArray[np.float64]) -> dict[str, int]:
    """How many of the values are in each bin, ascending; those that are not finite are in none."""
    starts, counts = np.unique(bin_start(values[np.isfinite(values)]), return_counts=True)
    return {repr(start): n for start, n in zip(starts.tolist(), counts.tolist(), strict=True)}


def bin_start(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The bound nearer to zero of each value's bin; not a number where the value is not finite."""
    mantissa, exponent = np.frexp(np.where(np.isfinite(values), values, np.nan))
    steps = 2 * OCTAVE_BINS  # the mantissa lies in [1/2, 1)
    starts: NDArray[np.float64] = np.ldexp(np.trunc(mantissa * steps) / steps, exponent)
    return starts + 0.0  # -0.0 becomes 0.0


def bin_end(start: float) -> float:
    """The bound farther from zero of the bin that begins at `start`."""
    if start == 0:
        return 0.0
    _, exponent = np.frexp(start)
    return float(start) + float(np.copysign(np.ldexp(0.5 / OCTAVE_BINS, exponent), start))


def cumulative(bins: Mapping[str, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of each bin, ascending, and the share of the numbers that lie below each."""
    ordered = sorted((float(start), n) for start, n in bins.items())
    edges = np.array([sorted((start, bin_end(start))) for start, _ in ordered]).ravel()
    below = np.concatenate([[0.0], np.cumsum([n for _, n in ordered]) / sum(bins.values())])
    return edges, np.column_stack([below[:-1], below[1:]]).ravel()


def numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    """A column as doubles. Nulls, strings that say no number, and values of other kinds are not a number."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return np.asarray(pl.Series(column).cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy(), np.float64)
    countable = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null)
    if not any(fits(kind) for fits in countable):
        return np.full(len(column), np.nan)
    wide = column.cast(pa.uint8()) if pa.types.is_boolean(kind) else column
    found = pc.cast(wide, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(found, np.float64)
