"""Chats with a real server in a process of its own (benchmarks/chat_server.py)."""

from __future__ import annotations

import dataclasses
import io
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import wave
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.chat_server import ROOT, ChatServer, Faults, chat_server
from operators.document import identity
from operators.models import http
from operators.models.answers import InMemory, OverBudget, answers, keep_answers_in
from operators.models.chat import (
    ASKED_COLUMN,
    QUIET,
    SERVER_ERRORS_IN_A_ROW,
    Answer,
    Chat,
    Sound,
    Turn,
    Unanswered,
    _judged,
    asked_column,
    counted_of,
    sound_of,
    template_of,
)
from operators.models.chat_protocol import kept, whole
from operators.models.http import Refused, ServerError
from tests.operators.models.chat_killed import ask_all
from tests.operators.models.chat_replies import KEY

TEMPLATE = template_of("a template")
FAULTS = Faults(rate_429=0.1, rate_500=0.1, rate_stall=0.04, rate_malformed=0.15, rate_refusal=0.1)


class Words(pydantic.BaseModel):
    about: str
    count: int = 0


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server("tests.operators.models.chat_replies:obey") as running:
        yield running


@pytest.fixture(autouse=True)
def kept_apart() -> Iterator[None]:
    before = answers()
    keep_answers_in(InMemory())
    yield
    keep_answers_in(before)


def chat(server: ChatServer, **settings: Any) -> Chat:
    return Chat(**({"endpoint": server.url, "model": "m", "pause": 0.01, "timeout": 20.0} | settings))


def user(*content: str | Sound) -> list[Turn]:
    return [Turn("user", content)]


def test_a_question_and_its_answer(server: ChatServer) -> None:
    asker = chat(server, temperature=0.5, max_tokens=7, seed=3, options={"top_k": 5}).load()
    turns = [Turn("system", ("Be ", "brief.")), Turn("user", ("What?", QUIET)), Turn("assistant", ("That.",))]
    answer = asker.ask([*turns, *user("Why?")], TEMPLATE, attempt=2)
    assert answer[:2] == ("heard Why?", None)
    assert len(answer.key) == 64
    assert not answer.cached
    assert answer.prompt_tokens > answer.completion_tokens > 0
    sent = server.bodies()[-1]
    audio = sent["messages"][1]["content"].pop()
    assert sent == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "That."},
            {"role": "user", "content": "Why?"},
        ],
        "temperature": 0.5,
        "top_p": 1.0,
        "max_tokens": 7,
        "seed": 5,
        "top_k": 5,
    }
    assert audio["type"] == "input_audio"  # of which the server checks that it is a WAV file
    assert "seed" not in (chat(server, seed=None).load().ask(user("No seed"), TEMPLATE) and server.bodies()[-1])


@pytest.mark.parametrize("structured", ["json_schema", "json_object", "prompt"])
@pytest.mark.parametrize("fence", ["{}", "```json\n{}\n```", "```\n{}\n```\n"])
def test_an_answer_of_a_schema(server: ChatServer, structured: Any, fence: str) -> None:
    said = fence.replace("{}", '{"about": "rain", "count": 2}')
    answer = chat(server, structured=structured).load().ask(user(f"say:{said}"), TEMPLATE, Words)
    assert answer.value == Words(about="rain", count=2)
    sent = server.bodies()[-1]
    asked = "Answer with nothing but JSON of this schema: {" in sent["messages"][0]["content"]
    assert asked == (structured != "json_schema")
    if structured == "prompt":
        assert "response_format" not in sent
    else:
        assert sent["response_format"]["type"] == structured
    if structured == "json_schema":  # bare: the server checks all else that `strict` asks for
        assert sent["response_format"]["json_schema"]["schema"]["properties"]["count"] == {"type": "integer"}


