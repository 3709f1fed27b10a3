"""Questions are answered by what is certain, and by nothing else."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.chat_server import chat_server
from operators.apply import Step, apply
from operators.caption.compose import Compose
from operators.caption.evidence import claims, consistency, due
from operators.caption.facts import Fact
from operators.caption.questions import QA, Pair, Questions, from_facts, supported
from operators.caption.vocabulary import SAID
from operators.models.answers import InMemory, keep_answers_in
from tests.operators.caption.clips import MUSIC, SPEECH, clips
from tests.operators.caption.test_compose import chat

PAIRS = "tests.operators.caption.captioner:pairs"
FACTS = st.lists(
    st.builds(lambda what, score: Fact(what[0], what[1], score), st.sampled_from(sorted(SAID)), st.floats(0, 1)),
    max_size=20,
)


@pytest.fixture(autouse=True)
def _no_answers_yet() -> None:
    keep_answers_in(InMemory())


def captioned(facts: list[list[Fact]]) -> pa.Table:
    return Compose()(clips(facts))


@settings(max_examples=200)
@given(FACTS, st.text(max_size=5))
def test_answers_claim_what_is_certain(facts: list[Fact], name: str) -> None:
    pairs = from_facts(name, facts, 10)
    certain = due(facts)
    assert pairs == from_facts(name, facts, 10)
    assert len({pair.question for pair in pairs}) == len(pairs)
    assert from_facts(name, facts, 2) == pairs[:2]
    for pair in pairs:
        assert pair.question.endswith("?")
        assert pair.answer[0].isupper()
        assert pair.answer.endswith(".")
        assert not consistency(pair.answer, certain).unsupported, pair
        assert supported(pair, facts), pair
    assert bool(pairs) or not {fact.kind for fact in certain} & {"gender", "language", "genre", "instrument", "event"}


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Is there a dog barking?", "Yes.", False),
        ("Is music playing?", "Yes, it is.", False),
        ("Is anyone speaking?", "No.", False),
        ("Is the man shouting?", "No.", False),  # nobody knows
        ("What breed is the barking dog?", "A poodle.", False),
        ("What breed is the barking dog?", "It is not known.", False),
        ("What language does the woman speak?", "French.", False),
        ("What is heard?", "Something.", False),
        ("Is the man speaking?", "No, he sings.", False),
        ("How many people are speaking?", "One.", False),
        ("Is anyone speaking?", "Yes.", True),
        ("Is anyone speaking?", "Yes, a man speaks French.", True),
        ("Is there music?", "No.", True),
        ("Is a woman speaking?", "No, a man is.", True),
        ("Is the speech in German?", "No, it is in French.", True),
        ("What language does the man speak?", "French.", True),
        ("Is the speaker a man or a woman?", "A man.", True),
        ("Is the speech in German or in Dutch?", "It is in French.", False),
    ],
)
def test_questions_are_judged_with_their_answers(question: str, answer: str, expected: bool) -> None:
    assert supported(Pair(question=question, answer=answer), SPEECH, claims("A man speaks in French.")) == expected


def test_no_is_an_answer_only_where_that_is_sure() -> None:
    facts = [*MUSIC, Fact("sound", "singing", 0.25)]
    said = {pair.question: pair.answer for name in "abcdefgh" for pair in from_facts(name, facts, 10)}
    assert {answer[:2] for question, answer in said.items() if "spe" in question} == {"No"}
    assert not any("sing" in question for question in said)
    assert {answer[:3] for question, answer in said.items() if "music" in question} == {"Yes"}
    assert from_facts("a", [], 10) == from_facts("a", [Fact("sound", "speech", 0.7)], 10) == []


@given(FACTS, st.text(max_size=5))
def test_no_more_than_one_answer_is_no(facts: list[Fact], name: str) -> None:
    assert sum(pair.answer.startswith("No") for pair in from_facts(name, facts, 10)) <= 1


def test_pairs_of_clips() -> None:
    found = Questions()(captioned([SPEECH, MUSIC, SPEECH]))
    assert found["qa"].type == QA
    first, second, third = found["qa"].to_pylist()
    assert len(first) == len(third) == 3
    assert sorted(pair["answer"][:2] for pair in second) == ["No", "Ye"]
    assert first != third  # another clip, other questions or words
    assert found.drop_columns(["qa", "scratch/asked", "scratch/missed"]).equals(
        captioned([SPEECH, MUSIC, SPEECH]).drop_columns(["scratch/asked"])
    )


def test_a_server_is_asked_and_what_it_invents_left_out() -> None:
    with chat_server(PAIRS) as server:
        docs = captioned([SPEECH, MUSIC])
        applied = apply([Step("questions", Questions(writer=chat(server.url)))], docs)
        for row in applied.kept.to_pylist():
            assert row["qa"] == [{"question": "What is heard?", "answer": row["text"]}]
        expected = {"pairs": 2, "without_pairs": 0, "unsupported": 2, "unanswered": 0, "calls": 2, "cached": 0}
        assert {name: applied.counts[0].counted[name] for name in expected} == expected
        again = apply([Step("questions", Questions(writer=chat(server.url)))], docs)
        assert again.kept.equals(applied.kept)
        assert server.told()["requests"] == 2


def test_facts_answer_where_a_server_does_not() -> None:
    hum = [Fact("event", "hum", 0.9)]
    facts = [SPEECH, MUSIC, hum]
    with chat_server("tests.operators.caption.captioner:unwilling") as server:
        questions = Questions(writer=chat(server.url))
        applied = apply([Step("questions", questions)], captioned(facts))
        spoken, played, hummed = applied.kept.to_pylist()
        assert spoken["qa"] == [pair.model_dump() for pair in from_facts(spoken["id"], SPEECH, 3)]  # refused
        assert played["qa"] == [pair.model_dump() for pair in from_facts(played["id"], MUSIC, 3)]  # no JSON
        assert hummed["qa"] == []  # of what is empty
        expected = {"pairs": 5, "without_pairs": 1, "unsupported": 1, "unanswered": 2, "calls": 3}
        assert {name: applied.counts[0].counted[name] for name in expected} == expected
