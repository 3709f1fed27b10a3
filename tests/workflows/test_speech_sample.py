from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from workflows.speech_sample import (
    EDGE,
    RATE,
    SAMPLE,
    SILENCE,
    Clip,
    Mix,
    committed,
    lay_out,
    listen,
    write,
    write_truth,
)

pytest.importorskip("av", reason="needs the extra corpusmill[speech]")
pytest.importorskip("soxr", reason="needs the extra corpusmill[speech]")


@pytest.fixture(scope="module")
def clips() -> dict[str, list[Clip]]:
    return committed()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    lay_out(folder / "input", folder / "truth")
    return folder


def tone(seconds: float, text: str = "beep", speaker: str = "A") -> Clip:
    wave = 0.5 * np.sin(np.arange(round(seconds * RATE)) * 2 * np.pi * 440 / RATE)
    return Clip(wave.astype(np.float32), text, "en", speaker)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples.astype(np.float64)))))


def test_committed_clips_are_all_told_and_small(clips: dict[str, list[Clip]]) -> None:
    told = json.loads((SAMPLE / "transcripts.json").read_text("utf-8"))
    assert {str(path.relative_to(SAMPLE)) for path in SAMPLE.glob("prompts/*/*.g722")} == set(told)
    assert set(clips) == {"en", "es", "fr", "it", "ru"}
    for found in clips.values():
        assert len(found) >= 9
        for clip in found:
            assert len(clip.text.split()) >= 6
            assert 2 < clip.seconds < 9
            assert np.abs(clip.samples).max() == pytest.approx(0.5)
            assert np.abs(clip.samples[[0, -1]]).min() > EDGE / 2
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*")) < 2_200_000


def test_a_mix_is_where_it_says() -> None:
    mix = Mix(3)
    mix.turn([tone(1), tone(2)])
    mix.hole(np.random.default_rng(0).standard_normal(RATE).astype(np.float32), 3)
    mix.turn([tone(1.5, "boop", "B")])
    samples = mix.samples()
    assert len(samples) / RATE == pytest.approx(mix.seconds)
    loud = np.zeros(len(samples), bool)
    for start, end in [*((one.start, one.end) for one in mix.said), *mix.music]:
        loud[round(start * RATE) : round(end * RATE)] = True
    assert rms(samples[loud]) > 0.1
    assert rms(samples[~loud]) < 0.01  # the times are rounded to milliseconds
    gaps = [after.start - one.end for one, after in zip(mix.said, mix.said[1:], strict=False)]
    assert 0.2 <= gaps[0] <= 0.6
    assert gaps[1] > 3
    assert [(one.speaker, one.text) for one in mix.said] == [("A", "beep"), ("A", "beep"), ("B", "boop")]


@pytest.mark.parametrize(("seed", "level"), [(1, 20.0), (2, 0.0), (3, 10.0), (4, 12.0), (5, 0.0)])
def test_what_lies_under_speech_is_as_loud_as_told(seed: int, level: float) -> None:
    mix, other = Mix(seed), Mix(seed)
    for one in (mix, other):
        one.turn([tone(2)])
        begun = one.seconds
        one.turn([tone(3), tone(2)])
    mix.under(begun, "noise", level)
    under = (mix._samples - other._samples)[round(begun * RATE) :]
    speech = np.concatenate([other._samples[round(s.start * RATE) : round(s.end * RATE)] for s in other.said[1:]])
    assert 20 * np.log10(rms(speech) / rms(under)) == pytest.approx(level, abs=0.1)
    assert not (mix._samples != other._samples)[: round(begun * RATE)].any()
    assert [(one.bed, one.snr) for one in mix.said] == [(None, None), ("noise", level), ("noise", level)]


def test_somebody_interrupts() -> None:
    mix = Mix(1)
    mix.turn([tone(3)])
    mix.interrupt(tone(4, speaker="B"), 1.0)
    mix.interrupt(tone(0.5, speaker="A"), 1.0)  # which is within the other
    first, second, third = mix.said
    assert second.start == pytest.approx(first.end - 1, abs=1e-3)
    assert third.end < second.end
    assert mix.seconds > second.end


@pytest.mark.parametrize("kind", [".flac", ".wav", ".mp3", ".m4a", ".ogg"])
def test_files_keep_times_and_are_the_same_every_time(kind: str, clips: dict[str, list[Clip]], tmp_path: Path) -> None:
    mix = Mix(2)
    mix.turn(clips["it"][:1])
    samples = mix.samples()
    for name in ("a", "b"):
        write(tmp_path / f"{name}{kind}", samples, 48_000, 2)
    assert (tmp_path / f"a{kind}").read_bytes() == (tmp_path / f"b{kind}").read_bytes()
    read = listen(tmp_path / f"a{kind}")
    count = min(len(read), len(samples))
    assert abs(len(read) - len(samples)) < 0.05 * RATE
    spectrum = np.fft.rfft(samples[:count]) * np.conj(np.fft.rfft(read[:count]))
    lag = int(np.argmax(np.fft.irfft(spectrum)))
    assert min(lag, count - lag) <= 0.001 * RATE


def test_truth_in_both_forms(tmp_path: Path) -> None:
    mix = Mix(2)
    mix.turn([tone(1, speaker="Some One")])
    write_truth(tmp_path, "radio/a talk.mp3", mix)
    told = json.loads((tmp_path / "radio" / "a talk.mp3.json").read_text("utf-8"))
    assert told["said"] == [mix.said[0]._asdict()]
    assert told["seconds"] == round(mix.seconds, 3)
    line = (tmp_path / "radio" / "a talk.mp3.rttm").read_text("utf-8")
    assert line == "SPEAKER radio/a_talk.mp3 1 1.000 1.000 <NA> <NA> Some_One <NA> <NA>\n"


def test_the_demo_has_what_it_promises(demo: Path) -> None:
    files = {str(path.relative_to(demo / "input")): path for path in (demo / "input").rglob("*") if path.is_file()}
    truth = {
        told["recording"]: told for path in (demo / "truth").rglob("*.json") if (told := json.loads(path.read_text()))
    }
    assert set(truth) == {"radio/programme.flac", "radio/interview.mp3", "dictated.m4a", "voice-mail.ogg"}
    assert files["copy of interview.mp3"].read_bytes() == files["radio/interview.mp3"].read_bytes()
    programme = truth["radio/programme.flac"]
    assert len({one["speaker"] for one in programme["said"]}) == 4
    assert {one["bed"] for one in programme["said"]} == {None, "music"}
    assert len({one["language"] for one in truth["radio/interview.mp3"]["said"]}) == 3
    texts = [one["text"] for told in truth.values() for one in told["said"]]
    assert len(texts) - len(set(texts)) == 1  # the jingle
    for name, told in truth.items():
        samples = listen(files[name])
        assert len(samples) / RATE == pytest.approx(told["seconds"], abs=0.05)
        for one in told["said"]:
            assert rms(samples[round(one["start"] * RATE) : round(one["end"] * RATE)]) > 0.01
    bad = {"notes.mp3", "cut-off.mp3"}
    assert 240 < sum(len(listen(path)) / RATE for name, path in files.items() if name not in bad) < 360
    assert not listen(files[SILENCE]).any()
    assert bad < set(files)