@pytest.mark.parametrize(
    ("said", "reason", "detail"),
    [
        ("say:The rain.", "malformed", "Words: Invalid JSON"),
        ('say:{"about": "rain"', "malformed", "Words: Invalid JSON"),
        ('say:Here it is: {"about": "rain"}', "malformed", "Words: Invalid JSON"),
        ('say:{"about": 3}', "malformed", "about: Input should be a valid string"),
        ('say:{"about": "one two three four five six"}', "cut_off", "Words: Invalid JSON"),
        ('message:{"content": null}', "malformed", "no content"),
        ('message:{"content": ["parts"]}', "malformed", "no content"),
        ('message:{"content": null, "refusal": "I will not."}', "refused", "I will not."),
        ("status:400", "refused", "status 400"),
        ("status:413", "refused", "status 413"),
        ("status:403", "refused", "status 403"),
        ("status:451", "refused", "status 451"),
        ("status:424", "refused", "status 424"),
        ("status:409", "refused", "status 409"),
        ("status:422", "refused", "status 422"),
    ],
)
def test_what_is_no_answer_has_a_reason_and_is_not_asked_for_again(
    server: ChatServer, said: str, reason: str, detail: str
) -> None:
    asker = chat(server, max_tokens=5).load()
    keys = []
    for again in (False, True):
        before = server.told()["requests"]
        with pytest.raises(Unanswered, match=detail) as told:
            asker.ask(user(said), TEMPLATE, Words)
        assert told.value.reason == reason
        assert told.value.answer is not None
        assert told.value.answer.cached == again
        assert (server.told()["requests"] == before) == again
        keys.append(told.value.answer.key)
    assert keys[0] == keys[1]


def test_free_text_that_is_cut_off_is_an_answer(server: ChatServer) -> None:
    assert chat(server, max_tokens=2).load().ask(user("say:one two three"), TEMPLATE).text == "one two"
    whole = chat(server, max_tokens=2).load().ask(user('say:{"about": "rain"}'), TEMPLATE, Words)
    assert whole.value == Words(about="rain")


def test_a_server_that_refuses_everything_is_an_error(server: ChatServer) -> None:
    asker = chat(server, model="takes nothing").load()
    with pytest.raises(Refused, match=f"{server.url}/chat/completions: status 400: .*unknown field"):
        asker.ask([Turn("system", ("Be brief.",)), *user("status:400", QUIET)], TEMPLATE)
    (*_, asked, trivial) = server.bodies()
    assert [message["role"] for message in trivial["messages"]] == ["system", "user"]
    assert [part["type"] for part in trivial["messages"][1]["content"]] == ["text", "input_audio"]
    assert trivial["messages"][1]["content"][0]["text"] == "Say yes, in JSON."
    assert asked["messages"][1]["content"][0]["text"] == "status:400"


def test_each_refusal_is_held_against_a_trivial_question(server: ChatServer) -> None:
    asker = chat(server).load()
    asker.ask(user("An answer"), TEMPLATE)
    before = server.told()["requests"]
    for said in ("status:400", "status:422"):
        with pytest.raises(Unanswered, match="refused"):
            asker.ask(user(said), TEMPLATE)
    assert server.told()["requests"] == before + 2 * 2


def test_a_budget_that_is_spent_after_answers_is_no_refusal_of_inputs(server: ChatServer) -> None:
    asker = chat(server, model="spent after this").load()
    asker.ask(user("An answer"), TEMPLATE)
    for _ in range(2):
        with pytest.raises(Refused, match="budget exceeded"):
            asker.ask(user("Another"), TEMPLATE)
    assert len(answers().kept) == 1  # type: ignore[attr-defined]


def test_an_input_that_always_fails_is_told_from_an_outage(server: ChatServer) -> None:
    before = server.told()["requests"]
    with pytest.raises(Unanswered, match="server_error: .*status 500") as told:
        chat(server, tries=3).load().ask(user("status:500"), TEMPLATE)
    assert (told.value.reason, told.value.answer) == ("server_error", None)
    assert server.told()["requests"] == before + 3 + 1 + 3  # tries, a trivial question, tries
    with pytest.raises(ServerError, match="3 times in a row: status 503: no worker"):
        chat(server, model="down", tries=3).load().ask(user("A question"), TEMPLATE)
    assert server.told()["requests"] == before + 7 + 3 + 3
    with pytest.raises(ServerError, match="1 times in a row: status 503"):
        chat(server, model="down", tries=1).load().ask(user("A question"), TEMPLATE)
    with pytest.raises(ServerError, match="2 times in a row: NewConnectionError"):
        chat(server, endpoint="http://127.0.0.1:9/v1", tries=2).load().ask(user("A question"), TEMPLATE)


