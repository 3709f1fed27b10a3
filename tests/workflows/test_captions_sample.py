from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.caption.facts import GENDERS, INSTRUMENTS
from workflows import captions_sample as sample
from workflows.captions_sample import SAMPLE, lay_out, pieces, sound, sounds, speech, spoken
from workflows.speech_sample import RATE, Clip, listen

pytest.importorskip("av", reason="needs the extra corpusmill[speech]")
pytest.importorskip("soxr", reason="needs the extra corpusmill[speech]")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    lay_out(folder / "input", folder / "truth")
    return folder


@pytest.fixture(scope="module")
def truth(demo: Path) -> dict[str, list[dict[str, Any]]]:
    told = [json.loads(path.read_text("utf-8")) for path in (demo / "truth").rglob("*.json")]
    return {one["recording"]: one["clips"] for one in told}


def files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_committed_sounds_are_all_told_licensed_and_small() -> None:
    told = json.loads((SAMPLE / "sounds.json").read_text("utf-8"))
    assert {f"sounds/{path.name}" for path in (SAMPLE / "sounds").iterdir()} == set(told)
    readme = (SAMPLE / "README").read_text("utf-8")
    licences = (SAMPLE / "licences" / "sonic-pi-samples.copyright").read_text("utf-8").split("\n\n")
    for path, one in told.items():
        name = Path(path).stem
        assert f" {name} {one['seconds']:g} s: " in readme
        (own,) = (part for part in licences if f"samples/{name}.flac\n" in part)
        assert own.rstrip().endswith("License: CC0")
        assert len(listen(SAMPLE / path)) / RATE == pytest.approx(one["seconds"], abs=0.05)
        assert set(one["instruments"] or ()) <= set(INSTRUMENTS)
        assert one["labels"]
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 900_000


def test_a_layout_is_the_same_every_time(demo: Path, tmp_path: Path) -> None:
    lay_out(tmp_path / "input", tmp_path / "truth")
    one, other = (
        {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files(folder).items()}
        for folder in (demo, tmp_path)
    )
    assert one == other


def test_all_is_told_of(demo: Path, truth: dict[str, list[dict[str, Any]]]) -> None:
    clips = files(demo / "input" / sample.CLIPS)
    assert set(truth) == set(clips) - {sample.BROKEN}
    for name, told in truth.items():
        assert told[0]["start"] == 0
        assert [one["start"] for one in told[1:]] == [one["end"] for one in told[:-1]]
        assert len(listen(clips[name])) / RATE == pytest.approx(told[-1]["end"], abs=0.06)
        for one in told:
            assert 1 <= one["end"] - one["start"] <= sample.LONGEST
            assert one["speech"] == (one["language"] is not None) == (one["gender"] in GENDERS)
    assert sum(path.stat().st_size for path in clips.values()) < 12_000_000


def test_there_is_some_of_everything(truth: dict[str, list[dict[str, Any]]]) -> None:
    told = [one for clips in truth.values() for one in clips]
    kinds = Counter(one["kind"] for one in told)
    assert kinds.total() - kinds["silence"] >= 60
    assert kinds == Counter(kinds) | Counter(
        {"speech": 20, "speech over music": 15, "music": 8, "instrument": 10, "effect": 20, "silence": 2}
    )
    for kind in ("speech", "speech over music"):
        assert {one["language"] for one in told if one["kind"] == kind} == {"en", "es", "fr", "it", "ru"}
    assert {one["level"] for one in told} == {None, *sample.LEVELS}
    assert {one["gender"] for one in told if one["language"] == "it"} == {"male"}
    assert {one["gender"] for one in told if one["language"] == "ru"} == {"female"}
    assert {"guitar", "piano", "bass", "drums"} <= {name for one in told for name in one["instruments"] or ()}


def test_what_is_planted(demo: Path, truth: dict[str, list[dict[str, Any]]]) -> None:
    clips = files(demo / "input" / sample.CLIPS)
    original = f"instrument/{sample.ORIGINAL}.flac"
    assert clips[sample.COPY].read_bytes() == clips[original].read_bytes()
    assert truth[sample.COPY] == truth[sample.NEAR_DUPLICATE] == truth[original]
    held = files(demo / "input" / sample.EVALUATION)
    for copy, path in (
        (sample.NEAR_DUPLICATE, clips[original]),
        (sample.FOUND, next(iter(held.values()))),
    ):
        one, other = (np.abs(np.fft.rfft(listen(path), 1 << 18)) for path in (clips[copy], path))
        assert np.corrcoef(one, other)[0, 1] > 0.98
        assert clips[copy].read_bytes() != path.read_bytes()
    with open(demo / "input" / sample.LISTED, encoding="utf-8") as file:
        assert [row["file_name"] for row in csv.DictReader(file)] == [sample.HELD_OUT]
    assert not listen(clips[sample.SILENCE]).any()
    programme = listen(clips[sample.PROGRAMME])
    assert not programme[-9 * RATE :].any()
    assert len(truth[sample.PROGRAMME]) == 6
    with open(demo / "input" / sample.LABELS, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    named = Counter(row["recording"] for row in rows)
    assert len(named) >= 60
    assert [name for name, times in named.items() if times > 1] == [rows[0]["recording"]]
    assert set(named) - set(clips) == {"nowhere.wav"}
    assert rows[0]["labels"] == "Speech;Female speech, woman speaking"


def test_short_sounds_are_heard_as_a_series() -> None:
    one = sound("click", np.ones(2400, np.float32), "effect", ["Click"], [])
    assert np.count_nonzero(np.diff((one.samples > 0).astype(int)) > 0) == 3
    assert np.abs(one.samples).max() == 0.5
    assert len(sound("hum", np.ones(20 * RATE, np.float32), "effect", ["Hum"], []).samples) == 10 * RATE
    assert all(RATE <= len(one.samples) <= sample.LONGEST * RATE for one in sounds())


def test_speech_is_as_told() -> None:
    tone = np.sin(np.arange(2 * RATE) / 10).astype(np.float32) / 2
    clip = Clip(tone, "beep", "it", "Carlo Flora")
    known = speech(clip, "music", 5)
    assert (known.kind, known.music, known.gender, known.instruments) == ("speech over music", True, "male", None)
    assert known.labels == ("Speech", "Male speech, man speaking", "Music")
    assert speech(clip).labels == ("Speech", "Male speech, man speaking")
    quiet, loud = (spoken([1], clip, "noise", level) for level in (20, 0))
    assert quiet[: RATE // 2].std() < loud[: RATE // 2].std() / 3
    assert [len(piece) for piece in pieces(np.zeros(25 * RATE, np.float32), 10)] == [10 * RATE] * 2
