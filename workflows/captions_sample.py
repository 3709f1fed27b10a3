"""Clips of which all is known: the demo's of captions, from committed speech, music, instruments and effects, and what
benchmarks make others with.

Speech is laid over music at given levels by `speech_sample.Mix`. The same seed gives the same bytes.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workflows.speech_sample import PEAK, RATE, Clip, Mix, Samples, committed, listen, write
from workflows.speech_sample import SAMPLE as SPEECH

SAMPLE = Path(__file__).parent / "sample" / "captions"
SEED = 9
LONGEST = 10.0  # seconds of a clip
MEN = ("Carlo", "big fish")  # among the speakers, by the beginnings of their names
LEVELS = (20.0, 10.0, 5.0, 0.0)  # dB of speech above music
EDGE = 0.2  # seconds of silence around a sound
SHORT, SERIES = 1.5, 3  # a sound of fewer seconds than that is heard so many times
CLIPS, EVALUATION = "clips", "evaluation"  # folders of the demo's input: what is captioned, and what must not be
LABELS, LISTED = "labels.csv", "evaluation.csv"  # files beside them: labels, and names of recordings to leave out
RATES = {".flac": RATE, ".ogg": 48_000, ".mp3": 44_100, ".m4a": 48_000, ".wav": 16_000}  # of files of speech
ORIGINAL, COPY, NEAR_DUPLICATE = "guit_em9", "copy of guitar.flac", "again/guitar.mp3"
PROGRAMME = "radio/programme.flac"
HELD_OUT = "radio/held-out.flac"  # listed
FOUND = "found/answering-machine.mp3"  # not listed, but what is below EVALUATION sounds the same
SILENCE, BROKEN = "empty-room.wav", "notes.mp3"


class Known(NamedTuple):
    """What is in a clip. None is: not known."""

    kind: str  # speech, speech over music, speech over noise, music, instrument, effect or silence
    speech: bool
    music: bool | None  # of an instrument alone it is a matter of taste
    language: str | None = None
    gender: str | None = None
    instruments: tuple[str, ...] | None = ()
    level: float | None = None  # dB of speech above what is under it
    labels: tuple[str, ...] = ()  # in AudioSet's words


NOTHING = Known("silence", False, False)


class Sound(NamedTuple):
    """A recorded effect, instrument or loop."""

    name: str
    samples: Samples
    known: Known


def speech(clip: Clip, bed: str | None = None, level: float | None = None) -> Known:
    """Somebody speaks, over `music` or `noise`, or nothing."""
    gender = "male" if clip.speaker.startswith(MEN) else "female"
    labels = ["Speech", "Male speech, man speaking" if gender == "male" else "Female speech, woman speaking"]
    labels += [bed.capitalize()] if bed else []
    kind = f"speech over {bed}" if bed else "speech"
    instruments = None if bed == "music" else ()
    return Known(kind, True, bed == "music", clip.language, gender, instruments, level, tuple(labels))


def sound(name: str, samples: Samples, kind: str, labels: Sequence[str], instruments: Sequence[str] | None) -> Sound:
    """As `kind` says, at the level of all; what is short is heard as a series."""
    samples = samples * np.float32(PEAK / np.abs(samples).max())
    silence = np.zeros(round(EDGE * RATE), np.float32)
    times = SERIES if len(samples) < SHORT * RATE else 1
    music = {"music": True, "instrument": None, "effect": False}[kind]
    known = Known(
        kind, False, music, instruments=None if instruments is None else tuple(instruments), labels=tuple(labels)
    )
    return Sound(name, np.concatenate([silence, *[samples, silence] * times])[: round(LONGEST * RATE)], known)


def sounds() -> list[Sound]:
    """The committed ones."""
    told = json.loads((SAMPLE / "sounds.json").read_text("utf-8"))
    return [
        sound(Path(path).stem, listen(SAMPLE / path), one["kind"], one["labels"], one["instruments"])
        for path, one in told.items()
    ]


def spoken(
    seed: Sequence[int], clip: Clip, bed: str | None = None, level: float = 0.0, under: Samples | None = None
) -> Samples:
    """Somebody says a clip, over `under`, or white noise, if a `bed` is named."""
    mix = Mix(seed)
    mix.turn([clip])
    if bed:
        mix.under(0, bed, level, under)
    return mix.samples()[: round(LONGEST * RATE)]


def pieces(music: Samples, seconds: float) -> list[Samples]:
    """Music in parts of that length, with what is left over left out."""
    size = round(seconds * RATE)
    return [music[at : at + size] * np.float32(PEAK) for at in range(0, len(music) - size + 1, size)]


def write_known(truth: Path, recording: str, clips: Iterable[tuple[float, float, Known]]) -> None:
    """`<recording>.json`: the clips that lie one after the other in a recording, with their times in seconds."""
    path = truth / f"{recording}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    told = [{"start": round(start, 3), "end": round(end, 3), **known._asdict()} for start, end, known in clips]
    path.write_text(json.dumps({"recording": recording, "clips": told}, indent=1) + "\n", "utf-8")


class _Layout:
    """The demo's input as it is written."""

    def __init__(self, folder: Path, truth: Path) -> None:
        self.clips, self.truth = folder / CLIPS, truth
        self.labels: list[tuple[str, str]] = []

    def put(self, name: str, known: Known, samples: Samples, rate: int = RATE) -> None:
        """A recording that is one clip."""
        self.plant(name, known, samples, rate)
        self.labels.append((name, ";".join(known.labels)))

    def plant(self, name: str, known: Known, samples: Samples, rate: int = RATE) -> None:
        """One that nobody gave labels."""
        write(self.clips / name, samples, rate)
        write_known(self.truth, name, [(0.0, len(samples) / RATE, known)])


