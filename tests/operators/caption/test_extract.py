"""Against a real server (benchmarks/chat_server.py) whose models are in qwen.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest

pytest.importorskip("soundfile", reason="needs the extra corpusmill[speech]")
pytest.importorskip("soxr", reason="needs the extra corpusmill[speech]")

from benchmarks.chat_server import ChatServer, Faults, chat_server
from operators.apply import Step, apply
from operators.caption.chain import QUESTIONS
from operators.caption.extract import Extract
from operators.caption.facts import ANSWERS, Fact, facts_column
from operators.caption.grammar import answer
from operators.document import identity
from operators.models import answers
from operators.models.answers import InMemory, keep_answers_in
from operators.models.chat import PROVENANCE
from operators.speech.codec import encode_flac
from tests.operators.caption.qwen import DESCRIPTION, NO_MUSIC, SPEECH

LISTENER = "tests.operators.caption.qwen:listener"
SPOKEN = [Fact("sound", "speech", 0.9, 0.8), Fact("gender", "female", 0.9)]
PLAYED = [Fact("sound", "music", 0.9, 1.0)]
FAULTS = {"refused", "malformed", "server_error"}


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server(LISTENER) as running:
        yield running


@pytest.fixture(autouse=True)
def empty_answers() -> Iterator[InMemory]:
    """A store of answers for each test."""
    before, kept = answers.answers(), InMemory()
    keep_answers_in(kept)
    yield kept
    keep_answers_in(before)


def clips(*facts: Sequence[Fact]) -> pa.Table:
    """Each of noise of its own."""
    noise = [np.random.default_rng(k).uniform(-0.1, 0.1, 2400).astype(np.float32) for k in range(len(facts))]
    payload = pa.array([encode_flac(samples) for samples in noise], pa.large_binary())
    ids = [f"a/{k:05}" for k in range(len(facts))]
    return pa.table({"id": ids, "payload": payload, "facts": facts_column(facts)})


def extract(server: ChatServer, model: str = "qwen", temperature: float = 0.7, **fields: Any) -> Extract:
    chat = {"endpoint": server.url, "model": model, "temperature": temperature, "tries": 8, "pause": 0.001}
    return Extract(model=chat, **fields)  # type: ignore[arg-type]


def test_facts_answer() -> None:
    marked = Extract()(clips(SPOKEN, PLAYED, []).drop_columns(["payload"]))
    assert marked["answers"].to_pylist() == [answer(facts) for facts in (SPOKEN, PLAYED, [])]
    assert marked["answers"].to_pylist()[0]["music"] is None
    assert marked["answers_from"].to_pylist() == [None] * 3
    assert (marked["answers"].type, marked["answers_from"].type) == (ANSWERS, PROVENANCE)
    assert marked["drop_reason"].null_count == 3
    assert Extract().counted(marked) == {"from_facts": 3}
    assert Extract().needs == ("facts",)


def test_only_what_may_be_there_is_asked(server: ChatServer) -> None:
    before = len(server.bodies())
    marked = (operator := extract(server))(clips(SPOKEN, PLAYED, [], [Fact("sound", "speech", 0.3)]))
    said = marked["answers"].to_pylist()
    assert [one["description"].startswith(DESCRIPTION) for one in said] == [True] * 4
    assert [one["speech"] for one in said] == [SPEECH, None, None, SPEECH]
    assert [one["music"] for one in said] == [None] * 4  # not asked, or denied
    asked = server.bodies()[before:]
    last = sorted(body["messages"][-1]["content"] for body in asked if len(body["messages"]) > 1)
    assert last == sorted([QUESTIONS["speech"], QUESTIONS["speech"], QUESTIONS["music"]])
    made_by = marked["answers_from"].to_pylist()
    assert [one["model"] for one in made_by] == ["qwen"] * 4
    assert [len(one["answers"]) for one in made_by] == [2, 2, 1, 2]
    kept = answers.answers().kept  # type: ignore[attr-defined]
    assert {key for one in made_by for key in one["answers"]} == set(kept)
    assert operator.counted(marked) == {
        "calls": 7,
        "cached": 0,
        "prompt_tokens": operator.counted(marked)["prompt_tokens"],
        "completion_tokens": operator.counted(marked)["completion_tokens"],
        "unanswered": 0,
        "from_facts": 0,
    }
    table = clips(SPOKEN)
    for unknown in (  # all is asked
        table.drop_columns(["facts"]),
        table.set_column(2, "facts", pa.nulls(1, table["facts"].type)),
    ):
        assert len(operator(unknown)["answers_from"][0].as_py()["answers"]) == 3


def test_the_published_chain(server: ChatServer) -> None:
    before = len(server.bodies())
    marked = extract(server, mode="published")(clips([], SPOKEN))
    bodies = server.bodies()[before:]
    longest = [body["messages"] for body in bodies if len(body["messages"]) == 5]
    assert len(bodies) == 6
    assert len(longest) == 2
    for messages in longest:
        assert [turn["role"] for turn in messages] == ["user", "assistant"] * 2 + ["user"]
        sound, first = messages[0]["content"]
        assert sound["type"] == "input_audio"
        assert [first["text"], messages[2]["content"], messages[4]["content"]] == list(QUESTIONS.values())
        assert messages[3]["content"] == SPEECH
    assert [one["speech"] for one in marked["answers"].to_pylist()] == [SPEECH] * 2
    assert [one["music"] for one in marked["answers"].to_pylist()] == [None] * 2  # NO_MUSIC says so


def test_published_answers_are_tried_again_until_they_are_as_long_as_they_should_be(server: ChatServer) -> None:
    one = extract(server, "first short", mode="published")(clips(SPOKEN))
    assert one["answers"][0]["description"].as_py().startswith(DESCRIPTION)
    assert one["scratch/asked"][0]["calls"].as_py() == 6
    assert len(one["answers_from"][0]["answers"]) == 3
    once = extract(server, "first short", mode="published", tries=1)(clips(SPOKEN)).to_pylist()[0]
    assert once["drop_reason"] is None  # the script keeps what it got last
    assert once["answers"]["description"] == "This."
    assert once["scratch/asked"]["cached"] == 3  # the first try of the two was the same
    long = extract(server, "too long", mode="published")(clips(SPOKEN)).to_pylist()[0]
    assert long["drop_reason"] is None
    assert sum(len(text or "") for text in long["answers"].values()) > 450
    assert long["scratch/asked"]["calls"] == 6
    default = extract(server, "first short")(clips([]))  # which has no such rule
    assert default["answers"][0]["description"].as_py() == "This."


@pytest.mark.parametrize(
    ("name", "text", "published", "default"),
    [
        ("speech", "No speech is heard.", False, True),
        ("speech", "There is no speech.", True, True),
        ("speech", "The speaker is not angry.", True, True),
        ("music", "It does not hold music.", True, True),
        ("music", "There is no speech.", False, False),
        ("description", "There is no music.", False, False),
        ("music", NO_MUSIC, True, True),
        ("speech", SPEECH, False, False),
        ("speech", "", True, True),
    ],
)
def test_what_is_denied(server: ChatServer, name: str, text: str, published: bool, default: bool) -> None:
    assert extract(server, mode="published")._denied(name, text) == published
    assert extract(server)._denied(name, text) == default


@pytest.mark.parametrize("how", ["no", "never", "null"])
def test_a_description_is_kept_whatever_came_of_the_other_questions(server: ChatServer, how: str) -> None:
    both, before = [*SPOKEN, *PLAYED], len(server.bodies())
    marked = (operator := extract(server, f"{how} speech"))(clips(both))
    row = marked.to_pylist()[0]
    assert row["drop_reason"] is None
    assert row["answers"]["description"].startswith(DESCRIPTION)
    assert row["answers"]["speech"] is None
    assert len(row["answers_from"]["answers"]) == 2  # of the description and the music
    assert row["scratch/asked"]["calls"] == 3
    asked = [body["messages"] for body in server.bodies()[before:]]
    assert [len(messages) for messages in asked] == [1, 3, 3]  # what got no answer is no part of the chat
    assert asked[2][2]["content"] == QUESTIONS["music"]
    assert operator.counted(marked)["unanswered"] == 1
    applied = apply([Step("extract", operator)], clips(both))
    assert applied.counts[0].counted["unanswered"] == 1
    assert "scratch/missing" not in applied.kept.column_names


def test_in_mode_published_all_has_to_be_answered(server: ChatServer) -> None:
    refused = extract(server, "never music", mode="published")(clips(SPOKEN)).to_pylist()[0]
    assert (refused["drop_reason"], refused["answers"]) == ("refused", None)
    assert refused["scratch/asked"]["calls"] == 3  # and not again
    null = extract(server, "null music", mode="published")(clips(SPOKEN)).to_pylist()[0]
    assert (null["drop_reason"], null["scratch/asked"]["calls"]) == ("malformed", 6)
    empty = extract(server, "no speech", mode="published")(clips(SPOKEN)).to_pylist()[0]
    assert (empty["drop_reason"], empty["answers"]["speech"]) == (None, None)


@pytest.mark.parametrize(
    ("model", "temperature", "reason", "calls"),
    [
        ("no description", 0.0, "malformed", 1),
        ("no description", 0.7, "malformed", 2),
        ("null description", 0.7, "malformed", 2),
        ("never description", 0.7, "refused", 1),
    ],
)
def test_without_a_description_a_clip_is_dropped_after_some_tries(
    server: ChatServer, model: str, temperature: float, reason: str, calls: int
) -> None:
    row = extract(server, model, temperature)(clips(SPOKEN)).to_pylist()[0]
    assert (row["drop_reason"], row["answers"], row["scratch/asked"]["calls"]) == (reason, None, calls)


def test_one_question_for_json(server: ChatServer) -> None:
    before = len(server.bodies())
    marked = extract(server, structured=True)(clips(SPOKEN, []))
    assert len(server.bodies()) == before + 2
    assert server.bodies()[-1]["response_format"]["json_schema"]["name"] == "Answers"
    assert [one["speech"] for one in marked["answers"].to_pylist()] == [SPEECH] * 2
    assert [one["music"] for one in marked["answers"].to_pylist()] == [None] * 2
    other = extract(server, "no object", structured=True)(clips(SPOKEN)).to_pylist()[0]
    assert other["drop_reason"] == "malformed"
    assert other["scratch/asked"]["calls"] == 2


def test_facts_stand_in_for_a_model_that_says_nothing(server: ChatServer) -> None:
    table = clips(SPOKEN, [])
    dropped = extract(server, "says nothing")(table)
    assert dropped["drop_reason"].to_pylist() == ["malformed"] * 2
    assert dropped["answers"].null_count == 2
    kept = (operator := extract(server, "says nothing", fallback="facts"))(table)
    assert kept["drop_reason"].to_pylist() == [None, "malformed"]  # nothing is known of the second
    assert kept["answers"][0].as_py() == answer(SPOKEN)
    assert kept["answers_from"].null_count == 2
    assert operator.counted(kept)["from_facts"] == 1
    assert operator.needs == ("payload", "facts")


def test_whatever_a_server_does_each_clip_is_answered_or_dropped_and_nothing_is_asked_twice() -> None:
    table = clips(*[[SPOKEN, PLAYED, []][k % 3] for k in range(30)])
    faults = Faults(rate_429=0.2, rate_500=0.1, rate_malformed=0.1, rate_refusal=0.25, retry_after=0)
    with chat_server(LISTENER, faults) as running:
        operator = extract(running, tries=1)
        first = apply([Step("extract", operator)], table)
        told = running.told()
        assert set(told["faults"]) == {"429", "500", "malformed", "refusal"}
        assert first.kept.num_rows + first.dropped.num_rows == 30
        assert set(first.dropped["drop_reason"].to_pylist()) <= {f"extract/{reason}" for reason in FAULTS}
        assert "extract/refused" in first.dropped["drop_reason"].to_pylist()
        assert first.kept.num_rows > 5
        assert first.kept["answers"].null_count == 0
        again = apply([Step("extract", operator)], table)
        assert running.told()["requests"] == told["requests"]
        assert again.kept.equals(first.kept)
        assert again.dropped.equals(first.dropped)
        assert again.counts[0].counted["calls"] == 0
        assert again.counts[0].counted["cached"] == first.counts[0].counted["calls"] + first.counts[0].counted["cached"]
        rescued = extract(running, tries=1, fallback="facts")(table)
        assert running.told()["requests"] == told["requests"]
        known = [bool(facts) for facts in table["facts"].to_pylist()]
        for said, reason, facts in zip(rescued["answers"], rescued["drop_reason"], known, strict=True):
            assert said.is_valid != reason.is_valid
            assert said.is_valid or not facts


def test_parameters_that_cannot_be(server: ChatServer) -> None:
    for fields, problem in (
        ({"mode": "published"}, "mode: published has no meaning without a model"),
        ({"structured": True}, "structured: True has no meaning without a model"),
        ({"fallback": "facts"}, "fallback: facts has no meaning without a model"),
        ({"tries": 3}, "tries: 3 has no meaning without a model"),
    ):
        with pytest.raises(pydantic.ValidationError, match=problem):
            Extract(**fields)  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError, match="tries: 2 at temperature 0 of the model, which says the same"):
        extract(server, temperature=0, tries=2)
    assert extract(server, temperature=0, tries=1) != extract(server, temperature=0.1, tries=2)
    with pytest.raises(pydantic.ValidationError, match="structured: true has no meaning in mode published"):
        extract(server, mode="published", structured=True)


def test_where_the_server_is_does_not_count(server: ChatServer) -> None:
    assert server.url not in str(identity(extract(server)))
