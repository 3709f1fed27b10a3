"""Captions by the grammar say what is known, nothing else, and say it in many ways; planted claims are found."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from operators.caption.evidence import MOST, Claim, Verdict, claimable, claims, consistency, due
from operators.caption.facts import CLAIM, KINDS, MUST, Fact
from operators.caption.grammar import MOST_WORDS, NAMES, answer, listed, names, write
from operators.caption.lint import lint
from operators.caption.vocabulary import LANGUAGES, SAID

ALL = [*SAID, ("language", "tlh"), ("sound", "rumour")]
FACTS = st.lists(
    st.builds(
        lambda what, score: Fact(what[0], what[1], score),
        st.sampled_from([what for what in ALL if what[0] != "language"] + [("language", "haw"), ("language", "tlh")]),
        st.floats(0, 1).map(lambda score: round(score, 4)),
    ),
    max_size=24,
)
SAYABLE = FACTS.filter(claimable)
EVERYTHING = [Fact(*what, 0.9) for what in SAID]
SPEECH = [Fact("sound", "speech", 0.95), Fact("gender", "male", 0.9), Fact("language", "fr", 0.97)]
MUSIC = [Fact("sound", "music", 0.9), Fact("genre", "jazz", 0.85), Fact("instrument", "piano", 0.9)]


def test_vocabulary_has_words_for_all_facts() -> None:
    assert all((kind, value) in SAID for kind, values in KINDS.items() for value in values)
    assert len(LANGUAGES) == 100  # Whisper's 99 and Cantonese


@settings(max_examples=150)
@given(SAYABLE, st.integers(0, 1 << 64))
@example(EVERYTHING, 0)
@example([Fact("instrument", "flute", 0.6)], 7)
@example([Fact("pitch", "low", 0.9), Fact("event", "burst", 0.6)], 2)
def test_captions_are_consistent_with_their_facts(facts: list[Fact], variant: int) -> None:
    text = write(facts, variant)
    assert consistency(text, facts) == Verdict(1.0, (), ())
    assert lint(text, MOST_WORDS) is None
    assert text == write(list(reversed(facts)), variant)
    assert re.fullmatch(r"[A-Z][A-Za-z ,'-]+\.(?: [A-Z][A-Za-z ,'-]+\.)?", text)
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  | ,|\b(\w+) \1\b", text), text


@given(FACTS)
def test_answers_are_consistent_and_told_only_of_what_there_is(facts: list[Fact]) -> None:
    told = answer(facts)
    may = {(fact.kind, fact.value) for fact in claimable(facts)}
    assert (told["description"] is not None) == bool(may)
    assert (told["speech"] is not None) == (("sound", "speech") in may)
    assert (told["music"] is not None) == (("sound", "music") in may)
    for text in filter(None, told.values()):
        assert not consistency(text, facts).unsupported


@pytest.mark.parametrize("variant", range(0, 400, 7))
def test_all_that_can_be_said_fits_into_fifty_words(variant: int) -> None:
    assert 25 <= len(write(EVERYTHING, variant).split()) <= MOST_WORDS


@pytest.mark.parametrize(("facts", "least"), [(SPEECH, 30), (MUSIC, 60), (SPEECH + MUSIC, 500)])
def test_many_variants(facts: list[Fact], least: int) -> None:
    assert len({write(facts, variant) for variant in range(2000)}) >= least


def test_captions() -> None:
    assert {write([Fact("event", "burst", 0.9), Fact("pitch", "low", 0.9)], k) for k in range(500)} >= {
        "A short, low-pitched sound.",
        "A brief, low-pitched sound is heard.",
    }
    assert "A slow ambient piece with organ plays." in {
        write(
            [
                Fact("sound", "music", 1),
                Fact("tempo", "slow", 1),
                Fact("genre", "ambient", 1),
                Fact("instrument", "organ", 1),
            ],
            k,
        )
        for k in range(3000)
    }
    both = [Fact("sound", "speech", 1), Fact("gender", "female", 1), Fact("gender", "male", 1)]
    assert "A man and a woman speak." in {write(both, k) for k in range(100)}
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")
    assert names([*SPEECH, Fact("event", "hum", 0.6)]) == ["speech", NAMES["hum"]]


def test_nothing_is_not_written_of() -> None:
    for facts in ([], [Fact("sound", "music", CLAIM - 0.01)], [Fact("tempo", "slow", 0.9)]):
        with pytest.raises(ValueError, match="facts: there are none"):
            write(facts, 0)
        assert answer(facts) == {"description": None, "speech": None, "music": None}


def test_doubtful_facts_are_said_at_times_and_unlikely_ones_never() -> None:
    facts = [*MUSIC, Fact("instrument", "drums", (CLAIM + MUST) / 2), Fact("instrument", "flute", CLAIM - 0.01)]
    texts = [write(facts, variant) for variant in range(200)]
    assert 50 < sum("drums" in text for text in texts) < 190
    assert not any("flute" in text for text in texts)


def test_due_are_the_surest_of_a_kind_and_what_they_are_about() -> None:
    genres = [Fact("genre", genre, score) for genre, score in (("rock", 0.81), ("pop", 0.9), ("folk", 0.95))]
    found = due([Fact("sound", "music", 0.6), *genres, Fact("tempo", "slow", 0.7)])
    assert {fact.value for fact in found} == {"music", "folk", "pop"}
    assert MOST["genre"] == 2
    assert due(genres) == []  # of no music


PHRASES = {"speech": "an adult speaks", "singing": "there is singing", "silence": "then all is silent"}


@given(SAYABLE, st.integers(0, 1000), st.sampled_from(sorted(SAID)))
def test_a_planted_claim_lowers_the_score(facts: list[Fact], variant: int, what: tuple[str, str]) -> None:
    known = {(fact.kind, fact.value) for fact in claimable(facts)}
    noise = {("event", "noise"), ("quality", "noisy")}
    planted = PHRASES.get(what[1], SAID[what][0].replace("@", ""))
    score = consistency(f"{write(facts, variant)} Besides, {planted}.", facts).score
    supported = what in known or (what in noise and known & noise)
    assert score < 1 or supported
    assert score == 1 or not supported


@given(FACTS, st.integers(0, 1000))
def test_leaving_out_what_is_certain_lowers_the_score(facts: list[Fact], variant: int) -> None:
    certain = due(facts)
    for left_out in certain:
        rest = [fact for fact in facts if fact[:2] != left_out[:2]]
        text = write(rest, variant) if claimable(rest) else "Something is heard."
        said = {(claim.kind, claim.value) for claim in claims(text)}
        verdict = consistency(text, facts)
        tells = left_out.value in ("music", "speech") or left_out[:2] in {("event", "noise"), ("quality", "noisy")}
        if not tells:
            assert left_out[:2] not in said
            assert verdict.score < 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A guy is talking in Mandarin.", "male speech zh"),
        ("She says something in Farsi, over an acoustic guitar.", "female speech fa guitar"),
        ("A woman's voice narrates.", "female voice speech"),
        ("Singing, accompanied by a string quartet and a double bass.", "singing strings bass"),
        ("A Spanish guitar and French horns play.", "guitar -horn"),
        ("Upbeat hip-hop, then rapping over synths.", "-energetic hip hop synthesizer"),
        ("There is no music.", "!music"),
        ("A man speaks without any background music or singing.", "male speech !music !singing"),
        ("No speech, music or singing; only a low hum.", "!speech !music !singing low hum"),
        ("No speech, music plays.", "!speech music"),
        ("No one speaks while a piano plays.", "!speech piano"),
        ("Music is not present. Speech can't be heard.", "!music !speech"),
        ("The man isn't singing.", "male !singing"),
        ("A series of short clicks and a brief beep.", "series burst"),
        ("A short noise, then a noise like static.", "burst noise"),
        ("Clear speech with background noise, in poor quality.", "clean speech noisy"),
        ("A dog barks in the rain.", "-dog -rain"),
        ("A metal door, ambient sounds, folks in the country of origin.", "-metal -country -origin"),
        ("The organization harps on about humanity.", "-organization -harp -humanity"),
        ("A pop song, a piece of music, a piece of cake.", "pop music -cak"),
        ("It is silent: nothing can be heard.", "silence"),
        ("Deep rumbling and shrill squeals.", "low high"),
    ],
)
def test_what_texts_claim(text: str, expected: str) -> None:
    found = [("!" if not c.present else "-" if c.kind == "other" else "") + c.value for c in claims(text)]
    assert " ".join(found) == expected


def test_verdicts_name_what_is_wrong() -> None:
    verdict = consistency("A woman speaks in French, with no music, while a dog barks.", SPEECH + MUSIC)
    assert {str(claim) for claim in verdict.unsupported} == {"female", "no music", "dog"}
    assert {fact.value for fact in verdict.missing} == {"male", "music", "jazz", "piano"}
    assert verdict.score == round(2 / 9, 4)


def test_what_is_granted_is_true_whatever_the_facts_say() -> None:
    burst = [Fact("event", "burst", 0.9)]
    assert consistency("A dog barks.", burst).score == 0
    assert consistency("A dog barks.", burst, claims("Dog")) == Verdict(1.0, (), ())
    assert consistency("A man speaks.", [], [Claim("gender", "male"), Claim("sound", "speech")]).score == 1
    assert consistency("There is no music.", MUSIC, [Claim("sound", "music", present=False)]).unsupported == ()
