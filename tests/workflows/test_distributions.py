"""Pictures of what operators measured show where the numbers and the cuts are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.histogram import bin_end, bin_start, histogram
from workflows.distributions import BINS, Distribution, distributions
from workflows.report import render


def drawn(values: Any, cuts: list[float] | None = None, **operator: Any) -> Distribution:
    found = histogram(np.asarray(values, float))
    declared = {} if cuts is None else {"cuts": {"score": cuts}}
    one = {"name": "op", "rows_in": len(values), "measured": {"score": found}, **declared, **operator}
    [picture] = distributions([{"operators": [one], "profile": {"dropped": {"op/low": {"thresholds": {"0.5": 3}}}}}])
    return picture


def test_heights_and_marks_are_where_the_numbers_are() -> None:
    picture = drawn([0.1] * 100 + [0.9] * 50, [0.5])
    heights = np.array(picture.heights)
    low, high = picture.ends
    assert len(heights) == BINS
    assert low < 0.1 < 0.9 < high
    peaks = (np.flatnonzero(heights > 0.2) + 0.5) / BINS * (high - low) + low
    assert all(min(abs(peak - 0.1), abs(peak - 0.9)) < 0.07 for peak in peaks)
    [cut] = picture.cuts
    assert cut.at == pytest.approx((0.5 - low) / (high - low))
    assert (picture.asked, picture.documents, picture.logarithmic) == (150, 150, False)


def test_bounds_of_what_was_dropped_are_the_cuts_where_none_are_declared() -> None:
    assert [cut.value for cut in drawn([0.2, 0.4, 0.6]).cuts] == [0.5]
    assert drawn([0.2, 0.4, 0.6], []).cuts == []


def test_numbers_over_orders_of_magnitude_are_drawn_on_a_logarithmic_axis() -> None:
    picture = drawn(np.geomspace(10, 1e6, 1000), [100.0])
    assert picture.logarithmic
    assert picture.cuts[0].at == pytest.approx(0.2, abs=0.04)
    assert np.median(picture.heights) > 0.6


def test_a_share_ends_at_one() -> None:
    assert drawn([0.5] * 9 + [1.0] * 9, []).ends[1] < 1.03


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=50), st.lists(st.floats(-1e9, 1e9), max_size=3))
@settings(deadline=None)
def test_any_numbers_can_be_drawn(values: list[float], cuts: list[float]) -> None:
    picture = drawn(values, cuts)
    assert max(picture.heights) == 1
    assert all(0 <= height <= 1 for height in picture.heights)
    assert all(0 <= mark.at <= 1 for mark in [*picture.cuts, picture.middle])


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=False), max_size=50), st.integers(0, 50))
def test_histograms_add_up_and_bins_hold_their_values(values: list[float], part: int) -> None:
    both = [histogram(np.array(some, float)) for some in (values[:part], values[part:])]
    whole = histogram(np.array(values, float))
    assert {b: sum(h.get(b, 0) for h in both) for b in whole} == whole
    assert sum(whole.values()) == int(np.isfinite(np.array(values, float)).sum())
    for value, start in zip(values, bin_start(np.array(values, float)), strict=True):
        if np.isfinite(value):
            assert (
                abs(start) <= abs(value) < abs(bin_end(start)) or value == start == 0 or not np.isfinite(bin_end(start))
            )


def test_the_report_draws_them_and_folds_away_many() -> None:
    measured = {f"score {n}": histogram(np.arange(n + 2.0)) for n in range(30)}
    stage = {
        "name": "clean",
        "operators": [{"name": "op", "rows_in": 40, "measured": measured, "cuts": {"score 3": [2]}}],
    }
    page = render({"stages": [stage]}, {})
    assert page.count('<figure class="distribution">') == 30
    assert "<summary>6 more</summary>" in page
    assert "cut at 2" in page
    assert "Where cuts fall" not in render({"stages": []}, {})
