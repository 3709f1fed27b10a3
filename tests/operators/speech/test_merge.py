"""Utterances lose no speech without a reason, hold one speaker, and with what is dropped make up the recording."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.speech.merge import NOBODY, SLIVER, Limits, Span, chunks, utterances, whole
from operators.speech.spool import RATE
from operators.speech.stretches import Stretch, Turn

A, B = 0, 1
Row = tuple[float, float, int, str]


def samples(*seconds: tuple[float, float]) -> list[Stretch]:
    return [Stretch(round(start * RATE), round(stop * RATE)) for start, stop in seconds]


def turns(*seconds: tuple[float, float, int]) -> list[Turn]:
    return [Turn(round(start * RATE), round(stop * RATE), speaker) for start, stop, speaker in seconds]


def rows(spans: list[Span]) -> list[Row]:
    return [(span.start / RATE, span.stop / RATE, span.speaker, span.reason) for span in spans]


def never(_start: int, _stop: int) -> int:
    raise AssertionError("there was a pause to cut in")


def of(
    speech: list[Stretch],
    said: list[Turn] | None,
    length: float = 100,
    music: list[Stretch] | None = None,
    pad: float = 0,
) -> list[Row]:
    limits, size = Limits(pad=round(pad * RATE)), round(length * RATE)
    return rows(whole(size, utterances(size, speech, said, limits, never), music or [], limits.pad, limits.most))


def kept(found: list[Row]) -> list[Row]:
    return [row for row in found if not row[3]]


def test_the_recording_is_accounted_for() -> None:
    found = of(samples((2, 7), (30, 31)), turns((2, 7, A), (30, 31, B)), 50, samples((35, 49)))
    assert found == [
        (0, 2, NOBODY, "no_speech"),
        (2, 7, A, ""),
        (7, 30, NOBODY, "no_speech"),
        (30, 31, B, "too_short"),
        (31, 50, NOBODY, "music"),
    ]


@pytest.mark.parametrize(
    ("speech", "said", "expected"),
    [
        # a short stretch is joined to a later long one, which Emilia-Pipe does not
        (samples((0, 2), (2.5, 8)), turns((0, 2, A), (2.5, 8, A)), [(0, 8, A, "")]),
        (samples((0, 5), (6, 10)), turns((0, 5, A), (6, 10, A)), [(0, 5, A, ""), (6, 10, A, "")]),  # 1 s is too far
        (samples((0, 5), (5.9, 10)), turns((0, 5, A), (5.9, 10, A)), [(0, 10, A, "")]),
        # an island of two speakers
        (samples((0, 10)), turns((0, 4, A), (4, 10, B)), [(0, 4, A, ""), (4, 10, B, "")]),
        # never across another's turn, were it silent
        (
            samples((0, 4), (4.5, 9)),
            turns((0, 4, A), (4.1, 4.3, B), (4.5, 9, A)),
            [(0, 4, A, ""), (4.5, 9, A, "")],
        ),
        # both at once belongs to neither
        (samples((0, 12)), turns((0, 7, A), (5, 12, B)), [(0, 5, A, ""), (7, 12, B, "")]),
        (samples((0, 12)), turns((0, 12, A), (5, 6, B)), [(0, 5, A, ""), (6, 12, A, "")]),
        # two turns of one speaker are no overlap, nor are 5 ms
        (samples((0, 12)), turns((0, 7, A), (5, 12, A)), [(0, 12, A, "")]),
        (samples((0, 12)), turns((0, 6.005, A), (6, 12, B)), [(0, 6.005, A, ""), (6.005, 12, B, "")]),
        # a turn that is a little late; speech far from any turn
        (samples((0, 6)), turns((0.4, 5.5, A)), [(0, 6, A, "")]),
        (samples((0, 6), (20, 26)), turns((0, 6, A)), [(0, 6, A, "")]),
        (samples((0, 6), (20, 20.5)), turns((0, 6, A)), [(0, 6, A, "")]),
        (samples((0, 7.5)), turns((0, 6, A)), [(0, 6, A, "")]),  # too much to be the edge of a turn
        (samples((0, 6)), None, [(0, 6, NOBODY, "")]),
        (samples((0, 6)), [], []),
    ],
)
def test_who_is_heard(speech: list[Stretch], said: list[Turn] | None, expected: list[Row]) -> None:
    assert kept(of(speech, said)) == expected


def test_a_long_run_is_cut_in_its_longest_late_pause() -> None:
    speech = samples((0, 10), (10.8, 17), (17.5, 22), (22.2, 28), (28.1, 34))
    found = of(speech, turns((0, 34, A)))
    assert kept(found) == [(0, 17, A, ""), (17.5, 34, A, "")]


@pytest.mark.parametrize(
    ("speech", "expected"),
    [
        (samples((0, 4), (4.5, 33)), [(0, 4, ""), (4.5, 33, "")]),  # no later pause
        (samples((0, 10), (10.3, 28.6), (28.9, 31)), [(0, 10, ""), (10.3, 31, "")]),  # the later one loses the end
    ],
)
def test_a_pause_is_better_than_none(speech: list[Stretch], expected: list[tuple[float, float, str]]) -> None:
    found = [(start, stop, why) for start, stop, _, why in of(speech, turns((0, 40, A))) if why != "no_speech"]
    assert found == expected


@pytest.mark.parametrize(
    ("speech", "expected"),
    [
        (samples((0, 1), (1.5, 45)), [(0, 29), (29, 45)]),
        (samples((0, 29), (29.5, 31)), [(0, 27), (27, 31)]),
        (samples((0, 29.9), (30.4, 32)), [(0, 28), (28, 32)]),
        (samples((0, 1), (1.2, 31)), [(0, 27), (27, 31)]),
    ],
)
def test_what_would_be_too_short_after_a_pause_is_cut_off_elsewhere(
    speech: list[Stretch], expected: list[tuple[float, float]]
) -> None:
    said, size = turns((0, 45, A)), 45 * RATE
    found = rows(utterances(size, speech, said, Limits(), lambda _, stop: stop - RATE))
    assert found == [(start, stop, A, "") for start, stop in expected]


def test_without_a_pause_the_quietest_place_near_the_end_is_cut() -> None:
    asked: list[tuple[float, float]] = []

    def place(start: int, stop: int) -> int:
        asked.append((start / RATE, stop / RATE))
        return start + RATE

    found = rows(utterances(65 * RATE, samples((0, 65)), turns((0, 65, A)), Limits(), place))
    assert asked == [(22.5, 30), (46, 53.5)]
    assert found == [(0, 23.5, A, ""), (23.5, 47, A, ""), (47, 65, A, "")]
    asked.clear()
    utterances(31 * RATE, samples((0, 31)), turns((0, 31, A)), Limits(), place)
    assert asked == [(20.5, 28)]  # what is left is long enough


def test_silence_is_music_where_most_of_it_is() -> None:
    assert of([], None, 10, samples((0, 2), (3, 6))) == [(0, 10, NOBODY, "no_speech")]
    assert of([], None, 10, samples((0, 2), (3, 6.1))) == [(0, 10, NOBODY, "music")]


def test_edges_are_widened_into_silence_only() -> None:
    found = of(samples((0.05, 5), (5.15, 10), (20, 25)), turns((0, 5, A), (5.15, 10, B), (20, 25, B)), 25.5, pad=0.1)
    assert found == [
        (0, 5.075, A, ""),
        (5.075, 10.1, B, ""),
        (10.1, 19.9, NOBODY, "no_speech"),
        (19.9, 25.1, B, ""),
        (25.1, 25.5, NOBODY, "no_speech"),
    ]
    beside = of(samples((0, 9)), turns((0, 4, A), (3.5, 9, B)), 9.05, pad=0.1)
    assert beside == [(0, 3.5, A, ""), (3.5, 4, NOBODY, "overlap"), (4, 9.05, B, "")]
    full = of(samples((1, 31)), turns((1, 31, A)), 40, pad=0.1)
    assert kept(full) == [(1, 31, A, "")]  # no longer than 30 s


def test_silence_too_short_to_be_told_of_goes_to_a_neighbour() -> None:
    assert of(samples((0.004, 5)), None, 5.005) == [(0, 5.005, NOBODY, "")]
    assert of(samples((0, 1), (1.005, 2)), turns((0, 1, A), (1.005, 2, B)), 2) == [
        (0, 1.005, A, "too_short"),
        (1.005, 2, B, "too_short"),
    ]
    assert of(samples((0.004, 1)), None, 1) == [(0, 1, NOBODY, "too_short")]
    assert of([], None, 0.004) == [(0, 0.004, NOBODY, "no_speech")]
    assert of([], None, 0) == []


@pytest.mark.parametrize(
    ("speech", "expected"),
    [
        (samples((1, 5)), [(1, 5, "")]),
        (samples((0, 25.9)), [(0, 25.9, "")]),  # whole seconds count
        (samples((0, 26)), [(0, 20, ""), (20, 26, "")]),
        (samples((0, 61)), [(0, 20, ""), (20, 40, ""), (40, 60, ""), (60, 61, "too_short")]),
        (samples((0, 2), (2.5, 8)), [(0, 2, "too_short"), (2.5, 8, "")]),
    ],
)
def test_chunks(speech: list[Stretch], expected: list[tuple[float, float, str]]) -> None:
    found = rows(list(chunks(speech, 20 * RATE, 25 * RATE, 3 * RATE)))
    assert [(start, stop, why) for start, stop, _, why in found] == expected
    assert {speaker for *_, speaker, _ in found} == {NOBODY}


def test_places_behind_the_end_are_not_told_of() -> None:
    assert rows(whole(10 * RATE, [Span(0, 10 * RATE + 1, A)], [])) == [(0, 10, A, "")]
    assert of(samples((0, 10.1)), turns((0, 10.2, A)), 10) == [(0, 10, A, "")]


@given(
    st.lists(st.tuples(st.integers(0, RATE - 1), st.integers(1, 50 * RATE)), min_size=1, max_size=12),
    st.booleans(),
    st.floats(0, 1),
    st.sampled_from([Limits(), Limits(RATE, 2 * RATE), Limits(most=6 * RATE), Limits(least=0, most=RATE)]),
)
@settings(max_examples=200, deadline=None)
def test_of_one_speaker_nothing_is_too_short_that_is_not_alone(
    drawn: list[tuple[int, int]], named: bool, where: float, limits: Limits
) -> None:
    speech = [Stretch(0, 0)]
    for gap, size in drawn:
        speech.append(Stretch(speech[-1].stop + gap, speech[-1].stop + gap + size))
    speech, length = speech[1:], speech[-1].stop
    said = [Turn(*island, A) for island in speech] if named else None
    found = list(utterances(length, speech, said, limits, lambda start, stop: start + round(where * (stop - start))))
    if length - speech[0].start < limits.least:
        assert [span.reason for span in found] == ["too_short"]
        return
    assert {span.reason for span in found} == {""}
    assert all(limits.least <= span.stop - span.start <= limits.most for span in found)
    spoken = np.zeros(length, bool)
    for start, stop in speech:
        spoken[start:stop] = True
    for start, stop, *_ in found:
        spoken[start:stop] = False
    assert not spoken.any()  # all speech is kept


STRETCHES = st.lists(st.tuples(st.integers(0, 3 * RATE), st.integers(1, 70 * RATE)), max_size=12)


def laid_out(drawn: list[tuple[int, int]]) -> list[Stretch]:
    """Stretches one after the other, from gaps and sizes."""
    found, at = [], 0
    for gap, size in drawn:
        found.append((at + gap, at + gap + size))
        at += gap + size + 1
    return found


@given(
    STRETCHES,
    st.none()
    | st.lists(st.tuples(st.integers(0, 150 * RATE), st.integers(1, 40 * RATE), st.integers(0, 3)), max_size=12),
    STRETCHES,
    st.integers(0, 200 * RATE),
    st.sampled_from(
        [Limits(), Limits(0, 2, 0, 0), Limits(pad=RATE), Limits(0, RATE, RATE, RATE), Limits(RATE, 2 * RATE)]
    ),
)
@settings(max_examples=200, deadline=None)
def test_no_sample_is_lost(
    drawn: list[tuple[int, int]],
    said: list[tuple[int, int, int]] | None,
    played: list[tuple[int, int]],
    more: int,
    limits: Limits,
) -> None:
    if limits.most < RATE:  # a cut at every other sample: of short things
        drawn, said, more = [(gap % 9, 1 + size % 9) for gap, size in drawn], None, more % 9
    speech = laid_out(drawn)
    length = (speech[-1][1] if speech else 0) + more
    given_ = None if said is None else sorted(Turn(a, a + size, who) for a, size, who in said)
    spans = whole(
        length,
        utterances(length, speech, given_, limits, lambda start, stop: (start + stop + 1) // 2),
        laid_out(played),
        limits.pad,
        limits.most,
    )
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])][: len(spans)]
    assert (spans[-1].stop if spans else 0) == length
    assert all(span.start < span.stop for span in spans)
    assert set(Counter(span.reason for span in spans)) <= {
        "", "no_speech", "music", "too_short", "overlap", "no_speaker"
    }  # fmt: skip
    silent = np.ones(length + 1, bool)
    for start, stop in speech:
        silent[start:stop] = False
    for before, span in zip([None, *spans], spans, strict=False):
        size = span.stop - span.start
        if not span.reason:
            assert limits.least <= size <= limits.most
            others = [
                t for t in given_ or [] if t.speaker != span.speaker and t.start < span.stop and t.stop > span.start
            ]
            for turn in others:  # somebody else's turn reaches in only where nobody is heard, or unheard briefly
                shared = ~silent[max(turn.start, span.start) : min(turn.stop, span.stop)]
                assert shared.sum() < SLIVER
        elif span.reason in ("no_speech", "music"):
            assert silent[span.start : span.stop].all()
            assert before is None or before.reason not in ("no_speech", "music")
        elif span.reason == "too_short":
            assert size < limits.least + 2 * SLIVER
