"""Captions are written, checked and written anew; every clip ends with one or with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from numpy.typing import NDArray

from benchmarks.chat_server import Faults, chat_server
from operators.apply import Step, apply
from operators.caption.compose import Compose
from operators.caption.evidence import consistency
from operators.caption.facts import Fact
from operators.caption.lint import lint
from operators.caption.prompts import PUBLISHED_SYSTEM, Clip, noted, published_turns, turns_of
from operators.caption.verifiers import Similarity, label_caption, prepared
from operators.caption.writers import ended, tidy
from operators.document import identity
from operators.models.answers import InMemory, keep_answers_in
from operators.models.chat import PROVENANCE, Chat
from tests.operators.caption.clips import MUSIC, SPEECH, clips

CAPTIONER = "tests.operators.caption.captioner"
CAPTIONS = f"{CAPTIONER}:caption"


@pytest.fixture(autouse=True)
def _no_answers_yet() -> None:
    keep_answers_in(InMemory())


def chat(url: str, **fields: Any) -> Chat:
    standard: dict[str, Any] = {"model": "mistral", "temperature": 0.7, "timeout": 1.0, "tries": 3, "pause": 0.01}
    return Chat(endpoint=url, **(standard | fields))


def test_the_grammar_writes_what_evidence_accepts_at_once() -> None:
    found = Compose()(clips([SPEECH, MUSIC, SPEECH, []]))
    assert found["drop_reason"].to_pylist() == [None, None, None, "no_facts"]
    assert found["accepted"].to_pylist() == [True, True, True, False]
    assert found["attempts"].to_pylist() == [1, 1, 1, 1]
    assert found["caption_score"].to_pylist() == [1.0, 1.0, 1.0, None]
    assert found["label_score"].null_count == found["caption_from"].null_count == 4
    assert found["written_by"].to_pylist() == ["grammar"] * 3 + [None]
    assert found["verified_by"].to_pylist() == ["evidence"] * 3 + [None]
    for text in found["text"].to_pylist()[:3]:
        assert lint(text, 50) is None
    texts = Compose()(clips([SPEECH] * 40))["text"].to_pylist()
    assert len(set(texts)) > 10  # each clip has a variant of its own
    assert texts[7:9] == Compose()(clips([SPEECH] * 2, first=7))["text"].to_pylist()  # whatever is beside it


def test_a_server_writes_until_a_caption_is_supported() -> None:
    labels = [["good at 0"], ["good at 2"], None, ["good at 9"]]
    with chat_server(CAPTIONS) as server:
        compose = Compose(writer=chat(server.url), attempts=4)
        applied = apply([Step("compose", compose)], clips([SPEECH, SPEECH, MUSIC, []], labels))
        first, second, third = applied.kept.to_pylist()
        assert first["text"] == second["text"] == "A man is talking in French."
        assert (first["attempts"], second["attempts"], third["attempts"]) == (1, 3, 4)
        assert [row["accepted"] for row in (first, second, third)] == [True, True, False]
        assert [row["written_by"] for row in (first, second, third)] == ["mistral", "mistral", "grammar"]
        assert third["caption_score"] == 1.0  # the fallback is verified too
        assert third["caption_from"] is None
        assert first["caption_from"]["model"] == "mistral"
        assert applied.kept["caption_from"].type == PROVENANCE
        assert first["caption_from"]["template"] == second["caption_from"]["template"]
        assert first["caption_from"]["answers"] != second["caption_from"]["answers"]
        (lost,) = applied.dropped.to_pylist()
        assert lost["drop_reason"] == "compose/unverified"
        assert (lost["drop_value"], lost["drop_threshold"]) == (0.0, 0.8)
        (count,) = applied.counts
        said = {
            name: count.counted[name] for name in ("accepted", "accepted_at_1", "accepted_at_3", "fallback", "calls")
        }
        assert said == {"accepted": 2, "accepted_at_1": 1, "accepted_at_3": 1, "fallback": 1, "calls": 12}
        assert server.told()["requests"] == 12
        again = apply([Step("compose", compose)], clips([SPEECH, SPEECH, MUSIC, []], labels))
        assert again.kept.equals(applied.kept)
        assert server.told()["requests"] == 12
        assert again.counts[0].counted["cached"] == 12
        assert again.counts[0].counted["calls"] == 0


def test_without_a_fallback_the_best_is_kept_or_dropped_with_its_score() -> None:
    with chat_server(CAPTIONS) as server:
        compose = Compose(writer=chat(server.url), fallback="off", floor=0.0, attempts=3)
        (row,) = compose(clips([MUSIC])).to_pylist()
        assert (row["accepted"], row["caption_score"], row["drop_reason"]) == (False, 0.0, None)
        assert row["text"].startswith("A choir sings")  # the second: the first and the last are no captions
        compose = Compose(writer=chat(server.url), fallback="off", attempts=1)
        (row,) = compose(clips([MUSIC])).to_pylist()
        assert (row["drop_reason"], row["drop_detail"], row["text"]) == ("numbers", "0.9", None)


def test_every_clip_ends_whatever_a_server_does() -> None:
    facts = [SPEECH, MUSIC, [], [Fact("event", "hum", 0.9)]] * 15
    labels = [[f"good at {k // 4 % 4}", f"number {k}"] for k in range(len(facts))]
    faults = Faults(rate_429=0.1, rate_500=0.1, rate_stall=0.05, rate_malformed=0.15, rate_refusal=0.15, retry_after=0)
    with chat_server(CAPTIONS, faults) as server:
        fallbacks: tuple[Literal["grammar", "off"], ...] = ("grammar", "off")
        for fallback in fallbacks:
            keep_answers_in(InMemory())
            compose = Compose(writer=chat(server.url, timeout=0.8, tries=10, concurrency=32), fallback=fallback)
            applied = apply([Step("compose", compose)], clips(facts, labels))
            kept = applied.kept.to_pylist()
            assert applied.kept.num_rows + applied.dropped.num_rows == len(facts)
            for row in kept:
                assert row["caption_score"] >= 0.8
                assert row["accepted"] == (row["written_by"] == "mistral")
            reasons = set(applied.dropped["drop_reason"].to_pylist())
            known = {"unverified", "numbers", "refused", "malformed", "server_error"}
            assert reasons <= {f"compose/{reason}" for reason in known}
            assert any(row["accepted"] for row in kept)
            told = server.told()
            assert min(told["faults"][fault] for fault in ("429", "500", "stall", "malformed", "refusal")) > 0
            again = apply([Step("compose", compose)], clips(facts, labels))
            if applied.counts[0].dropped.get("compose/server_error", 0) == 0:
                assert server.told()["requests"] - told["requests"] == again.counts[0].counted["calls"]
            assert again.counts[0].counted["calls"] <= 3


def test_clips_do_not_depend_on_those_beside_them() -> None:
    facts = [SPEECH, MUSIC, [Fact("event", "series", 0.9), Fact("pitch", "high", 0.9)]] * 3
    whole = Compose()(clips(facts))
    parts = pa.concat_tables([Compose()(clips(facts[k : k + 1], first=k)) for k in range(len(facts))])
    assert whole["text"].to_pylist() == parts["text"].to_pylist()


def test_labels_are_true_and_not_quoted() -> None:
    with chat_server(f"{CAPTIONER}:barking") as server:
        compose = Compose(writer=chat(server.url), fallback="off", attempts=1)
        burst = [Fact("event", "burst", 0.9)]
        found = compose(clips([burst] * 3, [["Dog"], ["Cat"], ["Dog, barking"]])).to_pylist()
        assert [row["drop_reason"] for row in found] == [None, "unverified", "quoted_label"]
        assert found[0]["accepted"]


def test_what_is_asked() -> None:
    clip = Clip(
        "a", [*SPEECH, Fact("instrument", "flute", 0.3)], ["Speech", "Inside"], {"description": "A man.", "music": None}
    )
    system, user = turns_of(clip)
    assert (system.role, user.role) == ("system", "user")
    asked = str(user.content[0])
    assert "description: A man." in asked
    assert "What was measured: a man speaking in French\n" in asked
    assert "tagged it with: Speech, Inside\n" in asked
    hum = [Fact("event", "hum", 0.9), Fact("pitch", "low", 0.7)]
    assert noted([*MUSIC, Fact("genre", "jazz", 0.9), *hum]) == "jazz music; a steady hum, low-pitched"
    assert noted([]) == "nothing"


def test_the_published_question() -> None:
    answers = {"description": "A man talks.", "speech": "A calm man.", "music": "There is no music."}
    system, user = published_turns(Clip("a", SPEECH, ["Speech", "Music"], answers))
    assert system.content == (PUBLISHED_SYSTEM,)
    lines = str(user.content[0]).split("\n")
    assert lines == [
        "Details:",
        "1 Crowd-sourced workers:{Description: A man talks.",
        "Speech: A calm man.",
        "}",
        "2 The ground truth labels:{Speech, Music}",
        "My instructions:",
        " " * 24
        + "Do not mention the specific content of speech! Do not mention the specific content of speech!"
        + " " * 24
        + "Do not output the ground truth labels in the caption! Do not output the ground truth labels in the caption!"
        + " " * 24,
        "Output your caption (Within 50 words):",
    ]


@pytest.mark.parametrize(
    ("caption", "label", "expected"),
    [
        ("A man, speaking.", "Speech", ["A man  speaking ", "SpeechSpeech"]),
        ("ab", "abcde", ["abab", "abcde"]),
        ("", "a", ["", "a"]),
    ],
)
def test_the_published_texts(caption: str, label: str, expected: list[str]) -> None:
    assert prepared([caption, label]) == expected


def test_label_captions() -> None:
    assert label_caption(Clip("a", [], ["Speech", "Dog", "Rain"], {})) == "The sound of speech, dog and rain."
    assert label_caption(Clip("a", SPEECH, [], {})) == "The sound of speech."
    assert label_caption(Clip("a", [], [], {})) == ""


@pytest.mark.parametrize(
    ("text", "expected"), [('"A man\n speaks."', "A man speaks."), ('A "b"', 'A "b"'), ("'A' 'b'", "'A' 'b'")]
)
def test_tidy(text: str, expected: str) -> None:
    assert tidy(text) == expected


@pytest.mark.parametrize("text", ["A dog barks.", "Rain falls!", "A man speaks in", "", "It is loud ("])
def test_a_full_stop_that_is_missing_is_added(text: str) -> None:
    assert ended(text) == text + "." * (text == "A man speaks in")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"writer": "gpt"}, "must be grammar, smollm2 or"),
        ({"verifier": "nobody"}, "must be evidence or"),
        ({"verifier": {"path": "/nowhere"}}, "no such folder: /nowhere"),
        ({"mode": "published"}, "published writes by a server"),
        ({"accept": 0.5, "floor": 0.9}, "floor: 0.9 is more than accept, 0.5"),
        ({"fallback": "off"}, "fallback: off has no meaning where the grammar is the writer"),
        ({"attempts": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_parameters(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Compose(**fields)


def test_identity_leaves_out_where_the_server_is() -> None:
    one, other = (Compose(writer=chat(url)) for url in ("http://a/v1", "http://b/v1"))
    assert identity(one) == identity(other) != identity(Compose(writer=chat("http://a/v1", model="qwen")))


def test_floors_and_what_is_enough() -> None:
    facts = [*MUSIC, Fact("genre", "jazz", 0.9)]
    with chat_server(f"{CAPTIONER}:music") as server:
        row = Compose(writer=chat(server.url), accept=0.5)(clips([facts])).to_pylist()[0]
        assert consistency("Music plays.", facts).score == row["caption_score"] == 0.5
        assert (row["accepted"], row["attempts"], row["text"]) == (True, 1, "Music plays.")
        row = Compose(writer=chat(server.url))(clips([facts])).to_pylist()[0]
        assert (row["accepted"], row["attempts"], row["written_by"]) == (False, 3, "grammar")


class Letters:
    """Compares by letters: what a model of sounds and texts offers, small enough to reckon by hand."""

    def audio(self, clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.stack([clip[:2] for clip in clips])

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        counts = np.array([[text.count("a") + 1e-9, text.count("b")] for text in texts])
        return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize(
    ("caption", "label", "accepted"), [("b", "b", True), ("bba", "b", False), ("b", "bba", True), ("a", "b", False)]
)
def test_clap_accepts_what_is_as_similar_as_the_labels(
    caption: str, label: str, accepted: bool, published: bool
) -> None:
    clip = Clip("x", [], [label], {}, np.array([0, 1], np.float32))
    judged = Similarity(Letters(), published).judge(clip, caption)
    assert judged.accepted == accepted
    assert judged.label_score is not None
    assert accepted == (judged.score >= judged.label_score)
    assert Similarity(Letters(), published).judge(clip._replace(labels=[]), caption) == (judged.score, False, None)
