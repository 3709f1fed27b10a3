"""Emilia-Pipe's segmentation, by vectors that its published functions gave."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.speech.emilia import LEAST, MOST, cut_by_speaker, emilia, split_long, unnested
from operators.speech.merge import Span, whole
from operators.speech.spool import RATE
from operators.speech.stretches import Stretch, Turn

A, B = 0, 1
Seconds = tuple[float, float, int]


def turns_of(*seconds: Seconds) -> list[Turn]:
    return [Turn(round(start * RATE), round(stop * RATE), speaker) for start, stop, speaker in seconds]


def seconds_of(spans: list[Turn] | list[Span]) -> list[Seconds]:
    return [(span.start / RATE, span.stop / RATE, span.speaker) for span in spans]


def silence(_start: int, _stop: int) -> list[Stretch]:
    return []


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ([(0, 2, A), (2.5, 8, A)], [(2.5, 8, A)]),
        ([(0, 5, A), (5.5, 7, A)], [(0, 7, A)]),
        ([(0, 5, A), (7, 8, A)], [(0, 5, A)]),
        ([(0, 28.5, A), (28.6, 30, A)], [(0, 28.5, A)]),
        ([(0, 60, A)], [(0, 30, A), (30, 60, A)]),
        ([(0, 61, A)], [(0, 30, A), (30, 60, A)]),
        ([(0, 64, A)], [(0, 30, A), (30, 60, A), (60, 64, A)]),
        ([(0, 30, A)], [(0, 30, A)]),
        ([(0, 1, A), (1.2, 2.2, A), (2.3, 3.4, A)], [(0, 3.4, A)]),
        ([(0, 5, A), (5, 6, B), (6, 7, A)], [(0, 5, A)]),
        ([(0, 5, A), (5.2, 9, A)], [(0, 5, A), (5.2, 9, A)]),
        ([(0, 30, A), (30.5, 34, A)], [(0, 30, A), (30.5, 34, A)]),
        ([(0, 30, A), (30.5, 33, A)], [(0, 30, A), (30, 33, A)]),  # joined to what is left of the cut turn: nothing
        ([], []),
    ],
)
def test_parts_are_cut_and_joined_as_published(given_: list[Seconds], kept: list[Seconds]) -> None:
    cut = cut_by_speaker(turns_of(*given_))
    assert seconds_of([part for part in cut if part.stop - part.start >= LEAST]) == kept


def test_a_turn_within_an_earlier_one_is_left_out() -> None:
    taken, nested = unnested(turns_of((0, 10, A), (3, 5, B), (6, 10, B), (8, 14, B)))
    assert seconds_of(taken) == [(0, 10, A), (8, 14, B)]
    assert seconds_of(nested) == [(3, 5, B), (6, 10, B)]


def test_a_long_turn_is_halved_in_its_largest_gap() -> None:
    islands = [(10.0, 18.0), (18.5, 25.0), (26.0, 34.9)]
    (turn,) = turns_of((10, 35, A))
    parts = split_long(turn, lambda *_: [(round(a * RATE), round(b * RATE)) for a, b in islands])
    assert seconds_of(list(parts)) == [(10, 25, A), (26, 34.9, A)]


@pytest.mark.parametrize(
    ("islands", "parts"),
    [
        ([], []),
        ([(0, 25)], [(0, 25, A)]),  # an island stays whole
        ([(1, 20.9)], [(1, 20.9, A)]),
        ([(0, 12), (12.5, 20), (20.5, 29)], [(0, 12, A), (12.5, 29, A)]),  # of equal gaps the first
    ],
)
def test_long_turns(islands: list[tuple[float, float]], parts: list[Seconds]) -> None:
    (turn,) = turns_of((0, 29, A))
    found = split_long(turn, lambda *_: [(round(a * RATE), round(b * RATE)) for a, b in islands])
    assert seconds_of(list(found)) == parts


def test_a_turn_of_twenty_seconds_is_not_listened_to() -> None:
    turns = turns_of((5, 25, A))
    assert list(split_long(turns[0], silence)) == turns


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 700), st.integers(0, 2)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_every_sample_has_a_fate(drawn: list[tuple[int, int, int]]) -> None:
    length = 280 * RATE
    tenth = RATE // 10
    turns = sorted(Turn(start * tenth, (start + size) * tenth, speaker) for start, size, speaker in drawn)
    spans = whole(length, emilia(turns, lambda start, stop: [(start, stop)]), [])
    reached = 0
    for span in spans:
        assert span.start <= reached  # no hole
        reached = max(reached, span.stop)
        assert (LEAST <= span.stop - span.start <= MOST) or span.reason
    assert reached == length
    taken, nested = unnested(turns)
    assert [Span(*turn, "nested") for turn in nested] == sorted(s for s in spans if s.reason == "nested")
    utterances = [span for span in spans if not span.reason]
    assert all(any(t.start <= s.start and t.speaker == s.speaker for t in taken) for s in utterances)
