"""Run-length best-fit decreasing against placing piece by piece."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.tokens.best_fit import Plan, histogram, place, plan

capacities = st.shared(st.integers(1, 70), key="capacity")
pieces = capacities.flatmap(lambda c: st.lists(st.integers(1, c), max_size=80))
rooms = capacities.flatmap(lambda c: st.lists(st.integers(0, c), max_size=8))


def one_by_one(lengths: list[int], capacity: int, room: list[int]) -> list[int]:
    """The room left in every bin, by the definition."""
    bins = list(room)
    for length in sorted(lengths, reverse=True):
        fits = [(left, i) for i, left in enumerate(bins) if left >= length]
        if fits:
            bins[min(fits)[1]] -= length
        else:
            bins.append(capacity - length)
    return sorted(bins)


def left(found: Plan, lengths: NDArray[np.int64], bins: NDArray[np.int64], capacity: int, room: list[int]) -> list[int]:
    before = sorted(room) + [capacity] * (found.bins - len(room))
    rest: NDArray[np.int64] = np.array(before, np.int64) - np.bincount(bins, lengths, found.bins).astype(np.int64)
    return sorted(rest.tolist())


@given(capacities, pieces, rooms)
@settings(max_examples=200, deadline=None)
def test_bins_are_those_of_best_fit_decreasing(capacity: int, lengths: list[int], room: list[int]) -> None:
    given_lengths = np.array(lengths, np.int64)
    found = plan(histogram(given_lengths, capacity), histogram(np.array(room, np.int64), capacity))
    bins = place(found, given_lengths)
    assert left(found, given_lengths, bins, capacity, room) == one_by_one(lengths, capacity, room)


def test_many_lengths_and_bins() -> None:
    """More groups and runs than are reserved at first, and a length of several words of the tree."""
    random = np.random.default_rng(1)
    capacity = 5000
    lengths = random.integers(1, capacity + 1, 6000)
    found = plan(histogram(lengths, capacity))
    assert len(found.runs) > 2048
    bins = place(found, lengths)
    assert left(found, lengths, bins, capacity, []) == one_by_one(lengths.tolist(), capacity, [])


@given(capacities, pieces, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_parts_place_their_pieces_as_the_whole_does(capacity: int, lengths: list[int], parts: int) -> None:
    """The histograms add up to the plan of all; a part needs only the counts of the parts before it."""
    whole = np.array(lengths, np.int64)
    cut = np.array_split(whole, parts)
    counts = [histogram(part, capacity) for part in cut]
    found = plan(sum(counts, np.zeros(capacity + 1, np.int64)))
    before = np.cumsum([np.zeros(capacity + 1, np.int64), *counts], axis=0)
    placed = [place(found, part, before[k]) for k, part in enumerate(cut)]
    assert np.concatenate(placed).tolist() == place(found, whole).tolist()


def test_runs_are_few_however_many_pieces() -> None:
    counts = np.zeros(2049, np.int64)
    counts[[1500, 900, 500, 40]] = 10**12
    found = plan(counts)
    assert len(found.runs) < 20
    assert found.runs[:, 3] @ found.runs[:, 4] == 4 * 10**12
    assert found.bins * 2048 >= counts @ np.arange(2049)


def test_nothing() -> None:
    found = plan(np.zeros(9, np.int64))
    assert (found.bins, len(found.runs)) == (0, 0)
    assert place(found, np.zeros(0, np.int64)).tolist() == []
