"""The picture of what operators measured: where the numbers of all documents lie, and where the cuts fall.

Numbers come as histograms (operators/histogram.py) from the manifest; here they become equal bins of an axis that is
linear, or logarithmic where the numbers stretch over orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.histogram import cumulative

BINS = 48
SHOWN = 0.002  # of the documents at either end may lie beyond the picture
STRETCHED = 8.0  # times the median lies the end of numbers whose axis is logarithmic
LARGE = 10.0  # below, as for all shares, the axis is linear
MOST_CUTS = 12  # lines in one picture
Axis = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Mark(NamedTuple):
    at: float  # from 0, the left edge, to 1
    value: float


class Distribution(NamedTuple):
    operator: str
    name: str
    documents: int  # that the operator was given
    asked: int  # of them, those that have the number
    heights: list[float]  # of BINS bins, the highest 1
    ends: tuple[float, float]
    middle: Mark  # the median
    cuts: list[Mark]
    logarithmic: bool


class Bin(NamedTuple):
    label: str
    before: int
    after: int


class Comparison(NamedTuple):
    """Two sets of counts in the same bins: early and late in the build, say."""

    title: str
    before: str
    after: str
    bins: list[Bin]
    ticks: dict[int, str]  # by position, from 0 at the left edge to len(bins) at the right
    note: str = ""
    of: str = "documents"

    @property
    def totals(self) -> tuple[int, int]:
        return sum(b.before for b in self.bins), sum(b.after for b in self.bins)


def distributions(stages: Sequence[Mapping[str, Any]]) -> Iterator[Distribution]:
    """One picture for each number that operators measured, in the order of the build; those of one operator begin with
    what most documents have."""
    for stage in stages:
        profiles = (stage.get("profile") or {}).get("dropped") or {}
        for operator in stage.get("operators") or ():
            name, declared = operator.get("name") or "", operator.get("cuts") or {}
            broken = {
                at for reason, found in profiles.items() if reason.startswith(f"{name}/") for at in _bounds(found)
            }
            measured = operator.get("measured") or {}
            for measure in sorted(measured, key=lambda measure: (-sum(measured[measure].values()), measure)):
                if bins := measured[measure]:
                    cuts = sorted(float(cut) for cut in declared.get(measure, broken))
                    yield _drawn(name, measure, operator.get("rows_in") or 0, bins, cuts)


def _bounds(profile: Mapping[str, Any]) -> list[float]:
    return [float(threshold) for threshold in profile.get("thresholds") or ()]


def _drawn(operator: str, name: str, documents: int, bins: Mapping[str, int], cuts: Sequence[float]) -> Distribution:
    edges, at_edges = cumulative(bins)
    if edges[-2] == 1.0:  # the whole of a share, and nothing beyond it
        edges[-1] = 1.0
    first, median, last = (float(q) for q in np.interp([SHOWN, 0.5, 1 - SHOWN], at_edges, edges))
    finite = [cut for cut in cuts if np.isfinite(cut)][:MOST_CUTS]
    left, right = min([first, *finite]), max([last, *finite])
    logarithmic = left >= 0 and last > max(STRETCHED * median, LARGE) and median > 0
    axis: Axis = np.log1p if logarithmic else np.asarray
    low, high = (float(axis(np.array([end]))[0]) for end in (left, right))
    wide = high - low > 1e-9 * max(abs(low), abs(high), 1e-200)
    margin = (high - low) / BINS if wide else 1.0
    start, end = low - margin, high + margin
    if left >= 0:
        start = max(start, 0.0)
    if edges[-1] == 1.0 and right <= 1.0:
        end = 1.0
    limits = np.linspace(start, end, BINS + 1)
    shares = np.diff(np.concatenate([[0.0], np.interp(limits[1:-1], axis(edges), at_edges), [1.0]]))

    def mark(value: float) -> Mark:
        place = (float(axis(np.array([value]))[0]) - limits[0]) / (limits[-1] - limits[0])
        return Mark(float(place), value)

    back = np.expm1(limits[[0, -1]]) if logarithmic else limits[[0, -1]]
    return Distribution(
        operator,
        name,
        documents,
        sum(bins.values()),
        (shares / shares.max()).tolist(),
        (float(back[0]), float(back[1])),
        mark(median),
        [mark(cut) for cut in finite],
        logarithmic,
    )
