from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speech_score import (
    Errors,
    Score,
    Truth,
    Utterance,
    common,
    condition,
    diarisation,
    edits,
    groups,
    purity,
    union,
    words,
)
from workflows.speech_sample import Said

A10 = [(0.0, 10.0, "A")]


def said(start: float, end: float, speaker: str = "A", text: str = "", bed: str | None = None) -> Said:
    return Said(start, end, speaker, "en", text, bed, 10 if bed else None)


@pytest.mark.parametrize(
    ("reference", "found", "collar", "missed", "false_alarm", "confused", "speech"),
    [
        (A10, [(0, 10, "1")], 0, 0, 0, 0, 10),
        (A10, [(0, 8, "1")], 0, 2, 0, 0, 10),
        (A10, [(0, 8, "1")], 0.25, 1.75, 0, 0, 9.5),  # 8 to 9.75 of 0.25 to 9.75
        (A10, [(0, 12, "1")], 0.25, 0, 1.75, 0, 9.5),  # 10.25 to 12
        (A10, [(0.2, 10.2, "1")], 0.25, 0, 0, 0, 9.5),  # all within the collar
        (A10, [], 0, 10, 0, 0, 10),
        ([], [(0, 3, "1")], 0, 0, 3, 0, 0),
        ([(0, 12, "A"), (12, 20, "B")], [(0, 20, "1")], 0, 0, 0, 8, 20),
        ([(0, 12, "A"), (12, 20, "B")], [(0, 12, "2"), (12, 20, "1")], 0, 0, 0, 0, 20),
        (A10, [(0, 6, "1"), (6, 10, "2")], 0, 0, 0, 4, 10),
        # The speaker that most of A goes to is not A's: 5 + 0 seconds agree by greed, 4 + 4 at best.
        ([(0, 5, "A"), (5, 9, "B"), (9, 13, "A")], [(0, 9, "1"), (9, 13, "2")], 0, 0, 0, 5, 13),
        ([(0, 10, "A"), (8, 14, "B")], [(0, 10, "1"), (10, 14, "2")], 0, 2, 0, 0, 16),
        (A10, [(0, 10, "1"), (4, 6, "2")], 0, 0, 2, 0, 10),
    ],
)
def test_diarisation_by_hand(
    reference: list, found: list, collar: float, missed: float, false_alarm: float, confused: float, speech: float
) -> None:
    errors = diarisation(reference, found, collar)
    got = (errors.missed, errors.false_alarm, errors.confused, errors.speech)
    assert got == pytest.approx((missed, false_alarm, confused, speech))


def test_overlap_is_scored_or_not() -> None:
    reference = [(0.0, 10.0, "A"), (8.0, 14.0, "B")]
    found = [(0.0, 10.0, "1"), (10.0, 14.0, "2")]
    assert diarisation(reference, found, 0).rate == pytest.approx(2 / 16)
    errors = diarisation(reference, found, 0, overlap=False)
    assert (errors.missed, errors.speech, errors.rate) == (0, 12, 0)


turns = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 9), st.sampled_from("ABC")).map(
        lambda one: (float(one[0]), float(one[0] + one[1]), one[2])
    ),
    max_size=6,
)


@given(turns, turns, st.sampled_from([0, 0.25]))
def test_errors_do_not_depend_on_names_or_on_where_turns_are_cut(reference: list, found: list, collar: float) -> None:
    errors = diarisation(reference, found, collar)
    renamed = [(start, end, {"A": "z", "B": "y", "C": "x"}[who]) for start, end, who in found]
    cut = [one for start, end, who in renamed for one in ((start, start + 0.5, who), (start + 0.5, end, who))]
    again = diarisation(reference, cut, collar)
    assert (again.missed, again.false_alarm, again.confused) == pytest.approx(
        (errors.missed, errors.false_alarm, errors.confused)
    )
    exact = diarisation(reference, reference, collar)
    assert exact.missed == exact.false_alarm == exact.confused == 0
    assert errors.missed + errors.confused <= errors.speech + 1e-9


@given(turns, turns)
def test_time_in_common(one: list, other: list) -> None:
    both = sum(
        any(a <= n < b for a, b, _ in one) and any(a <= n < b for a, b, _ in other) for n in range(60)
    )  # whole seconds all
    assert common(one, other) == both
    assert all(first[1] < second[0] for first, second in zip(union(one), union(one)[1:], strict=False))


