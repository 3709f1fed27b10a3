"""Of captions as language models write them, true ones are accepted and false ones are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from operators.caption.evidence import Claim, claims, consistency
from operators.caption.facts import Fact
from operators.caption.prompts import Clip
from operators.caption.verifiers import Evidence
from operators.caption.vocabulary import OTHER

MOST_REJECTED, MOST_ACCEPTED = 0.15, 0.05  # of the true and of the false ones


class Written(NamedTuple):
    """A caption of a clip, and whether it is true."""

    clip: Clip
    text: str
    true: bool

    @property
    def accepted(self) -> bool:
        return Evidence(1.0).judge(self.clip, self.text).accepted


def captions() -> Iterator[Written]:
    """The captions of captions.txt."""
    clip = Clip("", (), (), {})
    for line in Path(__file__).with_name("captions.txt").read_text("utf-8").splitlines():
        sign, _, text = line.partition(" ")
        if sign == "facts:":
            clip = Clip("clip", [_fact(fact) for fact in text.split("; ")], (), {})
        elif sign == "labels:":
            clip = clip._replace(labels=text.split("; "))
        elif sign == "answer:":
            clip = clip._replace(answers={"description": text})
        elif sign in ("+", "-"):
            yield Written(clip, text, sign == "+")


def _fact(text: str) -> Fact:
    kind, _, value = text.partition(" ")
    value, _, score = value.partition(", ")
    return Fact(kind, value, float(score or 0.9))


def test_captions_of_language_models() -> None:
    written = list(captions())
    true, false = ([one for one in written if one.true == true] for true in (True, False))
    assert len({id(one.clip) for one in written}) >= 10
    assert min(len(true), len(false)) >= 60
    rejected = [one.text for one in true if not one.accepted]
    accepted = [one.text for one in false if one.accepted]
    assert len(rejected) <= MOST_REJECTED * len(true), rejected
    assert len(accepted) <= MOST_ACCEPTED * len(false), accepted


@pytest.mark.parametrize(
    "text",
    [
        "Music isn't playing.",
        "Music is barely absent.",
        "Music stops and is no longer heard.",
        "The music has stopped.",
        "Music does not play.",
        "There is hardly any music.",
        "Speech and music are absent.",
        "Neither speech nor music is heard.",
        "A man speaks instead of music.",
        "Music of any kind is not heard.",
        "Music can't be heard.",
        "Nobody hears music.",
        "No one can hear any music.",
    ],
)
def test_denials(text: str) -> None:
    assert Claim("sound", "music", present=False) in claims(text)
    assert Claim("sound", "music") not in claims(text)


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("A man speaks and music is absent.", "music"),
        ("Speech is heard over music with no drums.", "drums"),
        ("A man speaks, and no dog barks.", "dog"),
        ("A man who speaks isn't singing.", "singing"),
    ],
)
def test_only_what_is_denied(text: str, denied: str) -> None:
    assert [claim.value for claim in claims(text) if not claim.present] == [denied]
    assert Claim("sound", "speech") in claims(text)


def test_a_pace_of_speech_is_no_tempo() -> None:
    speech, music = [Fact("sound", "speech", 0.9)], [Fact("sound", "music", 0.9)]
    assert consistency("Someone speaks slowly, at a slow pace.", speech).score == 1
    assert consistency("Music plays at a slow pace.", music).score == 0.5
    assert consistency("Someone speaks while slow music plays.", speech + music).score == round(2 / 3, 4)


@pytest.mark.parametrize(
    ("label", "granted", "not_granted"),
    [
        ("Burst, pop", "A short sound.", "Pop music plays."),
        ("Wind instrument, woodwind instrument", "A woodwind instrument.", "The wind blows."),
        ("Sine wave", "A sine wave.", "Waves."),
        ("Fire alarm", "An alarm is heard.", "A fire."),
        ("Music for children", "Music plays.", "A child is heard."),
        ("Human voice", "A voice is heard.", "Someone speaks."),
        ("Child's voice", "A child's voice.", "A man speaks."),
        ("Machine gun", "Guns are heard.", "A machine."),
        ("Wind chime", "Wind chimes are heard.", "Wind."),
        ("Singing bowl", "A singing bowl.", "Someone sings."),
        ("Speech synthesizer", "Somebody speaks.", "A synthesizer plays."),
        ("Fire engine, fire truck (siren)", "A siren.", "A fire."),
        ("Choir", "A choir sings.", "A cough."),
        ("Conversation", "Somebody speaks in a conversation.", "Someone sings."),
        ("Rattle", "A rattling.", "A dog."),
        ("Hoot", "An owl hoots.", "A crow caws."),
        ("Zither", "Zithers.", "A lute."),
        ("Didgeridoo", "A didgeridoo plays.", "A reed."),
        ("Vuvuzela", "Vuvuzelas play.", "A horn."),
    ],
)
def test_labels_grant_what_they_name(label: str, granted: str, not_granted: str) -> None:
    clip = Clip("clip", [], [label], {})
    assert Evidence(1.0).judge(clip, granted).score == 1
    assert Evidence(1.0).judge(clip, not_granted).score == 0


def test_what_says_nothing_is_not_accepted() -> None:
    for text in ("An owl hoots beside a tractor.", "Something is heard.", "There is no music.", "There is no owl."):
        assert consistency(text, []).score == 0
    speech = [Fact("sound", "speech", 0.6)]
    assert consistency("Something is heard.", speech).score == 0
    assert consistency("There is no music.", speech).score == 0
    assert consistency("Someone speaks, and there is no music.", speech).score == 1


def test_unknown_words_are_claims_without_their_endings() -> None:
    assert claims("A tractor, tractors, and the tractor's motor.") == [Claim(OTHER, "tractor"), Claim(OTHER, "engine")]
    assert claims("The sound of it can be heard throughout, gently, and then no longer.") == []
    both = [Fact("sound", "speech", 0.9), Fact("gender", "male", 0.9), Fact("gender", "female", 0.9)]
    assert consistency("Two people, a man and a woman, speak.", both).score == 1
    assert consistency("Two people speak.", both[:1]).score == 0.5