@pytest.mark.parametrize("said", ["status:520", "status:501", "loop:"])
def test_one_input_that_a_server_cannot_bear_is_no_end(server: ChatServer, said: str) -> None:
    with pytest.raises(Unanswered, match="server_error: .*(status 5|the answer is longer than 1049088 bytes)"):
        chat(server, tries=1, max_tokens=2, limit="max_completion_tokens").load().ask(user(said), TEMPLATE)


def test_being_busy_is_waited_for_and_at_last_an_error(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chat(server, tries=1).load().ask(user("status:429 but 3"), TEMPLATE).text == "heard at last"
    assert chat(server, tries=2).load().ask(user("status:503 but 4"), TEMPLATE).text == "heard at last"  # once more
    monkeypatch.setattr(http, "BUSY_FOR", 0.15)
    with pytest.raises(ServerError, match=r"busy for 0.15 s: status 429"):  # which is not the fault of an input
        chat(server).load().ask(user("status:429"), TEMPLATE)


def test_inputs_that_fail_one_after_the_other_are_an_overload(server: ChatServer) -> None:
    asker = chat(server, tries=1, pause=0).load()

    def failing(inputs: int) -> None:
        for k in range(inputs):
            for attempt in range(2):  # at one input
                with pytest.raises(Unanswered, match="server_error"):
                    asker.ask(user("status:500", QUIET._replace(digest=f"{k}")), TEMPLATE, attempt=attempt)

    failing(SERVER_ERRORS_IN_A_ROW - 1)
    assert not asker.ask(user("An answer"), TEMPLATE).cached
    failing(SERVER_ERRORS_IN_A_ROW - 1)
    assert asker.ask(user("An answer"), TEMPLATE).cached
    failing(SERVER_ERRORS_IN_A_ROW)
    with pytest.raises(Unanswered, match="refused"):
        asker.ask(user("status:400"), TEMPLATE)
    for _ in range(2):
        with pytest.raises(ServerError, match="21 inputs in a row failed where a trivial one did not.* status 500"):
            asker.ask(user("status:500"), TEMPLATE)
    asker.ask(user("Another answer"), TEMPLATE)
    failing(1)


@pytest.mark.parametrize("left", [b"", bytes(100), b'{"content": "half of', b"[]"])
def test_what_is_left_of_an_answer_is_asked_for_anew(server: ChatServer, left: bytes) -> None:
    asker, before = chat(server).load(), server.told()["requests"]
    key = asker.ask(user("A question"), TEMPLATE).key
    answers().put(key, left, replace=True)
    assert asker.ask(user("A question"), TEMPLATE)[:4] == ("heard A question", None, key, False)
    assert asker.ask(user("A question"), TEMPLATE).cached
    assert server.told()["requests"] == before + 2


def test_of_two_workers_both_have_the_answer_that_was_kept_first(server: ChatServer) -> None:
    class Other(InMemory):
        """Where another worker is a little faster."""

        def put(self, key: str, answer: bytes, replace: bool = False) -> bytes:
            super().put(key, kept({"choices": [{"message": {"content": "was first"}}]}))
            return super().put(key, answer, replace)

    keep_answers_in(Other())
    asker = chat(server).load()
    first, second = (asker.ask(user("A question"), TEMPLATE) for _ in range(2))
    assert (first.text, first.cached, second.text, second.cached) == ("was first", False, "was first", True)


def test_calls_are_counted_for_each_model(server: ChatServer) -> None:
    for model in ("m", "n"):
        asker = chat(server, model=model, max_calls=1).load()
        asker.ask(user("A question"), TEMPLATE)
        with pytest.raises(OverBudget):
            asker.ask(user("Another"), TEMPLATE)
    claimed = answers().claimed  # type: ignore[attr-defined]
    assert [len(who) for who in claimed] == [16, 16]
    with pytest.raises(OverBudget):
        chat(server, max_calls=1, concurrency=3).load().ask(user("Another"), TEMPLATE)


def test_newer_servers_have_other_names_and_options_are_any_json(server: ChatServer) -> None:
    options = {"stop": ["\n", "."], "chat_template_kwargs": {"b": None, "a": {"x": 1.5}}, "logit_bias": {7: -1}}
    model = chat(server, limit="max_completion_tokens", max_tokens=2, top_p=None, seed=None, options=options)
    assert model.load().ask(user("say:one two three"), TEMPLATE).text == "one two"
    assert server.bodies()[-1] == {
        "model": "m",
        "messages": [{"role": "user", "content": "say:one two three"}],
        "temperature": 0.0,
        "max_completion_tokens": 2,
    } | options | {"logit_bias": {"7": -1}}
    turned = {"logit_bias": {7: -1}, "chat_template_kwargs": {"a": {"x": 1.5}, "b": None}, "stop": ["\n", "."]}
    assert hash(model) == hash(dataclasses.replace(model, options=turned))
    assert model == dataclasses.replace(model)
    assert identity(chat(server, options={"a": 1})) != identity(chat(server, options={"a": True}))


@pytest.mark.parametrize("body", ["<html>", '{"error": {"code": 502}}', "[]", '{"choices": {}}'])
def test_what_is_no_answer_with_status_200_is_tried_again_and_not_kept(server: ChatServer, body: str) -> None:
    before = server.told()["requests"]
    for _ in range(2):
        with pytest.raises(Unanswered, match="server_error"):
            chat(server, tries=2).load().ask(user(f"body:{body}"), TEMPLATE)
    assert server.told()["requests"] == before + 2 * (2 + 1 + 2)


@pytest.mark.parametrize("body", ['{"choices": []}', '{"choices": [null]}', '{"choices": [{"message": {}}]}'])
def test_an_answer_of_nothing_is_malformed_and_kept(server: ChatServer, body: str) -> None:
    before = server.told()["requests"]
    for _ in range(2):
        with pytest.raises(Unanswered, match="malformed: the answer has no content"):
            chat(server).load().ask(user(f"body:{body}"), TEMPLATE)
    assert server.told()["requests"] == before + 1


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["message", "content", "refusal", "finish_reason", "prompt_tokens"]), inner)
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({"choices": st.lists(ANY, max_size=2), "usage": ANY}))
def test_whatever_a_server_says_is_an_answer_or_has_a_reason(body: dict[str, Any]) -> None:
    said = whole(kept(body))
    assert said is not None
    for schema in (None, Words):
        try:
            answer, reason = _judged(said, "key", False, schema), "answered"
        except Unanswered as error:
            answer, reason = error.answer, error.reason
        assert reason in {"answered", "refused", "malformed", "cut_off"}
        assert answer is not None
        asked_column([[answer]])


