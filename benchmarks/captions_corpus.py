"""Clips of which all is known, from real speech, music, instruments and effects in Debian's packages: the corpus that
captions are scored on.

    python -m benchmarks.captions_corpus FOLDER --seed 1 [--packages FOLDER]

FOLDER/audio gets the clips, FOLDER/truth what is in them, FOLDER/labels-1.csv labels in AudioSet's words. Packages
are those of speech_corpus.py, kept and got as there, and two more; nothing of them is redistributed:

- sonic-pi-samples: instruments, drums, loops and effects (CC0).
- sound-theme-freedesktop: sounds of a desktop (CC-BY-SA and others).

A seed makes 132 clips of at most ten seconds: six of each of five languages, twelve of acted speech in two more, each
language over music at 20, 10, 5 and 0 dB and over noise at 10 dB; music alone; instruments, drums and effects. Speakers
and languages are those of the packages; instruments are told by the files' names, and not known of music.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import speech_corpus
from benchmarks.speech_corpus import CACHE, FOREIGN, LANGUAGES, Source, unpacked
from workflows.captions_sample import LEVELS, LONGEST, RATES, Known, Sound, pieces, sound, speech, spoken, write_known
from workflows.speech_sample import RATE, Samples, listen, write

PACKAGES = (*speech_corpus.PACKAGES, "sonic-pi-samples", "sound-theme-freedesktop")
CLEAN, ACTED = 6, 3  # clips of a language, and of an actor
MOST_SAID = LONGEST - 3  # seconds of a prompt, which has silence around it
NOISE = 10.0  # dB
PIECES, LOOPS, INSTRUMENTS, EFFECTS = 3, 8, 18, 24  # clips: of each piece of music, of loops, ...


class Kind(NamedTuple):
    """What files are whose names begin so."""

    name: str
    kind: str
    label: str
    instruments: tuple[str, ...] | None = ()


KINDS = (  # the first that fits; a file of no kind is left out
    *(Kind(f"loop_{name}", "music", "Drum kit", ("drums",)) for name in ("amen", "breakbeat", "perc", "tabla")),
    *(Kind(f"loop_{name}", "music", "Music", None) for name in ("compus", "electric", "garzul", "mehackit", "mika")),
    *(Kind(f"loop_{name}", "music", "Music", None) for name in ("safari", "weirdo")),
    Kind("guit_", "instrument", "Guitar", ("guitar",)),
    Kind("ambi_piano", "instrument", "Piano", ("piano",)),
    Kind("bass_", "instrument", "Bass guitar", ("bass", "synthesizer")),
    Kind("tabla_", "instrument", "Tabla", ("drums",)),
    *(Kind(name, "instrument", "Drum", ("drums",)) for name in ("drum_", "bd_", "sn_")),
    Kind("ambi_choir", "", ""),
    *(Kind(f"ambi_{name}", "instrument", "Hum", ()) for name in ("drone", "glass_hum", "haunted_hum")),  # or music?
    *(Kind(f"ambi_{name}", "effect", "Whoosh, swoosh, swish") for name in ("dark_woosh", "swoosh")),
    Kind("loop_3d_printer", "effect", "Printer"),
    Kind("misc_burp", "effect", "Burping, eructation"),
    Kind("misc_crow", "effect", "Crow"),
    Kind("misc_cineboom", "effect", "Boom"),
    Kind("perc_bell", "effect", "Bell"),
    Kind("perc_door", "effect", "Door"),
    Kind("perc_impact", "effect", "Thump, thud"),
    Kind("perc_snap", "effect", "Finger snapping"),
    Kind("perc_swoosh", "effect", "Whoosh, swoosh, swish"),
    Kind("perc_till", "effect", "Cash register"),
    Kind("vinyl_hiss", "effect", "Hiss"),
    *(Kind(f"vinyl_{name}", "effect", "Scratching (performance technique)") for name in ("backspin", "rewind")),
    *(Kind(f"elec_{name}", "effect", "Beep, bleep") for name in ("beep", "blip", "ping")),
    Kind("alarm-clock", "effect", "Alarm clock"),
    Kind("bell", "effect", "Bell"),
    Kind("camera-shutter", "effect", "Camera"),
    Kind("phone-incoming", "effect", "Telephone bell ringing"),
    Kind("phone-outgoing-busy", "effect", "Busy signal"),
    Kind("trash-empty", "effect", "Crumpling, crinkling"),
    *(Kind(name, "effect", "Ding") for name in ("complete", "message", "service-log", "dialog-", "suspend-")),
    *(Kind(name, "effect", "Click") for name in ("device-", "power-", "screen-capture", "window-")),
)
SHORTEST = 0.1  # seconds of a file


class Made(NamedTuple):
    """A clip, and the seconds of it."""

    name: str
    known: Known
    samples: Samples


def recorded(path: Path) -> Sound | None:
    """The sound in a file of the packages, None where its name does not tell what it is, or it is too short."""
    kind = next((kind for kind in KINDS if path.stem.startswith(kind.name)), None)
    if kind is None or not kind.kind:
        return None
    samples = listen(path)
    if len(samples) < SHORTEST * RATE or not samples.any():
        return None
    return sound(path.stem, samples, kind.kind, [kind.label], kind.instruments)


def voices(source: Source, seed: int) -> Iterator[Made]:
    """Everybody who speaks, alone and over something."""
    for number, ((language, speaker), voice) in enumerate(source.voices.items()):

        def take(voice: speech_corpus.Voice = voice) -> speech_corpus.Clip:
            while (clip := voice.take()).seconds > MOST_SAID:
                pass
            return clip

        name = f"{language}-{speaker.replace(' ', '-')}"
        for turn in range(ACTED if language in FOREIGN else CLEAN):
            clip = take()
            known = speech(clip)
            known = known._replace(kind="acted speech") if language in FOREIGN else known
            yield Made(f"speech-{name}-{turn}", known, spoken([seed, number, turn], clip))
        for turn, level in enumerate(LEVELS if language in LANGUAGES else ()):
            clip = take()
            mixed = spoken([seed, number, CLEAN + turn], clip, "music", level, source.piece())
            yield Made(f"radio-{name}-{level:g}", speech(clip, "music", level), mixed)
        if language in LANGUAGES:
            clip = take()
            yield Made(f"noise-{name}", speech(clip, "noise", NOISE), spoken([seed, number, 99], clip, "noise", NOISE))


def others(source: Source, files: Sequence[Path]) -> Iterator[Made]:
    """Music, instruments and effects."""
    known = Known("music", False, True, instruments=None, labels=("Music",))
    for track, music in enumerate(source.music):
        parts = pieces(music, LONGEST - 1)
        for part in source.random.permutation(len(parts))[:PIECES]:
            yield Made(f"music-{track}-{part}", known, parts[part])
    left = {"music": LOOPS, "instrument": INSTRUMENTS, "effect": EFFECTS}
    for path in (files[n] for n in source.random.permutation(len(files))):
        if (one := recorded(path)) and left[one.known.kind]:
            left[one.known.kind] -= 1
            yield Made(f"{one.known.kind}-{one.name}", one.known, one.samples)


def build(folder: Path, seed: int, packages: Path) -> dict[str, float]:
    """Write the corpus of a seed; the seconds of its clips, by their names."""
    share = unpacked(packages, PACKAGES) / "usr" / "share"
    source = Source(packages, seed)
    files = [*(share / "sonic-pi" / "samples").glob("*.flac"), *(share / "sounds" / "freedesktop").rglob("*.oga")]
    made: dict[str, float] = {}
    labels = [("recording", "labels")]
    kinds = list(RATES)
    for one in (*voices(source, seed), *others(source, sorted(files))):
        kind = kinds[len(made) % len(kinds)]
        name = f"{seed}-{one.name}{kind}"
        write(folder / "audio" / name, one.samples, RATES[kind])
        made[name] = len(one.samples) / RATE
        write_known(folder / "truth", name, [(0.0, made[name], one.known)])
        labels.append((name, ";".join(one.known.labels)))
    with open(folder / f"labels-{seed}.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(labels)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.captions_corpus")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--packages", type=Path, default=CACHE)
    given = parser.parse_args()
    if not all(shutil.which(tool) for tool in ("apt-get", "dpkg")):
        raise SystemExit("apt-get and dpkg are needed: the sounds come from Debian's packages")
    made = build(given.folder, given.seed, given.packages)
    print(f"{len(made)} clips, {sum(made.values()) / 60:.1f} minutes, in {given.folder}")


if __name__ == "__main__":
    main()