def test_purity_is_the_share_of_who_says_most() -> None:
    truth = [said(0, 6), said(7, 9, "B"), said(20, 30, "C")]
    assert purity(truth, Utterance(0, 10)) == pytest.approx(6 / 8)
    assert purity(truth, Utterance(0, 6.5)) == 1
    assert purity(truth, Utterance(10, 20)) is None


@pytest.mark.parametrize(
    ("reference", "found", "wrong"),
    [("a b c", "a b c", 0), ("a b c", "a c", 1), ("a b c", "a x b c", 1), ("a b c", "a x c", 1), ("a b", "", 2)]
    + [("", "a", 1), ("a b c d", "b c d a", 2)],
)
def test_edits(reference: str, found: str, wrong: int) -> None:
    assert edits(reference.split(), found.split()) == wrong


def test_words_as_they_are_compared() -> None:
    assert words("...I’m sorry; TRY again!") == ["i'm", "sorry", "try", "again"]
    assert words("Набранный номер отключён.") == words("набранный номер отключен")
    assert words("número") != words("numero")


def test_utterances_that_share_a_clip_are_scored_as_one() -> None:
    truth = [said(0, 4, text="a b"), said(4.3, 8, text="c d"), said(9, 12, text="e")]
    found = [Utterance(0, 6, "en", "a b c"), Utterance(6, 8, "en", "d"), Utterance(9, 12, "en", "f")]
    assert [([clip.text for clip in clips], len(held)) for clips, held in groups(truth, found)] == [
        (["a b", "c d"], 2),
        (["e"], 1),
    ]
    score = Score()
    score.transcribed(Truth("r", 12, truth, []), found)
    assert score.word_error("en") == pytest.approx(1 / 5)
    assert score.word_error("en", "clean") == pytest.approx(1 / 5)
    assert math.isnan(score.word_error("fr"))


def test_a_clip_that_is_mostly_outside_is_not_asked_for() -> None:
    truth = [said(0, 4, text="a b"), said(5, 9, text="c d")]
    assert [[clip.text for clip in clips] for clips, _ in groups(truth, [Utterance(0, 6)])] == [["a b"]]


def test_clips_that_others_talk_into_are_not_scored() -> None:
    truth = [said(0, 4, text="a"), said(3, 6, "B", "b"), said(7, 9, text="c")]
    assert [[clip.text for clip in clips] for clips, _ in groups(truth, [Utterance(0, 6), Utterance(7, 9)])] == [["c"]]


def test_condition_is_what_lies_under_all_clips() -> None:
    assert condition([said(0, 1), said(1, 2)]) == "clean"
    assert condition([said(0, 1, bed="music")]) == "music 10 dB"
    assert condition([said(0, 1, bed="music"), said(1, 2)]) == "mixed"


def test_scores_of_a_recording() -> None:
    truth = Truth("r", 40, [said(0, 10), said(10, 20, "B")], [(25, 35)])
    score = Score()
    score.listened(truth, [(1, 20), (24, 26)], [(1, 10, "1"), (10, 20, "1")])
    assert (score.recall.value, score.precision.value) == (19 / 20, pytest.approx(19 / 21))
    assert (score.music_false_alarm, score.speaker_error()) == (1, 1)
    score.cut(truth, [Utterance(0, 8), Utterance(8, 12)])
    assert score.coverage.value == 12 / 20
    assert score.purity.value == pytest.approx((1 + 0.5) / 2)
    found = [
        Utterance(0, 8, "en", dnsmos=3.0),
        Utterance(12, 20, "fr", dnsmos=2.0),
        Utterance(26, 30, "nl", dnsmos=1.0),
    ]
    score.named(truth, found)
    score.transcribed(truth, found)
    assert score.language["en"].value == 0.5
    assert score.dnsmos["clean"].value == 2.5


def test_errors_add_up() -> None:
    total = Errors()
    total.add(Errors(1, 2, 3, 10))
    total.add(Errors(0, 0, 0, 10))
    assert total.rate == 6 / 20
    assert math.isnan(Errors().rate)