def lay_out(folder: Path, truth: Path) -> None:
    """The demo's input below `folder`, and what is in its recordings below `truth`."""
    layout = _Layout(folder, truth)
    music = [listen(path) for path in sorted((SPEECH / "music").iterdir())]
    order, pools = np.random.default_rng(SEED), {}
    for language, clips in sorted(committed().items()):
        pools[language] = [clips[n] for n in order.permutation(len(clips))]
    for number, (language, pool) in enumerate(pools.items()):
        for turn in range(4):
            kind = list(RATES)[(number + turn) % len(RATES)]
            clip = pool.pop()
            layout.put(f"speech/{language}-{turn}{kind}", speech(clip), spoken([SEED, number, turn], clip), RATES[kind])
        for turn in range(3):
            clip, level = pool.pop(), LEVELS[(number + turn) % len(LEVELS)]
            mixed = spoken([SEED, number, 4 + turn], clip, "music", level, music[turn % 2])
            layout.put(f"radio/{language}-{turn}.flac", speech(clip, "music", level), mixed)
    for number, piece in enumerate(piece for track in music for piece in pieces(track, 9)):
        known = Known("music", False, True, instruments=None, labels=("Music",))
        layout.put(f"music/piece-{number}.flac", known, piece)
    for one in sounds():
        layout.put(f"{one.known.kind}/{one.name}.flac", one.known, one.samples)
        if one.name == ORIGINAL:
            _plant_copies(layout, one)
    _plant_programme(layout, [pool.pop() for pool in pools.values()])
    _plant_evaluation(folder, layout, pools["fr"].pop(), pools["it"].pop())
    layout.plant(SILENCE, NOTHING, np.zeros(5 * RATE, np.float32), 16_000)
    (layout.clips / BROKEN).write_text("A page of text that somebody gave the name of a recording.\n" * 40, "utf-8")
    _write_csv(folder / LABELS, ("recording", "labels"), [*layout.labels, layout.labels[0], ("nowhere.wav", "Dog")])


def _plant_copies(layout: _Layout, original: Sound) -> None:
    """The same sound as an MP3 at another level, and the same bytes under another name."""
    layout.plant(NEAR_DUPLICATE, original.known, original.samples * np.float32(0.4), 44_100)
    shutil.copyfile(layout.clips / f"{original.known.kind}/{original.name}.flac", layout.clips / COPY)
    write_known(layout.truth, COPY, [(0.0, len(original.samples) / RATE, original.known)])


def _plant_programme(layout: _Layout, clips: Sequence[Clip]) -> None:
    """A recording of several clips, each as long as one may be, and one of silence at its end."""
    size = round(LONGEST * RATE)
    said = [spoken([SEED, 9, number], clip) for number, clip in enumerate(clips)]
    parts = [*(np.pad(samples, (0, size - len(samples))) for samples in said), np.zeros(size, np.float32)]
    write(layout.clips / PROGRAMME, np.concatenate(parts))
    known = [*map(speech, clips), NOTHING]
    write_known(layout.truth, PROGRAMME, [(LONGEST * n, LONGEST * (n + 1), one) for n, one in enumerate(known)])


def _plant_evaluation(folder: Path, layout: _Layout, listed: Clip, known: Clip) -> None:
    """A recording of an evaluation set that is listed by its name, and one that is known by what it sounds like."""
    layout.plant(HELD_OUT, speech(listed), spoken([SEED, 10, 0], listed))
    _write_csv(folder / LISTED, ("file_name",), [(HELD_OUT,)])
    samples = spoken([SEED, 10, 1], known)
    write(folder / EVALUATION / "caption-test.flac", samples)
    layout.plant(FOUND, speech(known), samples * np.float32(0.5), 44_100)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