@pytest.mark.parametrize("status", [307, 401, 404, 429, 500])
def test_errors_show_neither_key_nor_audio(server: ChatServer, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("MODEL_KEY", KEY)
    monkeypatch.setattr(http, "BUSY_FOR", 0.0)
    asker = chat(server, key_env="MODEL_KEY", tries=1).load()
    loud = Sound(b"RIFF" + bytes(range(256)) * 40, "digest")
    with pytest.raises((ServerError, Unanswered), match=rf"status {status}: with key \*\*\* you sent \*\*\*") as told:
        asker.ask(user(f"status:{status}", loud), TEMPLATE)
    assert KEY not in repr(told.value)
    assert ("redirects are not followed" in str(told.value)) == (status == 307)


def test_a_key_that_is_missing(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_KEY", raising=False)
    with pytest.raises(ValueError, match="key_env: the environment variable MODEL_KEY is not set"):
        chat(server, key_env="MODEL_KEY").load()


def test_every_question_ends_and_none_is_asked_twice() -> None:
    """Against a server that does everything wrong that servers do."""
    with chat_server("tests.operators.models.chat_replies:json", FAULTS) as server:
        asker = chat(server, concurrency=32, timeout=0.7, tries=8).load()

        def ask(k: int) -> str:
            try:
                answer = asker.ask(user(f"question {k}"), TEMPLATE, Words)
            except Unanswered as error:
                return error.reason
            assert answer.value == Words(about=f"question {k}", count=1)
            return "answered"

        first = asker.each(ask, range(160))
        told = server.told()
        assert set(told["faults"]) == {"429", "500", "stall", "malformed", "refusal"}
        assert Counter(first).keys() == {"answered", "refused", "malformed"}
        assert told["requests"] > 160
        assert asker.each(ask, range(160)) == first
        assert server.told() == told


def test_requests_in_flight_are_as_many_as_said_and_memory_is_bounded() -> None:
    size, clips = len(QUIET.data) + 2 * 16_000 * 10, 128
    with chat_server("tests.operators.models.chat_replies:together") as server:
        asker = chat(server, concurrency=64, timeout=60.0).load()

        def ask(k: int) -> Answer:
            sound = Sound(QUIET.data + np.full(16_000 * 10, k, np.int16).tobytes(), str(k))
            return asker.ask(user("listen", sound), TEMPLATE)

        tracemalloc.start()
        found = asker.each(ask, range(clips))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert server.told()["most_in_flight"] == 64
    assert len({answer.key for answer in found}) == clips
    assert peak < 64 * 4.5 * size  # each once as it is, and as base64 twice, by itself and in a body


def test_answers_come_in_order_and_errors_end_it(server: ChatServer) -> None:
    asker = chat(server, concurrency=4).load()
    assert asker.each(lambda k: asker.ask(user(f"{k}"), TEMPLATE).text, range(9)) == [f"heard {k}" for k in range(9)]
    assert asker.each(str, []) == []
    begun = []

    def slow(k: int) -> int:
        begun.append(k)
        if k == 2:
            raise RuntimeError("of an item")
        time.sleep(0.3)  # the first is not done when the third fails
        return k

    with pytest.raises(RuntimeError, match="of an item"):
        asker.each(slow, range(100))
    assert set(begun) <= set(range(9))


def test_the_same_question_at_the_same_time_is_asked_once() -> None:
    with chat_server("tests.operators.models.chat_replies:obey", Faults(latency=0.2)) as server:
        askers = [chat(server, concurrency=8, tries=tries).load() for tries in (1, 2)]
        found = askers[0].each(lambda k: askers[k % 2].ask(user("the same"), TEMPLATE), range(8))
        assert server.told()["requests"] == 1
    assert sorted(answer.cached for answer in found) == [False] + [True] * 7


def test_a_budget_ends_the_work_and_a_larger_one_goes_on(server: ChatServer) -> None:
    def ask(most: int | None, questions: int) -> list[bool]:
        asker = chat(server, max_calls=most, concurrency=1).load()
        return asker.each(lambda k: asker.ask(user(f"budget {k}"), TEMPLATE).cached, range(questions))

    before = server.told()["requests"]
    with pytest.raises(OverBudget, match="5"):
        ask(5, 8)
    assert server.told()["requests"] == before + 5
    assert ask(0, 5) == [True] * 5  # what is kept costs nothing
    assert ask(8, 8) == [True] * 5 + [False] * 3


def test_requests_are_spread_over_the_minute(server: ChatServer) -> None:
    asker = chat(server, requests_per_minute=1200, concurrency=16).load()
    began = time.monotonic()
    asker.each(lambda k: asker.ask(user(f"rate {k}"), TEMPLATE), range(20))
    assert time.monotonic() - began >= 19 * 60 / 1200


class Parrot:
    """Answers that hold everything, and remember what they were asked for."""

    def get(self, key: str) -> bytes:
        return orjson.dumps(
            {"content": '{"about": ""}', "refused": None, "cut_off": False, "prompt_tokens": 1, "completion_tokens": 1}
        )

    def put(self, key: str, answer: bytes, replace: bool = False) -> bytes:
        raise AssertionError

    def claim(self, who: str, most: int) -> None:
        raise AssertionError


ASKED = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m", "n"]),
        "temperature": st.sampled_from([0.0, 0.5]),
        "top_p": st.sampled_from([0.9, 1.0, None]),
        "max_tokens": st.sampled_from([1, 2]),
        "limit": st.sampled_from(["max_tokens", "max_completion_tokens"]),
        "seed": st.sampled_from([0, 1, None]),
        "options": st.sampled_from([{}, {"top_k": 1}, {"top_k": 2}, {"top_k": 1, "min_p": 0.1}, {"top_k": [1]}]),
        "structured": st.sampled_from(["json_schema", "json_object", "prompt"]),
        "turns": st.lists(
            st.tuples(
                st.sampled_from(["user", "assistant"]),
                st.lists(st.sampled_from(["a", "ab", Sound(b"1", "1"), Sound(b"2", "2")]), min_size=1, max_size=2),
            ),
            min_size=1,
            max_size=2,
        ),
        "schema": st.sampled_from([None, Words, pydantic.create_model("Words", about=(str, ...))]),
        "attempt": st.sampled_from([0, 1]),
        "template": st.sampled_from(["0", "1"]),
    }
)
PLACED = st.fixed_dictionaries(
    {
        "endpoint": st.sampled_from(["http://a/v1", "http://b/v1"]),
        "key_env": st.sampled_from([None, "PATH"]),
        "concurrency": st.sampled_from([1, 2]),
        "timeout": st.sampled_from([1.0, 2.0]),
        "tries": st.sampled_from([1, 2]),
        "pause": st.sampled_from([0.0, 1.0]),
        "requests_per_minute": st.sampled_from([None, 60]),
        "max_calls": st.sampled_from([None, 0]),
    }
)


