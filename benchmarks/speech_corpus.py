"""Recordings of which all is known, from real speech in Debian's packages: the corpus that speech is scored on.

    python -m benchmarks.speech_corpus FOLDER --seed 1 --minutes 8 [--packages FOLDER]

FOLDER/audio gets the recordings, FOLDER/truth their RTTM and JSON (who says what when, over what), FOLDER/corpus-1.json
what they were made of. Packages are taken from --packages, by default ~/.cache/corpusmill/debian, and put there by
`apt-get download` where they are missing; nothing is installed. Their recordings are not redistributed:

- asterisk-core-sounds-{en,es,fr,it,ru}-g722: prompts of a telephone system, 16 kHz, five languages, four voices, as
  English and Spanish are the same speaker (CC-BY-SA-3.0; it, ru: CC-BY-3.0). Of their texts those count that have six
  words or more, none of them a digit or a sign, of 2 to 9 seconds.
- fillets-ng-data-{nl,cs}: dialogue of two actors each (GPL-2): voices, and languages that nobody asked for.
- asterisk-moh-opsound-g722: five pieces of music (CC-BY-SA-3.0).

A seed makes: `programme`s of four speakers, with a hole of music, a stretch over white noise, one of speakers at a time
and a bed of music under the second half; `beds`, one voice clean and over music at 20, 10 and 0 dB and noise at 10 dB;
a `monologue` of 61 s without a pause; a `single` speaker in each language; a `foreign` dialogue; `silence`; `music`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workflows.speech_sample import RATE, Clip, Mix, Samples, listen, load, write, write_truth

LANGUAGES = {"en": "en_US_f_Allison", "es": "es_MX_f_Allison", "fr": "fr_CA_f_June", "it": "it_IT_m_Carlo"}
LANGUAGES |= {"ru": "ru_RU_f_IvrvoiceRU"}
FOREIGN = ("nl", "cs")
PACKAGES = (
    *(f"asterisk-core-sounds-{language}{part}" for language in LANGUAGES for part in ("", "-g722")),
    *("asterisk-moh-opsound-g722", "fillets-ng-data", *(f"fillets-ng-data-{language}" for language in FOREIGN)),
)
CACHE = Path("~/.cache/corpusmill/debian").expanduser()
LINE = re.compile(
    r'dialogId\("([^"]+)",\s*"([^"]+)",\s*"(?:[^"\\]|\\.)*"\)\s*\n\s*dialogStr\("((?:[^"\\]|\\.)*)"\)', re.M
)
ACTORS = {"font_small": "small fish", "font_big": "big fish"}
WORDS = 6
SECONDS = (2.0, 9.0)
TURNS = 16  # of a programme
PROMPTS = (1, 1, 2, 3)  # of a turn
BEDS = (12.0, 20.0, 10.0)  # dB under programmes, in turn
MONOLOGUE = 61.0  # seconds


class Line(NamedTuple):
    """A recording of someone who says a text."""

    path: Path
    text: str
    language: str
    speaker: str


class Voice:
    """What one speaker says in one language, in a random order, each once until all have been used."""

    def __init__(self, lines: list[Line], random: np.random.Generator) -> None:
        self._lines, self._random = lines, random
        self._queue: list[Line] = []

    def take(self) -> Clip:
        while True:
            if not self._queue:
                self._queue = [self._lines[n] for n in self._random.permutation(len(self._lines))]
            clip = load(*self._queue.pop())
            if SECONDS[0] <= clip.seconds <= SECONDS[1]:
                return clip


class Source:
    """The speech and the music in the packages, for one seed."""

    def __init__(self, packages: Path, seed: int) -> None:
        share = unpacked(packages) / "usr" / "share"
        self.random = np.random.default_rng([seed, 0])
        lines = [line for language in LANGUAGES for line in prompts(share, language)]
        lines += [line for language in FOREIGN for line in dialogue(share, language)]
        self.voices: dict[tuple[str, str], Voice] = {}
        for key in sorted({(line.language, line.speaker) for line in lines}):
            self.voices[key] = Voice([line for line in lines if (line.language, line.speaker) == key], self.random)
        self.music = [listen(path) for path in sorted((share / "asterisk" / "moh").glob("*.g722"))]

    def voice(self, language: str) -> Voice:
        return next(voice for (spoken, _), voice in self.voices.items() if spoken == language)

    def piece(self) -> Samples:
        return self.music[self.random.integers(len(self.music))]


def unpacked(packages: Path, names: Iterable[str] = PACKAGES) -> Path:
    """The root that packages are unpacked below, got and unpacked where they are not."""
    root = packages / "root"
    for name in names:
        if not list(packages.glob(f"{name}_*.deb")):
            packages.mkdir(parents=True, exist_ok=True)
            subprocess.run(["apt-get", "download", "-qq", name], cwd=packages, check=True)
        if not (root / "usr" / "share" / "doc" / name).is_dir():
            subprocess.run(["dpkg", "-x", str(next(packages.glob(f"{name}_*.deb"))), str(root)], check=True)
    return root


def prompts(share: Path, language: str) -> Iterator[Line]:
    folder = share / "asterisk" / "sounds" / LANGUAGES[language]
    texts = share / "doc" / f"asterisk-core-sounds-{language}" / f"core-sounds-{language}.txt.gz"
    for line in gzip.decompress(texts.read_bytes()).decode("utf-8", "replace").splitlines():
        name, colon, text = line.partition(":")
        path = folder / f"{name.strip()}.g722"
        if colon and not line.startswith(";") and sayable(text) and path.is_file():
            yield Line(path, " ".join(text.split()), language, LANGUAGES[language].rpartition("_")[2])


def dialogue(share: Path, language: str) -> Iterator[Line]:
    game = share / "games" / "fillets-ng"
    for script in sorted(game.glob(f"script/*/dialogs_{language}.lua")):
        for name, font, text in LINE.findall(script.read_text("utf-8")):
            path = game / "sound" / script.parent.name / language / f"{name}.ogg"
            if font in ACTORS and sayable(text) and path.is_file():
                yield Line(path, text, language, f"{ACTORS[font]} {language}")


def sayable(text: str) -> bool:
    """Whether a text is as it is said: words, and enough of them. Some have a question mark for a letter."""
    return len(text.split()) >= WORDS and not re.search(r"[\[\]()<>/*#\\\d�]|\s\?|\?\s*[a-zà-ÿ]", text)


def programme(source: Source, seed: int, number: int) -> Mix:
    mix, random = Mix([seed, 1, number]), source.random
    people = {speaker: voice for (language, speaker), voice in source.voices.items() if language in (*LANGUAGES, "nl")}
    people["Allison"] = source.voice(("en", "es")[(seed + number) % 2])
    chosen = [list(people)[n] for n in random.permutation(len(people))[:4]]
    last = ""
    for turn in range(TURNS):
        if turn == TURNS // 2 - 1:
            mix.hole(source.piece(), 12)
        if turn in (TURNS // 2 - 3, TURNS // 2):
            stretch = mix.seconds
        order = [person for person in chosen if person != last]
        last = chosen[turn] if turn < len(chosen) else order[random.integers(len(order))]
        mix.turn([people[last].take() for _ in range(random.choice(PROMPTS))])
        if turn == TURNS // 2 - 2:
            mix.under(stretch, "noise", 20)
        if turn == TURNS // 2 - 1:
            mix.interrupt(people[next(person for person in order if person != last)].take(), 1.5)
    mix.under(stretch, "music", BEDS[(seed + number) % len(BEDS)], source.piece())
    return mix


def beds(source: Source, seed: int, language: str) -> Mix:
    mix, voice = Mix([seed, 2, ord(language[0])]), source.voice(language)
    for bed, level in ((None, 0), ("music", 20), ("music", 10), ("music", 0), ("noise", 10)):
        begun = mix.seconds
        mix.turn([voice.take() for _ in range(3)])
        if bed:
            mix.under(begun, bed, level, source.piece() if bed == "music" else None)
        mix.silence(1.5)  # nothing is joined with what lies over another bed
    return mix


def monologue(source: Source, seed: int, language: str) -> Mix:
    mix, clips = Mix([seed, 3]), [source.voice(language).take()]
    while sum(clip.seconds for clip in clips) < MONOLOGUE:
        clips.append(source.voice(language).take())
    mix.turn(clips, (0.02, 0.08))
    return mix


def single(source: Source, seed: int, language: str) -> Mix:
    mix, voice = Mix([seed, 4, ord(language[0])]), source.voice(language)
    for _ in range(2):
        mix.turn([voice.take() for _ in range(3)])
    return mix


def foreign(source: Source, seed: int, language: str) -> Mix:
    mix = Mix([seed, 5])
    both = [voice for (spoken, _), voice in source.voices.items() if spoken == language]
    for turn in range(8):
        mix.turn([both[turn % 2].take()])
    return mix


def build(folder: Path, seed: int, minutes: float, packages: Path) -> dict[str, float]:
    """Write the corpus of a seed; the seconds of its recordings, by their names."""
    source = Source(packages, seed)
    made: dict[str, float] = {}

    def put(name: str, mix: Mix, rate: int = RATE, channels: int = 1) -> None:
        name = f"{seed}-{name}"
        write(folder / "audio" / name, mix.samples(), rate, channels)
        write_truth(folder / "truth", name, mix)
        made[name] = mix.seconds

    for language in ("en", "fr"):
        put(f"beds-{language}.flac", beds(source, seed, language))
    put("monologue.mp3", monologue(source, seed, ("en", "it")[seed % 2]), 44_100, 2)
    kinds = ((".flac", RATE), (".wav", 16_000), (".mp3", 44_100), (".m4a", 48_000), (".ogg", 48_000))
    for language, (kind, rate) in zip(sorted(LANGUAGES), kinds, strict=True):
        put(f"single-{language}{kind}", single(source, seed, language), rate)
    put("foreign.ogg", foreign(source, seed, FOREIGN[seed % 2]), 48_000)
    nothing, music = Mix([seed, 6]), Mix([seed, 7])
    nothing.silence(14)
    music.hole(source.piece(), 24)
    put("silence.wav", nothing)
    put("music.ogg", music, 48_000)
    number = 0
    while not number or sum(made.values()) < 60 * minutes:
        put(f"programme-{number}.flac", programme(source, seed, number))
        number += 1
    versions = dict(path.name.split("_")[:2] for path in sorted(packages.glob("*.deb")))
    told = {"seed": seed, "minutes": minutes, "packages": {name: versions[name] for name in PACKAGES}, "seconds": made}
    (folder / f"corpus-{seed}.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speech_corpus")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--packages", type=Path, default=CACHE)
    given = parser.parse_args()
    if not all(shutil.which(tool) for tool in ("apt-get", "dpkg")):
        raise SystemExit("apt-get and dpkg are needed: the speech comes from Debian's packages")
    made = build(given.folder, given.seed, given.minutes, given.packages)
    print(f"{len(made)} recordings, {sum(made.values()) / 60:.1f} minutes, in {given.folder}")


if __name__ == "__main__":
    main()