def named(asked: dict[str, Any], placed: dict[str, Any]) -> str:
    of_chat = {name: value for name, value in asked.items() if name in Chat.__dataclass_fields__}  # type: ignore[attr-defined]
    asker = Chat(**of_chat, **placed).load()
    turns = [Turn(role, tuple(content)) for role, content in asked["turns"]]
    return asker.ask(turns, asked["template"], asked["schema"], asked["attempt"]).key


def meant(asked: dict[str, Any]) -> str:
    """All that the answer depends on."""
    turns = [
        (role, content if any(isinstance(part, Sound) for part in content) else "".join(content))
        for role, content in asked["turns"]
    ]
    way = None if asked["schema"] is None else (asked["schema"].model_json_schema(), asked["structured"])
    return repr(
        asked | {"turns": turns, "schema": way, "structured": None, "options": sorted(asked["options"].items())}
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ASKED, PLACED), min_size=2, max_size=4))
def test_keys_are_of_what_is_asked_and_not_of_whom(asked: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("PATH", "key")
    keep_answers_in(Parrot())
    try:
        names = {named(question, place) for question, place in asked}
    finally:
        monkeypatch.undo()
    assert len(names) == len({meant(question) for question, _ in asked})


@settings(max_examples=30, deadline=None)
@given(
    ASKED, PLACED, st.sampled_from(["temperature", "top_p", "max_tokens", "template", "attempt", "model"]), st.data()
)
def test_one_change_is_another_key(asked: dict[str, Any], placed: dict[str, Any], field: str, data: Any) -> None:
    other = {"model": "o", "template": "2", "attempt": 2, "max_tokens": 3, "top_p": 0.5, "temperature": 1.0}[field]
    keep_answers_in(Parrot())
    placed["key_env"] = None
    assert named(asked, placed) != named(asked | {field: other}, placed)
    assert named(asked, placed) == named(asked, data.draw(PLACED) | {"key_env": None})


def test_an_address_is_no_part_of_a_corpus(server: ChatServer) -> None:
    here = chat(server)
    there = Chat(endpoint="https://elsewhere/v1", model="m", key_env="K", concurrency=3, max_calls=5, timeout=1)
    assert identity(here) == identity(there)
    assert identity(here) != identity(chat(server, temperature=0.1))
    assert "127.0.0.1" not in str(identity(here))


def test_a_process_that_is_killed_has_paid_for_nothing_twice(tmp_path: Path) -> None:
    with chat_server("tests.operators.models.chat_replies:sixty") as server:
        command = [sys.executable, "-m", "tests.operators.models.chat_killed", server.url, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT) as process:
            limit = time.monotonic() + 60
            while (server.told()["requests"] < 68 or len(list(tmp_path.iterdir())) < 60) and time.monotonic() < limit:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        kept_before = [path.name for path in tmp_path.iterdir()]
        assert len(kept_before) == 60
        ask_all(server.url, tmp_path)
        times = Counter(body["messages"][0]["content"] for body in server.bodies())
    assert len(times) == len(list(tmp_path.iterdir())) == 200
    assert Counter(times.values()) == {1: 192, 2: 8}  # those that were under way


def test_sound_of_a_clip() -> None:
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    from operators.speech.codec import encode_flac

    samples = (np.sin(np.arange(24_000) / 10) / 2).astype(np.float32)
    sound = sound_of(encode_flac(samples))
    with wave.open(io.BytesIO(sound.data)) as file:
        assert file.getparams()[:4] == (1, 2, 16_000, 16_000)
    assert len(sound.digest) == 64
    assert sound == sound_of(encode_flac(samples))
    samples[7] += 1e-4
    assert sound_of(encode_flac(samples)).digest != sound.digest
    with pytest.raises(ValueError, match="no utterance"):
        sound_of(b"RIFF")


def test_what_was_asked_is_counted() -> None:
    fresh, kept = Answer("", None, "k", False, 10, 2), Answer("", None, "k", True, 10, 2)
    table = pa.table({ASKED_COLUMN: asked_column([[fresh, fresh, kept], [], [kept]])})
    assert table[ASKED_COLUMN][0].as_py() == {"calls": 2, "cached": 1, "prompt_tokens": 20, "completion_tokens": 4}
    assert counted_of(table) == {"calls": 2, "cached": 2, "prompt_tokens": 20, "completion_tokens": 4}
    assert counted_of(table.slice(0, 0)) == dict.fromkeys(("calls", "cached", "prompt_tokens", "completion_tokens"), 0)
    assert counted_of(pa.table({"id": ["a"]})) == {}


def test_templates_have_names() -> None:
    assert template_of("ab", "c") != template_of("a", "bc") != template_of("abc")
    assert len(TEMPLATE) == 16


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"endpoint": "ftp://host"}, "endpoint: 'ftp://host' is no address"),
        ({"endpoint": "http://user:secret@host"}, "endpoint: the address holds a user or password"),
        ({"model": ""}, "model"),
        ({"key_env": "sk-secret"}, "key_env: must be the name of an environment variable"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"structured": "yaml"}, "structured"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": 0}, "timeout"),
        ({"tries": 0}, "tries"),
        ({"pause": -1}, "pause"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"max_calls": -1}, "max_calls"),
        ({"options": {"stream": True}}, "options: 'stream' is not to be set here"),
        ({"options": {"max_completion_tokens": 1}}, "options: 'max_completion_tokens' is not to be set here"),
        ({"options": {"X-Api-Key": "sk-secret"}}, "options: 'X-Api-Key' looks like a secret"),
        ({"options": {"Authorization": "sk-secret"}}, "options: 'Authorization' looks like a secret"),
        ({"options": {"x": {1}}}, "must be values that JSON can write"),
        ({"options": {"x": float("nan")}}, "must be values that JSON can write"),
        ({"options": [["x", "1"]]}, "must be a mapping of fields to values"),
        ({"limit": "n_predict"}, "limit"),
    ],
)
def test_parameters_that_are_wrong(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=problem):
        Chat(**({"endpoint": "http://host/v1", "model": "m"} | settings))  # type: ignore[arg-type]


def test_threads_of_callers_own_are_held_to_the_same_number() -> None:
    data = QUIET.data * 10
    with chat_server("tests.operators.models.chat_replies:obey", Faults(latency=0.05)) as server:
        asker = chat(server, concurrency=2).load()
        sounds = [Sound(data, f"{k}") for k in range(16)]
        threads = [threading.Thread(target=asker.ask, args=(user("listen", one), TEMPLATE)) for one in sounds]
        tracemalloc.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert server.told()["most_in_flight"] == 2
        assert server.told()["answered"] == 16
    assert peak < 2 * 5 * len(data)  # requests that wait are not made yet
